"""The operations for training on a CPU: equations, gradients, pieces, and what they keep."""

import math
from functools import partial
from typing import Any

import draws
import pytest
import torch
import torch.nn.functional as F
from error_bounds import assert_as_exact_as_plain
from torch import Tensor

from lowrank.kernels.llama_ops import cpu
from lowrank.kernels.reference import llama_ops as reference

LAYOUTS = pytest.mark.parametrize("layout", ["interleaved", "half"])


normal = partial(draws.normal, dtype=torch.float64)


def learned(*tensors: Tensor) -> tuple[Tensor, ...]:
    return tuple(tensor.requires_grad_() for tensor in tensors)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a small tensor is several of them, the last one shorter."""
    monkeypatch.setattr(cpu, "PIECE", 12)
    monkeypatch.setattr(cpu, "PIECE_OF_LOGITS", 33)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1, 1), (5, 6), (2, 3, 6)], ids=str)
def test_gradients_of_the_norms_by_finite_differences(shape: tuple[int, ...]) -> None:
    x, residual, weight = learned(normal(*shape), normal(*shape, seed=1), normal(shape[-1], seed=2))
    assert torch.autograd.gradcheck(lambda x, w: cpu.rms_norm(x, w, 1e-2), (x, weight))
    assert torch.autograd.gradcheck(lambda x, r, w: cpu.add_rms_norm(x, r, w, 1e-2), (x, residual, weight))


@LAYOUTS
def test_gradient_of_rope_by_finite_differences(layout: str) -> None:
    angle = normal(2, 3, 1, 3, seed=9)
    assert torch.autograd.gradcheck(
        lambda x: cpu.rope(x, angle.cos(), angle.sin(), layout), learned(normal(2, 3, 5, 6))
    )


def test_gradients_of_swiglu_by_finite_differences() -> None:
    assert torch.autograd.gradcheck(cpu.swiglu, learned(3 * normal(3, 7), normal(3, 7, seed=1)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_outputs_and_gradients_are_as_close_as_plain_torch(dtype: torch.dtype) -> None:
    x, weight, dy = normal(7, 10, dtype=dtype), normal(10, seed=1, dtype=dtype), normal(7, 10, seed=2, dtype=dtype)
    angle = normal(1, 7, 1, 5, seed=3)
    cases = {
        "rms_norm": (lambda x: cpu.rms_norm(x, weight.to(x.dtype), 1e-5), lambda x: _plain_norm(x, weight)),
        "swiglu": (lambda x: cpu.swiglu(x, dy.to(x.dtype)), lambda x: F.silu(x) * dy.to(x.dtype)),
        "rope": (lambda x: _rope(cpu.rope, x, angle), lambda x: _rope(reference_rope, x, angle)),
    }
    for name, (ours, plain) in cases.items():
        print(name)
        results = []
        for function, kind in ((ours, dtype), (plain, dtype), (plain, torch.float64)):
            (given,) = learned(x.to(kind).clone())
            y = function(given)
            y.backward(dy.to(kind))
            results.append((y.detach(), given.grad))
        for mine, theirs, truth in zip(*results, strict=True):
            assert_as_exact_as_plain(mine, theirs, truth)


def _plain_norm(x: Tensor, weight: Tensor) -> Tensor:
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    normed = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-5)
    return normed.type_as(x) * weight.to(x.dtype)


def reference_rope(x: Tensor, cos: Tensor, sin: Tensor, layout: str) -> Tensor:
    return reference.rope(x, cos, sin, layout == "interleaved", False)


def _rope(rope, x: Tensor, angle: Tensor) -> Tensor:
    wide = torch.promote_types(x.dtype, torch.float32)
    return rope(x.view(1, 7, 1, 10), angle.cos().to(wide), angle.sin().to(wide), "half").view(7, 10)


@LAYOUTS
def test_rope_is_the_reference(layout: str) -> None:
    x, angle = normal(2, 3, 5, 6, dtype=torch.float32), normal(2, 3, 1, 3, seed=9, dtype=torch.float32)
    torch.testing.assert_close(
        cpu.rope(x, angle.cos(), angle.sin(), layout), reference_rope(x, angle.cos(), angle.sin(), layout)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("count", [1, 7, 16, 33, 130, 70_001])
@pytest.mark.usefixtures("instruction_set", "unwritten_is_nan")
def test_swiglu_in_c_is_as_exact_as_the_reference(count: int, dtype: torch.dtype, threads: Any) -> None:
    gate, up, dy = (normal(count, seed=seed, dtype=dtype) for seed in range(3))
    gate[: count // 2] *= 30
    exact = (
        reference.swiglu(gate.double(), up.double()),
        *reference.swiglu_backward(dy.double(), gate.double(), up.double()),
    )
    plain = reference.swiglu(gate, up), *reference.swiglu_backward(dy, gate, up)
    results = []
    for threads_used in (1, 2):
        threads(threads_used)
        given = learned(gate.clone(), up.clone())
        y = cpu.swiglu(*given)
        results.append((y.detach(), *torch.autograd.grad(y, given, dy)))
    for ours, again, theirs, truth in zip(*results, plain, exact, strict=True):
        assert_as_exact_as_plain(ours, theirs, truth)
        assert torch.equal(ours, again)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("shape", [(1, 1), (2, 3, 7), (5, 64), (40, 33), (700, 130)], ids=str)
@pytest.mark.usefixtures("instruction_set", "unwritten_is_nan")
def test_norms_in_c_are_as_exact_as_the_reference(shape: tuple[int, ...], dtype: torch.dtype, threads: Any) -> None:
    x, residual, dy, dh = (normal(*shape, seed=seed, dtype=dtype) for seed in range(4))
    weight, h = normal(shape[-1], seed=4, dtype=dtype), x + residual
    for added, summed, beside in ((residual, h, dh), (None, x, None)):
        plain, exact = [], []
        for results, kind in ((plain, dtype), (exact, torch.float64)):
            dy_, h_, weight_, beside_ = (None if z is None else z.to(kind) for z in (dy, summed, weight, beside))
            y, _, rstd = reference.rms_norm(h_, None, weight_, 1e-5)
            results += [y, *reference.rms_norm_backward(dy_, beside_, h_, rstd, weight_, True)]
        runs = []
        for count in (1, 2):
            threads(count)
            given, scale = learned(x.clone(), weight.clone())
            if added is None:
                outputs, gradients = (cpu.rms_norm(given, scale, 1e-5),), (dy,)
            else:
                outputs, gradients = cpu.add_rms_norm(given, added, scale, 1e-5), (dy, dh)
                assert torch.equal(outputs[1], h)
            runs.append([outputs[0].detach(), *torch.autograd.grad(outputs, (given, scale), gradients)])
        for ours, again, theirs, truth in zip(*runs, plain, exact, strict=True):
            assert_as_exact_as_plain(ours, theirs, truth)
            assert torch.equal(ours, again)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_without_a_gradient_the_results_are_the_same(dtype: torch.dtype) -> None:
    x, up, weight = normal(2, 3, 4, 6, dtype=dtype), normal(2, 3, 4, 6, seed=1, dtype=dtype), normal(6, dtype=dtype)
    angle = normal(2, 3, 1, 3, seed=9, dtype=torch.float32)
    for call in (
        lambda x: (cpu.rms_norm(x, weight, 1e-5),),
        lambda x: cpu.add_rms_norm(x, up, weight, 1e-5),
        lambda x: (cpu.swiglu(x, up),),
        lambda x: (cpu.rope(x, angle.cos(), angle.sin(), "half"),),
    ):
        for direct, recorded in zip(call(x), call(x.clone().requires_grad_()), strict=True):
            assert recorded.requires_grad and not direct.requires_grad
            assert torch.equal(direct, recorded)


@pytest.mark.usefixtures("instruction_set")
def test_swiglu_in_c_of_what_is_not_finite() -> None:
    gate = torch.tensor([torch.nan, torch.inf, 200.0, -200.0, 0.0])
    y = cpu.swiglu(gate, torch.ones(5))
    assert y[0].isnan() and y[1] == torch.inf and y[2] == 200 and y[3].abs() < 1e-30 and y[4] == 0


@LAYOUTS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("channels", [2, 6, 32, 62, 64, 128])
@pytest.mark.usefixtures("instruction_set", "unwritten_is_nan")
def test_rope_in_c_turns_as_exactly_as_the_reference(channels: int, dtype: torch.dtype, layout: str) -> None:
    x, dy = (normal(2, 3, 5, channels, seed=seed, dtype=dtype) for seed in range(2))
    angle = normal(2, 3, 1, channels // 2, seed=9, dtype=torch.float32)
    cos, sin = angle.cos(), angle.sin()
    (given,) = learned(x.clone())
    y = cpu.rope(given, cos, sin, layout)
    (dx,) = torch.autograd.grad(y, given, dy.transpose(1, 2).contiguous().transpose(1, 2))
    for ours, z, sine in ((y.detach(), x, sin), (dx, dy, -sin)):
        assert_as_exact_as_plain(
            ours, reference_rope(z, cos, sine, layout), reference_rope(z.double(), cos.double(), sine.double(), layout)
        )


@LAYOUTS
@pytest.mark.usefixtures("instruction_set")
def test_rope_in_c_is_exact_by_quarter_turns_on_any_number_of_threads(layout: str, threads: Any) -> None:
    x = normal(1, 300, 4, 34, dtype=torch.bfloat16)
    turn = torch.arange(300)[:, None].expand(300, 17)[None, :, None]
    cos, sin = (torch.tensor(values)[turn % 4] for values in ([1.0, 0.0, -1.0, 0.0], [0.0, 1.0, 0.0, -1.0]))
    for count in (1, 2, 3):
        threads(count)
        assert torch.equal(cpu.rope(x, cos, sin, layout), reference_rope(x, cos, sin, layout))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("rows", [0, 1, 7])
def test_the_loss_and_its_gradient_are_the_reference_s(dtype: torch.dtype, rows: int) -> None:
    logits = 4 * normal(rows, 11, dtype=dtype)
    targets = torch.tensor([3, -100, 0, 10, 5, -100, 2])[:rows]
    ours, theirs = logits.clone(), logits.clone()
    loss = cpu.cross_entropy_(ours, targets, True)
    torch.testing.assert_close(loss, reference.cross_entropy_(theirs, targets, True))
    torch.testing.assert_close(ours, theirs)
    again = logits.clone()
    torch.testing.assert_close(cpu.cross_entropy_(again, targets, False), loss)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("vocabulary", [1, 16, 35, 1000, 40_003])
@pytest.mark.usefixtures("instruction_set", "unwritten_is_nan")
def test_the_loss_in_c_is_as_exact_as_the_reference(vocabulary: int, dtype: torch.dtype, threads: Any) -> None:
    rows = max(4, -(-1000 // vocabulary))
    logits = 6 * normal(rows, vocabulary, dtype=dtype)
    targets = torch.randint(0, vocabulary, (rows,), generator=torch.Generator().manual_seed(1))
    targets[0], targets[1], targets[2] = 0, vocabulary - 1, -100
    plain, exact = logits.clone(), logits.double()
    theirs, truth = (reference.cross_entropy_(given, targets, True) for given in (plain, exact))
    results = []
    for count in (1, 2):
        threads(count)
        ours = logits.clone()
        results.append((cpu.cross_entropy_(ours, targets, True), ours))
        untouched = logits.clone()
        assert torch.equal(cpu.cross_entropy_(untouched, targets, False), results[-1][0])
        assert torch.equal(untouched, logits)
    for ours, again, other, exactly in zip(*results, (theirs, plain), (truth, exact), strict=True):
        assert torch.equal(ours, again)
        assert_as_exact_as_plain(ours, other, exactly)
    assert results[0][0][2] == 0 and not results[0][1][2].any()


@pytest.mark.usefixtures("instruction_set")
def test_large_logits_do_not_overflow() -> None:
    logits = torch.tensor([[1e4, 0.0, -1e4]])
    assert cpu.cross_entropy_(logits, torch.tensor([1]), True).tolist() == [1e4]
    assert logits.tolist() == [[1.0, -1.0, 0.0]]


@pytest.mark.usefixtures("instruction_set")
def test_logits_of_minus_infinity_have_no_gradient_and_nan_spoils_its_row_alone() -> None:
    logits = torch.tensor([[0.0, -torch.inf, 0.0], [torch.nan, 0.0, 1.0], [0.0, 0.0, torch.nan]])
    losses = cpu.cross_entropy_(logits, torch.tensor([0, 1, 0]), True)
    assert losses[0].item() == pytest.approx(math.log(2)) and losses[1:].isnan().all()
    assert logits[0].tolist() == [-0.5, 0.0, 0.5] and logits[1:].isnan().all()


def test_a_target_that_is_no_token_is_refused() -> None:
    for target in (-1, 3):
        with pytest.raises(Exception, match="index"):
            cpu.cross_entropy_(torch.zeros(1, 3), torch.tensor([target]), True)


def kept_bytes(function, *inputs: Tensor) -> int:
    """The bytes of the tensors that autograd keeps, each memory once, the inputs' own left out."""
    held = {}

    def pack(tensor: Tensor) -> Tensor:
        held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        outputs = function(*inputs)
    del outputs
    return sum(size for place, size in held.items() if place not in {x.untyped_storage().data_ptr() for x in inputs})


def test_nothing_is_kept_but_what_the_derivation_needs() -> None:
    x, weight, up = learned(*(normal(4, 6, seed=seed, dtype=torch.bfloat16) for seed in range(3)))
    assert kept_bytes(lambda x: cpu.rms_norm(x, weight[0].detach(), 1e-5), x) <= 4 * 4 + weight.nbytes
    assert kept_bytes(cpu.swiglu, x, up) == 0
