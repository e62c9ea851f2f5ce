"""Texts that come and go: each is to the byte what it is alone, and what ends or is given up makes room."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import lowrank
from lowrank.data.documents.document import make_documents
from lowrank.data.encoding.batching import prompt_for
from lowrank.grounding.decoding import Grounding
from lowrank.grounding.names import phrases_of
from lowrank.grounding.vocabulary import Vocabulary
from lowrank.kernels.cpu import library
from lowrank.layers.model_snapshot import ModelSnapshot
from lowrank.layers.prefix_cache import CHUNK, PrefixCache
from lowrank.layers.quantized_cache import use_cache_format
from lowrank.model.completion import Completion
from lowrank.model.continuous_batch import ContinuousBatch, Request, Row, bytes_a_position
from lowrank.model.generate import complete
from lowrank.model.llama import KVCache, Llama
from lowrank.model.tokenizer import Tokenizer

from .conftest import fill
from .test_cpu_decode import Letters

pytestmark = pytest.mark.skipif(
    bool(library.unavailable_reason()), reason=library.unavailable_reason() or "the library is there"
)

PROMPT = [1, 5, 9, 13, 17]


@dataclass
class Asked:
    """A text that is asked for: in a hat, after so many steps, and its constraint, which is made anew each time."""

    use: Any
    arrives: int
    constraint: Callable[[], Any]
    request: dict[str, Any]

    def alone(self, model: Llama, tokenizer: Any, prefixes: PrefixCache | None) -> Completion:
        given = {name: value for name, value in self.request.items() if name not in ("prompt", "sampling")}
        with lowrank.using_adapter(model, self.use):
            (completion,) = complete(
                model,
                tokenizer,
                [self.request["prompt"]],
                constraints=[self.constraint()],
                drafts=False,
                prefixes=prefixes,
                **given,
                **self.request.get("sampling", {}),
            )
        return completion

    def add(self, batch: ContinuousBatch) -> Row:
        with lowrank.using_adapter(batch.model, self.use):
            return batch.add(Request(constraint=self.constraint(), **self.request))


def written(batch: ContinuousBatch, asked: list[Asked]) -> Iterator[tuple[int, Completion]]:
    """The texts of a batch, each added when it arrives, as they end."""
    rows: dict[Row, int] = {}
    pieces: dict[Row, str] = {}
    step = 0
    while batch or len(rows) < len(asked):
        for number, one in enumerate(asked):
            if one.arrives == step:
                rows[one.add(batch)] = number
        for row in batch.step():
            pieces[row] = pieces.get(row, "") + row.new_text()
            if row.has_ended:
                assert row.completion is not None and pieces[row] == row.completion.text
                yield rows[row], row.completion
        step += 1


@pytest.mark.long
@pytest.mark.parametrize("prefixes", [False, True], ids=["whole", "in-chunks"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_a_text_is_what_it_is_alone_whoever_comes_and_goes(
    dtype: torch.dtype, prefixes: bool, embedded: Path, tokenizer: Tokenizer
) -> None:
    """Several hats and none, grounded and free, greedy and drawn; the log probabilities, and so the logits, too."""
    model = lowrank.load(embedded, "nf4-dq", dtype=dtype)
    for seed, name in enumerate(("red", "blue")):
        lowrank.add_adapter(model, name, rank=2 + 3 * seed, seed=seed)
        fill(model, name, seed, 0.02)
    chance, vocabulary = random.Random(f"{dtype} {prefixes}"), Vocabulary(tokenizer)
    asked = []
    for number, entry in enumerate(make_documents(14, seed=3, split="test")):
        prompt, answer = prompt_for("alpaca", tokenizer, entry.instruction, entry.input)
        is_grounded, is_drawn = chance.random() < 0.5, chance.random() < 0.5
        sampling = {"temperature": 0.8, "top_p": 0.95, "repetition_penalty": 1.1, "seed": number} if is_drawn else {}
        request = {
            "prompt": prompt,
            "answer": answer,
            "max_new_tokens": chance.choice([1, 2, 9, 24, 40]),
            "stop": chance.choice([(), (".",), ("\n", "million")]),
            "logprobs": chance.choice([None, 0, 3]),
            "sampling": sampling,
        }
        grounded = lambda entry=entry: Grounding(entry.facts, vocabulary, phrases_of(entry.kind))  # noqa: E731
        use = chance.choice([None, "red", "blue"])
        asked.append(Asked(use, chance.randrange(30), grounded if is_grounded else lambda: None, request))
    batch = ContinuousBatch(model, tokenizer, rows=5, prefixes=PrefixCache() if prefixes else None)
    found = dict(written(batch, asked))
    for number, one in enumerate(asked):
        assert found[number] == one.alone(model, tokenizer, PrefixCache() if prefixes else None), number
    assert len(batch) == batch.bytes == 0


def free(prompt: list[int], use: Any = "first", arrives: int = 0, **request: Any) -> Asked:
    return Asked(use, arrives, lambda: None, {"prompt": prompt, "max_new_tokens": 12, **request})


def several(count: int) -> list[Asked]:
    """Texts of other lengths in turns in either hat and none, all there at the beginning."""
    uses = ("first", "second", None)
    return [free(PROMPT[: 2 + n % 4], uses[n % 3], max_new_tokens=3 + 5 * n % 11, logprobs=1) for n in range(count)]


@pytest.mark.slow
@pytest.mark.parametrize("rows", [1, 8, 9, 64])
def test_a_step_is_one_call_for_all_texts_in_whatever_hats(rows: int, model: Llama, calls: list[int]) -> None:
    asked = several(rows)
    expected = [one.alone(model, Letters(), None) for one in asked]
    calls.clear()
    batch = ContinuousBatch(model, Letters(), rows=rows, parts_a_step=rows, drafts=False)
    found = dict(written(batch, asked))
    assert [found[number] for number in range(rows)] == expected
    lengths = [len(one.tokens) for one in expected]  # the first of each comes with its prompt
    assert calls == [sum(length > step for length in lengths) for step in range(1, max(lengths))]


def test_attributes_are_compared_once_where_nothing_changes_and_adapters_are_looked_at_all_the_same(
    model: Llama, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[None] = []
    attributes = ModelSnapshot._has_same_attributes
    monkeypatch.setattr(
        ModelSnapshot, "_has_same_attributes", lambda snapshot: (compared.append(None), attributes(snapshot))[1]
    )

    def texts(change: Callable[[], Any]) -> list[tuple[int, ...]]:
        assert model.fused_blocks is not None
        with model.fused_blocks.unchanged():
            batch = ContinuousBatch(model, Letters(), parts_a_step=4, drafts=False)
            rows = [free(PROMPT, use).add(batch) for use in ("first", "second", "first")]
            rows.append(batch.add(Request(PROMPT, 12)))  # in what the model itself wears
            for _ in range(5):
                batch.step()
            change()
            while batch:
                batch.step()
        return [row.completion.tokens for row in rows if row.completion is not None]

    lowrank.use_adapter(model, None)
    plain = texts(lambda: None)
    assert not compared  # each was described in the block
    changed = texts(lambda: lowrank.use_adapter(model, "second"))
    assert compared and changed[:3] == plain[:3] and changed[3][:5] == plain[3][:5] and changed[3] != plain[3]


def dora(model: Llama) -> None:
    lowrank.add_adapter(model, "dora", rank=4, dora=True)
    fill(model, "dora", 3)


ALONE: dict[str, tuple[Any, Callable[[Llama], Any]]] = {
    "a mix": ({"first": 0.5, "second": 0.5}, lambda model: None),
    "a DoRA": ("dora", dora),
    "a cache in int8": ("first", lambda model: use_cache_format(model, "int8")),
    "a hook": ("first", lambda model: model.norm.register_forward_hook(lambda *given: None)),
    "no library": ("first", lambda model: setattr(model, "fused_blocks", None)),
}


@pytest.mark.slow
@pytest.mark.parametrize("why", ALONE)
def test_what_cannot_join_the_others_is_written_beside_them(why: str, model: Llama) -> None:
    use, change = ALONE[why]
    change(model)
    asked = [*several(4), *(free(PROMPT[:n], use, n, logprobs=0) for n in (2, 3))]
    expected = [one.alone(model, Letters(), None) for one in asked]
    found = dict(written(ContinuousBatch(model, Letters(), rows=6), asked))
    assert [found[number] for number in range(6)] == expected


def test_hats_with_rows_of_their_own_of_the_embedding_and_head_stand_side_by_side(model: Llama) -> None:
    for path in ("tok_embeddings", "output"):
        module = lowrank.adapters.rows_module(model, path)
        rows = torch.randn(8, model.config.dim, generator=torch.Generator().manual_seed(len(path)))
        module.add("first", rows, torch.arange(3, 11))
    asked = several(6)
    expected = [one.alone(model, Letters(), None) for one in asked]
    assert dict(written(ContinuousBatch(model, Letters(), rows=6), asked)) == dict(enumerate(expected))
    assert expected[0] != expected[2]


@pytest.mark.slow
def test_a_text_that_is_alone_is_drafted_until_another_comes(
    model: Llama, calls: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lowrank.layers.pass_costs.costs_of", lambda *asked: (1.0,) * 8)
    for arrives in (1, 2, 5, 9, 14):
        asked = [free([1, *[5, 9, 13, 17, 21] * 6], max_new_tokens=30), free(PROMPT, "second", arrives)]
        expected = [one.alone(model, Letters(), None) for one in asked]
        assert dict(written(ContinuousBatch(model, Letters()), asked)) == dict(enumerate(expected))
    assert 2 in calls


def test_a_text_that_is_given_up_makes_room_and_changes_no_other(model: Llama) -> None:
    asked = several(4)
    expected = [one.alone(model, Letters(), None) for one in asked]
    batch = ContinuousBatch(model, Letters(), rows=2)
    doomed = [free(PROMPT, max_new_tokens=50).add(batch) for _ in range(3)]  # two are written, one waits
    for _ in range(4):
        batch.step()
    batch.cancel(doomed[0])
    rows = [one.add(batch) for one in asked]
    batch.cancel(doomed[2])
    batch.step()
    batch.cancel(doomed[1])
    batch.cancel(doomed[1])  # once is as good as twice
    heard = set()
    while batch:
        heard |= set(batch.step())
    assert heard == set(rows) and batch.bytes == 0
    assert [row.completion for row in rows] == expected
    assert not any(row.has_ended for row in doomed)


def test_what_does_not_fit_waits_and_what_never_can_is_refused_in_one_line(model: Llama) -> None:
    each = bytes_a_position(model)
    assert each == 2 * 2 * model.config.n_layers * model.config.n_kv_heads * model.config.head_dim * 2 + 4 * 2 * (
        model.config.head_dim // 2
    )
    batch = ContinuousBatch(model, Letters(), rows=8, cache_bytes=40 * each)
    rows = [free(PROMPT, max_new_tokens=n).add(batch) for n in (12, 12, 12, 5)]
    most = 0
    while batch:
        batch.step()
        most = max(most, batch.bytes)
    assert most == 34 * each <= batch.cache_bytes  # two texts, whoever waits behind them
    assert [len(row.completion.tokens) for row in rows if row.completion is not None] == [12, 12, 12, 5]
    with pytest.raises(ValueError, match=r"^5 tokens and 36 new ones need \d.* MB of keys and values") as told:
        free(PROMPT, max_new_tokens=36).add(batch)
    assert "\n" not in str(told.value) and not batch


def test_keys_and_values_take_what_is_counted(model: Llama) -> None:
    for format in (None, "int8"):
        use_cache_format(model, format)
        cache = model.cache_type(model.config, 1, 37, torch.float32, torch.device("cpu"))
        held = [*vars(cache).values()]
        tensors = [*(one for one in held if isinstance(one, Tensor)), *cache.angles]
        assert isinstance(cache, KVCache) and sum(one.nbytes for one in tensors) == 37 * bytes_a_position(model)


def test_a_long_prompt_is_read_in_parts_between_the_tokens_of_others(model: Llama) -> None:
    long = torch.randint(3, 60, (3 * CHUNK + 5,), generator=torch.Generator().manual_seed(1)).tolist()
    asked = [free(PROMPT, max_new_tokens=20), free(long, "second", 3), free(long[: CHUNK + 9], "second", 3)]
    expected = [one.alone(model, Letters(), PrefixCache()) for one in asked]
    prefixes = PrefixCache()
    batch = ContinuousBatch(model, Letters(), rows=4, prefixes=prefixes, drafts=False)
    first = asked[0].add(batch)
    others = [one.add(batch) for one in asked[1:]]
    order = []
    while batch:
        order.append({[first, *others].index(row) for row in batch.step()})
    assert order[:7] == [
        {0},
        {0},
        {0},
        {0},
        {0, 1},
        {0, 1, 2},
        {0, 1, 2},
    ]  # 4 parts, then 1: another is known
    assert [row.completion for row in (first, *others)] == expected
    assert prefixes.tokens_taken == CHUNK


def test_a_change_of_the_model_while_a_prompt_is_read_is_kept_from_later_ones(model: Llama) -> None:
    long = torch.randint(3, 60, (2 * CHUNK + 5,), generator=torch.Generator().manual_seed(1)).tolist()
    prefixes = PrefixCache()
    batch = ContinuousBatch(model, Letters(), prefixes=prefixes)
    free(long).add(batch)
    batch.step()
    with torch.no_grad():
        model.layers[0].attention.wq.lora_B["first"].mul_(-1)
    while batch:
        batch.step()
    row = free(long).add(batch)
    while batch:
        batch.step()
    assert row.completion == free(long).alone(model, Letters(), PrefixCache())


class Broken:
    """A constraint that fails at its third token."""

    unfinished = 0

    def __init__(self) -> None:
        self.taken = 0

    def is_allowed(self, token: int) -> bool:
        if self.taken == 2:
            raise LookupError("third token")
        return True

    def instead(self, token: int) -> Tensor:
        raise AssertionError("every token is allowed")

    def take(self, token: int) -> None:
        self.taken += 1


def test_an_error_of_one_text_ends_that_text_alone_if_it_is_expected(model: Llama) -> None:
    asked = [free(PROMPT), Asked("second", 0, Broken, {"prompt": PROMPT, "max_new_tokens": 9}), free(PROMPT, None)]
    batch = ContinuousBatch(model, Letters(), row_errors=(LookupError,))
    rows = [one.add(batch) for one in asked]
    while batch:
        batch.step()
    assert [type(row.error) for row in rows] == [type(None), LookupError, type(None)]
    for one, row in zip(asked[::2], rows[::2], strict=True):
        assert row.completion == one.alone(model, Letters(), None)
    batch = ContinuousBatch(model, Letters())
    asked[1].add(batch)
    with pytest.raises(LookupError, match="third token"):
        while batch:
            batch.step()


def test_logits_that_are_not_finite_end_their_text_and_name_the_layer(model: Llama) -> None:
    model.layers[0].attention.wq.lora_B["second"].data.fill_(float("nan"))
    batch = ContinuousBatch(model, Letters(), row_errors=(FloatingPointError,))
    rows = [free(PROMPT, use, max_new_tokens=4).add(batch) for use in ("first", "second", None)]
    while batch:
        batch.step()
    assert str(rows[1].error).endswith("layers.0.attention.wq is the first layer that gives NaN or infinity")
    assert rows[0].completion is not None and rows[2].completion is not None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1, got 0"),
        ({"prompt": []}, r"a prompt must have 1 to \d+ tokens, got \[0\]"),
        ({"stop": ("",)}, "stop: a text that ends a row must have a character"),
        ({"logprobs": 21}, "logprobs must be 0 to 20"),
        ({"sampling": {"temperature": -1.0}}, "temperature must be 0 or more, got -1.0"),
        ({"sampling": {"seed": [1, 2]}}, "seeds: one a row, got 2 for 1 rows"),
    ],
)
def test_a_request_that_is_none_is_refused_and_nothing_waits(
    changes: dict[str, Any], reason: str, model: Llama
) -> None:
    batch = ContinuousBatch(model, Letters())
    with pytest.raises(ValueError, match=reason):
        batch.add(Request(**{"prompt": PROMPT, "max_new_tokens": 3, **changes}))
    assert not batch and batch.step() == []


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"rows": 0}, "1 to 64 rows, got 0"), ({"rows": 65}, "1 to 64 rows, got 65"), ({"cache_bytes": 0}, "1 or more")],
)
def test_a_batch_without_room_is_refused(changes: dict[str, int], reason: str, model: Llama) -> None:
    with pytest.raises(ValueError, match=reason):
        ContinuousBatch(model, Letters(), **changes)
