"""Runs the path that the table of `dispatch` chooses. No gradients here: see `ops`.

N out_features, K in_features; x [*, K], W [N, K], y [*, N].
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..cpu.library import DTYPES, unavailable_reason
from ..weights.linear_with_adapter import LinearWithAdapter
from ..weights.quantized_weight import Blockwise4bit, QuantizedWeight, RowwiseInt8
from .table import BACKWARD, C_GEMV, DEQUANTIZE, FLOAT_PANELS, FORWARD, QUANTIZE, Case, Kernel, choose

FEW_ROWS = 8  # of x, up to which a product with a dense matrix is bound by its reading, or by its call
IN_ONE_CALL = (C_GEMV, FLOAT_PANELS)  # paths that the library takes together with others, and with adapters
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
    w: Tensor = choose(product_case(DEQUANTIZE, 1, weight, dtype, weight.codes.device)).run(weight, dtype, out)
    return w


def linear(x: Tensor, weight: QuantizedWeight) -> Tensor:
    """y = x W^T"""
    y: Tensor = path(x, weight).run(x, weight)
    return y


class _LastPath:
    """The path of the last product with a weight, for x of that shape, dtype and device. It is not copied with it."""

    def __init__(self, x: object = None, path: Kernel | None = None) -> None:
        self.x, self.path = x, path

    def __reduce__(self) -> tuple[type["_LastPath"], tuple[()]]:
        return _LastPath, ()


def path(x: Tensor, weight: QuantizedWeight) -> Kernel:
    """The row of the table that `linear` takes."""
    asked, last = (x.shape[:-1], x.dtype, x.device), weight.__dict__.get("_last_path")
    if last is not None and last.x == asked:
        chosen: Kernel = last.path
    else:
        chosen = choose(linear_case(x, weight))
        weight.__dict__["_last_path"] = _LastPath(asked, chosen)
    return chosen


def can_run_in_one_call(x: Tensor, plan: Sequence[LinearWithAdapter]) -> bool:
    """True where C takes x and all linears of a plan together: it looks up codes, or reads few rows' dense W."""
    if not x.is_cpu or x.dtype not in DTYPES or unavailable_reason():
        return False
    if x.numel() > ROWS_AT_ONCE * x.shape[-1]:
        return False
    few, asked = 0 < x.numel() <= FEW_ROWS * x.shape[-1], (x.shape[:-1], x.dtype, x.device)
    for part in plan:
        weight = part.weight
        if part.drop is not None or part.rank_mask is not None:
            return False
        if isinstance(weight, Tensor):
            if not (few and weight.is_cpu and weight.dtype in DTYPES and weight.is_contiguous()):
                return False
            continue
        last = weight.__dict__.get("_last_path")  # as in `path`, which is not called for every linear of every block
        if (last.path if last is not None and last.x == asked else path(x, weight)).name not in IN_ONE_CALL:
            return False
    return True


def linear_backward(dy: Tensor, weight: QuantizedWeight) -> Tensor:
    """dX = dY W"""
    dx: Tensor = choose(product_case(BACKWARD, math.prod(dy.shape[:-1]), weight, dy.dtype, dy.device)).run(dy, weight)
    return dx


def linear_case(x: Tensor, weight: QuantizedWeight) -> Case:
    """The case of the table for the forward product of x [*, K] with a weight [N, K]."""
    return product_case(FORWARD, math.prod(x.shape[:-1]), weight, x.dtype, x.device)


def product_case(op: str, m: int, weight: QuantizedWeight, dtype: torch.dtype, device: torch.device) -> Case:
    """The case of a product with m rows of x, as the table takes it."""
    blocksize = 1 if isinstance(weight, RowwiseInt8) else weight.blocksize
    return Case(op, m, *_matrix(weight.shape), dtype, device, weight.name, type(weight), blocksize)


def _matrix(shape: tuple[int, ...]) -> tuple[int, int]:
    return math.prod(shape[:-1]), shape[-1]
