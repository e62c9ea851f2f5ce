"""Parameters and bytes: of a hat, of a base in every format, of a model as it is.

Bytes are decimal: 1 MB = 10^6, 1 GB = 10^9.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from torch import nn

from lowrank.adapters import resolve_targets
from lowrank.adapters.accounting import (
    ADAPTER_TYPES,
    COMMON_RANKS,
    COMMON_TARGETS,
    AdapterShape,
    Item,
    adapter_file_bytes,
    adapter_parameters,
    adapters_of_size,
    base_items,
    lora_parameters,
    model_parameters,
)
from lowrank.kernels.weights.quantized_weight import DENSE_DTYPES, QUANTIZED_NAMES, stored_bytes
from lowrank.layers.quant_linear import QuantLinear
from lowrank.model.config import ModelConfig
from lowrank.model.param_names import LINEARS

SIZE_RULE = (
    "An adapter's size follows from its rank, its targets and its type, never from the data set it was trained on."
)
FORMATS = ("bf16", "int8", "nf4", "nf4-dq")
WRITE_UP_BYTES = (80e6, 67.3e6)


@dataclass(frozen=True)
class Params:
    """The matrices of a hat: (name, shape, numbers) of each in one layer, and what they come to in all of them."""

    shapes: Sequence[tuple[str, str, int]]
    where: str
    layers: int
    dtype: str
    trainable: int
    whole: int
    matrix_bytes: int
    file_bytes: int | None

    def to_json(self) -> dict[str, Any]:
        """Counts, the share, and bytes."""
        counts = {"trainable": self.trainable, "of": self.whole, "fraction": self.trainable / self.whole}
        return {**counts, "type": self.dtype, "matrix_bytes": self.matrix_bytes, "file_bytes": self.file_bytes}


@dataclass(frozen=True)
class Sizes:
    """Parts of a base by format, and adapters by the size that was asked for."""

    model: str
    bases: Mapping[str, Sequence[Item]]
    adapters: Mapping[float, Sequence[AdapterShape]]
    rule: str = SIZE_RULE

    def to_json(self) -> dict[str, Any]:
        """Bytes of each part by format, and the adapters of each size."""
        return {
            "bases": {name: {item.what: item.bytes for item in items} for name, items in self.bases.items()},
            "adapters": {f"{size:.0f}": [vars(shape) for shape in shapes] for size, shapes in self.adapters.items()},
        }


def count_params(
    model: ModelConfig | int, *, rank: int = 8, targets: str | Sequence[str] = "all", dtype: str = "fp32"
) -> Params:
    """The parameters of a hat: the shapes of A and B, their share of the model, the bytes of the file.

    model  a shape, or d for one d x d matrix
    Raises ValueError for a rank or a d below 1, a target that is none, and another dtype.
    """
    check_one_or_more("rank", rank)
    if dtype not in DENSE_DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DENSE_DTYPES)}, got {dtype!r}")
    width = DENSE_DTYPES[dtype].itemsize
    if isinstance(model, int):
        check_one_or_more("d", model)
        shapes = [("W", f"{model:,} x {model:,}", model**2), *_factors("", model, model, rank)]
        count = lora_parameters(model, model, rank)
        return Params(shapes, f"one {model:,} x {model:,} matrix", 1, dtype, count, model**2, count * width, None)
    names = resolve_targets(targets)
    count, linears = adapter_parameters(model, rank, names), model.linear_shapes()
    shapes = []
    for name in names:
        d_out, d_in = linears[name]
        shapes += _factors(f"{name}: ", d_in, d_out, rank)
    file_bytes = adapter_file_bytes(model, rank, names, dtype)
    where = f"each of {model.n_layers} layers"
    return Params(shapes, where, model.n_layers, dtype, count, model_parameters(model), count * width, file_bytes)


def _factors(prefix: str, d_in: int, d_out: int, rank: int) -> list[tuple[str, str, int]]:
    return [
        (f"{prefix}A", f"{d_in:,} x {rank}", d_in * rank),
        (f"{prefix}B", f"{rank} x {d_out:,}", rank * d_out),
    ]


def count_sizes(
    model: ModelConfig,
    name: str,
    *,
    weights: Sequence[str] = FORMATS,
    adapter_bytes: Sequence[float] = WRITE_UP_BYTES,
    within: float = 0.005,
    ranks: Sequence[int] | None = COMMON_RANKS,
    targets: Sequence[str | Sequence[str]] | None = None,
    dtypes: Sequence[str] = ADAPTER_TYPES,
) -> Sizes:
    """The bytes of a base in every format, part by part, and the adapters whose file has a given size.

    within   a fraction of that size; ranks: None tries every one; targets: None tries the usual ones
    Raises ValueError for a format that is none, a fraction that is not between 0 and 1, and a rank below 1.
    """
    if not 0 < within < 1:
        raise ValueError(f"within must lie between 0 and 1, got {within}")
    for rank in ranks or ():
        check_one_or_more("rank", rank)
    if foreign := [format for format in weights if format not in (*DENSE_DTYPES, *QUANTIZED_NAMES)]:
        raise ValueError(f"weights must be of {', '.join((*DENSE_DTYPES, *QUANTIZED_NAMES))}, got {foreign[0]!r}")
    asked = [resolve_targets(of) for of in targets or ()]
    named = {", ".join(linear.partition(".")[2] for linear in names): names for names in asked} or COMMON_TARGETS
    return Sizes(
        name,
        {format: base_items(model, format) for format in weights},
        {
            size: adapters_of_size(size, within, model, ranks=ranks, targets=named, dtypes=dtypes)
            for size in adapter_bytes
        },
    )


def check_one_or_more(name: str, value: object) -> None:
    """Raises ValueError, with the name, for what is no integer, and for one below 1."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{name} must be an integer, got {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")


@dataclass(frozen=True)
class Part:
    """The tensors of a model that are one thing: numbers they stand for, those that are trained, bytes as stored."""

    what: str
    parameters: int
    trained: int
    bytes: int


@dataclass(frozen=True)
class Summary:
    """A model, part by part; a quantized weight counts as the N K numbers that it stands for, a tied head once."""

    parts: tuple[Part, ...]

    @property
    def total(self) -> Part:
        """All parts together."""
        sums = (sum(getattr(part, field) for part in self.parts) for field in ("parameters", "trained", "bytes"))
        return Part("the model", *sums)

    def to_json(self) -> dict[str, Any]:
        """A row a part, and their sum."""
        return {"parts": [vars(part) for part in self.parts], "total": vars(self.total)}


def summarize(model: nn.Module) -> Summary:
    """The parts of a model: linears of its blocks by format, hats by name, and everything else by its last module."""
    found: dict[str, list[int]] = {}
    seen: set[int] = set()

    def add(what: str, parameters: int, trained: int, size: int) -> None:
        sums = found.setdefault(what, [0, 0, 0])
        for place, value in enumerate((parameters, trained, size)):
            sums[place] += value

    for layer in model.modules():
        if isinstance(layer, QuantLinear):
            weight = layer.quantized
            add(f"linears of the blocks, {weight.name}", prod(weight.shape), 0, stored_bytes(weight))
    for path, parameter in model.named_parameters():
        if id(parameter) in seen:
            continue
        seen.add(id(parameter))
        count = parameter.numel()
        trained = count if parameter.requires_grad else 0
        add(_part_of(path, parameter), count, trained, parameter.nbytes)
    return Summary(tuple(Part(what, *sums) for what, sums in found.items()))


def _part_of(path: str, parameter: nn.Parameter) -> str:
    """The row that a parameter counts in: "hat finance", "linears of the blocks, bf16", "tok_embeddings, bf16"."""
    *modules, last = path.split(".")
    dtype = next((name for name, of in DENSE_DTYPES.items() if of == parameter.dtype), str(parameter.dtype))
    if any(module.startswith("lora_") for module in modules):
        return f"hat {last}, {dtype}"
    if any(f"{linear}." in f"{path}." for linear in LINEARS):
        return f"linears of the blocks, {dtype}"
    return f"{'norms' if any('norm' in module for module in modules) else modules[0]}, {dtype}"
