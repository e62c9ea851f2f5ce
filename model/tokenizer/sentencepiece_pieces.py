"""SentencePiece: Llama 2's tokenizer.model, with the tokens that a fine-tuned model adds behind it."""

import re
from collections.abc import Mapping, Sequence

from sentencepiece import SentencePieceProcessor

from .pieces import SPACE, joined
from .roles import AddedToken


class SentencePiecePieces:
    """ids = SentencePiece's own; an added token's id where an ordinary one is written in the text

    A text is cut at ordinary added tokens, and what is between them is cut by SentencePiece, each part as a text of its
    own. Raises ValueError naming the file if it is not a SentencePiece model.
    """

    def __init__(self, model: bytes, where: str, added: Mapping[int, AddedToken] | None = None) -> None:
        self.processor = SentencePieceProcessor()
        try:
            self.processor.LoadFromSerializedProto(model)
        except (RuntimeError, OSError) as error:
            raise ValueError(f"{where}: not a SentencePiece model: {error}") from None
        self.own: int = self.processor.GetPieceSize()
        self.added = {token: one for token, one in (added or {}).items() if token >= self.own}
        self.size = max([self.own, *(token + 1 for token in self.added)])
        self.missing = frozenset(set(range(self.own, self.size)) - self.added.keys())
        self.controls = {self.processor.IdToPiece(i): i for i in range(self.own) if self.processor.IsControl(i)}
        self.controls |= {one.text: token for token, one in self.added.items() if one.special}
        self.begin = self._or_none(self.processor.bos_id())
        self.end = self._or_none(self.processor.eos_id())
        first = self.processor.EncodeAsIds("a")
        self.has_dummy_prefix: bool = self.processor.IdToPiece(first[0]).startswith(SPACE)
        self._ordinary = {one.text: token for token, one in self.added.items() if not one.special and one.text}
        longest_first = sorted(self._ordinary, key=len, reverse=True)
        self._cut = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

    @staticmethod
    def _or_none(token: int) -> int | None:
        return token if token >= 0 else None

    def encode(self, text: str) -> list[int]:
        """See `Pieces`."""
        ids: list[int] = []
        start = 0
        for match in self._cut.finditer(text) if self._cut else ():
            ids += self.processor.EncodeAsIds(text[start : match.start()])
            ids.append(self._ordinary[match.group()])
            start = match.end()
        ids += self.processor.EncodeAsIds(text[start:])
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """See `Pieces`; SentencePiece's own where all ids are its own."""
        if all(token < self.own for token in ids):
            text: str = self.processor.DecodeIds(list(ids))
            return text
        return joined(self, ids)

    def token_bytes(self, token: int) -> bytes:
        """See `Pieces`; SentencePiece's mark for an id that is unknown."""
        if token >= self.own:
            return b"" if self.added[token].special else self.added[token].text.encode()
        if self.processor.IsControl(token):
            return b""
        piece: str = self.processor.IdToPiece(token)
        if self.processor.IsByte(token):
            return bytes([int(piece[3:-1], 16)])
        text: str = self.processor.DecodeIds([token]) if self.processor.IsUnknown(token) else piece
        return text.replace(SPACE, " ").encode()

    def piece(self, token: int) -> str:
        """See `Pieces`: the entry of the vocabulary, as SentencePiece writes it."""
        if token >= self.own:
            return self.added[token].text
        piece: str = self.processor.IdToPiece(token)
        return piece
