"""Ids are SentencePiece's own; begin and end come only when asked for."""

from pathlib import Path
from random import Random

import pytest
from sentencepiece import SentencePieceProcessor
from tiny_tokenizers import random_texts

from lowrank.model.tokenizer import Tokenizer

TEXTS = [
    "Total debt was $812.4 million.",
    " leading and trailing ",
    "  two  spaces  inside  ",
    "\n\n\ttabs and lines\n",
    "   ",
    "",
    "Zürich, 日本語, العربية, 🏦, \u200b, e\u0301",
    "<s> </s> <unk> [INST] <<SYS>>",
    "</s>",
    " ",
    "\t",
    "\n",
    " \n \t  \r\n",
    "\u00a0\u3000\u2003",
    "a" * 20_000,
    " " * 1_000,
    "Total debt was $812.4 million. " * 1_000,
    # control characters, and those that change how others are shown
    "\0",
    "a\0b",
    "\x07\x1b[0m\x7f\x85",
    "\ufeffmark\u202eback",
    # known by their bytes alone, or composed in several ways
    "🏦",
    "👩\u200d👩\u200d👧",
    "\U0010ffff",
    "\ufffd",
    "ﬁ ① ｆｕｌｌ",
    "\u00e9 e\u0301",
]


def shown(text: str) -> str:
    """A readable id of a test."""
    return ascii(text if len(text) < 50 else f"{text[:10]}... {len(text)}")


def test_llama_2_has_32000_pieces_and_three_special_ids(llama2_tokenizer: Path) -> None:
    tokenizer = Tokenizer(llama2_tokenizer)
    assert (tokenizer.vocab_size, tokenizer.bos_id, tokenizer.eos_id) == (32_000, 1, 2)
    assert [tokenizer.piece(token) for token in (0, 1, 2, 13)] == ["<unk>", "<s>", "</s>", "<0x0A>"]


@pytest.mark.slow
@pytest.mark.parametrize("text", TEXTS, ids=shown)
def test_ids_are_those_of_sentencepiece(text: str, llama2_tokenizer: Path) -> None:
    ids = SentencePieceProcessor(model_file=str(llama2_tokenizer)).encode(text)
    tokenizer = Tokenizer(llama2_tokenizer)
    assert tokenizer.encode(text, bos=False, eos=False) == ids
    assert tokenizer.encode(text, bos=True, eos=True) == [1, *ids, 2]
    assert tokenizer.decode(ids) == tokenizer.decode([1, *ids, 2]) == text


def test_any_text_comes_back_but_the_sign_that_stands_for_a_space(llama2_tokenizer: Path) -> None:
    """Letters of every script, signs and controls, drawn at random; U+2581 is how the pieces write a space."""
    pieces, tokenizer = SentencePieceProcessor(model_file=str(llama2_tokenizer)), Tokenizer(llama2_tokenizer)
    random = Random(0)
    for _ in range(300):
        top = random.choice([0x80, 0x800, 0x10000, 0x110000])
        codes = [random.randrange(top) for _ in range(random.randrange(40))]
        text = "".join(chr(code) for code in codes if not 0xD800 <= code < 0xE000 and code != 0x2581)
        ids = tokenizer.encode(text, bos=False, eos=False)
        assert ids == pieces.encode(text) and not {0, 1, 2} & set(ids), ascii(text)
        assert tokenizer.decode(ids) == pieces.decode(ids) == text
    assert tokenizer.decode(tokenizer.encode("a\u2581b", bos=False, eos=False)) == "a b"


@pytest.mark.parametrize(("text", "code", "place"), [("\ud800", "D800", 0), ("ab\udfff", "DFFF", 2)], ids=ascii)
def test_half_a_character_is_refused_in_one_line(text: str, code: str, place: int, llama2_tokenizer: Path) -> None:
    with pytest.raises(ValueError) as told:
        Tokenizer(llama2_tokenizer).encode(text, bos=True, eos=False)
    assert str(told.value) == f"a text must be of whole characters, got U+{code} at {place}"


def test_a_character_whose_bytes_are_cut_is_shown_as_such(llama2_tokenizer: Path) -> None:
    tokenizer = Tokenizer(llama2_tokenizer)
    ids = tokenizer.encode("🏦", bos=False, eos=False)
    assert [tokenizer.piece(token) for token in ids] == ["▁", "<0xF0>", "<0x9F>", "<0x8F>", "<0xA6>"]
    assert tokenizer.decode(ids[:-1]) == "\ufffd" * 3
    assert tokenizer.decode(ids) == "🏦"


@pytest.mark.parametrize("foreign", [-1, 32_000])
def test_an_id_that_is_no_piece_is_refused_in_one_line(foreign: int, llama2_tokenizer: Path) -> None:
    with pytest.raises(ValueError, match=f"^an id must be one of 32000 pieces, got {foreign}$"):
        Tokenizer(llama2_tokenizer).decode([1, 15043, foreign])


@pytest.mark.parametrize(
    ("bos", "eos", "ids"),
    [
        (False, False, [15043]),
        (True, False, [1, 15043]),
        (False, True, [15043, 2]),
        (True, True, [1, 15043, 2]),
    ],
)
def test_begin_and_end_come_when_asked_for(bos: bool, eos: bool, ids: list[int], llama2_tokenizer: Path) -> None:
    tokenizer = Tokenizer(llama2_tokenizer)
    assert tokenizer.encode("Hello", bos=bos, eos=eos) == ids
    assert tokenizer.decode(ids) == "Hello"


def test_special_tokens_written_out_are_plain_text(llama2_tokenizer: Path) -> None:
    assert not {1, 2} & set(Tokenizer(llama2_tokenizer).encode("<s>Hello</s>", bos=False, eos=False))


def test_a_tokenizer_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"tokenizer.model: no such tokenizer file"):
        Tokenizer(tmp_path / "tokenizer.model")


@pytest.mark.parametrize("content", [b"not a model", b"{}"])
def test_a_file_that_is_no_tokenizer_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(content)
    with pytest.raises(ValueError, match=r"tokenizer.model: not a SentencePiece model"):
        Tokenizer(tmp_path / "tokenizer.model")


@pytest.mark.parametrize(
    "text", ["Total debt was $812.4 million.", "  two\n\nlines\t−3.41x (0.16) ８ é 🙂", "<s> is text"]
)
def test_the_bytes_of_the_ids_are_the_text(text: str, tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(text, bos=True, eos=True)
    assert b"".join(map(tokenizer.token_bytes, ids)).decode().removeprefix(" ") == tokenizer.decode(ids).removeprefix(
        " "
    )
    assert tokenizer.token_bytes(tokenizer.bos_id) == tokenizer.token_bytes(tokenizer.eos_id) == b""
    assert tokenizer.token_bytes(0).decode() == tokenizer.decode([0])  # unknown


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["embedded", "llama2"])
def test_ids_of_random_texts_are_sentencepieces_own(kind: str, request: pytest.FixtureRequest) -> None:
    path = (
        request.getfixturevalue("embedded") / "tokenizer.model"
        if kind == "embedded"
        else request.getfixturevalue("llama2_tokenizer")
    )
    library, tokenizer = SentencePieceProcessor(model_file=str(path)), Tokenizer(path)
    for text in random_texts(10_000):
        ids = tokenizer.encode(text)
        assert ids == library.encode(text), ascii(text)
        assert tokenizer.decode(ids) == library.decode(ids)
        assert b"".join(map(tokenizer.token_bytes, ids)) == (b" " if ids else b"") + tokenizer.decode(ids).encode()
