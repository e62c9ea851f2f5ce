"""Parameters from a folder, one at a time, under Meta's names: nothing is permuted, and nothing is in memory twice.

Which files of a folder are its model is in `weight_files`.
"""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import torch
from torch import Tensor

from .config import ModelConfig
from .config_json import read_config
from .foreign_keys import whose_key
from .param_names import is_quantizable, to_meta
from .tensor_file import PICKLED, TensorFile
from .weight_files import find_weights

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
BUFFERS = (
    "rope.freqs",
    "rotary_emb.inv_freq",
    "rotary_emb.original_inv_freq",
    "rotary_emb.cos_cached",
    "rotary_emb.sin_cached",
)


@dataclass(frozen=True)
class QuantizedParts:
    """A weight that is stored quantized: its tensors as they are in the file, by the end of their key."""

    tensors: dict[str, Tensor]


Stored = Tensor | QuantizedParts


@dataclass(frozen=True)
class Parameter:
    """One parameter where it is stored. `read` gives views of memory maps: copy what is to be kept.

    dtype is None for a weight that is stored quantized. `format` is the name of the format in the file where `read`
    dequantizes from one that this package cannot compute with, `key` the name of the tensor in the file.
    """

    name: str
    dtype: torch.dtype | None
    nbytes: int
    read: Callable[[], Stored]
    format: str = ""
    key: str = ""


@dataclass(frozen=True)
class Checkpoint:
    """An opened folder: the config, with the vocabulary size filled in, and where the tensors are."""

    folder: Path
    config: ModelConfig
    files: tuple[Path, ...]

    @property
    def is_quantized(self) -> bool:
        """True if the linears of the blocks are stored in 4 or 8 bits."""
        return any(key.endswith(QUANTIZED_SUFFIXES) for file in self._headers for key in file.layouts)

    @cached_property
    def _headers(self) -> tuple[TensorFile, ...]:
        return tuple(TensorFile(file) for file in self.files)

    @property
    def metadata(self) -> dict[str, str]:
        """The words of the first file's header on itself, by name; {} for a file that has no place for them."""
        return {} if self.files[0].suffix in PICKLED else self._headers[0].metadata

    def parameters(self, *, check_finite: bool = True, force: bool = False) -> tuple[Parameter, ...]:
        """Every parameter of the model once, in the order of the model, names and shapes checked before any is read.

        check_finite  False reads tensors without looking at every number
        Raises ValueError naming folder and key for a parameter that is missing, foreign or of another shape or type;
        its `read` does for one that is not finite, or with `force` warns of it.
        """
        shapes = self.config.parameter_shapes()
        parameters: dict[str, Parameter] = {}
        first_key = ""
        for parameter in self.stored():
            name = parameter.name
            first_key = first_key or parameter.key
            if name == "output.weight" and self.config.tie_embeddings:  # it is the embedding once more
                continue
            if name not in shapes or name in parameters:
                key = f" (in the file: {parameter.key})" if parameter.key not in ("", name) else ""
                whose = whose_key(parameter.key, self.config.rope_layout)
                raise ValueError(
                    f"{self.folder}: {name} is no parameter of this model, or stands there twice{key}{whose}"
                )
            if parameter.dtype is None and not is_quantizable(name):
                raise ValueError(
                    f"{self.folder}: {name} is stored quantized; only the linears of the blocks and the head may be"
                )
            if parameter.dtype not in (None, *STORED_DTYPES):
                raise ValueError(
                    f"{self.folder}: {name} must be stored as float32, bfloat16 or float16, got {parameter.dtype}"
                )
            read = partial(_read_finite, parameter.read, f"{self.folder}: {name}", parameter.key, force)
            parameters[name] = replace(parameter, read=read) if check_finite else parameter
        if absent := [name for name in shapes if name not in parameters]:
            holds = (
                f"first key: {first_key}{whose_key(first_key, self.config.rope_layout)}"
                if first_key
                else "the files hold no tensor"
            )
            raise ValueError(f"{self.folder}: {absent[0]} is missing ({len(absent)} in all); {holds}")
        return tuple(parameters[name] for name in shapes)

    def stored(self) -> Iterator[Parameter]:
        """Every tensor in the files under Meta's name, whether it belongs to the model or not."""
        look = _meta_parameters if self.files[0].name.startswith("consolidated.") else _hf_parameters
        return look([TensorFile(file) for file in self.files], self.config.parameter_shapes(), self.config)

    def tensors(self) -> Iterator[tuple[str, Stored]]:
        """Every parameter as (Meta's key, value), read as it comes.  Raises ValueError as `parameters` does."""
        return ((parameter.name, parameter.read()) for parameter in self.parameters())


def open_checkpoint(folder: str | Path) -> Checkpoint:
    """Finds out what a folder holds, without reading any weights; only a head that the config ties is looked at.

    Raises ValueError naming the folder for a missing config, missing weights or a missing shard.
    """
    folder = Path(folder)
    config_file, files = find_weights(folder)
    config = read_config(config_file)
    if config.vocab_size == -1:
        config = replace(config, vocab_size=_vocabulary(files, config))
    checkpoint = Checkpoint(folder, config, files)
    if _is_llama_3_2_of_meta(config) and not _has_tensor(files, "output.weight"):
        return replace(checkpoint, config=replace(config, tie_embeddings=True))
    if config.tie_embeddings and _has_own_head(checkpoint):
        warnings.warn(
            f"{folder}: the config ties the output head to the embedding, the files hold another head: that is used",
            stacklevel=2,
        )
        return replace(checkpoint, config=replace(config, tie_embeddings=False))
    return checkpoint


def _is_llama_3_2_of_meta(config: ModelConfig) -> bool:
    """True for Llama 3.2 of 1B and 3B in Meta's files: the head is the embedding, which params.json does not say."""
    scaling = config.rope_scaling
    return config.rope_layout == "interleaved" and scaling is not None and scaling.factor == 32.0


def _has_tensor(files: tuple[Path, ...], name: str) -> bool:
    return any(name in TensorFile(file).layouts for file in files)


def _has_own_head(checkpoint: Checkpoint) -> bool:
    """True if the files hold an output head whose numbers are not those of the embedding."""
    stored = {parameter.name: parameter for parameter in checkpoint.stored()}
    if "output.weight" not in stored or "tok_embeddings.weight" not in stored:
        return False
    head, embedding = stored["output.weight"].read(), stored["tok_embeddings.weight"].read()
    if not isinstance(head, Tensor) or not isinstance(embedding, Tensor) or head.shape != embedding.shape:
        return True
    rows = zip(head.split(1024), embedding.split(1024), strict=True)
    return any(not torch.equal(ours.float(), theirs.float()) for ours, theirs in rows)


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
        yield Parameter(name, pieces[0].dtype, sum(piece.nbytes for piece in pieces), read, key=name)


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


def _hf_parameters(
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
            raise ValueError(
                f"{file.path}: {key} is no tensor of a Llama{whose_key(key, config.rope_layout)}"
            ) from None
        stem = key.removesuffix(".weight")
        quantized_parts = {suffix: stem + suffix for suffix in QUANTIZED_SUFFIXES if stem + suffix in parts}
        orphans -= {*quantized_parts.values(), f"{stem}.weight_format"}
        layout = file.layouts[key]
        if quantized_parts:
            keys = {".weight": key, **quantized_parts}
            if is_quantizable(name):
                _check_parts(file_of, keys, stem)
            nbytes = sum(file_of[part].layouts[part].nbytes for part in keys.values())
            yield Parameter(name, None, nbytes, partial(_read_parts, file_of, keys), key=key)
        elif layout.shape != shapes.get(name, layout.shape):
            raise ValueError(
                f"{file.path.parent}: {name} must have shape {list(shapes[name])}, got {list(layout.shape)}"
            )
        else:
            yield Parameter(name, layout.dtype, layout.nbytes, partial(file.read, key), key=key)
    if orphans:
        raise ValueError(f"{file_of[min(orphans)].path}: {min(orphans)} belongs to no weight in this folder")


def _check_parts(file_of: dict[str, TensorFile], keys: dict[str, str], stem: str) -> None:
    """Raises ValueError naming file and key for a part of a quantized weight in another type than bitsandbytes'."""
    types = {suffix: torch.float32 for suffix in keys if suffix.endswith(("map", "absmax", "SCB"))}
    types |= {suffix: torch.uint8 for suffix in keys if ".quant_state." in suffix}
    if ".weight.nested_absmax" in keys:
        types[".weight.absmax"] = torch.uint8
    if ".SCB" in keys:
        types[".weight"] = torch.int8
    for suffix, dtype in types.items():
        if suffix in keys and (got := file_of[keys[suffix]].layouts[keys[suffix]].dtype) != dtype:
            raise ValueError(f"{file_of[keys[suffix]].path}: {keys[suffix]} must be stored as {dtype}, got {got}")
    order = f"{stem}.weight_format"  # of int8 codes: 0 is row by row, others are tiles of a GPU's
    if order in file_of and file_of[order].read(order).any():
        raise ValueError(
            f"{file_of[order].path}: {order} must be 0 (row by row), got {file_of[order].read(order).tolist()}"
        )


def _read_parts(file_of: dict[str, TensorFile], keys: dict[str, str]) -> QuantizedParts:
    return QuantizedParts({suffix: file_of[key].read(key) for suffix, key in keys.items()})


def _read_finite(read: Callable[[], Stored], where: str, key: str, force: bool) -> Stored:
    """A parameter, every number of which is one.

    Raises ValueError naming `where` and the first that is not, or with `force` warns in the same words.
    """
    value = read()
    if isinstance(value, Tensor) and not all(bound.isfinite() for bound in value.aminmax()):  # NaN reaches both bounds
        place = (~value.isfinite()).nonzero()[0].tolist()
        in_file = "" if not key or where.endswith(key) else f" (in the file: {key})"
        wrong = f"{where}: weights must be finite, got {value[tuple(place)].item()} at {place}{in_file}"
        if not force:
            raise ValueError(wrong)
        warnings.warn(f"{wrong}: taken all the same", stacklevel=2)
    return value
