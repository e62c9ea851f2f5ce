"""The part of a tokenizer that differs by kind: a vocabulary, and the way it cuts a text.

Every token that is no control token stands for bytes, and a text is cut so that the bytes of its tokens are its own.
What reads or constrains a text by bytes works for every kind.
"""

from collections.abc import Sequence
from typing import Protocol

SPACE = "\N{LOWER ONE EIGHTH BLOCK}"  # how a space is shown, as SentencePiece does


class Pieces(Protocol):
    """A vocabulary.

    size              ids are of 0 to size - 1
    missing           ids among them that have no piece
    controls          the control tokens by their text: they stand for no bytes, and no text is ever cut into them
    has_dummy_prefix  True if the first token of a text brings a space that the text has not, as SentencePiece's does
    begin, end        the ids that the file itself names as begin and end of a text; None where it names none
    """

    size: int
    missing: frozenset[int]
    controls: dict[str, int]
    has_dummy_prefix: bool
    begin: int | None
    end: int | None

    def encode(self, text: str) -> list[int]:
        """The ids of a text of whole characters, without begin and end."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids that have pieces; bytes that are no character become U+FFFD."""

    def token_bytes(self, token: int) -> bytes:
        """The bytes of a token: see `Tokenizer.token_bytes`."""

    def piece(self, token: int) -> str:
        """A token as it is shown: see `Tokenizer.piece`."""


def joined(pieces: Pieces, ids: Sequence[int]) -> str:
    """The text of the bytes of ids, without the space that the first token of a text brings along."""
    written = b"".join(map(pieces.token_bytes, ids))
    if pieces.has_dummy_prefix:
        written = written.removeprefix(b" ")
    return written.decode("utf-8", "replace")


def shown(written: bytes) -> str:
    """Bytes as a piece is shown: a space as U+2581, a byte that is no part of a character as <0xNN>."""
    text = written.decode("utf-8", "surrogateescape").replace(" ", SPACE)
    return "".join(f"<0x{ord(c) - 0xDC00:02X}>" if 0xDC80 <= ord(c) <= 0xDCFF else c for c in text)
