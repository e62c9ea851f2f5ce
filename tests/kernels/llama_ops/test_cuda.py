"""The fused operations as Llama calls them: equations, gradients, and what torch.compile is told of them."""

from collections.abc import Callable
from functools import partial
from typing import Any

import draws
import pytest
import torch
from error_bounds import assert_as_exact_as_plain
from torch import Tensor

from lowrank.kernels.llama_ops.cuda import (
    CUDA_OPS,
    add_rms_norm,
    attention,
    rms_norm,
    rms_norm_and_x,
    rope,
    rope_pair,
    swiglu,
)
from lowrank.kernels.operators import llama_ops
from lowrank.model.llama import TORCH_OPS, Llama

LAYOUTS = pytest.mark.parametrize("layout", ["interleaved", "half"])
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)


normal = partial(draws.normal, dtype=torch.float64)


def angles(b: int, t: int, h: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    angle = 64 * torch.rand(b, t, 1, h // 2, generator=torch.Generator().manual_seed(9), dtype=dtype)
    return angle.cos(), angle.sin()


def learned(*tensors: Tensor) -> tuple[Tensor, ...]:
    return tuple(tensor.requires_grad_() for tensor in tensors)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (2, 3, 6)], ids=str)
def test_gradients_of_the_norms_by_finite_differences(shape: tuple[int, ...]) -> None:
    x, residual, weight = learned(normal(*shape), normal(*shape, seed=1), normal(shape[-1], seed=2))
    assert torch.autograd.gradcheck(lambda x, w: rms_norm(x, w, 1e-2), (x, weight))
    assert torch.autograd.gradcheck(lambda x, w: rms_norm_and_x(x, w, 1e-2), (x, weight))
    assert torch.autograd.gradcheck(lambda x, r, w: add_rms_norm(x, r, w, 1e-2), (x, residual, weight))
    assert torch.autograd.gradcheck(lambda x, r: add_rms_norm(x, r, weight.detach(), 1e-2), (x, residual))


@pytest.mark.slow
@LAYOUTS
def test_gradient_of_rope_by_finite_differences_and_the_inverse_of_it(layout: str) -> None:
    cos, sin = angles(2, 3, 6)
    (x,) = learned(normal(2, 3, 5, 6))
    assert torch.autograd.gradcheck(lambda x: rope(x, cos, sin, layout), (x,))
    (back,) = torch.autograd.grad(rope(x, cos, sin, layout), x, rope(x, cos, sin, layout).detach())
    torch.testing.assert_close(back, x.detach())
    (k,) = learned(normal(2, 3, 2, 6, seed=1))
    assert torch.autograd.gradcheck(lambda x, k: rope_pair(x, k, cos, sin, layout), (x, k))


def test_gradients_of_swiglu_by_finite_differences() -> None:
    assert torch.autograd.gradcheck(swiglu, learned(3 * normal(3, 7), normal(3, 7, seed=1)))


def test_the_sum_of_add_rms_norm_may_be_used_alone_or_with_the_norm() -> None:
    x, residual, weight = learned(normal(3, 6), normal(3, 6, seed=1), normal(6, seed=2))
    for a, b in ((0, 1), (1, 0), (2, 3)):

        def total(op: Any, a: int = a, b: int = b) -> Tensor:
            y, h = op(x, residual, weight, 1e-5)
            return (a * y.sin() + b * h.cos()).sum()

        plain = torch.autograd.grad(total(lambda *args: (rms_norm(args[0] + args[1], *args[2:]), args[0] + args[1])), x)
        torch.testing.assert_close(torch.autograd.grad(total(add_rms_norm), x), plain)


def test_x_of_a_norm_may_be_used_alone_or_with_it() -> None:
    x, weight = learned(normal(3, 6), normal(6, seed=2))
    for a, b in ((0, 1), (1, 0), (2, 3)):
        gradients = []
        for y, h in (rms_norm_and_x(x, weight, 1e-5), (rms_norm(x, weight, 1e-5), x)):
            gradients.append(torch.autograd.grad((a * y.sin() + b * h.cos()).sum(), (x, weight), allow_unused=True))
        for one, other in zip(*gradients, strict=True):
            torch.testing.assert_close(one, torch.zeros_like(one) if other is None else other)


@DTYPES
@LAYOUTS
def test_they_are_the_equations_of_the_model(layout: str, dtype: torch.dtype) -> None:
    x, residual, weight = (
        normal(*shape, seed=i, dtype=dtype) for i, shape in enumerate([(2, 5, 12), (2, 5, 12), (12,)])
    )
    heads = normal(2, 5, 3, 4, seed=4, dtype=dtype)
    calls = [
        lambda ops: ops.rms_norm(x, weight, 1e-5),
        lambda ops: ops.add_rms_norm(x, residual, weight, 1e-5),
        lambda ops: ops.rms_norm_and_x(x, weight, 1e-5),
        lambda ops: ops.rope(heads, *angles(2, 5, 4, torch.float32), layout),
        lambda ops: ops.rope_pair(heads, heads[:, :, :1], *angles(2, 5, 4, torch.float32), layout),
        lambda ops: ops.swiglu(x, residual),
        lambda ops: ops.attention(*(heads.transpose(1, 2),) * 3, None),
    ]
    # The model rounds the quotient of a norm, and silu(gate), to the dtype; here the end alone is rounded.
    ulp = torch.finfo(dtype).eps
    for call in calls:
        torch.testing.assert_close(call(CUDA_OPS), call(TORCH_OPS), rtol=2 * ulp, atol=2 * ulp)


def test_in_float64_the_norm_and_attention_are_those_of_the_model() -> None:
    x, residual, weight = normal(3, 12), normal(3, 12, seed=1), normal(12, seed=2)
    q, k, v = normal(2, 4, 5, 8), normal(2, 2, 5, 8, seed=1), normal(2, 2, 5, 8, seed=2)
    exact = x / (x.square().mean(-1, keepdim=True) + 1e-2).sqrt() * weight
    for ops in (CUDA_OPS, TORCH_OPS):
        torch.testing.assert_close(ops.rms_norm(x, weight, 1e-2), exact)
    pairs = [
        (ops.rms_norm(x, weight, 1e-2), *ops.add_rms_norm(x, residual, weight, 1e-2), ops.attention(q, k, v, None))
        for ops in (CUDA_OPS, TORCH_OPS)
    ]
    torch.testing.assert_close(*pairs)


def test_the_model_rounds_before_the_weight_as_meta_does_and_the_kernels_round_once() -> None:
    x, weight = torch.ones(1, 1, dtype=torch.bfloat16), torch.full((1,), 1.5, dtype=torch.bfloat16)
    eps = (0.5 + 0.4 * 2**-8) ** -2 - 1  # such that x / sqrt(mean(x^2) + eps) is 0.4 of a last place above 0.5
    assert TORCH_OPS.rms_norm(x, weight, eps).item() == 0.75
    assert rms_norm(x, weight, eps).item() == 0.75 + 2**-8


@pytest.mark.slow
@pytest.mark.parametrize("queries", [1, 3])
@pytest.mark.parametrize("shared_mask", [True, False])
def test_attention_of_grouped_heads_and_a_mask_is_that_of_the_model(queries: int, shared_mask: bool) -> None:
    q, k, v = normal(2, 4, queries, 8), normal(2, 2, 5, 8, seed=1), normal(2, 2, 5, 8, seed=2)
    mask = torch.ones(1 if shared_mask else 2, 1, queries, 5, dtype=torch.bool)
    mask[-1, :, :, 3:] = False
    with torch.no_grad():
        for seen in (mask, None):
            torch.testing.assert_close(attention(q, k, v, seen), TORCH_OPS.attention(q, k, v, seen))
    assert torch.autograd.gradcheck(lambda *qkv: attention(*qkv, mask), learned(q, k, v))


def logits_and_gradients(model: Llama, tokens: Tensor, padding: Tensor) -> list[Tensor]:
    logits = model(tokens, padding=padding)
    return [logits.detach(), *torch.autograd.grad(logits.logsumexp(-1).sum(), list(model.parameters()))]


def assert_llama_is_as_exact(make_llama: Callable[..., Llama], tokens: Tensor, device: str) -> None:
    """The house rule for a whole model. The truth: the fused operations, which are float64 throughout if x is."""
    plain = make_llama().requires_grad_().to(device)
    ours, exact = (Llama(plain.config, ops=CUDA_OPS).to(device) for _ in range(2))
    ours.load_state_dict(plain.state_dict())
    exact.load_state_dict(plain.state_dict())
    padding = torch.tensor([0, 3], device=device)
    results = [logits_and_gradients(model, tokens.to(device), padding) for model in (ours, plain)]
    truth = logits_and_gradients(exact.to("cpu", torch.float64), tokens, padding.cpu())
    for mine, theirs, true in zip(*results, truth, strict=True):
        assert_as_exact_as_plain(mine.cpu(), theirs.cpu(), true.double())


def test_a_llama_of_fused_ops_is_as_exact_as_the_plain_one(
    make_llama: Callable[..., Llama], random_tokens: Callable[..., Tensor]
) -> None:
    assert_llama_is_as_exact(make_llama, random_tokens(2, 9), "cpu")


@pytest.mark.long
@pytest.mark.parametrize(
    ("dtype", "strided"),
    [(torch.float32, False), (torch.float32, True), (torch.bfloat16, False)],
    ids=["fp32", "fp32-strided", "bf16"],
)
def test_torch_is_told_the_truth_about_every_op(dtype: torch.dtype, strided: bool) -> None:
    def make(*shape: int, seed: int = 0) -> Tensor:
        whole = normal(*shape[:-1], 2 * shape[-1], seed=seed, dtype=dtype)
        return (whole[..., ::2] if strided else whole[..., : shape[-1]].contiguous()).detach().requires_grad_()

    x, y, weight, heads = make(3, 8), make(3, 8, seed=1), make(8, seed=2), make(2, 3, 2, 4)
    rstd = normal(3, dtype=torch.float32)
    arguments: list[tuple[Callable[..., Any], tuple[Any, ...]]] = [
        (llama_ops.rms_norm, (x, weight, 1e-5)),
        (llama_ops.add_rms_norm, (x, y, weight, 1e-5)),
        (llama_ops.rms_norm_backward, (x.detach(), None, y.detach(), rstd, weight.detach(), False)),
        (llama_ops.rms_norm_backward, (x.detach(), y.detach(), y.detach(), rstd, weight.detach(), True)),
        (llama_ops.rope, (heads, *angles(2, 3, 4, torch.float32), True, False)),
        (llama_ops.rope_pair, (heads, make(2, 3, 1, 4), *angles(2, 3, 4, torch.float32), True, False)),
        (llama_ops.decode_attention, (heads.detach()[:, :, :1], *(heads.detach(),) * 2, torch.ones(2, 1, 1, 2) > 0)),
        (llama_ops.swiglu, (x, y)),
        (llama_ops.swiglu_backward, (x.detach(), y.detach(), x.detach())),
    ]
    for op, inputs in arguments:
        torch.library.opcheck(op, inputs)


@pytest.mark.slow
def test_torch_compile_takes_them_whole() -> None:
    x, weight = learned(normal(2, 3, 8, dtype=torch.float32), normal(8, dtype=torch.float32))
    cos, sin = angles(2, 3, 4, torch.float32)

    def block(x: Tensor, weight: Tensor) -> Tensor:
        y, h = add_rms_norm(rms_norm(x, weight, 1e-5), x, weight, 1e-5)
        return swiglu(rope(y.unflatten(-1, (2, 4)), cos, sin, "half").flatten(-2), h).sum()

    compiled = torch.compile(block, backend="aot_eager", fullgraph=True)
    ours = torch.autograd.grad(compiled(x, weight), (x, weight))
    torch.testing.assert_close(ours, torch.autograd.grad(block(x, weight), (x, weight)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: rms_norm(normal(2, 8), normal(7), 1e-5),
            r"weight must be torch.float64 \[8\].*got torch.float64 \[7\]",
        ),
        (lambda: rms_norm(normal(2, 8).float(), normal(8), 1e-5), r"weight must be torch.float32 \[8\]"),
        (lambda: add_rms_norm(normal(2, 8), normal(8), normal(8), 1e-5), r"residual must be as x is.*\[2, 8\], got"),
        (lambda: swiglu(normal(2, 8), normal(2, 8).half()), r"up must be as gate is, torch.float64.*got torch.float16"),
        (lambda: swiglu(torch.ones(2).int(), torch.ones(2).int()), r"gate must be bfloat16.*got torch.int32"),
        (lambda: rope(normal(2, 3, 2, 4), *angles(1, 3, 4), "half"), r"cos and sin must be \[B, T, 1, h/2\] for x \["),
        (lambda: rope(normal(2, 3, 2, 5), *angles(2, 3, 4), "half"), r"for x \[2, 3, 2, 5\]"),
        (lambda: rope(normal(2, 3, 2, 4).half(), *angles(2, 3, 4), "half"), r"must be float32 for x in torch.float16"),
        (
            lambda: rope(normal(2, 3, 2, 4), *angles(2, 3, 4), "thirds"),
            r"layout must be interleaved or half, got 'thirds'",
        ),
    ],
)
def test_what_does_not_fit_is_refused_by_rule_and_value(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_on_a_gpu_a_llama_of_fused_ops_is_as_exact_as_the_plain_one(
    make_llama: Callable[..., Llama], random_tokens: Callable[..., Tensor]
) -> None:
    assert_llama_is_as_exact(make_llama, random_tokens(2, 9), "cuda")
