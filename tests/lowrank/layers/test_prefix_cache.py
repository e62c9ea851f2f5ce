"""Beginnings of prompts: a hit gives the bytes of a miss, and nothing is taken over that another model has read."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from error_bounds import assert_as_exact_as_plain
from torch import Tensor

import lowrank
from lowrank.layers.prefix_cache import CHUNK, LEAST_SHARED, PrefixCache
from lowrank.model.forward import value_of
from lowrank.model.generate import generate_tokens
from lowrank.model.llama import KVCache, Llama, Prefixes

from .conftest import fill

COMMON = 2 * CHUNK + 7  # tokens that the prompts have in common: two chunks, and some


def prompts() -> list[list[int]]:
    """Prompts that begin alike, of lengths at which chunks end, begin, and are one token."""
    common = draw(COMMON, 1)
    lengths = (COMMON, COMMON + 1, 3 * CHUNK, 3 * CHUNK + 1, 2 * CHUNK + 1, 2 * CHUNK, CHUNK, CHUNK + 1, 5)
    return [(common + draw(CHUNK, length))[:length] for length in lengths]


def draw(count: int, seed: int) -> list[int]:
    drawn: list[int] = torch.randint(3, 60, (count,), generator=torch.Generator().manual_seed(seed)).tolist()
    return drawn


@torch.inference_mode()
def read(model: Llama, prompt: list[int], prefixes: Prefixes, capacity: int = 0) -> list[Tensor]:
    """The hidden state behind a prompt, and its keys and values."""
    cache = KVCache(
        model.config, 1, capacity or len(prompt) + 3, model.tok_embeddings.weight.dtype, torch.device("cpu")
    )
    hidden = value_of(prefixes.read(model, torch.tensor([prompt]), cache))
    assert cache.length == len(prompt) and hidden.shape == (1, 1, model.config.dim)
    return [hidden, cache.k[:, :, :, : len(prompt)], cache.v[:, :, :, : len(prompt)]]


def equal(ours: list[Tensor], theirs: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("weights", ["nf4-dq", "int8", "fp32"])
def test_a_hit_gives_the_bytes_of_a_miss_in_any_order(weights: str, dtype: torch.dtype, hf_folder: Path) -> None:
    model = lowrank.load(hf_folder / "base", weights, dtype=dtype)
    missed = [read(model, prompt, PrefixCache()) for prompt in prompts()]
    for order in (1, -1):
        warm = PrefixCache()
        for prompt, expected in list(zip(prompts(), missed, strict=True))[::order] * 2:
            assert equal(read(model, prompt, warm, 3 * CHUNK + 40), expected)
        assert warm.tokens_taken > warm.tokens_read


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("weights", ["nf4-dq", "int8", "fp32"])
def test_a_task_has_the_bytes_of_a_miss_whatever_is_kept(weights: str, dtype: torch.dtype, hf_folder: Path) -> None:
    model = lowrank.load(hf_folder / "base", weights, dtype=dtype)
    tasks = [(prompt, min(COMMON, len(prompt) - 1)) for prompt in prompts()]
    missed = [read(model, prompt, PrefixCache().of_task(shared)) for prompt, shared in tasks]
    for order in (1, -1):
        for keeps_whole in (True, False):
            warm = PrefixCache()
            for (prompt, shared), expected in list(zip(tasks, missed, strict=True))[::order] * 2:
                assert equal(read(model, prompt, warm.of_task(shared, keeps_whole=keeps_whole)), expected)
            assert warm.tokens_taken > 3 * COMMON


def test_what_a_task_shares_is_read_once_and_a_whole_prompt_that_comes_again_not_at_all(
    model: Llama, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    hidden = Llama.hidden
    monkeypatch.setattr(Llama, "hidden", lambda self, t, *given: (calls.append(t.shape[1]), hidden(self, t, *given))[1])
    one, other = draw(COMMON, 1) + draw(9, 2), draw(COMMON, 1) + draw(20, 3)
    kept = PrefixCache()
    for prompt in (one, other, one):
        read(model, prompt, kept.of_task(COMMON, keeps_whole=True))
    read(model, one, kept.of_task(COMMON, keeps_whole=True), capacity=300)  # has other strides
    assert calls == [COMMON, 9, 20, 9]
    calls.clear()
    few = LEAST_SHARED - 1
    for prompt in (one, other):
        whole = read(model, prompt, PrefixCache().of_task(few))
        assert calls == [len(prompt)] and equal(whole, read(model, prompt, NoPrefixes()))
        calls.clear()


class NoPrefixes:
    """Reads a prompt as it is read where nothing is kept."""

    def read(self, model: Llama, tokens: Tensor, cache: KVCache) -> Any:
        yield from ()
        return model.hidden(tokens, cache)[:, -1:]


@pytest.mark.slow
def test_a_prompt_in_chunks_is_as_exact_as_one_that_is_read_whole(model: Llama) -> None:
    wide, ours, theirs, truth = copy.deepcopy(model).double(), [], [], []
    for prompt in prompts():
        ours.append(read(model, prompt, PrefixCache())[0])
        with torch.inference_mode():
            theirs.append(model.hidden(torch.tensor([prompt]))[:, -1:])
            truth.append(wide.hidden(torch.tensor([prompt]))[:, -1:])
    assert_as_exact_as_plain(torch.cat(ours), torch.cat(theirs), torch.cat(truth))


@pytest.mark.slow
def test_texts_are_equal_whatever_was_read_before(model: Llama) -> None:
    def written(prefixes: Prefixes, prompt: list[int], **options: Any) -> list[list[int | None]]:
        return list(generate_tokens(model, [prompt], max_new_tokens=6, prefixes=prefixes, **options))

    shared, tasks = PrefixCache(), PrefixCache()
    for options in ({}, {"temperature": 0.9, "seed": 3}, {"drafts": True}):
        for prompt in prompts():
            assert written(shared, prompt, **options) == written(PrefixCache(), prompt, **options)
            missed = written(PrefixCache().of_task(COMMON), prompt, **options)
            for keeps_whole in (False, True):
                assert written(tasks.of_task(COMMON, keeps_whole=keeps_whole), prompt, **options) == missed
    assert shared.tokens_taken > 0 and tasks.tokens_taken > 0


CHANGES: dict[str, Callable[[Llama], Any]] = {
    "numbers of a hat": lambda model: model.layers[0].attention.wq.lora_B["first"].mul_(2),
    "a hat under its name": lambda model: again(model),
    "a norm": lambda model: model.norm.weight.mul_(2),
    "the mode": lambda model: model.train(),
}


def again(model: Llama) -> None:
    lowrank.drop_adapter(model, "first")
    lowrank.add_adapter(model, "first", rank=4, seed=8)
    fill(model, "first", 5)
    lowrank.use_adapter(model, "first")


WAYS: dict[str, Callable[[PrefixCache], Prefixes]] = {
    "in-chunks": lambda prefixes: prefixes,
    "a-task": lambda prefixes: prefixes.of_task(LEAST_SHARED, keeps_whole=True),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("change", CHANGES)
def test_after_a_change_all_is_read_again(change: str, way: str, model: Llama) -> None:
    prompt, warm = prompts()[0], PrefixCache()
    before = read(model, prompt, WAYS[way](warm))
    with torch.no_grad():
        CHANGES[change](model)
    after = read(model, prompt, WAYS[way](warm))
    assert warm.tokens_taken == 0 and equal(after, read(model, prompt, WAYS[way](PrefixCache())))
    assert equal(after, before) is (change == "the mode")


def test_each_hat_has_its_own(model: Llama) -> None:
    prompt, warm = prompts()[0], PrefixCache()
    tasks = PrefixCache()
    for _ in range(2):
        for name in ("first", "second", None):
            with lowrank.using_adapter(model, name):
                assert equal(read(model, prompt, warm), read(model, prompt, PrefixCache()))
                assert equal(
                    read(model, prompt, tasks.of_task(CHUNK)), read(model, prompt, PrefixCache().of_task(CHUNK))
                )
    assert warm.tokens_taken == 3 * 2 * CHUNK and tasks.tokens_taken == 3 * CHUNK


def test_a_limit_is_kept_and_the_ends_of_prompts_go_first(model: Llama) -> None:
    config, long = model.config, draw(4 * CHUNK + 1, 2)
    chunk = 2 * config.n_layers * config.n_kv_heads * config.head_dim * CHUNK * 4
    few = PrefixCache(3 * chunk)
    read(model, long, few)
    assert few.bytes <= 3 * chunk
    read(model, draw(CHUNK + 1, 3), few)
    assert few.bytes <= 3 * chunk
    none = PrefixCache(chunk - 1)
    for _ in range(2):
        read(model, long, none)
        read(model, long, none.of_task(CHUNK, keeps_whole=True))
    assert none.bytes == none.tokens_taken == 0
    for seed in range(5):
        read(model, draw(CHUNK + 1, seed), few.of_task(CHUNK, keeps_whole=True))
        assert few.bytes <= 3 * chunk
    with pytest.raises(ValueError, match="0 bytes or more"):
        PrefixCache(-1)


def test_a_hook_sees_every_token_and_gradients_are_left_alone(model: Llama) -> None:
    prompt, warm, told = prompts()[0], PrefixCache(), []
    read(model, prompt, warm)
    handle = model.layers[0].register_forward_hook(lambda module, given, output: told.append(output.shape[1]))
    read(model, prompt, warm)
    handle.remove()
    assert told == [len(prompt)]
    cache = KVCache(model.config, 1, len(prompt), torch.float32, torch.device("cpu"))
    assert value_of(warm.read(model, torch.tensor([prompt]), cache)).requires_grad


def test_another_model_does_not_take_what_one_has_read(model: Llama, hf_folder: Path) -> None:
    prompt, warm = prompts()[0], PrefixCache()
    read(model, prompt, warm)
    other = lowrank.load(hf_folder / "base", "fp32")
    assert equal(read(other, prompt, warm), read(other, prompt, PrefixCache())) and warm.tokens_taken == 0
