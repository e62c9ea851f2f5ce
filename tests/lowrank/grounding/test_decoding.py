"""Grounded decoding on tokens: pieces of any length, bytes, and texts that a model writes."""

from pathlib import Path

import pytest
import torch
from second_reader import read

from lowrank.checkpoints.load import load
from lowrank.data.documents.document import make_documents
from lowrank.data.facts.fact import make_fact
from lowrank.grounding.decoding import Grounding
from lowrank.grounding.leads import find_leads
from lowrank.grounding.names import phrases_of
from lowrank.grounding.vocabulary import Vocabulary
from lowrank.model.generate import generate, stream
from lowrank.model.tokenizer import Tokenizer

FACTS = {
    "day": make_fact("day", "date", "2025-03-31"),
    "debt": make_fact("total debt", "usd_m", "812.4"),
    "loss": make_fact("excess", "ratio", "-0.16"),
    "stores": make_fact("stores", "count", "1204"),
}


class Pieces:
    """A tokenizer of chosen pieces; id 0 ends a text."""

    eos_ids = (0,)
    missing: frozenset[int] = frozenset()

    def __init__(self, *pieces: str | bytes) -> None:
        letters = "0123456789.,%$() abcdefghijklmnopqrstuvwxyzM-:\n"
        self.pieces = [b"", *(letter.encode() for letter in letters)]
        self.pieces += [piece.encode() if isinstance(piece, str) else piece for piece in pieces]
        self.vocab_size = len(self.pieces)

    def token_bytes(self, token: int) -> bytes:
        return self.pieces[token]

    def is_control(self, token: int) -> bool:
        return token == 0

    def id(self, piece: str | bytes) -> int:
        return self.pieces.index(piece.encode() if isinstance(piece, str) else piece)


def grounding(tokens: Pieces, *written: str | bytes) -> Grounding:
    row = Grounding(FACTS, Vocabulary(tokens))
    for piece in written:
        assert row.allowed()[tokens.id(piece)], (row.state.line, piece)
        row.take(tokens.id(piece))
    return row


def after(tokens: Pieces, text: str) -> set[str]:
    """The pieces that may follow a text."""
    allowed = grounding(tokens, *text).allowed().nonzero().flatten().tolist()
    return {tokens.pieces[token].decode(errors="replace") for token in allowed}


def test_a_digit_keeps_its_probability_only_where_a_figure_may_begin_or_go_on() -> None:
    tokens = Pieces()
    digits = set("0123456789")
    assert after(tokens, "the ") & {*digits, "$"} == {"3"}  # of 31 March 2025
    assert after(tokens, "the total debt of ") & {*digits, "$"} == {"3", "8", "$", "0"}
    assert after(tokens, "the total debt of $") == {"8", "0", " "}
    assert after(tokens, "stores: ") & {*digits, "$"} == {"1", "3"}  # not 0.0012 million
    assert "%" not in after(tokens, "stores: 1204")
    assert not grounding(tokens, *"total debt of $812").allowed()[0]
    assert grounding(tokens, *"total debt of $812 million").allowed()[0]


def test_the_code_of_a_currency_may_begin_a_word_and_not_stand_alone() -> None:
    tokens = Pieces(" aud", "it")
    row = grounding(tokens, *"the", " aud")
    assert row.allowed()[tokens.id("it")] and not row.allowed()[tokens.id(" ")]
    assert " aud" not in after(tokens, "stores: 1204")


def test_any_of_several_end_tokens_ends_a_text_where_a_figure_may_end() -> None:
    tokens = Pieces(b"")
    tokens.eos_ids = (0, tokens.vocab_size - 1)
    for written, can_end in (("total debt of $812", False), ("total debt of $812 million", True), ("the", True)):
        row = grounding(tokens, *written)
        assert [bool(row.allowed()[end]) for end in tokens.eos_ids] == [can_end, can_end]
        row.take(tokens.eos_ids[1])


def test_pieces_of_several_characters_are_looked_through() -> None:
    tokens = Pieces(
        "81", "$8", " 812.4", " million", " billion", "2.4 million", " the", "), (", "% 913", "e 5", "lion."
    )
    assert {"2", "2.4 million"} <= after(tokens, "total debt of $81") < {"2", "2.4 million", "3"}
    assert after(tokens, "total debt of $812.4") >= {" million"}
    assert not {" billion", " the", "lion."} & after(tokens, "total debt of $812.4")
    assert not {"e 5", "% 913", "81", "$8"} & after(tokens, "it was ")
    assert {"$8", "81"} & after(tokens, "total debt of ") == {"$8", "81"}


def test_a_word_that_would_make_another_figure_is_not_written() -> None:
    tokens = Pieces(" million", " crore", " percent", " members", " m", "illion")
    assert {" million", " crore", " percent", " members", " m"} & after(tokens, "stores: 1204") == {" members", " m"}
    assert "illion" not in after(tokens, "stores: 1204 m")
    assert {" million", " crore"} & after(tokens, "half a") == set()


def test_a_figure_may_be_split_over_bytes_that_are_no_characters() -> None:
    tokens = Pieces(b"\xe2", b"\x88", b"\x92", b"\xef", b"\xbc", b"\x98", b"\x81", b"\xff")
    row = grounding(tokens, *"excess ", b"\xe2", b"\x88", b"\x92", *"0.16x")  # the minus sign of three bytes
    assert row.allowed()[0]
    wide = grounding(tokens, "a", " ", b"\xef", b"\xbc")  # a wide 8 has these first bytes, and is a digit
    assert not wide.allowed()[tokens.id(b"\x98")]
    assert wide.allowed()[tokens.id(b"\x81")]
    assert not wide.allowed()[tokens.id("a")]
    assert not grounding(tokens).allowed()[tokens.id(b"\x98")]
    assert not grounding(tokens).allowed()[tokens.id(b"\xff")]
    assert not grounding(tokens, *"stores 1").allowed()[tokens.id(b"\xe2")]


def test_what_is_unfinished_is_counted_from_the_figures_beginning() -> None:
    assert grounding(Pieces(), *"total debt was $812.4").unfinished == len("$812.4")
    assert grounding(Pieces(), *"total debt was $812.4 million").unfinished == 0
    assert grounding(Pieces(), *"on 31").unfinished == 2


def test_where_a_figure_is_wanted_and_nothing_says_of_what_a_name_comes_first() -> None:
    tokens = Pieces(" total", "total")
    row = grounding(tokens, *"it came to ")
    eight = tokens.id("8")
    assert not row.is_allowed(eight)
    allowed = row.instead(eight)
    assert {tokens.pieces[token].decode() for token in allowed.nonzero().flatten().tolist()} == {"t", "total"}
    row.take(tokens.id("total"))
    for letter in " debt of ":
        assert {tokens.pieces[token].decode() for token in row.instead(eight).nonzero().flatten()} == {letter}
        row.take(tokens.id(letter))
    assert row.is_allowed(eight)


def leads(line: str, wanted: str, stated: frozenset[str] = frozenset()) -> set[str]:
    return {lead.text for lead in find_leads(grounding(Pieces()).rules, line, wanted, stated)}


def test_the_name_is_that_of_a_fact_whose_figure_begins_as_the_one_that_was_wanted() -> None:
    assert leads("it came to ", "8") == {"total debt of ", "the total debt of "}
    assert leads("it came to the ", "1") == {"stores of "}
    assert leads("- dept: ", "1") == {"stores: "}
    assert leads("- dept:", " $") == {" total debt: "}
    assert leads("it came to", " $") == {" total debt of ", " the total debt of "}
    assert leads("it came to US", "$") == {" total debt of ", " the total debt of "}
    assert {lead.split()[-2] for lead in leads("it came to ", "7")} == {"debt", "excess", "stores"}
    assert {lead.split()[-2] for lead in leads("it came to ", "8", frozenset({"debt"}))} == {"excess", "stores"}


def test_in_a_list_item_the_name_is_the_one_that_its_words_are_much_like() -> None:
    facts = {key: make_fact(key, "usd_m", "9") for key in ("gearing", "borrowings", "limit")}
    rules = Grounding(facts, Vocabulary(Pieces())).rules
    assert {lead.text for lead in find_leads(rules, "- Cearing:", " 9", ())} == {" gearing: "}
    assert len(find_leads(rules, "- Ceiling:", " 9", ())) == 3


def test_a_currency_is_not_written_where_the_figure_that_follows_is_in_none() -> None:
    tokens = Pieces("USD", "EUR")
    for line, allowed in (("stores: ", set()), ("total debt was ", {"USD"}), ("it was ", set())):
        assert {"USD", "EUR"} & after(tokens, line) == allowed, line


def test_a_text_that_has_stated_everything_and_wants_more_comes_to_its_end() -> None:
    tokens = Pieces()
    nine = tokens.id("9")
    said = "total debt was $812.4 million. the excess was -0.16x. stores: 1204.\n"
    row = grounding(tokens, *said)
    for letter in "it is ":
        row.take(tokens.id(letter))
    for word in ("a ", "b ", "f ", "o "):
        assert not row.instead(nine)[list(row.vocabulary.eos_ids)].any()
        for letter in word:
            row.take(tokens.id(letter))
    assert row.instead(nine).nonzero().flatten().tolist() == list(row.vocabulary.eos_ids)


@pytest.mark.parametrize(
    ("line", "wanted"), [("until ", "8"), ("covid-", "1"), ("a -", "8"), ("it came to EU", "$"), ("section", "8")]
)
def test_no_name_comes_first_where_a_date_or_a_part_of_a_word_stands(line, wanted) -> None:
    assert not leads(line, wanted)


def test_a_figure_at_the_end_of_a_line_is_stated() -> None:
    assert grounding(Pieces(), *"- stores: 1204").stated == set()
    assert grounding(Pieces(), *"- stores: 1204\n- ").stated == {"stores"}


def test_a_wrong_figure_becomes_another_one_and_a_wrong_word_a_word() -> None:
    tokens = Pieces("$8", "$9", "crore", "x")
    row = grounding(tokens, *"total debt was ")
    assert not row.is_allowed(tokens.id("$9"))
    begins = {tokens.pieces[token].decode() for token in row.instead(tokens.id("$9")).nonzero().flatten()}
    assert begins == {"$8", "$", "8", "0", "3"}  # $812.4 million, 0.8124 billion US dollars, 31 March 2025
    row = grounding(tokens, *"total debt was $812.4 million ")
    words = row.instead(tokens.id("crore"))
    assert words[tokens.id("x")] and not words[tokens.id("1")] and not words[tokens.id("crore")]


def test_what_stands_in_a_figures_place_does_not_say_the_same_a_third_time() -> None:
    tokens = Pieces(" US", " dollars", " of")
    nine = tokens.id("9")

    def instead(row: Grounding, *wanted: str) -> str:
        """The first of some pieces that may stand in the place of a figure."""
        assert not row.is_allowed(nine)
        allowed = row.instead(nine)
        return next(piece for piece in wanted if allowed[tokens.id(piece)])

    row = grounding(tokens, "a", "-", "-")
    assert instead(row, "-", "b") == "b"
    row = grounding(tokens, "a", "-", "b", "-")
    assert instead(row, "-", "b") == "-"
    loop = (" of", " US", " dollars")
    row = grounding(tokens, "a", *loop, *loop, " of", " US")
    assert instead(row, " dollars", " of") == " of"
    row = grounding(tokens, "a", *loop, " of", " US")
    assert instead(row, " dollars", " of") == " dollars"


def test_a_loop_that_a_refused_figure_began_ends_with_the_third_round_whoever_goes_on_with_it() -> None:
    tokens = Pieces(" US", " dollars", " of")
    loop = [tokens.id(piece) for piece in (" of", " US", " dollars")]
    for is_refused in (True, False):
        row = grounding(tokens, "a", " of", " US")
        if is_refused:
            row.instead(tokens.id("9"))
        for token in (loop[-1], *loop, *loop[:-1]):
            assert row.is_allowed(token)
            row.take(token)
        assert row.is_allowed(loop[-1]) is not is_refused
        assert row.is_allowed(tokens.id("b"))


def test_on_the_line_of_a_refused_figure_nothing_comes_three_times_running() -> None:
    tokens = Pieces(" -")
    dash = tokens.id(" -")
    row = grounding(tokens, "u")
    row.instead(tokens.id("9"))
    row.take(tokens.id("s"))
    for _ in range(2):
        assert row.is_allowed(dash)
        row.take(dash)
    assert not row.is_allowed(dash)
    for letter in "\n--":  # the next line is a table's
        row.take(tokens.id(letter))
    assert row.is_allowed(tokens.id("-"))


def test_a_line_that_a_refused_figure_cut_off_does_not_come_a_third_time() -> None:
    tokens = Pieces("a loss of", "a profit of")
    lines, end, nine = [tokens.id("a loss of"), tokens.id("a profit of")], tokens.id("\n"), tokens.id("9")
    row = grounding(tokens)
    for line in lines * 2:
        row.take(line)
        assert row.instead(nine)[end]
        row.take(end)
    row.take(lines[0])
    assert not row.is_allowed(end) and not row.instead(nine)[end] and row.instead(nine)[lines[1]]
    row.take(tokens.id("f"))
    assert row.is_allowed(end)


def test_a_word_that_may_not_stand_may_go_on_with_letters_alone() -> None:
    facts = {
        "old": make_fact("old", "usd_m", "9"),
        "new": make_fact("new", "usd_m", "8"),
        "change": make_fact("change", "usd_m", "-1", source="new - old"),
    }
    tokens = Pieces("higher", "+", "'", "land")
    row = Grounding(facts, Vocabulary(tokens))
    for letter in "it was highe":
        row.take(tokens.id(letter))
    row.take(tokens.id("r"))
    ways = ["+", "'", " ", ".", "1", "a", "land"]
    assert [row.is_allowed(tokens.id(piece)) for piece in ways] == [False] * 5 + [True] * 2
    assert [bool(row.allowed()[tokens.id(piece)]) for piece in ways] == [False] * 5 + [True] * 2


def test_a_tokenizer_that_cannot_write_a_digit_alone_is_refused() -> None:
    tokens = Pieces()
    tokens.pieces[tokens.id("7")] = b"77"
    with pytest.raises(ValueError, match="cannot write '7' alone"):
        Vocabulary(tokens)


def every_document_passes(tokenizer: Tokenizer) -> None:
    vocabulary = Vocabulary(tokenizer)
    for entry in make_documents(10, seed=5, split="test"):
        row = Grounding(entry.facts, vocabulary, phrases_of(entry.kind))
        for count, token in enumerate(tokenizer.encode(entry.output, bos=False, eos=True)):
            assert row.is_allowed(token), (row.state.line, tokenizer.piece(token))
            if count % 5 == 0:
                allowed = row.allowed().tolist()
                assert [row.is_allowed(other) for other in range(tokenizer.vocab_size)] == allowed, row.state.line
            row.take(token)


@pytest.mark.slow
def test_every_document_passes_with_the_embedded_tokenizer(tokenizer: Tokenizer) -> None:
    every_document_passes(tokenizer)


@pytest.mark.long
def test_every_document_passes_with_the_tokenizer_of_llama(llama2_tokenizer: Path) -> None:
    every_document_passes(Tokenizer(llama2_tokenizer))


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_a_model_that_is_grounded_writes_right_figures_under_their_names(
    temperature, embedded: Path, tokenizer
) -> None:
    model, vocabulary = load(embedded, "fp32"), Vocabulary(tokenizer)
    entries = make_documents(6, seed=3, split="test")
    prompts = [f"{entry.input}\n\n" for entry in entries]
    options = {"max_new_tokens": 60, "temperature": temperature, "seed": list(range(6))}

    def rows() -> list[Grounding]:
        return [Grounding(entry.facts, vocabulary, phrases_of(entry.kind)) for entry in entries]

    texts = generate(model, tokenizer, prompts, constraints=rows(), **options)
    verdicts = [read(entry.kind, entry.input, text)[0] for entry, text in zip(entries, texts, strict=True)]
    assert len("".join(verdicts)) > 3 and set("".join(verdicts)) == {"r"}, texts
    pieces = stream(
        model, tokenizer, prompts[0], max_new_tokens=60, temperature=temperature, seed=0, constraint=rows()[0]
    )
    assert "".join(pieces) == texts[0]


@pytest.mark.slow
def test_what_is_allowed_depends_on_nothing_but_the_text(tokenizer: Tokenizer) -> None:
    """Masks that are kept are those that would be made anew."""
    vocabulary = Vocabulary(tokenizer)
    entry = make_documents(1, seed=4, split="test")[0]
    kept, tokens = Grounding(entry.facts, vocabulary), tokenizer.encode(entry.output, bos=False, eos=False)
    for count, token in enumerate(tokens):
        if not kept.allowed()[token]:  # a name that the record has not, without the kind's
            break
        if count % 7 == 0:
            fresh = Grounding(entry.facts, vocabulary)
            for earlier in tokens[:count]:
                fresh.take(earlier)
            assert torch.equal(kept.allowed(), fresh.allowed())
        kept.take(token)
    assert count > 20
