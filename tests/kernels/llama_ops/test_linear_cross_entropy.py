"""The head and its loss in chunks: the loss and gradients of all logits at once, and never all of them held."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from error_bounds import assert_as_exact_as_plain
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lowrank.kernels.llama_ops import linear_cross_entropy as module
from lowrank.kernels.llama_ops.linear_cross_entropy import linear_cross_entropy, rows_of_a_chunk

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three rows a chunk, so that small inputs have whole chunks and a short one."""
    monkeypatch.setattr(module, "rows_of_a_chunk", lambda vocabulary: 3)


def inputs(m: int, d: int, v: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(m)
    x = torch.randn(m, d, generator=generator, dtype=torch.float64).to(dtype)
    weight = torch.randn(v, d, generator=generator, dtype=torch.float64).to(dtype)
    targets = torch.randint(0, v, (m,), generator=generator)
    targets[1::4] = -100
    return x.requires_grad_(), weight.requires_grad_(), targets


def full_logits_loss(x: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    logits = x @ weight.T
    wide = logits.to(torch.promote_types(x.dtype, torch.float32))
    return F.cross_entropy(wide, targets, ignore_index=-100, reduction="sum")


@pytest.mark.slow
@pytest.mark.parametrize("m", [1, 3, 7])
def test_gradients_by_finite_differences(m: int) -> None:
    x, weight, targets = inputs(m, 5, 11, torch.float64)
    assert torch.autograd.gradcheck(lambda x, weight: linear_cross_entropy(x, weight, targets), (x, weight))
    assert torch.autograd.gradcheck(lambda x: 3 * linear_cross_entropy(x, weight.detach(), targets), (x,))


@DTYPES
@pytest.mark.parametrize(("m", "d", "v"), [(1, 4, 9), (7, 16, 50), (12, 33, 129)], ids=["M1-V9", "M7-V50", "M12-V129"])
def test_they_are_as_exact_as_all_logits_at_once(m: int, d: int, v: int, dtype: torch.dtype) -> None:
    x, weight, targets = inputs(m, d, v, dtype)
    wide = tuple(tensor.detach().double().requires_grad_() for tensor in (x, weight))
    results = []
    for loss, learned in (
        (linear_cross_entropy(x, weight, targets), (x, weight)),
        (full_logits_loss(x, weight, targets), (x, weight)),
        (full_logits_loss(*wide, targets), wide),
    ):
        results.append((loss.detach(), *torch.autograd.grad(loss, learned)))
    for ours, theirs, exact in zip(*results, strict=True):
        assert_as_exact_as_plain(ours, theirs, exact)


@pytest.mark.parametrize("m", [0, 5], ids=["no-rows", "all-ignored"])
def test_nothing_to_learn_is_a_loss_and_gradient_of_zero(m: int) -> None:
    x, weight, _ = inputs(m, 4, 9, torch.float32)
    loss = linear_cross_entropy(x, weight, torch.full((m,), -100))
    loss.backward()
    assert (loss, x.grad.abs().sum(), weight.grad.abs().sum()) == (0, 0, 0)


def test_the_logits_are_left_out_where_nothing_is_learned() -> None:
    x, weight, targets = inputs(7, 4, 9, torch.float32)
    with torch.no_grad():
        loss = linear_cross_entropy(x, weight, targets)
    assert not loss.requires_grad
    torch.testing.assert_close(loss, full_logits_loss(x, weight, targets).detach())
    assert linear_cross_entropy(x.detach(), weight, targets).requires_grad


class Largest(TorchDispatchMode):
    """Notes the size of the largest tensor that any operation of torch returns."""

    numel = 0

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = op(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(out):
            if isinstance(tensor, Tensor):
                self.numel = max(self.numel, tensor.untyped_storage().nbytes() // tensor.itemsize)
        return out


def test_no_more_logits_are_held_than_a_chunk_has() -> None:
    x, weight, targets = inputs(40, 4, 100, torch.float32)
    weight.requires_grad_(False)
    with Largest() as all_logits:
        full_logits_loss(x, weight, targets).backward()
    with Largest() as ours:
        module.in_chunks(x.detach(), weight, targets, True, False)
    assert (all_logits.numel, ours.numel) == (40 * 100, 4 * 100)  # a chunk has 3 * 100; what is largest is W itself


def test_a_chunk_has_whole_tiles_of_rows() -> None:
    assert [rows_of_a_chunk(vocabulary) for vocabulary in (512, 32000, 128256, 1 << 24, 1 << 30)] == [
        1 << 15,
        512,
        128,
        128,
        128,
    ]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("flags", [(True, False), (True, True), (False, True), (False, False)], ids=str)
def test_torch_is_told_the_truth_about_the_op(flags: tuple[bool, bool], dtype: torch.dtype) -> None:
    x, weight, targets = inputs(7, 4, 9, dtype)
    torch.library.opcheck(module._linear_cross_entropy, (x.detach(), weight.detach(), targets, *flags))


@pytest.mark.slow
def test_torch_compile_takes_it_whole() -> None:
    x, weight, targets = inputs(7, 4, 9, torch.float32)
    compiled = torch.compile(linear_cross_entropy, backend="aot_eager", fullgraph=True)
    ours, theirs = compiled(x, weight, targets), linear_cross_entropy(x, weight, targets)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(torch.autograd.grad(ours, (x, weight)), torch.autograd.grad(theirs, (x, weight)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, w, t: (x[None], w, t), r"x \[M, D\].*got \[1, 7, 4\]"),
        (lambda x, w, t: (x, w[:, 1:], t), r"got \[7, 4\], \[9, 3\], \[7\]"),
        (lambda x, w, t: (x, w, t[1:]), r"got \[7, 4\], \[9, 4\], \[6\]"),
        (lambda x, w, t: (x.half(), w, t), r"one floating dtype.*got torch.float16, torch.float32"),
        (lambda x, w, t: (x, w, t.int()), r"targets int64, got .*torch.int32"),
    ],
)
def test_what_does_not_fit_is_refused_by_rule_and_value(change: Callable[..., Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        linear_cross_entropy(*change(*inputs(7, 4, 9, torch.float32)))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@DTYPES
def test_on_a_gpu_it_is_as_exact_as_all_logits_at_once(dtype: torch.dtype) -> None:
    x, weight, targets = (tensor.cuda() for tensor in inputs(300, 128, 5000, dtype))
    results = []
    for loss_of, learned in (
        (linear_cross_entropy, (x.detach().requires_grad_(), weight.detach().requires_grad_())),
        (full_logits_loss, (x.detach().requires_grad_(), weight.detach().requires_grad_())),
        (full_logits_loss, (x.detach().double().requires_grad_(), weight.detach().double().requires_grad_())),
    ):
        loss = loss_of(*learned, targets)
        results.append((loss.detach(), *torch.autograd.grad(loss, learned)))
    for ours, theirs, exact in zip(*results, strict=True):
        assert_as_exact_as_plain(ours, theirs, exact)


def test_the_losses_of_rows_have_the_gradient_of_any_weighting_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "rows_of_a_chunk", lambda vocabulary: 3)
    x, weight, targets = inputs(7, 4, 9, torch.float64)
    x, weight, shares = x.detach().requires_grad_(), weight.detach(), torch.arange(7).double()
    assert torch.autograd.gradcheck(lambda x: module.linear_cross_entropy_of_rows(x, weight, targets) * shares, (x,))
    losses = module.linear_cross_entropy_of_rows(x, weight, targets)
    torch.testing.assert_close(losses.sum(), linear_cross_entropy(x, weight, targets))
