"""Tokens and texts: batches that give what each row gives alone, streams, stop strings, and who may write what."""

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from letters import EOS, Letters
from torch import Tensor

from lowrank.adapters import adapter_parameters, add_adapter, use_adapter, using_adapter
from lowrank.checkpoints.load import load
from lowrank.model.completion import Completion
from lowrank.model.generate import generate, generate_tokens, stream
from lowrank.model.llama import Llama


def rows_of(model, prompts: list[list[int]], **options) -> list[list[int | None]]:
    return [list(row) for row in zip(*generate_tokens(model, prompts, **options), strict=True)]


def test_greedy_tokens_of_transformers(hf_folder: Path, hf_reference: dict[str, Tensor]) -> None:
    stored = hf_reference["greedy"].tolist()
    assert rows_of(load(hf_folder / "base", "fp32"), [stored[0][:16]], max_new_tokens=24) == [stored[0][16:]]


def test_a_seed_decides_the_text(make_llama: Callable[..., Llama]) -> None:
    model, prompts = make_llama(), [[1, 9, 8], [1, 5, 7]]
    options = {"max_new_tokens": 12, "temperature": 1.0, "top_p": 0.9}
    assert rows_of(model, prompts, seed=3, **options) == rows_of(model, prompts, seed=3, **options)
    assert rows_of(model, prompts, seed=3, **options) != rows_of(model, prompts, seed=4, **options)


SAMPLED = {"temperature": 1.0, "top_k": 40, "top_p": 0.95, "min_p": 0.01, "repetition_penalty": 1.2, "seed": 3}


@pytest.mark.slow
@pytest.mark.parametrize("fixed_shapes", [False, True], ids=["ordinary", "fixed"])
@pytest.mark.parametrize("options", [{}, SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize("layout", ["interleaved", "half"])
def test_prompts_of_different_lengths_give_what_each_gives_alone(
    layout: str, options: dict[str, float], fixed_shapes: bool, make_llama: Callable[..., Llama]
) -> None:
    model = make_llama(rope_layout=layout)
    prompts = [[1, 9, 8, 7, 6, 5, 4, 3], [1, 11], [1, 20, 30, 40, 50]]
    options = {**options, "max_new_tokens": 20, "fixed_shapes": fixed_shapes}
    fused_projections = rows_of(model, prompts, **options)
    assert fused_projections == [rows_of(model, [prompt], **options)[0] for prompt in prompts]


def test_rows_may_have_seeds_of_their_own(make_llama: Callable[..., Llama]) -> None:
    model, options = make_llama(), {"max_new_tokens": 12, "temperature": 1.0}
    fused_projections = rows_of(model, [[1, 9, 8]] * 3, seed=[5, 6, 5], **options)
    assert fused_projections[0] == fused_projections[2] != fused_projections[1]
    assert fused_projections[1] == rows_of(model, [[1, 9, 8]], seed=6, **options)[0]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"temperature": -1}, "temperature must be 0 or more, got -1"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": 0}, r"top_p must be in \(0, 1\]"),
        ({"top_k": -1}, "top_k"),
        ({"min_p": 1.5}, "min_p"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"seed": [1, 2]}, "seeds: one a row, got 2 for 1 rows"),
        ({"constraints": [None] * 3}, "constraints: one a row, got 3 for 1 rows"),
    ],
)
def test_options_out_of_range_are_refused_at_once(
    options: dict[str, float], reason: str, make_llama: Callable[..., Llama]
) -> None:
    with pytest.raises(ValueError, match=reason):
        generate_tokens(make_llama(), [[1, 9]], max_new_tokens=3, **options)


def test_a_row_that_has_ended_gives_nothing_more_and_the_others_go_on(make_llama: Callable[..., Llama]) -> None:
    model, prompts = make_llama(), [[1, 9, 8], [1, 5, 7]]
    first, second = rows_of(model, prompts, max_new_tokens=10)
    eos = next(token for token in first if token not in second)
    stop = first.index(eos)
    ended = rows_of(model, prompts, max_new_tokens=10, eos_id=eos)
    assert ended == [first[:stop] + [None] * (10 - stop), second]


def test_it_stops_when_every_row_has_ended(make_llama: Callable[..., Llama]) -> None:
    model = make_llama()
    free = rows_of(model, [[1, 9, 8]], max_new_tokens=10)[0]
    steps = list(generate_tokens(model, [[1, 9, 8]], max_new_tokens=10, eos_id=free[3]))
    assert [token for (token,) in steps] == free[: free.index(free[3])]


@pytest.mark.parametrize("most", [0, -1, 2.0, True])
def test_a_number_of_tokens_below_one_is_refused(most: int, make_llama: Callable[..., Llama]) -> None:
    with pytest.raises(ValueError, match=f"max_new_tokens must be at least 1, got {most}"):
        generate_tokens(make_llama(), [[1, 2]], max_new_tokens=most)


def test_any_of_several_end_tokens_ends_a_row(make_llama: Callable[..., Llama]) -> None:
    model = make_llama()
    free = rows_of(model, [[1, 9, 8]], max_new_tokens=10)[0]
    steps = list(generate_tokens(model, [[1, 9, 8]], max_new_tokens=10, eos_id=[free[7], free[3]]))
    assert [token for (token,) in steps] == free[: min(free.index(free[3]), free.index(free[7]))]
    with pytest.raises(ValueError, match="eos_id must be token ids, got '2'"):
        generate_tokens(model, [[1, 9, 8]], max_new_tokens=10, eos_id=["2"])


def test_no_prompts_give_no_texts(make_llama: Callable[..., Llama]) -> None:
    assert generate(make_llama(), Letters(), [], max_new_tokens=3) == []
    assert list(generate_tokens(make_llama(), [], max_new_tokens=3)) == []


def test_each_row_of_a_batch_fills_its_own_context_and_the_end_is_told(make_llama: Callable[..., Llama]) -> None:
    model, prompts = make_llama(), [[1, 9, 8], [1, 5, 7] * 20]
    alone = [rows_of(model, [prompt], max_new_tokens=50)[0] for prompt in prompts]
    told: list[tuple[int, str]] = []
    rows = rows_of(model, prompts, max_new_tokens=50, ended=lambda row, end: told.append((row, end)))
    assert [[token for token in row if token is not None] for row in rows] == alone
    assert list(map(len, alone)) == [50, 4] and told == [(1, "context"), (0, "max_new_tokens")]


def test_tokens_that_no_piece_has_are_never_drawn(make_llama: Callable[..., Llama]) -> None:
    model = make_llama()
    free = set(rows_of(model, [[1, 9, 8]], max_new_tokens=20)[0])
    for options in ({}, {"temperature": 5.0}):
        never = [*free, *range(40, 64)]
        rows = rows_of(model, [[1, 9, 8]], max_new_tokens=40, never=never, **options)
        assert not set(rows[0]) & set(never)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize(
    ("tensor", "named"),
    [
        ("layers.1.feed_forward.w2.weight", "layers.1.feed_forward.w2"),
        ("layers.0.attention.wv.weight", "layers.0.attention.wv"),
        ("layers.0.ffn_norm.weight", "layers.0.ffn_norm"),
        ("norm.weight", "norm"),
        ("output.weight", "output"),
    ],
)
def test_logits_that_are_not_finite_name_the_first_layer(
    tensor, named, temperature, make_llama: Callable[..., Llama]
) -> None:
    model = make_llama()
    model.get_parameter(tensor).data.flatten()[3] = float("nan")
    with pytest.raises(FloatingPointError) as told:
        generate(model, Letters(), ["ABC", "Q"], max_new_tokens=5, temperature=temperature)
    assert str(told.value) == (
        f"the logits of row 0 are not finite behind 4 tokens: {named} is the first layer that gives NaN or infinity"
    )


@pytest.mark.parametrize("temperature", [1e-40, 1e-320])
def test_a_tiny_temperature_takes_the_likeliest_token(temperature: float, make_llama: Callable[..., Llama]) -> None:
    greedy = rows_of(make_llama(), [[1, 9, 8]], max_new_tokens=10)
    assert rows_of(make_llama(), [[1, 9, 8]], max_new_tokens=10, temperature=temperature) == greedy
    rows_of(make_llama(), [[1, 9, 8]], max_new_tokens=10, temperature=1.0, repetition_penalty=1e-40)


@pytest.mark.parametrize("padding", [[-1, 0], [3, 0], [0], [0, 0, 0]])
def test_padding_that_leaves_a_row_no_token_is_refused(padding: list[int], make_llama: Callable[..., Llama]) -> None:
    with pytest.raises(ValueError, match="padding must be 0 to 2 for each of 2 rows"):
        make_llama()(torch.tensor([[1, 2, 3], [4, 5, 6]]), padding=torch.tensor(padding))


@pytest.mark.parametrize(("length", "given"), [(60, 4), (63, 1), (5, 20)])
def test_it_stops_at_the_length_of_the_model(length: int, given: int, make_llama: Callable[..., Llama]) -> None:
    assert len(rows_of(make_llama(), [[1] * length], max_new_tokens=20)[0]) == given


@pytest.mark.parametrize("prompts", [[[]], [[1], []], [[1] * 64], [[1], [1] * 99]], ids=lambda p: str([*map(len, p)]))
def test_a_prompt_without_room_is_refused(prompts: list[list[int]], make_llama: Callable[..., Llama]) -> None:
    with pytest.raises(ValueError, match="a prompt must have 1 to 63 tokens"):
        list(generate_tokens(make_llama(), prompts, max_new_tokens=3))


def test_text_is_the_tokens_of_the_prompts(make_llama: Callable[..., Llama]) -> None:
    model, tokens = make_llama(), rows_of(make_llama(), [[1, 4, 5, 6], [1, 20]], max_new_tokens=8, eos_id=EOS)
    texts = [Letters().decode([token for token in row if token is not None]) for row in tokens]
    assert generate(model, Letters(), ["ABC", "Q"], max_new_tokens=8) == texts
    assert generate(model, Letters(), "ABC", max_new_tokens=8) == texts[:1]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_pieces_of_a_stream_join_to_the_text(temperature: float, make_llama: Callable[..., Llama]) -> None:
    options = {"max_new_tokens": 9, "temperature": temperature, "seed": 6}
    pieces = list(stream(make_llama(), Letters(), "ABC", **options))
    assert len(pieces) > 3
    assert ["".join(pieces)] == generate(make_llama(), Letters(), "ABC", **options)


def test_a_character_of_several_tokens_is_streamed_whole(make_llama: Callable[..., Llama]) -> None:
    class Halves(Letters):
        def __init__(self) -> None:
            self.halves = itertools.cycle("é".encode())

        def token_bytes(self, token: int) -> bytes:
            return bytes([next(self.halves)])

    pieces = list(stream(make_llama(), Halves(), "ABC", max_new_tokens=6))
    assert "".join(pieces) == "ééé"
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)
    cut = list(stream(make_llama(), Halves(), "ABC", max_new_tokens=5))
    assert "".join(cut) == "éé\N{REPLACEMENT CHARACTER}" and cut[-1] == "\N{REPLACEMENT CHARACTER}"


def test_the_last_row_of_logits_is_what_is_sampled(make_llama: Callable[..., Llama]) -> None:
    model, prompt = make_llama(), torch.tensor([[1, 9, 8]])
    expected: Tensor = model(prompt)[:, -1].argmax(-1)
    assert rows_of(model, prompt.tolist(), max_new_tokens=1) == [expected.tolist()]


# Stop strings


def test_a_row_ends_before_its_first_stop_string_and_the_others_go_on(make_llama: Callable[..., Llama]) -> None:
    model, free = make_llama(), generate(make_llama(), Letters(), ["ABC", "Q"], max_new_tokens=20)
    stop = free[0][7:9]
    assert stop not in free[1]
    assert generate(model, Letters(), ["ABC", "Q"], max_new_tokens=20, stop=["\0", stop]) == [
        free[0][: free[0].index(stop)],
        free[1],
    ]
    with pytest.raises(ValueError, match="stop"):
        generate(model, Letters(), "ABC", max_new_tokens=20, stop=[""])


def test_a_stop_string_may_be_given_alone(make_llama: Callable[..., Llama]) -> None:
    whole = generate(make_llama(), Letters(), "ABC", max_new_tokens=20)[0]
    stop = whole[3:6]
    cut = generate(make_llama(), Letters(), "ABC", max_new_tokens=20, stop=stop)
    assert cut == [whole[: whole.index(stop)]]


class Forced:
    """A row that may write given tokens only."""

    unfinished = 0

    def __init__(self, tokens: list[int], size: int) -> None:
        self.tokens, self.size = iter(tokens), size

    def is_allowed(self, token: int) -> bool:
        return False

    def instead(self, token: int) -> Tensor:
        return torch.arange(self.size) == next(self.tokens)

    def take(self, token: int) -> None:
        pass


def test_prompt_and_text_join_and_an_answer_stands_by_itself(embedded: Path, tokenizer) -> None:
    model = load(embedded, "fp32")
    whole, head = "The balance sheet shows cash", "The balance sheet"
    ids = tokenizer.encode(whole)[len(tokenizer.encode(head)) :]

    def written(prompt: str, **options) -> list[str]:
        row = Forced([*ids, tokenizer.eos_id], tokenizer.vocab_size)
        asked = {"max_new_tokens": 20, **options}
        pieces = list(stream(model, tokenizer, prompt, constraint=row, **asked))
        row = Forced([*ids, tokenizer.eos_id], tokenizer.vocab_size)
        assert generate(model, tokenizer, prompt, constraints=[row], **asked) == ["".join(pieces)]
        return pieces

    assert head + "".join(written(head)) == whole
    assert "".join(written(head, answer=True)) == "shows cash"
    assert "".join(written("")) == "shows cash"
    assert "".join(written(head, stop=[" shows"])) == "".join(written(head, stop=" ")) == ""
    assert "".join(written(head, stop=" cash", answer=True)) == "shows"


def test_a_stream_returns_the_whole_and_how_it_ended(make_llama: Callable[..., Llama]) -> None:
    def whole(pieces, **options):
        completion = yield from stream(make_llama(), Letters(), "ABC", **options)
        pieces.append(completion)

    told: list[Completion] = []
    text = "".join(whole(told, max_new_tokens=7))
    assert (told[0].text, len(told[0].tokens), told[0].end) == (text, 7, "max_new_tokens")
    list(whole(told, max_new_tokens=100))
    assert told[1].end in ("context", "end of text")
    list(whole(told, max_new_tokens=7, stop=text[2:4]))
    assert told[2].end == "stop"


@pytest.mark.slow
@pytest.mark.parametrize("place", range(9))
def test_a_stream_never_shows_a_stop_string_nor_its_beginning(place: int, make_llama: Callable[..., Llama]) -> None:
    whole = generate(make_llama(), Letters(), "ABC", max_new_tokens=20)[0]
    for stop in (whole[place : place + 3], whole[place : place + 2] + "\0"):
        pieces = list(stream(make_llama(), Letters(), "ABC", max_new_tokens=20, stop=[stop]))
        assert ["".join(pieces)] == generate(make_llama(), Letters(), "ABC", max_new_tokens=20, stop=[stop])
        assert stop not in "".join(pieces)


# Constraints


class OnlyEven:
    """A row that may write even ids below 40; what it wrote last must not stand at the end."""

    def __init__(self) -> None:
        self.taken: list[int] = []

    def is_allowed(self, token: int) -> bool:
        return token < 40 and token % 2 == 0

    def instead(self, token: int) -> Tensor:
        return torch.arange(40) % 2 == 0

    def take(self, token: int) -> None:
        self.taken.append(token)

    @property
    def unfinished(self) -> int:
        return 1


@pytest.mark.parametrize("options", [{}, {"temperature": 2.0, "top_k": 3}], ids=["greedy", "sampled"])
def test_a_bound_row_writes_what_it_may_and_a_free_one_what_it_would(
    options: dict[str, float], make_llama: Callable[..., Llama]
) -> None:
    model, bound = make_llama(), OnlyEven()
    options = {"max_new_tokens": 12, **options}
    free = rows_of(model, [[1, 9, 8], [1, 11]], **options)
    first, second = rows_of(model, [[1, 9, 8], [1, 11]], constraints=[bound, None], **options)
    assert second == free[1]
    assert first == bound.taken != free[0]
    assert all(token % 2 == 0 and token < 40 for token in first)


def test_a_text_loses_what_is_unfinished_where_its_length_cuts_it(make_llama: Callable[..., Llama]) -> None:
    text = generate(make_llama(), Letters(), "ABC", max_new_tokens=8, constraints=[OnlyEven()])[0]
    assert len(text) == 7
    pieces = list(stream(make_llama(), Letters(), "ABC", max_new_tokens=8, constraint=OnlyEven()))
    assert "".join(pieces) == text


# Hats


def test_a_text_is_finished_in_the_hat_it_was_begun_in(make_llama: Callable[..., Llama]) -> None:
    model, texts = make_llama(), {}
    add_adapter(model, "a", rank=2)
    for parameter in adapter_parameters(model, "a").values():
        torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(0))
    for use in (None, "a"):
        use_adapter(model, use)
        texts[use] = generate(model, Letters(), "ABC", max_new_tokens=12)[0]
    assert texts[None] != texts["a"]
    with using_adapter(model, None):
        bare = stream(model, Letters(), "ABC", max_new_tokens=12)
        first = next(bare)
    steps = generate_tokens(model, [[1, 4, 5, 6]], max_new_tokens=12)  # in the model's own, "a"
    with using_adapter(model, None):
        worn = [token for (token,) in steps]
    assert first + "".join(bare) == texts[None]
    assert Letters().decode(worn) == texts["a"]
