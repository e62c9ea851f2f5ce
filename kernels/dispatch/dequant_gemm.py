"""Products with many rows: W is dequantized once into scratch, and the product is the vendor's.

    y  = x W^T                                     dX = dY W
    y  = [x | U] [W | lora_B]^T                    dX = [dY | V] [W ; lora_A]
    U  = scaling * x lora_A^T                      V  = scaling * dY lora_B

The two products of an adapter ride in the one with W: y and dX are written once, summed in float32, and not read again
to be added to. For that x and dY are copied once, to stand beside U and V. W is dequantized again backward. The
gradients are put together in `kernels.lora.lora_linear`.

x [*, K], y [*, N], W [N, K], lora_A [r, K], lora_B [N, r], U and V [M, r].
"""

import math

from torch import Tensor

from ..weights.quantized_weight import QuantizedWeight
from . import scratch
from .run import dequantize

RANK_STEP = 8  # the adapter's columns are filled up to 16 bytes with zeros: the matrix units want rows of whole ones


def linear(x: Tensor, weight: QuantizedWeight) -> Tensor:
    """y = x W^T;  x [*, K] -> [*, N]"""
    with scratch.borrow(weight.shape, x.dtype, x.device) as w:
        return x @ dequantize(weight, x.dtype, out=w).T


def linear_backward(dy: Tensor, weight: QuantizedWeight) -> Tensor:
    """dX = dY W;  dy [*, N] -> [*, K]"""
    with scratch.borrow(weight.shape, dy.dtype, dy.device) as w:
        return dy @ dequantize(weight, dy.dtype, out=w)


def linear_with_adapter(x: Tensor, weight: QuantizedWeight, u: Tensor, lora_B: Tensor) -> Tensor:
    """y = x W^T + U lora_B^T;  x [M, K], U [M, r] with the scaling in it, lora_B [N, r] -> [M, N]"""
    n, k = weight.shape
    left = _beside(x, u)
    with scratch.borrow((n, left.shape[1]), x.dtype, x.device) as right:
        dequantize(weight, x.dtype, out=right[:, :k])
        _fill(right[:, k:], lora_B)
        return left @ right.T


def linear_with_adapter_backward(dy: Tensor, weight: QuantizedWeight, v: Tensor, lora_A: Tensor) -> Tensor:
    """dX = dY W + V lora_A;  dY [M, N], V [M, r] with the scaling in it, lora_A [r, K] -> [M, K]"""
    n, k = weight.shape
    left = _beside(dy, v)
    with scratch.borrow((left.shape[1], k), dy.dtype, dy.device) as right:
        dequantize(weight, dy.dtype, out=right[:n])
        _fill(right[n:].T, lora_A.T)
        return left @ right


def _beside(wide: Tensor, narrow: Tensor) -> Tensor:
    """[wide | narrow | zeros], up to a multiple of RANK_STEP behind `wide`."""
    columns = math.ceil(narrow.shape[1] / RANK_STEP) * RANK_STEP
    both = wide.new_empty(wide.shape[0], wide.shape[1] + columns)
    both[:, : wide.shape[1]] = wide
    _fill(both[:, wide.shape[1] :], narrow)
    return both


def _fill(place: Tensor, narrow: Tensor) -> None:
    """[narrow | zeros], in the dtype of `place`."""
    place[:, : narrow.shape[1]] = narrow
    place[:, narrow.shape[1] :] = 0
