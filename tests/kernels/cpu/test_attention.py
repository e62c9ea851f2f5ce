"""Causal attention by the matrix unit and by dot products, both ways, against float64 and torch's own."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from draws import normal
from error_bounds import assert_as_exact_as_plain
from torch import Tensor

from lowrank.kernels.cpu import library
from lowrank.kernels.cpu.attention import attention, unsupported_reason

BF16 = torch.bfloat16
SHAPES = [
    (1, 1, 1, 1, 32),
    (2, 2, 2, 31, 64),
    (1, 2, 1, 32, 128),
    (2, 4, 2, 33, 64),
    (1, 6, 2, 100, 96),
    (1, 3, 3, 257, 64),
    (1, 2, 2, 64, 96),
    (2, 2, 1, 65, 32),
    (1, 4, 1, 130, 128),
]

pytestmark = pytest.mark.usefixtures("bf16_products", "unwritten_is_nan")


def inputs(batch: int, heads: int, kv_heads: int, length: int, channels: int) -> list[Tensor]:
    """q, k, v, dy"""
    counts = (heads, kv_heads, kv_heads, heads)
    return [normal(batch, count, length, channels, seed=seed, dtype=BF16) for seed, count in enumerate(counts)]


def plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    group = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def with_gradients(function: Callable[..., Tensor], *tensors: Tensor) -> list[Tensor]:
    """y, dq, dk, dv"""
    *given, dy = tensors
    learned = [tensor.detach().requires_grad_() for tensor in given]
    y = function(*learned)
    return [y.detach(), *torch.autograd.grad(y, learned, dy)]


@pytest.mark.parametrize("shape", SHAPES, ids="B{0[0]}-H{0[1]}-G{0[2]}-T{0[3]}-h{0[4]}".format)
def test_attention_and_its_gradients_are_as_exact_as_torch(shape: tuple[int, ...]) -> None:
    tensors = inputs(*shape)
    exact = with_gradients(plain, *(tensor.double() for tensor in tensors))
    for ours, theirs, truth in zip(
        with_gradients(attention, *tensors), with_gradients(plain, *tensors), exact, strict=True
    ):
        assert_as_exact_as_plain(ours, theirs, truth)


@pytest.mark.parametrize("channels", [32, 96, 128])
def test_a_query_that_finds_one_key_reads_its_value_to_the_bit(channels: int) -> None:
    """Keys are one-hot, and query t is far nearer to one of them than to the others: P is one-hot in every bit."""
    generator = torch.Generator().manual_seed(0)
    found = torch.tensor([int(torch.randint(0, t + 1, (), generator=generator)) for t in range(channels)])
    k = torch.eye(channels, dtype=BF16)[None, None]
    q = 4096 * k[:, :, found]
    v, dy = (torch.randint(-2, 3, k.shape, generator=generator).to(BF16) for _ in range(2))
    y, dq, dk, dv = with_gradients(attention, q, k, v, dy)
    assert torch.equal(y, v[:, :, found])
    assert torch.equal(dv, torch.zeros_like(v).index_add(2, found, dy))
    assert not dq.any() and not dk.any()


def test_without_a_difference_between_keys_it_is_the_mean_of_those_before() -> None:
    v = torch.randint(-8, 9, (2, 1, 70, 32), generator=torch.Generator().manual_seed(1)).to(BF16)
    q = torch.zeros(2, 3, 70, 32, dtype=BF16)
    mean = v.double().cumsum(2) / torch.arange(1, 71)[:, None]
    powers = [0, 1, 3, 7, 15, 31, 63]
    y = attention(q, torch.ones_like(v), v)
    assert torch.equal(y[:, :, powers], mean[:, :, powers].to(BF16).expand(-1, 3, -1, -1))


def test_nothing_that_comes_later_changes_a_bit() -> None:
    q, k, v, dy = inputs(1, 2, 2, 70, 64)
    whole = with_gradients(attention, q, k, v, torch.cat([dy[:, :, :41], torch.zeros_like(dy[:, :, 41:])], dim=2))
    begun = with_gradients(attention, *(tensor[:, :, :41] for tensor in (q, k, v, dy)))
    for long, short in zip(whole, begun, strict=True):
        assert torch.equal(long[:, :, :41], short)
    assert not any(gradient[:, :, 41:].any() for gradient in whole[1:])


@pytest.mark.parametrize("queries", [1, 31, 32, 33, 69])
def test_the_last_queries_give_what_they_give_among_all(queries: int) -> None:
    q, k, v, dy = inputs(2, 4, 2, 70, 64)
    before = 70 - queries
    asked = torch.cat([torch.zeros_like(dy[:, :, :before]), dy[:, :, before:]], dim=2)
    y, dq, dk, dv = with_gradients(attention, q, k, v, asked)
    last = with_gradients(attention, q[:, :, before:], k, v, dy[:, :, before:])
    for ours, among_all in zip(last, (y[:, :, before:], dq[:, :, before:], dk, dv), strict=True):
        assert torch.equal(ours, among_all)


def test_inputs_may_be_views_of_any_stride() -> None:
    tensors = inputs(2, 4, 2, 45, 64)
    expected = with_gradients(attention, *tensors)
    for again in (
        [tensor.transpose(1, 2).contiguous().transpose(1, 2) for tensor in tensors],
        [tensor.transpose(2, 3).contiguous().transpose(2, 3) for tensor in tensors],
        [F.pad(tensor, (3, 2, 1, 4), value=torch.nan)[:, :, 1:46, 3:67] for tensor in tensors],
    ):
        for one, other in zip(with_gradients(attention, *again), expected, strict=True):
            assert torch.equal(one, other)
    row = tensors[3][:1, :1, :1]
    spread = with_gradients(attention, *tensors[:3], row.expand(tensors[3].shape))
    for one, other in zip(spread, with_gradients(attention, *tensors[:3], row.repeat(2, 4, 45, 1)), strict=True):
        assert torch.equal(one, other)


def test_scores_that_would_overflow_and_values_that_are_not_finite() -> None:
    q, k, v, dy = inputs(1, 2, 2, 40, 64)
    for ours in with_gradients(attention, 300 * q, 300 * k, v, dy):
        assert ours.isfinite().all()
    q[0, 0, 7, 3] = torch.nan
    y = attention(q, k, v)
    assert y[0, 0, 7].isnan().all() and y.isnan().sum() == 64


def test_the_number_of_threads_changes_no_result(threads: Any) -> None:
    tensors, results = inputs(3, 4, 2, 75, 64), []
    for count in (1, 2, 5):
        threads(count)
        results.append(with_gradients(attention, *tensors))
    for result in results[1:]:
        assert all(torch.equal(one, other) for one, other in zip(result, results[0], strict=True))


def test_what_it_is_not_for_is_said() -> None:
    q, k, *_ = inputs(1, 2, 2, 8, 64)
    mask = torch.ones(1, 1, 8, 8, dtype=torch.bool)
    assert unsupported_reason(q, k, None) == ""
    assert "mask" in unsupported_reason(q, k, mask) and unsupported_reason(q[:, :, :2], k, None) == ""
    assert "up to 4 keys to a query" in unsupported_reason(q[:, :, :1], k, None)
    assert "bfloat16" in unsupported_reason(q.float(), k.float(), None)
    assert "channels" in unsupported_reason(q[..., :40], k[..., :40], None)
    assert "nothing" in unsupported_reason(q[:, :, :0], k[:, :, :0], None)


def test_an_instruction_set_without_products_of_bfloat16_is_named() -> None:
    assert library.library().lowrank_choose(b"portable") == 0
    assert "portable" in unsupported_reason(*inputs(1, 2, 2, 8, 64)[:2], None)
