"""A tokenizer as the values of a GGUF file, so that llama.cpp cuts texts into the same ids."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import gguf
from sentencepiece import SentencePieceProcessor

from ..model.tokenizer import Tokenizer
from ..model.tokenizer.json_pieces import BYTE_OF_LETTER, JsonPieces
from ..model.tokenizer.rank_pieces import RankPieces
from ..model.tokenizer.sentencepiece_pieces import SentencePiecePieces
from .tokenizer_files import (
    BYTE,
    CONTROL,
    DIGIT,
    GPT2,
    NORMAL,
    PRE_TOKENIZERS,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
)

LETTER_OF_BYTE = {byte: letter for letter, byte in BYTE_OF_LETTER.items()}
# llama.cpp's converter gives pieces that were added behind a SentencePiece model this score.
ADDED_SCORE = -1000.0


class _Piece(NamedTuple):
    text: str
    kind: int
    score: float = 0.0


def add_tokenizer(writer: gguf.GGUFWriter, tokenizer: Tokenizer, rows: int) -> None:
    """Every piece with its score or its merges, its kind, and what begins and ends a text

    rows  of the embedding: those without a piece get one that no text has
    Raises ValueError for a tokenizer that llama.cpp has no name for: nothing has been written then.
    """
    pieces = tokenizer.pieces
    if isinstance(pieces, SentencePiecePieces):
        found = dict(enumerate(_sentencepiece(pieces.processor)))
        for token, added in pieces.added.items():
            found[token] = _Piece(added.text, CONTROL if added.special else USER_DEFINED, ADDED_SCORE)
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        writer.add_add_space_prefix(tokenizer.has_dummy_prefix)
        # llama.cpp has the key and does not act on it for SentencePiece; what reads the file here does.
        writer.add_remove_extra_whitespaces(tokenizer.encode("a  a") == tokenizer.encode("a a"))
    else:
        assert isinstance(pieces, JsonPieces | RankPieces), pieces
        name, merges, found = _of_ranks(pieces) if isinstance(pieces, RankPieces) else _of_json(pieces, tokenizer)
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(name)
        writer.add_token_merges(merges)
    listed = [found.get(token, _Piece(f"[PAD{token}]", UNUSED, ADDED_SCORE)) for token in range(rows)]
    writer.add_token_list([piece.text for piece in listed])
    writer.add_token_types([piece.kind for piece in listed])
    if isinstance(pieces, SentencePiecePieces):
        writer.add_token_scores([piece.score for piece in listed])
        writer.add_unk_token_id(next(token for token, piece in found.items() if piece.kind == UNKNOWN))
    _add_roles(writer, tokenizer)


def _add_roles(writer: gguf.GGUFWriter, tokenizer: Tokenizer) -> None:
    """llama.cpp takes some end tokens by their texts besides; of the ids it has a place for three."""
    named = tokenizer.special_tokens.get(tokenizer.named.get("bos_token", ""), tokenizer.bos_id)
    if named is not None:
        writer.add_bos_token_id(named)
    adders = (writer.add_eos_token_id, writer.add_eot_token_id, writer.add_eom_token_id)
    for add, token in zip(adders, tokenizer.eos_ids, strict=False):
        add(token)
    writer.add_add_bos_token(tokenizer.bos_id is not None)
    writer.add_add_eos_token(False)


def _sentencepiece(processor: SentencePieceProcessor) -> Iterator[_Piece]:
    for token in range(processor.GetPieceSize()):
        kind = (
            UNKNOWN
            if processor.IsUnknown(token)
            else CONTROL
            if processor.IsControl(token)
            else UNUSED
            if processor.IsUnused(token)
            else BYTE
            if processor.IsByte(token)
            else NORMAL
        )
        yield _Piece(processor.IdToPiece(token), kind, processor.GetScore(token))


def _of_json(pieces: JsonPieces, tokenizer: Tokenizer) -> tuple[str, list[str], dict[int, _Piece]]:
    """llama.cpp's name of the pre-tokenizer, the merges, and the pieces by id."""
    form = json.loads(pieces.library.to_str())
    model = form["model"]
    if model["type"] != "BPE" or form["normalizer"] is not None or pieces.has_dummy_prefix:
        raise ValueError(
            f"{tokenizer.path}: is no byte-level BPE: llama.cpp takes SentencePiece out of a tokenizer.model only"
        )
    name = _pre_tokenizer_name(form["pre_tokenizer"], bool(model.get("ignore_merges")), str(tokenizer.path))
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    found = {token: _Piece(text, NORMAL) for text, token in model["vocab"].items()}
    for token, added in pieces.library.get_added_tokens_decoder().items():
        found[token] = _Piece(added.content, CONTROL if added.special else USER_DEFINED)
    return name, merges, found


def _pre_tokenizer_name(form: Mapping[str, Any] | None, ignore_merges: bool, where: str) -> str:
    """Raises ValueError for patterns that have no name."""
    patterns = tuple(_patterns(form, where))
    for name, known in PRE_TOKENIZERS.items():
        if (known.patterns, known.ignore_merges) == (patterns, ignore_merges):
            return name
    raise ValueError(f"{where}: llama.cpp has no name for its pre_tokenizer {patterns}")


def _patterns(form: Mapping[str, Any] | None, where: str) -> Iterator[str]:
    """The patterns by which a text is cut, one after the other."""
    if form is None:
        return
    match form:
        case {"type": "Sequence", "pretokenizers": parts}:
            for part in parts:
                yield from _patterns(part, where)
        case {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}:
            yield pattern
        case {"type": "Digits", "individual_digits": True}:
            yield DIGIT
        case {"type": "ByteLevel", "add_prefix_space": False}:
            if form.get("use_regex", True):
                yield GPT2
        case _:
            raise ValueError(f"{where}: llama.cpp has no name for its pre_tokenizer {form.get('type')}")


def _of_ranks(pieces: RankPieces) -> tuple[str, list[str], dict[int, _Piece]]:
    """Ranks hold no merges: those of a token are the last two parts that the ranks below its own leave of its bytes."""
    ranks = {pieces.token_bytes(token): token for token in range(pieces.size - len(pieces.controls))}
    merges = []
    for token, rank in ranks.items():
        if len(token) > 1:
            parts = _merged_below(ranks, token, rank)
            if len(parts) == 2:
                merges.append(" ".join(map(_letters, parts)))
    found = {rank: _Piece(_letters(token), NORMAL) for token, rank in ranks.items()}
    return "llama-bpe", merges, found | {token: _Piece(text, CONTROL) for text, token in pieces.controls.items()}


def _merged_below(ranks: Mapping[bytes, int], token: bytes, limit: int) -> list[bytes]:
    parts = [token[place : place + 1] for place in range(len(token))]
    while True:
        pairs = [(ranks.get(parts[i] + parts[i + 1], limit), i) for i in range(len(parts) - 1)]
        rank, place = min(pairs, default=(limit, 0))
        if rank >= limit:
            return parts
        parts[place : place + 2] = [parts[place] + parts[place + 1]]


def _letters(token: bytes) -> str:
    return "".join(LETTER_OF_BYTE[byte] for byte in token)
