"""Ids are SentencePiece's own; begin and end come only when asked for."""

from pathlib import Path

import pytest
from sentencepiece import SentencePieceProcessor

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
]


def test_llama_2_has_32000_pieces_and_three_special_ids(llama2_tokenizer: Path) -> None:
    tokenizer = Tokenizer(llama2_tokenizer)
    assert (tokenizer.vocab_size, tokenizer.bos_id, tokenizer.eos_id) == (32_000, 1, 2)
    assert [tokenizer.piece(token) for token in (0, 1, 2, 13)] == ["<unk>", "<s>", "</s>", "<0x0A>"]


@pytest.mark.parametrize("text", TEXTS, ids=repr)
def test_ids_are_those_of_sentencepiece(text: str, llama2_tokenizer: Path) -> None:
    ids = SentencePieceProcessor(model_file=str(llama2_tokenizer)).encode(text)
    tokenizer = Tokenizer(llama2_tokenizer)
    assert tokenizer.encode(text, bos=False, eos=False) == ids
    assert tokenizer.decode(ids) == text


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


@pytest.mark.parametrize("content", [b"", b"not a model", b"{}"])
def test_a_file_that_is_no_tokenizer_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(content)
    with pytest.raises(ValueError, match=r"tokenizer.model: not a SentencePiece model"):
        Tokenizer(tmp_path / "tokenizer.model")
