"""The rounded weight forward, and the gradients of the sum that was rounded."""

from functools import partial

import draws
import torch
from torch import Tensor

from lowrank.kernels import ops
from lowrank.kernels.lora.straight_through import straight_through_linears
from lowrank.kernels.weights.linear_with_adapter import LinearWithAdapter

normal = partial(draws.normal, dtype=torch.float64)


def test_forward_is_the_rounded_weight_and_backward_that_of_the_sum() -> None:
    w = [normal(5, 6, seed=1), normal(3, 6, seed=2)]
    pairs = [(normal(2, 6, seed=3), normal(5, 2, seed=4)), (normal(1, 6, seed=5), normal(3, 1, seed=6))]
    dys = [normal(2, 4, 5, seed=7), normal(2, 4, 3, seed=8)]
    x, same = normal(2, 4, 6, seed=9).requires_grad_(), normal(2, 4, 6, seed=9).requires_grad_()
    plan, sums, theirs = [], [], []
    for weight, pair in zip(w, pairs, strict=True):
        ours, own = ([one.clone().requires_grad_() for one in pair] for _ in range(2))
        theirs.append(own)
        total = weight + 2.0 * own[1] @ own[0]
        rounded = ops.quantize(total.detach().float(), "nf4", blocksize=32)
        plan.append(LinearWithAdapter(rounded, *ours, 2.0))
        sums.append(total + (ops.dequantize(rounded, torch.float64) - total).detach())
    ys = straight_through_linears(x, plan)
    expected: list[Tensor] = [same @ total.T for total in sums]
    torch.autograd.backward(ys, dys)
    torch.autograd.backward(expected, dys)
    for y, truth in zip(ys, expected, strict=True):
        torch.testing.assert_close(y, truth)
    torch.testing.assert_close(x.grad, same.grad)
    for part, own in zip(plan, theirs, strict=True):
        assert part.lora_A is not None and part.lora_B is not None
        torch.testing.assert_close(part.lora_A.grad, own[0].grad)
        torch.testing.assert_close(part.lora_B.grad, own[1].grad)
