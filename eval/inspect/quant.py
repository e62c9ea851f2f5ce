"""The effect of each number format on the weights of a base: errors, codes and block maxima, tensor by tensor.

N out_features, K in_features, h head dim. One tensor is held at a time, in float32, and its dequantized form beside it.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lowrank.checkpoints.chunked_quantize import quantize_chunks
from lowrank.checkpoints.load import bytes_bar
from lowrank.checkpoints.open_base import open_base
from lowrank.kernels import ops
from lowrank.kernels.reference import weights as reference
from lowrank.kernels.reference.codes import code_counts, entropy_bits, snr_db
from lowrank.kernels.weights.quantized_weight import (
    BLOCKSIZE,
    QUANTIZED_NAMES,
    Blockwise4bit,
    QuantizedWeight,
    stored_bytes,
)
from lowrank.model.checkpoint import Parameter
from lowrank.model.config import ModelConfig
from lowrank.model.param_names import is_block_linear

from .levels import Distribution, LevelStudy, study

FORMATS = ("nf4", "nf4-dq", "fp4", "int8")
CPU = torch.device("cpu")
BY_ROWS = ("attention.wq", "attention.wk", "attention.wv")  # a head is h rows of these, and h columns of wo
BY_COLUMNS = "attention.wo"
QUANTILES = (0.0, 0.01, 0.25, 0.5, 0.75, 0.99, 1.0)
ABSMAX_BINS, ABSMAX_END = 60, 3.0  # the histogram of absmax / mean absmax of its tensor


@dataclass(frozen=True)
class FormatError:
    """One tensor, or all of them, in one format: e = W - Q(W)

    mse              mean e^2;  largest: max |e|
    snr_db           10 log10(sum W^2 / sum e^2), None where nothing is lost
    entropy_bits     of the codes: what an ideal coder would make of them
    bits_per_weight  codes and statistics as they are stored
    codes            how often each code occurs; int8 from -127 to 127
    nesting_share    of a "-dq" format: the share of its mse that storing the maxima in 8 bits has added
    head_snr_db      of each head of wq, wk, wv and wo
    """

    format: str
    mse: float
    snr_db: float | None
    largest: float
    entropy_bits: float
    bits_per_weight: float
    codes: tuple[int, ...]
    nesting_share: float | None = None
    head_snr_db: tuple[float | None, ...] = ()


@dataclass(frozen=True)
class TensorErrors:
    """One linear: the quantiles 0, 1, 25, 50, 75, 99 and 100 % of its block maxima, and its error in each format."""

    name: str
    shape: tuple[int, ...]
    rms: float
    absmax_quantiles: tuple[float, ...]
    formats: dict[str, FormatError]


@dataclass(frozen=True)
class QuantXray:
    """All linears that were looked at, and all of them as one. absmax_histogram: of absmax over its tensor's mean."""

    base: str
    weights: int
    tensors: tuple[TensorErrors, ...]
    total: dict[str, FormatError]
    absmax_histogram: tuple[float, ...]
    study: LevelStudy


def inspect_quant(
    base: str | Path,
    formats: Sequence[str] = FORMATS,
    *,
    layers: Sequence[int] | None = None,
    progress: bool = False,
) -> QuantXray:
    """Every linear of every block (of some `layers`) in every format.

    Raises ValueError for a base that is stored quantized, a format that is none, a layer that is not there,
    and a base of zeros.
    """
    checkpoint = open_base(base)
    for format in formats:
        if format not in QUANTIZED_NAMES:
            raise ValueError(f"weights must be of {', '.join(QUANTIZED_NAMES)}, got {format!r}")
    count = checkpoint.config.n_layers
    for layer in layers or ():
        if not 0 <= layer < count:
            raise ValueError(f"{base}: layers must be of 0 to {count - 1}, got {layer}")
    chosen = [
        parameter
        for parameter in checkpoint.parameters()
        if is_block_linear(parameter.name) and (layers is None or int(parameter.name.split(".")[1]) in layers)
    ]
    if any(parameter.dtype is None for parameter in chosen):
        raise ValueError(
            f"{base}: is stored quantized: the weights that were lost are not there, name the full-precision base"
        )
    totals, tensors = _Totals({format: _Sums() for format in formats}), []
    with bytes_bar("inspect", chosen, progress) as bar:
        for parameter in chosen:
            tensors.append(_tensor(parameter, checkpoint.config, totals, str(base)))
            bar.update(parameter.nbytes)
    if not totals.u.counts.any():
        raise ValueError(f"{base}: every weight is zero: there is nothing to look at")
    return QuantXray(
        str(base),
        sum(math.prod(tensor.shape) for tensor in tensors),
        tuple(tensors),
        {format: part.figures(format) for format, part in totals.sums.items()},
        tuple((totals.maxima / totals.maxima.sum()).tolist()),
        study(totals.u, BLOCKSIZE),
    )


def to_json(xray: QuantXray) -> dict[str, Any]:
    """All fields as JSON."""
    return asdict(xray)


@dataclass
class _Sums:
    """Sums from which the figures of a format follow, over one tensor or several; single: those without nesting"""

    numbers: int = 0
    weight: float = 0.0
    error: float = 0.0
    single: float | None = None
    largest: float = 0.0
    bytes: int = 0
    codes: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))

    def add(self, other: "_Sums") -> None:
        self.numbers += other.numbers
        self.weight += other.weight
        self.error += other.error
        self.single = other.single if self.single is None else self.single + (other.single or 0.0)
        self.largest = max(self.largest, other.largest)
        self.bytes += other.bytes
        self.codes = other.codes if not len(self.codes) else self.codes + other.codes

    def figures(self, format: str) -> FormatError:
        return FormatError(
            format,
            self.error / self.numbers,
            snr_db(self.weight, self.error),
            self.largest,
            entropy_bits(self.codes),
            8 * self.bytes / self.numbers,
            tuple(self.codes.tolist()),
            None if self.single is None or self.error == 0 else 1 - self.single / self.error,
        )


@dataclass
class _Totals:
    """Running totals over linears: sums by format, the distribution of w / absmax, the histogram of the maxima"""

    sums: dict[str, _Sums]
    u: Distribution = field(default_factory=Distribution.empty)
    maxima: Tensor = field(default_factory=lambda: torch.zeros(ABSMAX_BINS, dtype=torch.float64))


def _tensor(parameter: Parameter, config: ModelConfig, totals: _Totals, base: str) -> TensorErrors:
    """One linear; what concerns all of them is added to `totals`."""
    stored = parameter.read()
    assert isinstance(stored, Tensor)
    w = stored.to(torch.float32, copy=True)
    del stored
    path = parameter.name.removesuffix(".weight")
    energy = _HeadSums.of(w, path, config)
    found = {}
    for format, weight, single in _quantized(w, list(totals.sums), f"{base}: {parameter.name}"):
        error = ops.dequantize(weight).sub_(w)
        heads = _HeadSums.of(error, path, config)
        part = _Sums(
            w.numel(),
            energy.total,
            heads.total,
            None if single is None else _HeadSums.of(ops.dequantize(single).sub_(w), path, config).total,
            float(error.abs_().max()),
            stored_bytes(weight),
            code_counts(weight),
        )
        totals.sums[format].add(part)
        snr = tuple(snr_db(*pair) for pair in zip(energy.heads, heads.heads, strict=True))
        found[format] = replace(part.figures(format), head_snr_db=snr)
        del error
    absmax = _block_maxima(w)
    totals.u.add(w, absmax, BLOCKSIZE)
    mean = float(absmax.mean())
    if mean:
        totals.maxima += torch.histc((absmax / mean).clamp(max=ABSMAX_END), ABSMAX_BINS, 0, ABSMAX_END).double()
    ranks = (torch.tensor(QUANTILES).double() * (len(absmax) - 1)).round().long()
    quantiles = tuple(absmax.sort().values[ranks].tolist())
    return TensorErrors(parameter.name, tuple(w.shape), math.sqrt(energy.total / w.numel()), quantiles, found)


def _quantized(
    w: Tensor, formats: Sequence[str], where: str
) -> Iterator[tuple[str, QuantizedWeight, QuantizedWeight | None]]:
    """(format, W in it, and for a nested one W with its maxima as they were); a nested one has the codes of its own"""
    singles: dict[str, QuantizedWeight] = {}
    for format in formats:
        name, _, nested = format.partition("-")
        if name not in singles:
            singles[name] = quantize_chunks(w, name, CPU, where)
        weight = singles[name]
        if nested:
            assert isinstance(weight, Blockwise4bit) and isinstance(weight.absmax, Tensor)
            yield format, replace(weight, absmax=reference.quantize_absmax(weight.absmax)), weight
        else:
            yield format, weight, None


@dataclass(frozen=True)
class _HeadSums:
    """Sums of squares, in float64: of all of a tensor, and of each head where it has heads."""

    total: float
    heads: tuple[float, ...]

    @classmethod
    def of(cls, values: Tensor, path: str, config: ModelConfig) -> "_HeadSums":
        if path.endswith(BY_COLUMNS):
            parts = sum(part.double().square().sum(dim=0) for part in values.split(1024))
        else:
            parts = torch.cat([part.double().square().sum(dim=1) for part in values.split(1024)])
        assert isinstance(parts, Tensor)
        has_heads = path.endswith((*BY_ROWS, BY_COLUMNS))
        heads = parts.view(-1, config.head_dim).sum(dim=1).tolist() if has_heads else []
        return cls(float(parts.sum()), tuple(heads))


def _block_maxima(w: Tensor) -> Tensor:
    """max |w| of each block, float32 [blocks]"""
    flat = w.flatten()
    short = -flat.numel() % BLOCKSIZE
    return torch.nn.functional.pad(flat, (0, short)).view(-1, BLOCKSIZE).abs().amax(dim=1)
