"""Attention of packed rows by where their texts begin: it is that of the mask, and torch's flash attention takes it."""

from functools import partial

import draws
import pytest
import torch
import torch.nn.functional as F
from error_bounds import assert_as_exact_as_plain
from torch import Tensor

from lowrank.bench.static.launches import recorded
from lowrank.kernels.llama_ops import packed_attention
from lowrank.kernels.llama_ops.cuda import attention
from lowrank.model.packed_texts import PackedTexts, segment_starts

SEGMENTS = torch.tensor([[0, 0, 0, 1, 1, 1, 1, -1], [0, 1, 1, 2, 2, 2, 2, 2]])
normal = partial(draws.normal, dtype=torch.float64)


def heads(dtype: torch.dtype = torch.float64, device: str = "cpu", channels: int = 8) -> tuple[Tensor, ...]:
    """q [2, 4, 8, h], and k and v of two heads, laid out as a model has them: [B, T, H, h]"""
    drawn = [normal(2, 8, count, channels, seed=seed).to(device, dtype) for seed, count in enumerate((4, 2, 2))]
    return tuple(one.requires_grad_().transpose(1, 2) for one in drawn)


def text_by_text(q: Tensor, k: Tensor, v: Tensor, bounds: Tensor, longest: int) -> Tensor:
    """Attention as the flash operator has it, of [B T, H, h], a text after another."""
    outputs = []
    for begin, end in zip(bounds.tolist(), bounds.tolist()[1:], strict=False):
        assert end - begin <= longest
        one = [x[begin:end].transpose(0, 1) for x in (q, k, v)]
        outputs.append(F.scaled_dot_product_attention(*one, is_causal=True, enable_gqa=True).transpose(0, 1))
    return torch.cat(outputs)


def with_gradients(q: Tensor, k: Tensor, v: Tensor, mask: object) -> list[Tensor]:
    y = attention(q, k, v, mask)
    return [y, *torch.autograd.grad(y, (q, k, v), normal(2, 4, 8, q.shape[-1], seed=9).to(y.device, y.dtype))]


def test_where_texts_begin_by_hand() -> None:
    texts = PackedTexts(segment_starts(SEGMENTS))
    assert texts.bounds.tolist() == [0, 3, 7, 8, 9, 11, 16] and texts.bounds.dtype == torch.int32
    assert PackedTexts(torch.zeros(3, 4, dtype=torch.int64)).bounds.tolist() == [0, 4, 8, 12]


def test_it_is_attention_with_the_mask_of_the_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = heads()
    texts = PackedTexts(segment_starts(SEGMENTS))
    masked = with_gradients(q, k, v, texts.mask)
    torch.testing.assert_close(with_gradients(q, k, v, texts), masked)  # on a CPU the mask itself
    calls: list[int] = []
    monkeypatch.setattr(packed_attention, "unsupported_reason", lambda q: "")
    monkeypatch.setattr(
        packed_attention, "flash_attention", lambda *given: (calls.append(given[-1]), text_by_text(*given))[1]
    )
    torch.testing.assert_close(with_gradients(q, k, v, PackedTexts(segment_starts(SEGMENTS))), masked)
    assert calls == [8]


def test_torch_takes_the_call_and_it_is_four_launches() -> None:
    q, k, v = (torch.empty(2, 8, n, 64, dtype=torch.bfloat16, device="meta") for n in (4, 2, 2))
    turned = [x.requires_grad_().transpose(1, 2) for x in (q, k, v)]
    texts = PackedTexts(torch.empty(2, 8, dtype=torch.int64, device="meta"))
    texts.__dict__["bounds"] = torch.empty(7, dtype=torch.int32, device="meta")
    with recorded() as launches:
        y = attention(*turned, texts)
        y.backward(torch.empty_like(y))
    assert y.shape == (2, 4, 8, 64) and y.transpose(1, 2).is_contiguous()
    assert (q.grad.shape, k.grad.shape) == (q.shape, k.shape)
    assert [launch.name for launch in launches] == ["_flash_attention_forward", *["_flash_attention_backward"] * 3]


def test_what_flash_attention_does_not_take_is_told() -> None:
    q = torch.empty(1, 1, 1, 264, device="meta")
    assert packed_attention.unsupported_reason(q) == "flash attention is for GPUs"
    with recorded():  # in which meta tensors are those of a GPU
        assert "got torch.float32" in packed_attention.unsupported_reason(q)
        assert packed_attention.unsupported_reason(q.half()) == "a head must have 8 to 256 channels, got 264"
        assert packed_attention.unsupported_reason(q[..., :256].half()) == ""


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_on_a_gpu_it_is_as_exact_as_with_the_mask(dtype: torch.dtype) -> None:
    q, k, v = heads(dtype, "cuda", 64)
    texts = PackedTexts(segment_starts(SEGMENTS).cuda())
    exact = with_gradients(*(x.detach().cpu().double().requires_grad_() for x in (q, k, v)), texts.mask.cpu())
    ours, plain = with_gradients(q, k, v, texts), with_gradients(q, k, v, texts.mask)
    for mine, theirs, truth in zip(ours, plain, exact, strict=True):
        assert_as_exact_as_plain(mine.cpu(), theirs.cpu(), truth)
