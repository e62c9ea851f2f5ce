"""Drafts: the text of plain decoding to the byte, in fewer calls, and every change between two tokens is seen."""

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lowrank
from lowrank.kernels.cpu import library
from lowrank.kernels.cpu.decode_step import SAME_BITS_UP_TO
from lowrank.layers import pass_costs
from lowrank.model.drafts import Lookup
from lowrank.model.generate import complete, generate_tokens, stream
from lowrank.model.llama import KVCache, Llama
from lowrank.model.sampling import SamplingOptions

from .test_cpu_decode import CHANGES, REASONS, Letters

pytestmark = pytest.mark.skipif(
    bool(library.unavailable_reason()), reason=library.unavailable_reason() or "the library is there"
)

WORDS = [1, *[5, 9, 13, 17, 21, 25, 29] * 4]


@pytest.fixture(autouse=True)
def drafts_are_cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many tokens are drafted as may be, on any processor."""
    monkeypatch.setattr(pass_costs, "costs_of", lambda *asked: (1.0,) * SAME_BITS_UP_TO)


def written(model: Llama, drafts: bool | Lookup, **options: Any) -> list[list[int | None]]:
    return list(generate_tokens(model, [WORDS], max_new_tokens=40, drafts=drafts, **options))


def knowing(plain: list[list[int | None]]) -> Lookup:
    """A look-up that has seen a text, so that all of it is drafted: a random model does not repeat itself."""
    lookup = Lookup()
    lookup.add([*WORDS, *[token for (token,) in plain if token is not None]])
    return lookup


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("weights", ["nf4-dq", "fp4", "int8", "bf16", "dequant:nf4"])
@pytest.mark.parametrize("folder", ["hf-tiny-qlora/base", "meta-tiny-gqa-mp2"])
def test_logits_of_each_are_those_of_one_token_after_another(
    folder: str, weights: str, dtype: torch.dtype, golden: Any
) -> None:
    model = lowrank.load(golden / folder, weights, dtype=dtype)
    tokens = torch.randint(3, 60, (1, 5 + SAME_BITS_UP_TO), generator=torch.Generator().manual_seed(1))
    caches = [KVCache(model.config, 1, 16, dtype, torch.device("cpu")) for _ in range(2)]
    assert model.fused_blocks is not None
    with torch.inference_mode():
        for cache in caches:
            model.hidden(tokens[:, :5], cache)
        expected = [model.logits(model.hidden(token, caches[0])[:, -1]) for token in tokens[:, 5:].split(1, dim=1)]
        for count in range(1, SAME_BITS_UP_TO + 1):
            caches[1].length = 5
            over = model.fused_blocks.logits_of_each(model, tokens[:, 5 : 5 + count], caches[1])
            assert over is not None and torch.equal(over.logits, torch.cat(expected[:count]))
            assert caches[1].length == 5 + count and over.is_current()
    assert torch.equal(caches[0].k, caches[1].k) and torch.equal(caches[0].v, caches[1].v)


@pytest.mark.parametrize("weights", ["nf4-dq", "int8", "fp32", "bf16"])
def test_greedy_tokens_are_those_of_plain_decoding_in_fewer_calls(
    weights: str,
    hf_folder: Any,
    calls: list[int],
) -> None:
    model = lowrank.load(hf_folder / "base", weights)
    plain = written(model, False)
    steps = len(calls)
    assert written(model, knowing(plain)) == plain and len(calls) - steps < steps / 2


DRAWN: dict[str, SamplingOptions] = {
    "drawn": {"temperature": 0.8},
    "few": {"temperature": 1.5, "top_k": 20, "top_p": 0.9, "min_p": 0.01},
    "penalty": {"temperature": 0.5, "repetition_penalty": 1.3},
}


@pytest.mark.slow
@pytest.mark.parametrize("options", DRAWN.values(), ids=DRAWN)
def test_drawn_tokens_are_those_of_plain_decoding_for_any_seed(options: SamplingOptions, model: Llama) -> None:
    lookup = Lookup()
    for seed in range(8):
        plain = written(model, False, **{**options, "seed": seed})
        assert written(model, knowing(plain), **{**options, "seed": seed}) == plain
        assert written(model, lookup, **{**options, "seed": seed}) == plain


@pytest.mark.slow
def test_a_drafted_token_is_kept_with_its_probability(model: Llama) -> None:
    """Two tokens behind a prompt, drawn 600 times: the draft is one pair, and each pair has the share it has in p."""
    count, prompt = 600, [1, 5, 9, 13, 5, 9, 13, 5]
    options: SamplingOptions = {"temperature": 1.0, "top_k": 3}
    drawn: dict[tuple[int | None, ...], int] = {}
    for seed in range(count):
        pair = tuple(
            token for (token,) in generate_tokens(model, [prompt], max_new_tokens=2, drafts=True, seed=seed, **options)
        )
        drawn[pair] = drawn.get(pair, 0) + 1
    with torch.inference_mode():
        for first, share in shares(model, prompt):
            for second, further in shares(model, [*prompt, first]):
                p = share * further
                assert abs(drawn.get((first, second), 0) - count * p) < 5 * math.sqrt(count * p * (1 - p)) + 1


def shares(model: Llama, tokens: list[int]) -> list[tuple[int, float]]:
    logits, places = model(torch.tensor([tokens]))[0, -1].topk(3)
    return list(zip(places.tolist(), logits.softmax(-1).tolist(), strict=True))


class Odd:
    """A constraint that allows odd tokens and counts what it is asked and told."""

    unfinished = 0

    def __init__(self, vocabulary: int) -> None:
        self.may = torch.arange(vocabulary) % 2 == 1
        self.taken: list[int] = []

    def is_allowed(self, token: int) -> bool:
        return token % 2 == 1

    def instead(self, token: int) -> Tensor:
        return self.may

    def take(self, token: int) -> None:
        self.taken.append(token)


def test_a_constraint_hears_of_tokens_that_are_written_and_of_no_others(model: Llama) -> None:
    ours, theirs = Odd(model.config.vocab_size), Odd(model.config.vocab_size)
    plain = written(model, False, constraints=[theirs])
    assert written(model, knowing(plain), constraints=[ours]) == plain
    assert ours.taken == theirs.taken == [token for (token,) in plain]


def between(model: Llama, drafts: bool | Lookup, change: Callable[[Llama], Any]) -> list[list[int | None]]:
    """The tokens of a text during which something is changed, after its twelfth."""
    tokens = []
    for number, token in enumerate(generate_tokens(model, [WORDS], max_new_tokens=30, drafts=drafts)):
        tokens.append(token)
        if number == 11:
            change(model)
    return tokens


NUMBERS = ("numbers in place", "codes in place", "a norm in place")  # these must stay: `generate_tokens`


@pytest.mark.slow
@pytest.mark.parametrize("change", [name for name in (*CHANGES, *REASONS) if name not in NUMBERS])
def test_a_change_between_two_tokens_is_seen(change: str, model: Llama) -> None:
    if change == "a norm of another dtype":
        pytest.skip("no text goes on then, with drafts or without")
    apply, others = {**CHANGES, **REASONS}[change], copy.deepcopy(model)
    if change == "a hat for each row":
        apply = lambda model: lowrank.use_adapter(model, "second")  # noqa: E731  (a batch of one has one)
    lookup = knowing(written(model, False))
    assert between(model, lookup, apply) == between(others, False, apply)


def test_a_hook_of_the_head_is_told_of_every_token_once(model: Llama, calls: list[int]) -> None:
    told: list[int] = []
    lookup = knowing(written(model, False))
    handle = model.output.register_forward_hook(lambda module, given, output: told.append(len(output)))
    tokens = written(model, lookup)
    handle.remove()
    assert told == [1] * len(tokens) and written(model, False) == tokens


def test_a_head_of_another_kind_is_asked_for_each_row(model: Llama) -> None:
    head = nn.Linear(model.config.dim, model.config.vocab_size, bias=False)
    head.weight = nn.Parameter(model.output.weight.detach().clone(), requires_grad=False)
    model.output = head
    plain = written(model, False)
    assert written(model, knowing(plain)) == plain


@pytest.mark.slow
def test_texts_in_turns_in_other_hats_do_not_mix(model: Llama) -> None:
    lookups = {}
    for name in ("first", "second", None):
        with lowrank.using_adapter(model, name):
            lookups[name] = knowing(written(model, False))

    def begun(is_drafted: bool) -> list[Any]:
        streams = []
        for name in ("first", "second", None):
            with lowrank.using_adapter(model, name):
                streams.append(generate_tokens(model, [WORDS], max_new_tokens=20, drafts=is_drafted and lookups[name]))
        return streams

    assert list(zip(*begun(True), strict=True)) == list(zip(*begun(False), strict=True))


def test_a_text_that_fills_the_context_ends_there(model: Llama) -> None:
    room = model.config.max_seq_len - len(WORDS)
    plain = list(generate_tokens(model, [WORDS], max_new_tokens=room + 5))
    drafted = generate_tokens(model, [WORDS], max_new_tokens=room + 5, drafts=knowing(plain))
    assert list(drafted) == plain and len(plain) == room


def test_texts_and_their_ends_are_those_of_plain_decoding(model: Llama) -> None:
    prompt = "".join(map(chr, WORDS[1:]))
    for stop in ((), "5", ("17 2", "9 9")):
        plain = complete(model, Letters(), prompt, max_new_tokens=40, stop=stop, drafts=False)
        lookup = Lookup()
        lookup.add([*WORDS, *plain[0].tokens])
        assert complete(model, Letters(), prompt, max_new_tokens=40, stop=stop, drafts=lookup) == plain
        assert complete(model, Letters(), prompt, max_new_tokens=40, stop=stop) == plain
        pieces = list(stream(model, Letters(), prompt, max_new_tokens=40, stop=stop, drafts=lookup))
        assert "".join(pieces) == plain[0].text


def test_several_rows_and_fixed_shapes_are_not_drafted(model: Llama, calls: list[int]) -> None:
    list(generate_tokens(model, [WORDS, WORDS], max_new_tokens=5, drafts=True))
    assert calls == [2] * 4
    with torch.inference_mode():
        assert len(list(generate_tokens(model, [WORDS], max_new_tokens=5, drafts=True, fixed_shapes=True))) == 5


def test_a_committed_row_is_found_for_every_instruction_set_and_storage() -> None:
    for name in library.INSTRUCTION_SETS:
        for storage in ("dense", "4-bit", "int8"):
            for size in ("small", "large"):
                costs = pass_costs.costs_of(name, "float32", storage, size)
                assert costs[0] == 1 and len(costs) <= SAME_BITS_UP_TO
                assert all(cost >= 1 for cost in costs)
