"""A step of fixed shapes against the ordinary one: the same logits, the same tokens, whatever the batch."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lowrank.adapters import use_adapter
from lowrank.adapters.files import load_adapter
from lowrank.checkpoints.load import load
from lowrank.model import static_decode
from lowrank.model.generate import generate_tokens
from lowrank.model.llama import KVCache, Llama, TorchOps
from lowrank.model.static_decode import DecodeStep

PROMPTS = [[1, 9, 8, 7, 6, 5, 4, 3], [1, 11], [1, 20, 30, 40, 50]]


@pytest.fixture(autouse=True)
def small_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four positions, so that a few tokens are enough to fill a window."""
    monkeypatch.setattr(static_decode, "WINDOW", 4)


def cache_for(model: Llama, batch: int, capacity: int, device: str = "cpu") -> KVCache:
    return KVCache(model.config, batch, capacity, torch.float32, torch.device(device))


def tokens_of(model: Llama, fixed_shapes: bool | None, **options: float) -> list[list[int | None]]:
    return list(generate_tokens(model, PROMPTS, fixed_shapes=fixed_shapes, **options))


@pytest.mark.slow
@pytest.mark.parametrize("prefill", [1, 4, 6])
@pytest.mark.parametrize("kv_heads", [4, 2, 1], ids=["mha", "gqa", "mqa"])
def test_its_logits_are_those_of_the_ordinary_step(
    kv_heads: int, prefill: int, make_llama: Callable[..., Llama], random_tokens: Callable[..., Tensor]
) -> None:
    model, tokens = make_llama(n_kv_heads=kv_heads), random_tokens(3, 13)
    padding = torch.tensor([0, prefill - 1, prefill // 2])
    ordinary, fixed = cache_for(model, 3, 13), cache_for(model, 3, 13)
    for cache in (ordinary, fixed):
        model(tokens[:, :prefill], cache, padding)
    step = DecodeStep(model, fixed, padding)
    for token in tokens[:, prefill:].split(1, dim=1):
        torch.testing.assert_close(step(token), model(token, ordinary, padding)[:, -1])
    assert fixed.length == ordinary.length == 13


@pytest.mark.parametrize("layout", ["interleaved", "half"])
def test_greedy_tokens_are_those_of_the_ordinary_path(layout: str, make_llama: Callable[..., Llama]) -> None:
    model = make_llama(rope_layout=layout)
    assert tokens_of(model, True, max_new_tokens=20) == tokens_of(model, False, max_new_tokens=20)


def test_sampled_tokens_are_those_of_the_ordinary_path(make_llama: Callable[..., Llama]) -> None:
    options = {"max_new_tokens": 20, "temperature": 1.0, "top_p": 0.9, "seed": 3}
    assert tokens_of(make_llama(), True, **options) == tokens_of(make_llama(), False, **options)


def test_greedy_tokens_of_transformers(hf_folder: Path, hf_reference: dict[str, Tensor]) -> None:
    stored = hf_reference["greedy"].tolist()
    model = load(hf_folder / "base", "fp32")
    steps = generate_tokens(model, [stored[0][:16]], max_new_tokens=24, fixed_shapes=True)
    assert [token for (token,) in steps] == stored[0][16:]


def test_each_row_may_wear_a_hat_of_its_own(hf_folder: Path) -> None:
    model = load(hf_folder / "base", "nf4-dq")
    load_adapter(model, "hat", hf_folder / "adapter-end")
    use_adapter(model, ["hat", None, "hat"])
    tokens = tokens_of(model, True, max_new_tokens=12)
    assert tokens == tokens_of(model, False, max_new_tokens=12)
    use_adapter(model, None)
    assert tokens != tokens_of(model, True, max_new_tokens=12)


def test_a_row_that_has_ended_and_the_last_place_of_the_cache(make_llama: Callable[..., Llama]) -> None:
    model = make_llama(max_seq_len=16)
    tokens = tokens_of(model, True, max_new_tokens=50)
    written = [sum(token is not None for token in row) for row in zip(*tokens, strict=True)]
    assert written == [16 - len(prompt) for prompt in PROMPTS]
    assert tokens == tokens_of(model, False, max_new_tokens=50)
    eos = tokens_of(model, False, max_new_tokens=8)[2][1]
    assert tokens_of(model, True, max_new_tokens=8, eos_id=eos) == tokens_of(model, False, max_new_tokens=8, eos_id=eos)


class Watching(TorchOps):
    """Notes the shapes and the memory of what each step attends to."""

    def __init__(self) -> None:
        self.seen: list[object] = []

    def attention(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        self.seen.append((q.shape, k.shape, v.shape, mask.shape, k.data_ptr(), v.data_ptr()))
        return super().attention(q, k, v, mask)


def test_every_step_of_a_window_has_the_same_shapes_and_memory(
    make_llama: Callable[..., Llama], random_tokens: Callable[..., Tensor]
) -> None:
    watching = Watching()
    model = Llama(make_llama(n_layers=1, n_kv_heads=4).config, ops=watching)
    cache = cache_for(model, 2, 12)
    step = DecodeStep(model, cache)
    for _ in range(12):
        step(random_tokens(2, 1))
    assert [len(set(watching.seen[start : start + 4])) for start in (0, 4, 8)] == [1, 1, 1]
    assert len(set(watching.seen)) == 3


def test_a_full_cache_refuses_more(make_llama: Callable[..., Llama], random_tokens: Callable[..., Tensor]) -> None:
    model, cache = make_llama(), cache_for(make_llama(), 1, 4)
    model(random_tokens(1, 3), cache)
    step = DecodeStep(model, cache)
    step(random_tokens(1, 1))
    with pytest.raises(ValueError, match=r"holds 4 positions, got 4 \+ 1"):
        step(random_tokens(1, 1))
    assert cache.length == 4


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("weights", ["fp32", "nf4-dq"])
def test_on_a_gpu_the_captured_step_gives_the_tokens_of_the_ordinary_path(weights: str, hf_folder: Path) -> None:
    model = load(hf_folder / "base", weights, torch.float32, "cuda")
    assert tokens_of(model, None, max_new_tokens=30) == tokens_of(model, False, max_new_tokens=30)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_on_a_gpu_a_replayed_step_has_the_logits_of_the_ordinary_one(make_llama: Callable[..., Llama]) -> None:
    model, tokens = make_llama().cuda(), torch.randint(3, 64, (2, 13)).cuda()
    ordinary, fixed = cache_for(model, 2, 13, "cuda"), cache_for(model, 2, 13, "cuda")
    for cache in (ordinary, fixed):
        model(tokens[:, :3], cache)
    step = DecodeStep(model, fixed)
    for token in tokens[:, 3:].split(1, dim=1):
        torch.testing.assert_close(step(token), model(token, ordinary)[:, -1], rtol=1e-5, atol=1e-5)
        assert step.captured is not None
