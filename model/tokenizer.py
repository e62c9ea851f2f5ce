"""Llama's tokenizer: a SentencePiece model, with the begin and end of a text added only when asked for."""

from collections.abc import Sequence
from pathlib import Path

from sentencepiece import SentencePieceProcessor


class Tokenizer:
    """encode(text) = SentencePiece ids, and `bos_id` before or `eos_id` behind them if asked    (Meta's tokenizer.py)

    Raises ValueError naming the file if it is not a SentencePiece model.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise ValueError(f"{self.path}: no such tokenizer file")
        self._pieces = SentencePieceProcessor()
        try:
            self._pieces.LoadFromSerializedProto(self.path.read_bytes())
        except (RuntimeError, OSError) as error:
            raise ValueError(f"{self.path}: not a SentencePiece model: {error}") from None
        self.vocab_size: int = self._pieces.GetPieceSize()
        self.bos_id: int = self._pieces.bos_id()
        self.eos_id: int = self._pieces.eos_id()

    def encode(self, text: str, *, bos: bool, eos: bool) -> list[int]:
        """Text to ids. Special tokens written out in the text ("<s>", "[INST]") are plain text.

        Raises ValueError for half a character: a surrogate without its other half, which has no bytes.
        """
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            code = ord(text[error.start])
            raise ValueError(f"a text must be of whole characters, got U+{code:04X} at {error.start}") from None
        ids: list[int] = self._pieces.EncodeAsIds(text)
        return [self.bos_id] * bos + ids + [self.eos_id] * eos

    def decode(self, ids: Sequence[int]) -> str:
        """Ids to text; begin, end and unknown ids leave no trace or SentencePiece's own mark.

        Raises ValueError for an id that is no piece.
        """
        try:
            text: str = self._pieces.DecodeIds(list(ids))
        except IndexError:
            foreign = next(id for id in ids if not 0 <= id < self.vocab_size)
            raise ValueError(f"an id must be one of {self.vocab_size} pieces, got {foreign}") from None
        return text

    def piece(self, token: int) -> str:
        """The vocabulary entry of one id, as SentencePiece writes it."""
        piece: str = self._pieces.IdToPiece(token)
        return piece

    def bytes_of(self, token: int) -> bytes:
        """The UTF-8 bytes that an id adds to a text, a space for the mark of one; none for begin, end and padding."""
        if self._pieces.IsControl(token):
            return b""
        if self._pieces.IsByte(token):
            return bytes([int(self.piece(token)[3:-1], 16)])
        text: str = self._pieces.DecodeIds([token]) if self._pieces.IsUnknown(token) else self.piece(token)
        return text.replace("\N{LOWER ONE EIGHTH BLOCK}", " ").encode()
