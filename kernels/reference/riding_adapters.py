"""The adapters of linears that share x, riding in the products with W: what stands beside W, x and dY. The truth.

    Z = [ W  s B ]      U = x A^T         y  = [x | U] [W | s B]^T
        [ A   -  ]      V = dY (s B)      dX = [dY | V] [W ; A]

W is of all the linears, one below the other, [N, K], N = N_0 + N_1 + ..; A likewise, [R, K]; s B is block-diagonal,
[N, R]: linear i has rows in N_i and columns in r_i alone. So both passes read one matrix, of which - is never read.
dA = V^T x and dB = s dY^T U need the same U and V.

M rows of x, K in_features, N out_features and R ranks of all linears, filled up with zeros to a multiple of RANK_STEP.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..weights.linear_with_adapter import LinearWithAdapter

RANK_STEP = 8  # 16 bytes in 16 bits: the matrix units want rows of whole ones
MOST_LINEARS = 3  # that ride together: wq, wk, wv


class Sizes(NamedTuple):
    """N_i and r_i of every linear of a plan, and their K."""

    outputs: tuple[int, ...]
    ranks: tuple[int, ...]
    inputs: int

    @property
    def rank(self) -> int:
        """R, filled up."""
        return math.ceil(sum(self.ranks) / RANK_STEP) * RANK_STEP

    @property
    def shape(self) -> tuple[int, int]:
        """That of Z."""
        return sum(self.outputs) + self.rank, self.inputs + self.rank


def sizes_of(plan: Sequence[LinearWithAdapter]) -> Sizes:
    """The sizes of a plan whose linears share x."""
    ranks = tuple([0 if part.lora_A is None else len(part.lora_A) for part in plan])
    return Sizes(tuple([part.weight.shape[0] for part in plan]), ranks, plan[0].weight.shape[1])


def write_matrices(z: Tensor, plan: Sequence[LinearWithAdapter]) -> None:
    """Writes A and s B beside W, which stands in z already, with the zeros around them;  z as Z above"""
    sizes = sizes_of(plan)
    outputs, inputs = sum(sizes.outputs), sizes.inputs
    z[:outputs, inputs:] = 0
    z[outputs:, :inputs] = 0
    row, column = 0, 0
    for part, n, r in zip(plan, sizes.outputs, sizes.ranks, strict=True):
        if part.lora_A is not None and part.lora_B is not None:
            z[row : row + n, inputs + column : inputs + column + r] = part.scaling * part.lora_B
            z[outputs + column : outputs + column + r, :inputs] = part.lora_A
        row, column = row + n, column + r


def beside(wide: Sequence[Tensor], narrow: Tensor, rank_mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """([X | X narrow], X narrow),  X = the tensors of `wide` side by side

    wide       [M, C_i] each, of one dtype;  narrow [C, R] in it, of any strides
    rank_mask  bool [B, R or fewer], false where a row of the batch has a zero in that column; None: nowhere
    Returns [M, C + R] and [M, R].
    """
    joined = torch.cat(list(wide), dim=1)
    inner = joined @ narrow
    if rank_mask is not None:
        used = inner[:, : rank_mask.shape[1]].unflatten(0, (len(rank_mask), -1))
        used.masked_fill_(~rank_mask[:, None], 0.0)
    return torch.cat([joined, inner], dim=1), inner


def matrix_gradients(
    x: Tensor, dys: Sequence[Tensor], u: Tensor, v: Tensor, plan: Sequence[LinearWithAdapter]
) -> list[Tensor | None]:
    """dA_i = V_i^T x and dB_i = s dY_i^T U_i of each linear in turn, in the dtypes of A_i and B_i

    x [M, K], dys [M, N_i] each, u and v [M, R], v with the scaling in it
    """
    gradients: list[Tensor | None] = []
    column = 0
    for dy, part in zip(dys, plan, strict=True):
        if part.lora_A is None or part.lora_B is None:
            gradients += [None, None]
            continue
        of_it = slice(column, column + len(part.lora_A))
        gradients.append((v[:, of_it].T @ x).to(part.lora_A.dtype))
        gradients.append((part.scaling * (dy.T @ u[:, of_it])).to(part.lora_B.dtype))
        column = of_it.stop
    return gradients
