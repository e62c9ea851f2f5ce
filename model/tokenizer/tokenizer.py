"""The tokenizer of a file or a folder. Text is text: a special token comes by its id, or where a template places it."""

import operator
import re
import warnings
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import SupportsIndex

from ..foreign_file import foreign_file_reason
from .json_pieces import JsonPieces
from .pieces import Pieces
from .rank_pieces import RankPieces, is_rank_file
from .roles import AddedToken, Roles, read_roles
from .sentencepiece_pieces import SentencePiecePieces

FILES = ("tokenizer.model", "tokenizer.json")  # of a folder that holds both the first is read


class Tokenizer:
    """encode(text) = the ids of its pieces, `bos_id` before or `eos_id` behind them if asked    (Meta's tokenizer.py)

    path            tokenizer.model (SentencePiece, or tiktoken's ranks as Meta's Llama 3 has them), tokenizer.json, or
                    a folder with one of them: tokenizer.model where both are. What the files beside it say is honoured:
                    see `roles`
    vocab_size      ids with a piece are below it; those in `missing` have none
    bos_id          what begins a text; None where the tokenizer begins a text with nothing
    eos_ids         what ends a text, any of them; the first is the one that ends a text that is learned
    special_tokens  the control tokens by their text
    chat_template   the text of the model's own chat template (jinja2), None if it has none
    Raises ValueError naming the file if it is none of these.
    """

    def __init__(self, path: str | Path) -> None:
        file = tokenizer_file(Path(path))
        content = file.read_bytes()
        if reason := foreign_file_reason(file):
            raise ValueError(f"{file}: not a tokenizer: {reason}")
        roles = read_roles(file.parent)
        self._set(read_pieces(content, file, roles), roles, file)

    @classmethod
    def of(cls, pieces: Pieces, roles: Roles, path: Path) -> "Tokenizer":
        """A tokenizer of pieces that stand in another kind of file, such as GGUF."""
        tokenizer = cls.__new__(cls)
        tokenizer._set(pieces, roles, path)
        return tokenizer

    def _set(self, pieces: Pieces, roles: Roles, path: Path) -> None:
        self.path = path
        self.pieces = pieces
        self.vocab_size: int = pieces.size
        self.missing = pieces.missing
        self.special_tokens: Mapping[str, int] = MappingProxyType(dict(pieces.controls))
        self.named = MappingProxyType({name: text for name, text in roles.named.items() if text in pieces.controls})
        self.chat_template = roles.chat_template
        self._added = roles.added
        self._controls = frozenset(pieces.controls.values())
        self.bos_id = self._begin(roles)
        self.eos_ids = self._ends(roles)

    def _begin(self, roles: Roles) -> int | None:
        named = self.special_tokens.get(self.named.get("bos_token", ""))
        if roles.adds_bos is False:
            return None
        if roles.adds_bos is None and self.pieces.begin is None:
            return None
        if isinstance(self.pieces, SentencePiecePieces) or self.pieces.begin is None:
            return self.pieces.begin if named is None else named
        return self.pieces.begin

    def _ends(self, roles: Roles) -> tuple[int, ...]:
        """The end token that the tokenizer's files name, that of its own file, and those of the model's config."""
        named = self.special_tokens.get(self.named.get("eos_token", ""))
        if foreign := [token for token in roles.ends if not self._has_piece(token)]:
            warnings.warn(f"{roles.ends_file}: eos_token_id {foreign[0]} is no piece, and ends no text", stacklevel=4)
        more = self.pieces.more_ends if isinstance(self.pieces, RankPieces) else ()
        found = [named, self.pieces.end, *(token for token in roles.ends if self._has_piece(token)), *more]
        return tuple(dict.fromkeys(token for token in found if token is not None))

    @property
    def eos_id(self) -> int:
        """The token that ends a text that is learned.  Raises ValueError if there is none."""
        if not self.eos_ids:
            raise ValueError(f"{self.path}: names no end-of-text token, nor does a config beside it")
        return self.eos_ids[0]

    @property
    def has_dummy_prefix(self) -> bool:
        """True if the first token of a text brings a space that the text has not, as SentencePiece's does."""
        return self.pieces.has_dummy_prefix

    def encode(self, text: str, *, bos: bool = False, eos: bool = False) -> list[int]:
        """Text to ids. Special tokens written out in the text ("<s>", "<|eot_id|>") are plain text.

        bos   begin the text with `bos_id`, if the tokenizer begins texts so
        Raises ValueError for what is no text, and for half a character: a surrogate without its other half has no byte.
        """
        if not isinstance(text, str):
            raise ValueError(f"a text must be a str, one at a time, got {type(text).__module__}.{type(text).__name__}")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            code = ord(text[error.start])
            raise ValueError(f"a text must be of whole characters, got U+{code:04X} at {error.start}") from None
        begin = [self.bos_id] if bos and self.bos_id is not None else []
        return [*begin, *self.pieces.encode(text), *([self.eos_id] if eos else [])]

    def encode_parts(self, parts: Iterable[str | int]) -> list[int]:
        """The ids of texts, each tokenized by itself, and of tokens that are given by their id, in order."""
        ids: list[int] = []
        for part in parts:
            ids += [part] if isinstance(part, int) else self.encode(part)
        return ids

    def split_special(self, text: str) -> list[str | int]:
        """A text that is trusted (a template's, never a user's) as the parts that `encode_parts` takes.

        A special token that is written out becomes its id; white space around it goes where the token says so.
        """
        parts: list[str | int] = []
        start, strips = 0, False

        def add(piece: str) -> None:
            piece = piece.lstrip() if strips else piece
            if piece:
                parts.append(piece)

        for match in self._special.finditer(text) if self._special else ():
            token = self.special_tokens[match.group()]
            rule = self._added.get(token, AddedToken(match.group()))
            before = text[start : match.start()]
            add(before.rstrip() if rule.lstrip else before)
            parts.append(token)
            start, strips = match.end(), rule.rstrip
        add(text[start:])
        return parts

    @cached_property
    def _special(self) -> "re.Pattern[str] | None":
        texts = sorted(filter(None, self.special_tokens), key=len, reverse=True)
        return re.compile("|".join(map(re.escape, texts))) if texts else None

    def decode(self, ids: Iterable[SupportsIndex]) -> str:
        """Ids to the text that they are by themselves; control tokens leave no trace.

        ids   ints, or a row of a tensor or an array of them
        The space that SentencePiece's first token brings along is left out: what goes on from another text joins it by
        `token_bytes`. Bytes that are no character become U+FFFD. Raises ValueError for an id that is no piece.
        """
        return self.pieces.decode([self._checked(token) for token in ids])

    def token_bytes(self, token: int) -> bytes:
        """The bytes that a token adds to a text: b"" for a control token.

        With SentencePiece a word's space stands in front of it, and so in front of a text's first word, whose space the
        text has not: with `has_dummy_prefix`, b" " + text = the bytes of encode(text).
        Raises ValueError for an id without piece.
        """
        return self.pieces.token_bytes(self._checked(token))

    def is_control(self, token: int) -> bool:
        """True for a token that stands for no text: begin, end, padding, the marks of a chat."""
        return token in self._controls

    def piece(self, token: int) -> str:
        """A token as it is shown, a space as U+2581; a row of the embedding without a piece by its number."""
        return self.pieces.piece(token) if self._has_piece(token) else f"<no piece {token}>"

    def rows_without_piece(self, rows: int) -> list[int]:
        """The rows of an embedding of so many that no piece has: padding, or places that were left free."""
        return sorted({token for token in self.missing if token < rows} | {*range(self.vocab_size, rows)})

    def drop_special(self, rows: int) -> list[str]:
        """Leaves out the special tokens at the end that an embedding of so many rows has no row for; their texts.

        Begin and end stay: without their rows a model cannot be used.
        """
        needed = {self.bos_id, *self.eos_ids}
        dropped = [text for text, token in self.special_tokens.items() if token >= rows and token not in needed]
        if not dropped and self.vocab_size - 1 not in self.missing:
            return []
        kept = {text: token for text, token in self.special_tokens.items() if text not in dropped}
        ordinary = set(range(self.vocab_size)) - self.missing - {self.special_tokens[text] for text in dropped}
        self.special_tokens = MappingProxyType(kept)
        self.named = MappingProxyType({name: text for name, text in self.named.items() if text in kept})
        self.vocab_size = max(ordinary, default=-1) + 1
        self.missing = frozenset(token for token in range(self.vocab_size) if token not in ordinary)
        return dropped

    def _has_piece(self, token: int) -> bool:
        return 0 <= token < self.vocab_size and token not in self.missing

    def _checked(self, token: SupportsIndex) -> int:
        try:
            number = operator.index(token)
        except TypeError:
            raise ValueError(f"an id must be a whole number, got {token!r}") from None
        if not self._has_piece(number):
            raise ValueError(f"an id must be one of {self.vocab_size - len(self.missing)} pieces, got {number}")
        return number


def tokenizer_file(path: Path) -> Path:
    """The file of a tokenizer: the path itself, or one of FILES in a folder.  Raises ValueError if it is not there."""
    if path.is_dir():
        for name in FILES:
            if (path / name).is_file():
                return path / name
        raise ValueError(f"{path}: has no tokenizer: neither {' nor '.join(FILES)}")
    if not path.is_file():
        raise ValueError(f"{path}: no such tokenizer file")
    return path


def has_tokenizer(folder: Path) -> bool:
    """True if a folder holds the file of a tokenizer."""
    return any((folder / name).is_file() for name in FILES)


def read_pieces(content: bytes, file: Path, roles: Roles) -> Pieces:
    """The pieces of a tokenizer's file, of whichever kind it is.  Raises ValueError naming the file."""
    if file.suffix == ".json":
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise ValueError(f"{file}: not UTF-8: {error}") from None
        return JsonPieces.read(text, str(file), roles)
    if is_rank_file(content):
        return RankPieces(content, str(file))
    return SentencePiecePieces(content, str(file), roles.added)
