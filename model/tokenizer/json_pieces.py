"""tokenizer.json: Hugging Face's `tokenizers`, byte-level BPE (Llama 3, SmolLM2) or SentencePiece written as JSON."""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from ...extras import need
from .pieces import SPACE, joined, shown
from .roles import Roles

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def _byte_of_letter() -> dict[str, int]:
    """GPT-2's letters for bytes: a printable byte is its own, the others follow from U+0100 on    (encoder.py)"""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + place): byte for place, byte in enumerate(others)}


BYTE_OF_LETTER = _byte_of_letter()


class JsonPieces:
    """ids = those of the `tokenizers` library, without what its post-processor adds

    tokenizer  a `tokenizers.Tokenizer`; special tokens that a text has written out are from here on plain text to it
    roles      tokens that the files beside it add, or call special, are added to it
    Raises ValueError naming the file for a vocabulary whose tokens do not stand for bytes.
    """

    def __init__(self, tokenizer: Any, where: str, roles: Roles | None = None) -> None:
        tokenizer.no_padding()
        tokenizer.no_truncation()
        _add_tokens(tokenizer, roles or Roles(), where)
        tokenizer.encode_special_tokens = True
        self.library = tokenizer
        texts = {token: text for text, token in tokenizer.get_vocab(with_added_tokens=True).items()}
        self.size = max(texts, default=-1) + 1
        self.missing = frozenset(set(range(self.size)) - texts.keys())
        form = json.loads(tokenizer.to_str())
        decoders = [decoder["type"] for decoder in _decoders(form["decoder"])]
        is_byte_level = "ByteLevel" in decoders
        if not is_byte_level and not {"ByteFallback", "Metaspace"}.intersection(decoders):
            raise ValueError(
                f"{where}: decoder must be of bytes (ByteLevel, ByteFallback or Metaspace), got {decoders or None}"
            )
        added = tokenizer.get_added_tokens_decoder()
        self.controls = {one.content: token for token, one in added.items() if one.special}
        self._names = {token: one.content for token, one in added.items()}
        self._bytes = [b""] * self.size
        for token, text in texts.items():
            if token in added:
                self._bytes[token] = b"" if added[token].special else text.encode()
            else:
                self._bytes[token] = _from_letters(text) if is_byte_level else _from_sentencepiece(text)
        letter = tokenizer.encode("a", add_special_tokens=False).ids
        self.has_dummy_prefix = b"".join(self._bytes[token] for token in letter) == b" a"
        around = tokenizer.encode("a", add_special_tokens=True).ids
        starts = [place for place in range(len(around)) if around[place : place + len(letter)] == letter]
        if not starts or starts[0] > 1:
            raise ValueError(f"{where}: post_processor must put one token before a text at most, 'a' becomes {around}")
        before = around[: starts[0]]
        self.begin: int | None = before[0] if before else None
        self.end: int | None = None

    @classmethod
    def read(cls, content: str, where: str, roles: Roles) -> "JsonPieces":
        """The pieces of a file's content.  Raises ValueError naming the file for what the library cannot read."""
        library = need("tokenizers", where)
        try:
            tokenizer = library.Tokenizer.from_str(content)
        except Exception as error:
            if type(error) is not Exception:  # the library has no class of its own for what it cannot read
                raise
            raise ValueError(f"{where}: not a tokenizer.json: {error}") from None
        return cls(tokenizer, where, roles)

    def encode(self, text: str) -> list[int]:
        """See `Pieces`."""
        ids: list[int] = self.library.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """See `Pieces`."""
        return joined(self, ids)

    def token_bytes(self, token: int) -> bytes:
        """See `Pieces`."""
        return self._bytes[token]

    def piece(self, token: int) -> str:
        """See `Pieces`."""
        return self._names.get(token) or shown(self._bytes[token])


def _add_tokens(tokenizer: Any, roles: Roles, where: str) -> None:
    """Adds what the files beside tokenizer.json say of tokens, and it does not."""
    token_class = need("tokenizers", where).AddedToken
    known = {one.content: one.special for one in tokenizer.get_added_tokens_decoder().values()}
    for token, one in sorted(roles.added.items()):
        place = tokenizer.token_to_id(one.text)
        if place is None and token != tokenizer.get_vocab_size(with_added_tokens=True):
            raise ValueError(f"{where}: has no piece {one.text!r}, which the files beside it say is {token}")
        if place is None:
            tokenizer.add_tokens([token_class(one.text, special=one.special, normalized=False)])
            known[one.text] = one.special
    for text in roles.special:
        if tokenizer.token_to_id(text) is not None and not known.get(text):
            tokenizer.add_special_tokens([token_class(text, special=True, normalized=False)])


def _decoders(decoder: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
    """A decoder, or those that it is a sequence of."""
    if decoder is not None:
        if decoder["type"] == "Sequence":
            for one in decoder["decoders"]:
                yield from _decoders(one)
        else:
            yield decoder


def _from_letters(text: str) -> bytes:
    """The bytes of a piece that is written in GPT-2's letters; one that is not is a text as it is."""
    if all(letter in BYTE_OF_LETTER for letter in text):
        return bytes(BYTE_OF_LETTER[letter] for letter in text)
    return text.encode()


def _from_sentencepiece(text: str) -> bytes:
    if match := _BYTE.fullmatch(text):
        return bytes([int(match.group(1), 16)])
    return text.replace(SPACE, " ").encode()
