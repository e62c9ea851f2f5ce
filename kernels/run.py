"""Runs the path that the table of `dispatch` chooses. No gradients here: see `ops`.

N out_features, K in_features; x [*, K], W [N, K], y [*, N].
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .adapted import Adapted
from .cpu import products
from .cpu.binding import DTYPES, absence
from .dispatch import DEQUANTIZE, DX, FORWARD, QUANTIZE, REGISTERS, Case, choose
from .formats import Blockwise4bit, QuantizedWeight, RowwiseInt8

FEW_ROWS = 8  # of x, up to which a product with a dense matrix is bound by its reading, or by its call


def quantize(w: Tensor, format: str, blocksize: int, name: str) -> QuantizedWeight:
    """W [N, K] in `format`, one of `formats.QUANTIZED_NAMES`."""
    four_bit, _, suffix = format.partition("-")
    weight: QuantizedWeight = choose(quantize_case(w, format)).run(w, four_bit, blocksize, suffix == "dq", name)
    return weight


def quantize_case(w: Tensor, format: str) -> Case:
    """What `quantize` asks the table for."""
    layout: type[QuantizedWeight] = RowwiseInt8 if format == "int8" else Blockwise4bit
    return Case(QUANTIZE, 1, *_matrix(w.shape), w.dtype, w.device, format, layout)


def dequantize(weight: QuantizedWeight, dtype: torch.dtype, out: Tensor | None = None) -> Tensor:
    """W [N, K] in `dtype`, written into `out` where that is given."""
    w: Tensor = choose(product_case(DEQUANTIZE, 1, weight, dtype, weight.codes.device)).run(weight, dtype, out)
    return w


def linear(x: Tensor, weight: QuantizedWeight) -> Tensor:
    """y = x W^T"""
    y: Tensor = choose(linear_case(x, weight)).run(x, weight)
    return y


def at_once(x: Tensor, parts: Sequence[Adapted]) -> bool:
    """Whether `linears` takes x and the parts: C looks up the codes of all of them, or reads few rows' dense W."""
    return all(
        _reads_dense(x, part.weight)
        if isinstance(part.weight, Tensor)
        else choose(linear_case(x, part.weight)).name == REGISTERS
        for part in parts
    )


def _reads_dense(x: Tensor, weight: Tensor) -> bool:
    known = x.is_cpu and weight.is_cpu and x.dtype in DTYPES and weight.dtype in DTYPES and weight.is_contiguous()
    return known and 0 < x.numel() <= FEW_ROWS * x.shape[-1] and not absence()


def linears(x: Tensor, parts: Sequence[Adapted]) -> tuple[Tensor, ...]:
    """y_i = x W_i^T + scaling_i (x A_i^T) B_i^T of all parts in one call, where `at_once` says so"""
    return products.linears(x, parts)


def linear_dx(dy: Tensor, weight: QuantizedWeight) -> Tensor:
    """dX = dY W"""
    dx: Tensor = choose(product_case(DX, math.prod(dy.shape[:-1]), weight, dy.dtype, dy.device)).run(dy, weight)
    return dx


def linear_case(x: Tensor, weight: QuantizedWeight) -> Case:
    """What `linear` asks the table for."""
    return product_case(FORWARD, math.prod(x.shape[:-1]), weight, x.dtype, x.device)


def product_case(op: str, m: int, weight: QuantizedWeight, dtype: torch.dtype, device: torch.device) -> Case:
    """What a product with m rows of x asks the table for."""
    blocksize = 1 if isinstance(weight, RowwiseInt8) else weight.blocksize
    return Case(op, m, *_matrix(weight.shape), dtype, device, weight.name, type(weight), blocksize)


def _matrix(shape: tuple[int, ...]) -> tuple[int, int]:
    return math.prod(shape[:-1]), shape[-1]
