"""Parameters from a folder, one at a time, under Meta's names: nothing is permuted, and nothing is in memory twice.

A folder is read as one of
    params.json  + consolidated.00.pth, .01.pth ...     Meta's, any number of model-parallel shards
    params.json  + model.safetensors [or an index]      the same names, quantized by `lowrank quantize`
    config.json  + model.safetensors [or an index]      Hugging Face's; a weight may be bitsandbytes' 4-bit
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from .config import INDEX_FILE, ModelConfig, read_config, read_json
from .param_names import is_block_linear, to_meta
from .tensor_file import TensorFile

# The parts of a quantized weight beside `weight` itself, by the end of its key (bitsandbytes' naming).
QUANTIZED_SUFFIXES = (
    ".weight.absmax",
    ".weight.quant_map",
    ".weight.nested_absmax",
    ".weight.nested_quant_map",
    ".weight.quant_state.bitsandbytes__nf4",
    ".weight.quant_state.bitsandbytes__fp4",
    ".SCB",
)
# Dtypes in which a weight may be stored that is not quantized.
STORED_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
# Buffers that other programs store with the weights; the angles of RoPE are computed here instead.
BUFFERS = ("rope.freqs", "rotary_emb.inv_freq")


@dataclass(frozen=True)
class QuantizedParts:
    """A weight that is stored quantized: its tensors as they are in the file, by the end of their key."""

    tensors: dict[str, Tensor]


Stored = Tensor | QuantizedParts


@dataclass(frozen=True)
class Parameter:
    """One parameter where it is stored. `read` gives views of memory maps: copy what is to be kept.

    dtype is None for a weight that is stored quantized. `format` is the name of the format in the file where `read`
    dequantizes from one that this package cannot compute with.
    """

    name: str
    dtype: torch.dtype | None
    nbytes: int
    read: Callable[[], Stored]
    format: str = ""


@dataclass(frozen=True)
class Checkpoint:
    """An opened folder: the config, with the vocabulary size filled in, and where the tensors are."""

    folder: Path
    config: ModelConfig
    files: tuple[Path, ...]

    @property
    def is_quantized(self) -> bool:
        """True if the linears of the blocks are stored in 4 or 8 bits."""
        return self.files[0].suffix != ".pth" and any(
            key.endswith(QUANTIZED_SUFFIXES) for file in self.files for key in TensorFile(file).layouts
        )

    def parameters(self) -> tuple[Parameter, ...]:
        """Every parameter of the model once, in the order of the model, names and shapes checked before any is read.

        Raises ValueError naming folder and key for a parameter that is missing, foreign or of another shape or type.
        """
        shapes = self.config.parameter_shapes()
        parameters: dict[str, Parameter] = {}
        for parameter in self.stored():
            name = parameter.name
            if name == "output.weight" and self.config.tie_embeddings:
                raise ValueError(f"{self.folder}: holds {name}, but the config ties the output head to the embedding")
            if name not in shapes or name in parameters:
                raise ValueError(f"{self.folder}: {name} is no parameter of this model, or stands there twice")
            if parameter.dtype is None and not is_block_linear(name):
                raise ValueError(f"{self.folder}: {name} is stored quantized; only the linears of the blocks may be")
            if parameter.dtype not in (None, *STORED_DTYPES):
                raise ValueError(
                    f"{self.folder}: {name} must be stored as float32, bfloat16 or float16, got {parameter.dtype}"
                )
            parameters[name] = parameter
        if absent := [name for name in shapes if name not in parameters]:
            raise ValueError(f"{self.folder}: {absent[0]} is missing ({len(absent)} in all)")
        return tuple(parameters[name] for name in shapes)

    def stored(self) -> Iterator[Parameter]:
        """Every tensor in the files under Meta's name, whether it belongs to the model or not."""
        look = _meta_parameters if self.files[0].suffix == ".pth" else _safetensors_parameters
        return look([TensorFile(file) for file in self.files], self.config.parameter_shapes(), self.config)

    def tensors(self) -> Iterator[tuple[str, Stored]]:
        """Every parameter as (Meta's key, value), read as it comes.  Raises ValueError as `parameters` does."""
        return ((parameter.name, parameter.read()) for parameter in self.parameters())


def open_checkpoint(folder: str | Path) -> Checkpoint:
    """Finds out what a folder holds, without reading any weights.

    Raises ValueError naming the folder for a missing config, missing weights or a missing shard.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder")
    config = read_config(folder)
    files = _files(folder)
    if config.vocab_size == -1:
        config = replace(config, vocab_size=_vocabulary(files, config))
    return Checkpoint(folder, config, files)


def _files(folder: Path) -> tuple[Path, ...]:
    shards = tuple(sorted(folder.glob("consolidated.*.pth")))
    if shards:
        for number, shard in enumerate(shards):
            if shard.name != f"consolidated.{number:02}.pth":
                raise ValueError(f"{folder}: shard consolidated.{number:02}.pth is missing, found {shard.name}")
        return shards
    index = folder / INDEX_FILE
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
    """The rows of the embedding: Meta's shards split it by columns in Llama 2, by rows in later models."""
    name = "tok_embeddings.weight"
    for file in files:
        layouts = TensorFile(file).layouts
        if name in layouts:
            rows, columns = layouts[name].shape
            return rows * len(files) if file.suffix == ".pth" and columns == config.dim else rows
    raise ValueError(f"{files[0]}: {name} is missing, and the vocabulary size is read off it")


def _meta_parameters(
    shards: list[TensorFile], shapes: dict[str, tuple[int, ...]], config: ModelConfig
) -> Iterator[Parameter]:
    """Model-parallel shards: each parameter is cut along one axis, or stands in every shard alike."""
    for name in dict.fromkeys(name for shard in shards for name in shard.layouts):
        if name.endswith(BUFFERS):
            continue
        for shard in shards:
            if name not in shard.layouts:
                raise ValueError(f"{shard.path}: {name} is missing, though another shard holds it")
        pieces = [shard.layouts[name] for shard in shards]
        where = f"{shards[0].path.parent}: {name}"
        if any((piece.shape, piece.dtype) != (pieces[0].shape, pieces[0].dtype) for piece in pieces):
            got = ", ".join(f"{list(piece.shape)} {piece.dtype}" for piece in pieces)
            raise ValueError(f"{where}: shards of different models: {got}")
        shape = shapes.get(name, pieces[0].shape)
        if pieces[0].shape == shape:
            read = partial(_read_copies, shards, name, where)
        else:
            read = partial(_read_joined, shards, name, shape, _split_axis(pieces[0].shape, len(shards), shape, where))
        yield Parameter(name, pieces[0].dtype, sum(piece.nbytes for piece in pieces), read)


def _split_axis(piece: tuple[int, ...], count: int, shape: tuple[int, ...], where: str) -> int:
    """The axis along which `count` pieces make up the tensor of this shape."""
    if len(piece) == len(shape):
        split = [axis for axis, (part, size) in enumerate(zip(piece, shape, strict=True)) if part != size]
        if len(split) == 1 and piece[split[0]] * count == shape[split[0]]:
            return split[0]
    raise ValueError(
        f"{where}: {count} shard(s) of shape {list(piece)} do not make the {list(shape)} of params.json: "
        "a shard is missing or too many, or params.json is another model's"
    )


def _read_copies(shards: list[TensorFile], name: str, where: str) -> Tensor:
    first = shards[0].read(name)
    if any(not torch.equal(shard.read(name), first) for shard in shards[1:]):
        raise ValueError(f"{where}: shards of different models: the copies differ")
    return first


def _read_joined(shards: list[TensorFile], name: str, shape: tuple[int, ...], axis: int) -> Tensor:
    """The pieces side by side; no more than one shard's piece is mapped at a time."""
    joined = torch.empty(shape, dtype=shards[0].layouts[name].dtype)
    for shard, piece in zip(shards, joined.chunk(len(shards), dim=axis), strict=True):
        shard.read_into(name, piece)
    return joined


def _safetensors_parameters(
    files: list[TensorFile], shapes: dict[str, tuple[int, ...]], config: ModelConfig
) -> Iterator[Parameter]:
    """Weights under either naming; the parts of a quantized weight come together, under the name of the weight."""
    rename = to_meta if config.rope_layout == "half" else str
    file_of: dict[str, TensorFile] = {}
    for file in files:
        for key in file.layouts:
            if key in file_of:
                raise ValueError(f"{file.path}: {key} stands in another file as well")
            file_of[key] = file
    parts = {key for key in file_of if key.endswith((*QUANTIZED_SUFFIXES, ".weight_format"))}
    orphans = set(parts)
    for key, file in file_of.items():
        if key in parts or key.endswith(BUFFERS):
            continue
        try:
            name = rename(key)
        except KeyError:
            raise ValueError(f"{file.path}: {key} is no tensor of a Llama") from None
        stem = key.removesuffix(".weight")
        quantized_parts = {suffix: stem + suffix for suffix in QUANTIZED_SUFFIXES if stem + suffix in parts}
        orphans -= {*quantized_parts.values(), f"{stem}.weight_format"}
        layout = file.layouts[key]
        if quantized_parts:
            keys = {".weight": key, **quantized_parts}
            nbytes = sum(file_of[part].layouts[part].nbytes for part in keys.values())
            yield Parameter(name, None, nbytes, partial(_read_parts, file_of, keys))
        elif layout.shape != shapes.get(name, layout.shape):
            raise ValueError(
                f"{file.path.parent}: {name} must have shape {list(shapes[name])}, got {list(layout.shape)}"
            )
        else:
            yield Parameter(name, layout.dtype, layout.nbytes, partial(file.read, key))
    if orphans:
        raise ValueError(f"{file_of[min(orphans)].path}: {min(orphans)} belongs to no weight in this folder")


def _read_parts(file_of: dict[str, TensorFile], keys: dict[str, str]) -> QuantizedParts:
    return QuantizedParts({suffix: file_of[key].read(key) for suffix, key in keys.items()})
