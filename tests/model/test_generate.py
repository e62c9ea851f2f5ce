"""Sampling by hand-worked probabilities, and batches that give what each row gives alone."""

import pytest
import torch
from torch import Tensor

from lowrank.loader import load
from lowrank.model.generate import generate, generate_tokens, sample, stream

EOS = 2


class Letters:
    """A tokenizer whose ids 3 .. 63 are characters: enough to drive `generate`."""

    eos_id = EOS

    def encode(self, text: str, *, bos: bool, eos: bool) -> list[int]:
        return [1] * bos + [ord(letter) - 64 + 3 for letter in text] + [EOS] * eos

    def decode(self, ids: list[int]) -> str:
        return "".join(chr(token + 64 - 3) for token in ids)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rows_of(model, prompts: list[list[int]], **options) -> list[list[int | None]]:
    return [list(row) for row in zip(*generate_tokens(model, prompts, **options), strict=True)]


def test_greedy_tokens_of_transformers(hf_folder, hf_reference) -> None:
    stored = hf_reference["greedy"].tolist()
    assert rows_of(load(hf_folder / "base", "fp32"), [stored[0][:16]], max_new_tokens=24) == [stored[0][16:]]


def test_temperature_0_takes_the_likeliest_whatever_the_seed() -> None:
    logits = torch.tensor([[0.0, 3.0, 2.0], [1.0, -5.0, 0.0]])
    assert {tuple(sample(logits, 0.0, 0.1, generator(seed)).tolist()) for seed in range(5)} == {(1, 0)}


@pytest.mark.parametrize(
    ("top_p", "kept"),
    [(0.0, {2}), (0.4, {2}), (0.6, {2, 0}), (0.8, {2, 0, 3}), (0.95, {2, 0, 3, 1}), (1.0, {2, 0, 3, 1})],
)
def test_a_token_stays_while_the_likelier_ones_are_at_most_top_p(top_p: float, kept: set[int]) -> None:
    # From the likeliest, tokens 2, 0, 3, 1: the likelier ones have 0, 0.5, 0.75 and 0.9 together.
    logits = torch.tensor([0.25, 0.1, 0.5, 0.15]).log()
    assert set(sample(logits.expand(4000, -1), 1.0, top_p, generator()).tolist()) == kept


def test_a_token_stays_when_the_likelier_ones_are_exactly_top_p() -> None:
    assert set(sample(torch.zeros(1000, 2), 1.0, 0.5, generator()).tolist()) == {0, 1}


def test_what_stays_is_drawn_in_proportion() -> None:
    logits = torch.tensor([0.5, 0.25, 0.125, 0.125]).log().expand(100_000, -1)
    counts = sample(logits, 1.0, 0.6, generator()).bincount(minlength=4)
    # Two tokens stay, 2 : 1; six standard deviations of a binomial draw.
    assert abs(counts[0] - 100_000 * 2 / 3) < 6 * (100_000 * 2 / 9) ** 0.5
    assert counts[2:].tolist() == [0, 0]


def test_temperature_sharpens() -> None:
    logits = torch.tensor([0.8, 0.2]).log().expand(100_000, -1)
    counts = sample(logits, 0.5, 1.0, generator()).bincount(minlength=2)
    share = 0.64 / (0.64 + 0.04)
    assert abs(counts[0] - 100_000 * share) < 6 * (100_000 * share * (1 - share)) ** 0.5


def test_a_seed_decides_the_text(make_llama) -> None:
    model, prompts = make_llama(), [[1, 9, 8], [1, 5, 7]]
    options = {"max_new_tokens": 12, "temperature": 1.0, "top_p": 0.9}
    assert rows_of(model, prompts, seed=3, **options) == rows_of(model, prompts, seed=3, **options)
    assert rows_of(model, prompts, seed=3, **options) != rows_of(model, prompts, seed=4, **options)


@pytest.mark.parametrize("layout", ["interleaved", "half"])
def test_prompts_of_different_lengths_give_what_each_gives_alone(layout: str, make_llama) -> None:
    model = make_llama(rope_layout=layout)
    prompts = [[1, 9, 8, 7, 6, 5, 4, 3], [1, 11], [1, 20, 30, 40, 50]]
    together = rows_of(model, prompts, max_new_tokens=20)
    assert together == [rows_of(model, [prompt], max_new_tokens=20)[0] for prompt in prompts]


def test_a_row_that_has_ended_gives_nothing_more_and_the_others_go_on(make_llama) -> None:
    model, prompts = make_llama(), [[1, 9, 8], [1, 5, 7]]
    first, second = rows_of(model, prompts, max_new_tokens=10)
    eos = next(token for token in first if token not in second)
    stop = first.index(eos)
    ended = rows_of(model, prompts, max_new_tokens=10, eos_id=eos)
    assert ended == [first[:stop] + [None] * (10 - stop), second]


def test_it_stops_when_every_row_has_ended(make_llama) -> None:
    model = make_llama()
    free = rows_of(model, [[1, 9, 8]], max_new_tokens=10)[0]
    steps = list(generate_tokens(model, [[1, 9, 8]], max_new_tokens=10, eos_id=free[3]))
    assert [token for (token,) in steps] == free[: free.index(free[3])]


@pytest.mark.parametrize(("length", "given"), [(60, 4), (63, 1), (5, 20)])
def test_it_stops_at_the_length_of_the_model(length: int, given: int, make_llama) -> None:
    assert len(rows_of(make_llama(), [[1] * length], max_new_tokens=20)[0]) == given


@pytest.mark.parametrize("prompts", [[[]], [[1], []], [[1] * 64], [[1], [1] * 99]], ids=lambda p: str([*map(len, p)]))
def test_a_prompt_without_room_is_refused(prompts: list[list[int]], make_llama) -> None:
    with pytest.raises(ValueError, match="a prompt must have 1 to 63 tokens"):
        list(generate_tokens(make_llama(), prompts, max_new_tokens=3))


def test_text_is_the_tokens_of_the_prompts(make_llama) -> None:
    model, tokens = make_llama(), rows_of(make_llama(), [[1, 4, 5, 6], [1, 20]], max_new_tokens=8, eos_id=EOS)
    texts = [Letters().decode([token for token in row if token is not None]) for row in tokens]
    assert generate(model, Letters(), ["ABC", "Q"], max_new_tokens=8) == texts
    assert generate(model, Letters(), "ABC", max_new_tokens=8) == texts[:1]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_pieces_of_a_stream_join_to_the_text(temperature: float, make_llama) -> None:
    options = {"max_new_tokens": 9, "temperature": temperature, "seed": 5}
    pieces = list(stream(make_llama(), Letters(), "ABC", **options))
    assert len(pieces) > 3
    assert ["".join(pieces)] == generate(make_llama(), Letters(), "ABC", **options)


def test_a_character_of_several_tokens_is_streamed_whole(make_llama) -> None:
    class Halves(Letters):
        def decode(self, ids: list[int]) -> str:
            return "é" * (len(ids) // 2) + "\N{REPLACEMENT CHARACTER}" * (len(ids) % 2)

    pieces = list(stream(make_llama(), Halves(), "ABC", max_new_tokens=6))
    assert "".join(pieces) == "ééé"
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)


def test_the_last_row_of_logits_is_what_is_sampled(make_llama) -> None:
    model, prompt = make_llama(), torch.tensor([[1, 9, 8]])
    expected: Tensor = model(prompt)[:, -1].argmax(-1)
    assert rows_of(model, prompt.tolist(), max_new_tokens=1) == [expected.tolist()]
