"""Rows of a product that wear different adapters: each span has the outputs and gradients of a batch of its own."""

from functools import partial

import draws
import pytest
import torch
from torch import Tensor

from lowrank.kernels import ops
from lowrank.kernels.lora.lora_linear import lora_linears
from lowrank.kernels.lora.span_linears import Span, span_linears
from lowrank.kernels.weights.linear_with_adapter import LinearWithAdapter
from lowrank.kernels.weights.quantized_weight import QuantizedWeight

normal = partial(draws.normal, dtype=torch.float64)
SPANS = ((0, 3), (3, 6), (7, 10))  # one row of ten wears nothing; the first two may be batched
DIFFERENT, ALIKE, PAIR = ((2, 1), (3, 2), (1, None)), ((2, 1),) * 3, ((2, None), (2, None), (None, 2))
Ranks = tuple[tuple[int | None, ...], ...]


def plans(
    quantized: bool = False, drop: float = 0.0, ranks_of: Ranks = DIFFERENT
) -> list[tuple[LinearWithAdapter, ...]]:
    """A plan a span of two linears of [*, 6], to 5 and to 3, with ranks of its own; None leaves one bare."""
    weights: list[Tensor | QuantizedWeight] = [normal(n, 6, seed=n) for n in (5, 3)]
    if quantized:
        weights = [ops.quantize(weight.float(), "nf4", blocksize=32) for weight in weights]
    made = []
    for number, ranks in enumerate(ranks_of):
        parts = []
        for weight, n, rank in zip(weights, (5, 3), ranks, strict=True):
            if rank is None:
                parts.append(LinearWithAdapter(weight))
                continue
            a, b = normal(rank, 6, seed=10 * number + n), normal(n, rank, seed=50 + 10 * number + n)
            dropped = (drop, 7 + number) if drop else None
            parts.append(LinearWithAdapter(weight, a.requires_grad_(), b.requires_grad_(), 2.0 + number, dropped))
        made.append(tuple(parts))
    return made


def matrices(made: list[tuple[LinearWithAdapter, ...]]) -> list[Tensor]:
    return [matrix for plan in made for part in plan for matrix in (part.lora_A, part.lora_B) if matrix is not None]


@pytest.mark.parametrize("ranks", [DIFFERENT, ALIKE, PAIR], ids=["different", "alike", "pair"])
@pytest.mark.parametrize("drop", [0.0, 0.5])
@pytest.mark.parametrize("quantized", [False, True], ids=["dense", "nf4"])
def test_each_span_is_a_batch_of_its_own(quantized: bool, drop: float, ranks: Ranks) -> None:
    ours, theirs = plans(quantized, drop, ranks), plans(quantized, drop, ranks)
    x, same = normal(1, 10, 6, seed=1).requires_grad_(), normal(1, 10, 6, seed=1).requires_grad_()
    dys = [normal(1, 10, 5, seed=2), normal(1, 10, 3, seed=3)]
    ys = span_linears(x, [Span(*rows, plan) for rows, plan in zip(SPANS, ours, strict=True)])
    torch.autograd.backward(ys, dys)
    bare = [LinearWithAdapter(part.weight) for part in theirs[0]]
    for (begin, end), plan in [*zip(SPANS, theirs, strict=True), ((6, 7), bare)]:
        alone = lora_linears(same[:, begin:end], plan)
        for y, truth in zip(ys, alone, strict=True):
            torch.testing.assert_close(y[:, begin:end], truth)
        torch.autograd.backward(alone, [dy[:, begin:end] for dy in dys])
    torch.testing.assert_close(x.grad, same.grad)
    for one, other in zip(matrices(ours), matrices(theirs), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [DIFFERENT, ALIKE], ids=["different", "alike"])
def test_gradients_by_finite_differences(ranks: Ranks) -> None:
    made = plans(ranks_of=ranks)

    def outputs(x: Tensor, *given: Tensor) -> tuple[Tensor, ...]:
        left = iter(given)
        spans = []
        for rows, plan in zip(SPANS, made, strict=True):
            fresh = [
                part if part.lora_A is None else part._replace(lora_A=next(left), lora_B=next(left)) for part in plan
            ]
            spans.append(Span(*rows, tuple(fresh)))
        return span_linears(x, spans)

    inputs = [normal(10, 6, seed=1), *(matrix.detach() for matrix in matrices(made))]
    assert torch.autograd.gradcheck(outputs, tuple(tensor.requires_grad_() for tensor in inputs))
