"""Softmax cross-entropy in Triton: logits become their own gradient, in the memory that they are in.

    loss[m] = log sum_v exp(logits[m, v]) - logits[m, target[m]]
    dlogits[m, v] = softmax(logits[m])[v] - [v = target[m]],   both 0 where target[m] is -100

M rows, V vocabulary. A row is read twice, the second time from the cache, and written once.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..reference.llama_ops import IGNORED

BLOCK_V = 4096


@triton.jit
def cross_entropy_kernel(
    loss_ptr,
    logits_ptr,
    target_ptr,
    V: tl.constexpr,
    IGNORED: tl.constexpr,
    WITH_GRADIENT: tl.constexpr,
    BLOCK_V: tl.constexpr,
):
    """Program m takes row m: one sweep for maximum and sum together (arXiv 1805.02867), one for the gradient."""
    row = tl.program_id(0).to(tl.int64)
    target = tl.load(target_ptr + row)
    logits_ptr += row * V
    largest = -float("inf")
    total = 0.0
    for start in range(0, V, BLOCK_V):
        column = start + tl.arange(0, BLOCK_V)
        logits = tl.load(logits_ptr + column, mask=column < V, other=-float("inf")).to(tl.float32)
        larger = tl.maximum(largest, tl.max(logits))
        total = total * tl.exp(largest - larger) + tl.sum(tl.exp(logits - larger))
        largest = larger
    counted = target != IGNORED
    # A target that is no token reads NaN, which stops a run, and not what lies beside the row.
    known = (target >= 0) & (target < V)
    wanted = tl.load(logits_ptr + target, mask=known, other=float("nan")).to(tl.float32)
    tl.store(loss_ptr + row, tl.where(counted, tl.log(total) - (wanted - largest), 0.0))
    if WITH_GRADIENT:
        share = tl.div_rn(1.0, total)
        for start in range(0, V, BLOCK_V):
            column = start + tl.arange(0, BLOCK_V)
            logits = tl.load(logits_ptr + column, mask=column < V, other=0.0).to(tl.float32)
            gradient = tl.exp(logits - largest) * share - (column == target).to(tl.float32)
            gradient = tl.where(counted, gradient, 0.0)
            tl.store(logits_ptr + column, gradient.to(logits_ptr.dtype.element_ty), mask=column < V)


def cross_entropy_(logits: Tensor, targets: Tensor, with_gradient: bool) -> Tensor:
    """The loss of each row, float32 [M]; `logits` [M, V], contiguous, then hold their gradient, or are left alone

    targets int64 [M], -100 where nothing is to be learned. Another target outside of 0 .. V-1 gives NaN.
    """
    assert logits.is_contiguous(), logits.stride()
    losses = torch.empty(len(logits), dtype=torch.float32, device=logits.device)
    if len(logits):
        with torch.cuda.device_of(logits):  # Triton launches on the current device
            cross_entropy_kernel[(len(logits),)](
                losses,
                logits,
                targets,
                V=logits.shape[1],
                IGNORED=IGNORED,
                WITH_GRADIENT=with_gradient,
                BLOCK_V=min(BLOCK_V, triton.next_power_of_2(logits.shape[1])),
                num_warps=8,
                enable_fp_fusion=True,
            )
    return losses
