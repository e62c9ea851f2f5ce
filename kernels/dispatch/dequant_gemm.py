"""Products with many rows: W is dequantized once into scratch, and the product is the vendor's.

    y  = x W^T                                     dX = dY W
    y  = [x | U] [W | s B]^T                       dX = [dY | V] [W ; A]
    U  = x A^T                                     V  = dY (s B)

The products of adapters ride in those with W: y and dX are written once, summed in float32, and not read again to be
added to. For that x and dY are copied once, to stand beside U and V; of linears that share x there is one copy of it,
one product with all A, and one dX. W is dequantized again backward. `reference.riding_adapters` has the matrices;
Triton writes them in a launch each where the weights are repacked, plain torch piece by piece elsewhere.

x [*, K], y [*, N], W [N, K], A [r, K], B [N, r], U and V [M, r].
"""

from collections.abc import Sequence
from importlib import import_module
from types import ModuleType

import torch
from torch import Tensor

from ..reference import riding_adapters as reference
from ..reference.riding_adapters import sizes_of
from ..weights.linear_with_adapter import LinearWithAdapter
from ..weights.quantized_weight import QuantizedWeight
from . import scratch
from .run import dequantize


def linear(x: Tensor, weight: QuantizedWeight) -> Tensor:
    """y = x W^T;  x [*, K] -> [*, N]"""
    with scratch.borrow(weight.shape, x.dtype, x.device) as w:
        return x @ dequantize(weight, x.dtype, out=w).T


def linear_backward(dy: Tensor, weight: QuantizedWeight) -> Tensor:
    """dX = dY W;  dy [*, N] -> [*, K]"""
    with scratch.borrow(weight.shape, dy.dtype, dy.device) as w:
        return dy @ dequantize(weight, dy.dtype, out=w)


def linears_with_adapters(x: Tensor, plan: Sequence[LinearWithAdapter]) -> tuple[list[Tensor], Tensor]:
    """y_i = x W_i^T + s U_i B_i^T [M, N_i] of every linear, and U of all of them side by side, [M, R];  x [M, K]"""
    sizes = sizes_of(plan)
    outputs = sum(sizes.outputs)
    with scratch.borrow(sizes.shape, x.dtype, x.device) as z:
        _write(z, plan)
        left, u = _path(x).beside([x], z[outputs:, : sizes.inputs].T, _rank_mask(plan))
        ys, row = [], 0
        for n in sizes.outputs:
            ys.append(left @ z[row : row + n].T)
            row += n
    return ys, u


def linears_with_adapters_backward(dys: Sequence[Tensor], plan: Sequence[LinearWithAdapter]) -> tuple[Tensor, Tensor]:
    """dX = sum over i of dY_i W_i + V_i A_i, and V of all linears side by side, [M, R];  dys [M, N_i] -> [M, K]"""
    sizes = sizes_of(plan)
    outputs = sum(sizes.outputs)
    with scratch.borrow(sizes.shape, dys[0].dtype, dys[0].device) as z:
        _write(z, plan)
        left, v = _path(dys[0]).beside(dys, z[:outputs, sizes.inputs :], _rank_mask(plan))
        return left @ z[:, : sizes.inputs], v


def matrix_gradients(
    x: Tensor, dys: Sequence[Tensor], u: Tensor, v: Tensor, plan: Sequence[LinearWithAdapter]
) -> list[Tensor | None]:
    """dA_i = V_i^T x and dB_i = s dY_i^T U_i of each linear in turn, in their dtypes;  u, v [M, R]"""
    gradients: list[Tensor | None] = _path(x).matrix_gradients(x, dys, u, v, plan)
    return gradients


def _write(z: Tensor, plan: Sequence[LinearWithAdapter]) -> None:
    """Z of a plan: W, A and s B."""
    path = _path(z)
    if path is not reference and path.can_write(plan):
        path.write_block_matrix(z, plan)
        return
    row = 0
    for part in plan:
        assert not isinstance(part.weight, Tensor)
        dequantize(part.weight, z.dtype, out=z[row : row + part.weight.shape[0], : part.weight.shape[1]])
        row += part.weight.shape[0]
    reference.write_matrices(z, plan)


def _rank_mask(plan: Sequence[LinearWithAdapter]) -> Tensor | None:
    """The masks of all linears side by side, [B, sum of r_i]; None where all rows of the batch use all ranks"""
    masks = [part.rank_mask for part in plan if part.rank_mask is not None]
    if not masks:
        return None
    assert len(masks) == sum(part.lora_A is not None for part in plan), "all linears of a call have one selection"
    return torch.cat(masks, dim=1)


def _path(x: Tensor) -> ModuleType:
    """Triton's launches on a GPU, plain torch elsewhere: both have the same functions."""
    return import_module("..triton.riding_adapters", __package__) if x.is_cuda else reference
