"""Tensors out of a folder, one at a time, under Meta's names: nothing is permuted and nothing is held twice.

A folder is read as one of
    params.json  + consolidated.00.pth, .01.pth ...   Meta's, any number of model-parallel shards
    params.json  + model.safetensors                  the same names, quantized by `lowrank quantize`
    config.json  + model.safetensors [or an index]    Hugging Face's; a weight may be bitsandbytes' 4-bit
"""

import pickle
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from .config import ModelConfig, read_config, read_json
from .names import to_meta

# What a quantized weight consists of beside `weight` itself, by the end of its key (bitsandbytes' naming).
QUANTIZED_SUFFIXES = (
    ".weight.absmax",
    ".weight.quant_map",
    ".weight.nested_absmax",
    ".weight.nested_quant_map",
    ".weight.quant_state.bitsandbytes__nf4",
    ".weight.quant_state.bitsandbytes__fp4",
    ".SCB",
)


@dataclass(frozen=True)
class QuantizedParts:
    """A weight that is stored quantized: its tensors as they are in the file, by the end of their key."""

    tensors: dict[str, Tensor]


Stored = Tensor | QuantizedParts


@dataclass(frozen=True)
class Checkpoint:
    """An opened folder: the config, with the vocabulary size filled in, and where the tensors are."""

    folder: Path
    config: ModelConfig
    files: tuple[Path, ...]

    @property
    def is_quantized(self) -> bool:
        """Whether the linears of the blocks are stored in 4 or 8 bits."""
        if self.files[0].suffix == ".pth":
            return False
        with ExitStack() as stack:
            keys = [key for file in self.files for key in list(_open_safetensors(file, stack).keys())]
        return any(key.endswith(QUANTIZED_SUFFIXES) for key in keys)

    def tensors(self) -> Iterator[tuple[str, Stored]]:
        """Every parameter of the model once, as (Meta's key, value), from memory maps, shapes already checked.

        Raises ValueError naming folder and key for a parameter that is missing, foreign or of another shape.
        """
        missing = self.config.parameter_shapes()
        read = _meta_tensors if self.files[0].suffix == ".pth" else _safetensors
        for name, value in read(self.files, self.config):
            if name == "output.weight" and self.config.tie_embeddings:
                raise ValueError(f"{self.folder}: holds {name}, but the config ties the output head to the embedding")
            if name not in missing:
                raise ValueError(f"{self.folder}: {name} is no parameter of this model, or stands there twice")
            shape = missing.pop(name)
            if isinstance(value, Tensor) and tuple(value.shape) != shape:
                raise ValueError(f"{self.folder}: {name} must have shape {list(shape)}, got {list(value.shape)}")
            yield name, value
        if missing:
            raise ValueError(f"{self.folder}: {next(iter(missing))} is missing ({len(missing)} in all)")


def open_checkpoint(folder: str | Path) -> Checkpoint:
    """Finds out what a folder holds, without reading any weights.

    Raises ValueError naming the folder for a missing config, missing weights or a missing shard.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder")
    config = read_config(folder)
    files = _shards(folder)
    if config.vocab_size == -1:
        config = replace(config, vocab_size=_vocabulary(files, config))
    return Checkpoint(folder, config, files)


def load_pth(path: Path) -> dict[str, Tensor]:
    """The tensors of one `.pth` file, memory-mapped. Nothing in it is executed (`weights_only`).

    Raises ValueError naming the file if it is truncated or holds anything but tensors by name.
    """
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path}: not a whole .pth file: its table of contents is missing (truncated?)")
    try:
        values = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path}: must hold tensors only, and it is not unpickled otherwise: {reason}") from None
    except RuntimeError as error:
        raise ValueError(f"{path}: not a whole .pth file: {str(error).splitlines()[0]}") from None
    if not isinstance(values, dict) or not all(isinstance(value, Tensor) for value in values.values()):
        raise ValueError(f"{path}: must hold tensors by name and nothing else")
    return values


def _shards(folder: Path) -> tuple[Path, ...]:
    shards = tuple(sorted(folder.glob("consolidated.*.pth")))
    if shards:
        for number, shard in enumerate(shards):
            if shard.name != f"consolidated.{number:02}.pth":
                raise ValueError(f"{folder}: shard consolidated.{number:02}.pth is missing, found {shard.name}")
        return shards
    index = folder / "model.safetensors.index.json"
    names = ["model.safetensors"]
    if index.exists():
        weight_map = read_json(index).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise ValueError(f"{index}: weight_map must name a file for each tensor, got {weight_map!r}")
        for name in weight_map.values():
            if not isinstance(name, str) or Path(name).name != name or name in ("", ".."):
                raise ValueError(f"{index}: a shard must be a plain file name, got {name!r}")
        names = sorted(set(weight_map.values()))
    for name in names:
        if not (folder / name).exists():
            raise ValueError(f"{folder}: weights file {name} is missing")
    return tuple(folder / name for name in names)


def _vocabulary(files: tuple[Path, ...], config: ModelConfig) -> int:
    """The rows of the embedding: shards split it by columns in Llama 2, by rows in later models."""
    if files[0].suffix == ".pth":
        name = "tok_embeddings.weight"
        shards = load_pth(files[0])
        if name not in shards:
            raise ValueError(f"{files[0]}: {name} is missing")
        rows, columns = shards[name].shape
        return int(rows * len(files) if columns == config.dim else rows)
    for name, value in _safetensors(files, config):
        if name == "tok_embeddings.weight" and isinstance(value, Tensor):
            return int(value.shape[0])
    raise ValueError(f"{files[0]}: tok_embeddings.weight is missing")


def _meta_tensors(files: tuple[Path, ...], config: ModelConfig) -> Iterator[tuple[str, Tensor]]:
    """Joins the model-parallel shards of each tensor along the axis in which they fall short of the whole."""
    shards = [load_pth(file) for file in files]
    expected = config.parameter_shapes()
    for name in dict.fromkeys(name for shard in shards for name in shard):
        if name == "rope.freqs":  # a buffer of Meta's code; the angles are computed here
            continue
        for file, shard in zip(files, shards, strict=True):
            if name not in shard:
                raise ValueError(f"{file}: {name} is missing, though another shard holds it")
        pieces = [shard[name] for shard in shards]
        yield name, _join(pieces, expected.get(name), f"{files[0].parent}: {name}")


def _join(pieces: list[Tensor], whole: tuple[int, ...] | None, where: str) -> Tensor:
    first = pieces[0]
    if any(piece.shape != first.shape for piece in pieces):
        raise ValueError(f"{where}: shards of different models: shapes {[list(piece.shape) for piece in pieces]}")
    if whole is None or tuple(first.shape) == whole:
        if any(not torch.equal(piece, first) for piece in pieces[1:]):
            raise ValueError(f"{where}: shards of different models: the copies differ")
        return first
    split = [axis for axis, size in enumerate(first.shape) if size != whole[axis]]
    if len(split) == 1 and first.shape[split[0]] * len(pieces) == whole[split[0]]:
        return torch.cat(pieces, dim=split[0])
    raise ValueError(
        f"{where}: {len(pieces)} shard(s) of shape {list(first.shape)} do not make the {list(whole)} of params.json: "
        "a shard is missing, or params.json is another model's"
    )


def _safetensors(files: tuple[Path, ...], config: ModelConfig) -> Iterator[tuple[str, Stored]]:
    """Weights under either naming; the parts of a quantized weight come together, under the name of the weight."""
    rename = to_meta if config.rope_layout == "half" else str
    with ExitStack() as stack:
        opened = [_open_safetensors(file, stack) for file in files]
        handles: dict[str, safe_open] = {}
        for file, handle in zip(files, opened, strict=True):
            for key in list(handle.keys()):
                if key in handles:
                    raise ValueError(f"{file}: {key} stands in another file as well")
                handles[key] = handle
        parts = {key for key in handles if key.endswith((*QUANTIZED_SUFFIXES, ".weight_format"))}
        for key in handles:
            if key in parts or key.endswith("rotary_emb.inv_freq"):  # the latter a buffer that old files carry
                continue
            try:
                name = rename(key)
            except KeyError:
                raise ValueError(f"{files[0].parent}: {key} is no tensor of a Llama") from None
            stem = key.removesuffix(".weight")
            own = {suffix: stem + suffix for suffix in QUANTIZED_SUFFIXES if stem + suffix in parts}
            tensors = {suffix: handles[part].get_tensor(part) for suffix, part in own.items()}
            weight = handles[key].get_tensor(key)
            yield name, QuantizedParts({".weight": weight, **tensors}) if tensors else weight


def _open_safetensors(path: Path, stack: ExitStack) -> safe_open:
    try:
        handle: safe_open = stack.enter_context(safe_open(path, framework="pt"))
        return handle
    except SafetensorError as error:
        raise ValueError(f"{path}: not a whole safetensors file (truncated?): {error}") from None
