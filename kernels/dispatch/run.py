"""Runs the path that the table of `dispatch` chooses. No gradients here: see `ops`.

N out_features, K in_features; x [*, K], W [N, K], y [*, N].
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..cpu import linear as cpu_linear
from ..cpu.library import DTYPES, unavailable_reason
from ..weights.linear_with_adapter import LinearWithAdapter
from ..weights.quantized_weight import Blockwise4bit, QuantizedWeight, RowwiseInt8
from .table import C_GEMV, DEQUANTIZE, DX, FLOAT_PANELS, FORWARD, QUANTIZE, Case, choose

FEW_ROWS = 8  # of x, up to which a product with a dense matrix is bound by its reading, or by its call
ROWS_AT_ONCE = 64  # up to which adapters ride along as fast in C as in products of torch


def quantize(w: Tensor, format: str, blocksize: int, name: str) -> QuantizedWeight:
    """W [N, K] in `format`, one of `formats.QUANTIZED_NAMES`."""
    four_bit, _, suffix = format.partition("-")
    weight: QuantizedWeight = choose(quantize_case(w, format)).run(w, four_bit, blocksize, suffix == "dq", name)
    return weight


def quantize_case(w: Tensor, format: str) -> Case:
    """The case of the table for quantizing w to `format`."""
    layout: type[QuantizedWeight] = RowwiseInt8 if format == "int8" else Blockwise4bit
    return Case(QUANTIZE, 1, *_matrix(w.shape), w.dtype, w.device, format, layout)


def dequantize(weight: QuantizedWeight, dtype: torch.dtype, out: Tensor | None = None) -> Tensor:
    """W [N, K] in `dtype`, written into `out` where that is given."""
    w: Tensor = choose(_case(DEQUANTIZE, 1, weight, dtype, weight.codes.device)).run(weight, dtype, out)
    return w


def linear(x: Tensor, weight: QuantizedWeight) -> Tensor:
    """y = x W^T"""
    y: Tensor = choose(linear_case(x, weight)).run(x, weight)
    return y


def can_run_in_one_call(x: Tensor, parts: Sequence[LinearWithAdapter]) -> bool:
    """Whether `linears` takes x and the parts: C looks up the codes of all of them, or reads few rows' dense W."""
    return all(
        _reads_dense(x, part.weight) if isinstance(part.weight, Tensor) else _is_in_linears(x, part.weight)
        for part in parts
    )


def _is_in_linears(x: Tensor, weight: QuantizedWeight) -> bool:
    case = linear_case(x, weight)
    return case.m <= ROWS_AT_ONCE and choose(case).name in (C_GEMV, FLOAT_PANELS)


def _reads_dense(x: Tensor, weight: Tensor) -> bool:
    known = x.is_cpu and weight.is_cpu and x.dtype in DTYPES and weight.dtype in DTYPES and weight.is_contiguous()
    return known and 0 < x.numel() <= FEW_ROWS * x.shape[-1] and not unavailable_reason()


def linears(x: Tensor, parts: Sequence[LinearWithAdapter]) -> tuple[Tensor, ...]:
    """y_i = x W_i^T + scaling_i (x A_i^T) B_i^T of all parts in one call, where `can_run_in_one_call` says so"""
    return cpu_linear.linears(x, parts)


def linear_dx(dy: Tensor, weight: QuantizedWeight) -> Tensor:
    """dX = dY W"""
    dx: Tensor = choose(_case(DX, math.prod(dy.shape[:-1]), weight, dy.dtype, dy.device)).run(dy, weight)
    return dx


def linear_case(x: Tensor, weight: QuantizedWeight) -> Case:
    """The case of the table for the forward product of x [*, K] with a weight [N, K]."""
    return _case(FORWARD, math.prod(x.shape[:-1]), weight, x.dtype, x.device)


def _case(op: str, m: int, weight: QuantizedWeight, dtype: torch.dtype, device: torch.device) -> Case:
    blocksize = 1 if isinstance(weight, RowwiseInt8) else weight.blocksize
    return Case(op, m, *_matrix(weight.shape), dtype, device, weight.name, type(weight), blocksize)


def _matrix(shape: tuple[int, ...]) -> tuple[int, int]:
    return math.prod(shape[:-1]), shape[-1]
