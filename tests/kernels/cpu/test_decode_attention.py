"""Attention of one query a row in C, against float64 and the reference, on every instruction set."""

from typing import Any

import pytest
import torch
from draws import normal
from error_bounds import assert_as_exact_as_plain
from torch import Tensor

from lowrank.kernels.cpu.attention import decode_attention, decode_unsupported_reason
from lowrank.kernels.llama_ops import cpu, cuda
from lowrank.kernels.reference import llama_ops as fused_reference

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)

pytestmark = pytest.mark.usefixtures("instruction_set", "unwritten_is_nan")


def inputs(
    batch: int, heads: int, kv_heads: int, length: int, channels: int, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor, Tensor]:
    """q as rope leaves it, and k, v as a cache of 3 positions more holds them, which are NaN"""
    q = normal(batch, 1, heads, channels, seed=1, dtype=dtype).transpose(1, 2)
    cache = normal(2, batch, kv_heads, length + 3, channels, seed=2, dtype=dtype)
    cache[..., length:, :] = torch.nan
    k, v = cache[..., :length, :].unbind()
    return q, k, v


def with_holes(batch: int, length: int) -> Tensor:
    """bool [batch, 1, 1, length]: about half of the positions, the last one among them"""
    mask = torch.rand(batch, 1, 1, length, generator=torch.Generator().manual_seed(3)) < 0.5
    mask[..., -1] = True
    return mask


def padded(batch: int, length: int) -> Tensor:
    """bool [batch, 1, 1, length]: each row has other filler tokens at its left"""
    return (torch.arange(length) >= torch.arange(batch)[:, None] * (length - 1) // batch)[:, None, None]


def as_exact_as_the_reference(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> None:
    seen = torch.ones(1, 1, 1, k.shape[2], dtype=torch.bool) if mask is None else mask
    assert not decode_unsupported_reason(q, k, v)
    y, theirs = decode_attention(q, k, v, mask), fused_reference.decode_attention(q, k, v, seen)
    truth = fused_reference.decode_attention(q.double(), k.double(), v.double(), seen)
    assert y.dtype == q.dtype
    assert_as_exact_as_plain(y, theirs, truth)


@DTYPES
@pytest.mark.parametrize("channels", [1, 7, 64, 80, 128, 300])
def test_it_is_as_exact_as_the_reference(channels: int, dtype: torch.dtype) -> None:
    for length in (1, 15, 16, 17, 31, 300):
        q, k, v = inputs(2, 6, 2, length, channels, dtype)
        for mask in (None, with_holes(2, length), with_holes(1, length), padded(2, length)):
            as_exact_as_the_reference(q, k, v, mask)


@pytest.mark.parametrize("heads, kv_heads", [(1, 1), (4, 4), (6, 3), (5, 1)])
def test_a_head_reads_the_keys_of_its_group(heads: int, kv_heads: int) -> None:
    for batch in (1, 3):
        q, k, v = inputs(batch, heads, kv_heads, 40, 16)
        as_exact_as_the_reference(q, k, v, None)
        as_exact_as_the_reference(q, k, v, padded(batch, 40))


@DTYPES
def test_what_the_mask_hides_is_not_read(dtype: torch.dtype) -> None:
    q, k, v = inputs(3, 4, 2, 70, 33, dtype)
    mask = with_holes(3, 70)
    y = decode_attention(q, k, v, mask)
    for row, seen in enumerate(mask[:, 0, 0]):
        k[row, :, ~seen], v[row, :, ~seen] = torch.nan, torch.inf
    assert torch.equal(decode_attention(q, k, v, mask), y)


def test_a_row_that_may_look_nowhere_gives_nan_as_the_reference_does() -> None:
    q, k, v = inputs(2, 2, 1, 20, 8)
    mask = with_holes(2, 20)
    mask[1] = False
    y, expected = decode_attention(q, k, v, mask), fused_reference.decode_attention(q, k, v, mask)
    assert y[1].isnan().all() and expected[1].isnan().all()
    torch.testing.assert_close(y[0], expected[0])


@DTYPES
def test_inputs_may_be_views_of_any_stride(dtype: torch.dtype) -> None:
    q, k, v = (tensor.contiguous() for tensor in inputs(2, 4, 2, 21, 24, dtype))
    mask = with_holes(2, 21)
    expected = decode_attention(q, k, v, mask)
    spread = mask.repeat_interleave(2, dim=-1)[..., ::2]
    for view in (
        lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),
        lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
        lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
    ):
        assert torch.equal(decode_attention(view(q), view(k), view(v), spread), expected)
        assert torch.equal(decode_attention(q, view(k), v, mask), expected)
    one = k[:1, :, :1]
    assert torch.equal(
        decode_attention(q, one.expand(k.shape), v, mask), decode_attention(q, one.repeat(2, 1, 21, 1), v, mask)
    )


def test_the_number_of_threads_changes_no_result(threads: Any) -> None:
    q, k, v = inputs(3, 6, 2, 333, 80, torch.bfloat16)
    results = []
    for count in (1, 2, 3):
        threads(count)
        results.append([decode_attention(q, k, v, mask) for mask in (None, with_holes(3, 333))])
    for result in results[1:]:
        assert all(torch.equal(one, other) for one, other in zip(result, results[0], strict=True))


def test_a_query_that_finds_one_key_reads_its_value_to_the_bit() -> None:
    k = torch.eye(96)[None, None]
    v = normal(1, 1, 96, 96)
    for place in (0, 31, 32, 95):
        assert torch.equal(decode_attention(4096 * k[:, :, place : place + 1], k, v, None), v[:, :, place : place + 1])


def test_scores_that_would_overflow_and_those_that_are_not_finite() -> None:
    q, k, v = inputs(1, 2, 1, 40, 16)
    assert decode_attention(1e10 * q, 1e10 * k, v, None).isfinite().all()
    k[0, 0, 7, 3] = torch.nan
    assert decode_attention(q, k, v, None).isnan().all()


def test_what_it_is_not_for_is_said() -> None:
    q, k, v = inputs(1, 2, 1, 8, 16)
    assert decode_unsupported_reason(q, k, v) == ""
    assert "one query" in decode_unsupported_reason(q.repeat(1, 1, 2, 1), k, v)
    assert "bfloat16" in decode_unsupported_reason(q.double(), k.double(), v.double())
    assert "bfloat16" in decode_unsupported_reason(q, k.half(), v)
    assert "nothing" in decode_unsupported_reason(q, k[:, :, :0], v[:, :, :0])
    assert "gradient" in decode_unsupported_reason(q.clone().requires_grad_(), k, v)
    with torch.no_grad():
        assert decode_unsupported_reason(q.clone().requires_grad_(), k, v) == ""


@pytest.mark.parametrize("ops", [cpu, cuda], ids=["lean", "fused"])
def test_one_query_without_a_mask_sees_every_position(ops: Any) -> None:
    q, k, v = inputs(2, 4, 2, 9, 16)
    expected = fused_reference.decode_attention(q, k, v, torch.ones(1, 1, 1, 9, dtype=torch.bool))
    torch.testing.assert_close(ops.attention(q, k, v, None), expected)
    learned = q.clone().requires_grad_()
    torch.testing.assert_close(ops.attention(learned, k, v, None).detach(), expected)
