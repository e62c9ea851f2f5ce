"""Grounded decoding on tokens: pieces of any length, bytes, and texts that a model writes."""

import random

import pytest
import torch

from lowrank.checkpoints.load import load
from lowrank.data.documents.document import make_documents
from lowrank.data.facts.fact import make_fact
from lowrank.grounding.decoding import Grounding, Vocabulary
from lowrank.grounding.old_figures import FIGURE
from lowrank.model.generate import generate, stream
from lowrank.model.tokenizer import Tokenizer

FACTS = {
    "day": make_fact("day", "date", "2025-03-31"),
    "debt": make_fact("total debt", "usd_m", "812.4"),
    "loss": make_fact("loss", "ratio", "-0.16"),
    "stores": make_fact("stores", "count", "1204"),
}


class Pieces:
    """A tokenizer of chosen pieces; id 0 ends a text."""

    eos_id = 0
    eos_ids: tuple[int, ...] = (0,)

    def __init__(self, *pieces: str | bytes) -> None:
        letters = "0123456789.,%$() abcdefghijklmnopqrstuvwxyzM-\n"
        self.pieces = [b"", *(letter.encode() for letter in letters)]
        self.pieces += [piece.encode() if isinstance(piece, str) else piece for piece in pieces]
        self.vocab_size = len(self.pieces)

    def token_bytes(self, token: int) -> bytes:
        return self.pieces[token]

    def id(self, piece: str | bytes) -> int:
        return self.pieces.index(piece.encode() if isinstance(piece, str) else piece)


def grounding(tokens: Pieces, *written: str | bytes) -> Grounding:
    row = Grounding(FACTS, Vocabulary(tokens))
    for piece in written:
        assert row.allowed()[tokens.id(piece)], piece
        row.take(tokens.id(piece))
    return row


def test_a_digit_keeps_its_probability_only_where_a_figure_may_begin_or_go_on() -> None:
    tokens = Pieces()
    digits = {digit for digit in "0123456789" if grounding(tokens, "$").allowed()[tokens.id(digit)]}
    assert digits == {"8", "0", "3"}  # $812..., $0.8..., and $31 March 2025, which is a date with a mark before it
    assert not grounding(tokens, "$", "8").allowed()[tokens.id(" ")]
    assert grounding(tokens, "$", "8", "1", "2").allowed()[tokens.id(" ")]
    assert not grounding(tokens, "$", "8", "1", "2").allowed()[tokens.eos_id]
    assert grounding(tokens, *"$812 million").allowed()[tokens.eos_id]
    assert grounding(tokens, *"the year ").allowed().sum() == tokens.vocab_size - 10 + len("0138")


def test_any_of_several_end_tokens_ends_a_text_where_a_figure_may_end() -> None:
    tokens = Pieces(b"")
    tokens.eos_ids = (0, tokens.vocab_size - 1)
    for written, may_end in (("$812", False), ("$812 million", True), ("the", True)):
        row = grounding(tokens, *written)
        assert [bool(row.allowed()[end]) for end in tokens.eos_ids] == [may_end, may_end]
        row.take(tokens.eos_ids[1])


def test_pieces_of_several_characters_are_looked_through() -> None:
    tokens = Pieces("81", "$8", " 812.4", " million", " billion", "2.4 million", " the", "), (", "% 913", "e 5")
    row = grounding(tokens, "$", "81")
    allowed = {tokens.pieces[token].decode() for token in row.allowed().nonzero().flatten().tolist()}
    assert allowed == {"2", "2.4 million"}
    row = grounding(tokens, "$", "81", "2", ".", "4")
    assert row.allowed()[tokens.id(" million")]
    assert not row.allowed()[tokens.id(" billion")]
    assert not row.allowed()[tokens.id(" the")]
    row = grounding(tokens, "e", " ")
    assert not row.allowed()[tokens.id("e 5")]
    assert not row.allowed()[tokens.id("% 913")]
    assert row.allowed()[tokens.id("81")]
    assert grounding(tokens, "$", *"812", ".", "4").allowed()[tokens.id(" million")]


def test_a_figure_may_be_split_over_bytes_that_are_no_characters() -> None:
    tokens = Pieces(b"\xe2", b"\x88", b"\x92", b"\xef", b"\xbc", b"\x98", b"\x81", b"\xff")
    row = grounding(tokens, b"\xe2", b"\x88", b"\x92", *"0.16x")  # the minus sign of three bytes
    assert row.allowed()[tokens.eos_id]
    assert row.rules.record.wrong("−0.16x") == []
    wide = grounding(tokens, "a", " ", b"\xef", b"\xbc")  # a wide 8 has these first bytes, and is a digit
    assert not wide.allowed()[tokens.id(b"\x98")]
    assert wide.allowed()[tokens.id(b"\x81")]
    assert not wide.allowed()[tokens.id("a")]
    assert not grounding(tokens).allowed()[tokens.id(b"\x98")]
    assert not grounding(tokens).allowed()[tokens.id(b"\xff")]
    assert not grounding(tokens, "$", "8").allowed()[tokens.id(b"\xe2")]


def test_what_is_unfinished_is_counted_from_the_figures_beginning() -> None:
    assert grounding(Pieces(), *"was $812.4").unfinished == len("$812.4")
    assert grounding(Pieces(), *"was $812.4 million").unfinished == 0
    assert grounding(Pieces(), *"on 31").unfinished == 2


def test_a_tokenizer_that_cannot_write_a_digit_alone_is_refused() -> None:
    tokens = Pieces()
    tokens.pieces[tokens.id("7")] = b"77"
    with pytest.raises(ValueError, match="no token that is '7' alone"):
        Vocabulary(tokens)


def every_document_passes_and_every_walk_is_right(tokenizer: Tokenizer, walks: int) -> None:
    vocabulary, rng, figures = Vocabulary(tokenizer), random.Random(0), 0
    for entry in make_documents(10, seed=5, split="test"):
        row = Grounding(entry.facts, vocabulary)
        for token in tokenizer.encode(entry.output, bos=False, eos=True):
            assert row.allowed()[token], (row.state.line, tokenizer.piece(token))
            row.take(token)
    likely = [
        token for token in range(vocabulary.size) if vocabulary.spelled[token][:1] in map(str.encode, "0123456789$%.(-")
    ]
    for entry in make_documents(walks, seed=9, split="test"):
        row, tokens = Grounding(entry.facts, vocabulary), []
        for _ in range(120):
            allowed = row.allowed()
            assert allowed.any(), row.state
            some = [token for token in likely if allowed[token]]
            free = rng.random() < 0.4 or not some
            token = rng.choice(allowed.nonzero().flatten().tolist() if free else some)
            if token == tokenizer.eos_id:
                break
            row.take(token)
            tokens.append(token)
        text = tokenizer.decode(tokens)
        text = text[: len(text) - row.unfinished]
        assert row.rules.record.wrong(text) == [], text
        figures += len(FIGURE.findall(row.rules.record.mask(text)))
    assert figures > walks


def test_with_the_embedded_tokenizer(tokenizer: Tokenizer) -> None:
    every_document_passes_and_every_walk_is_right(tokenizer, 10)


def test_with_the_tokenizer_of_llama(llama2_tokenizer) -> None:
    every_document_passes_and_every_walk_is_right(Tokenizer(llama2_tokenizer), 5)


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_a_model_that_is_grounded_writes_right_figures_only(temperature: float, embedded, tokenizer: Tokenizer) -> None:
    model, vocabulary = load(embedded, "fp32"), Vocabulary(tokenizer)
    entries = make_documents(6, seed=3, split="test")
    prompts = [f"The {entry.facts[next(iter(entry.facts))].label} was $" for entry in entries]
    options = {"max_new_tokens": 40, "temperature": temperature, "seed": list(range(6))}
    rows = [Grounding(entry.facts, vocabulary) for entry in entries]
    texts = generate(model, tokenizer, prompts, constraints=rows, **options)
    assert sum(len(FIGURE.findall(text)) for text in texts) > 6
    assert all(not row.rules.record.wrong(text) for row, text in zip(rows, texts, strict=True))
    free = generate(model, tokenizer, prompts, **options)
    assert any(row.rules.record.wrong(text) for row, text in zip(rows, free, strict=True))
    pieces = list(
        stream(
            model,
            tokenizer,
            prompts[0],
            max_new_tokens=40,
            temperature=temperature,
            seed=0,
            constraint=Grounding(entries[0].facts, vocabulary),
        )
    )
    assert "".join(pieces) == texts[0]


def test_what_is_allowed_depends_on_nothing_but_the_text(tokenizer: Tokenizer) -> None:
    """Masks that are kept are those that would be made anew."""
    vocabulary = Vocabulary(tokenizer)
    entry = make_documents(1, seed=4, split="test")[0]
    kept, tokens = Grounding(entry.facts, vocabulary), tokenizer.encode(entry.output, bos=False, eos=False)
    for count, token in enumerate(tokens):
        if count % 7 == 0:
            fresh = Grounding(entry.facts, vocabulary)
            for earlier in tokens[:count]:
                fresh.take(earlier)
            assert torch.equal(kept.allowed(), fresh.allowed())
        kept.allowed()
        kept.take(token)
