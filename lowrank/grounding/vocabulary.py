"""The tokens of a tokenizer, by what of them decides whether they may be written.

V vocabulary.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from .words import is_marked, is_word

Ids = NDArray[np.int64]
Mask = NDArray[np.bool_]

_LETTERS = re.compile(r"[^\W\d_]+")
NOTHING = np.zeros(0, dtype=np.int64)


class Writable:
    """The characters that a tokenizer can write; of none in particular, all."""

    def __init__(self, letters: frozenset[str] | None = None) -> None:
        self.letters = letters

    def has(self, text: str) -> bool:
        """True if a text can be written."""
        return self.letters is None or self.letters.issuperset(text)


class Tokens(Protocol):
    """The part of a tokenizer that grounding uses."""

    vocab_size: int
    missing: frozenset[int]  # ids without a piece

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """The tokens that end a text, any of them."""

    def token_bytes(self, token: int) -> bytes:
        """The bytes that an id adds to a text; none for one without text."""

    def is_control(self, token: int) -> bool:
        """True for an id that is no text: begin, end, padding."""


class Node:
    """The tokens that begin with the same characters.

    exact     those of exactly these characters
    branches  by the next character
    letters   the figure's characters that they go on with, anywhere
    """

    __slots__ = ("branches", "exact", "letters")

    def __init__(self) -> None:
        self.letters: set[str] = set()
        self.branches: dict[str, Node] = {}
        self.exact: list[int] = []


class Spelling(NamedTuple):
    """The words of a token of whole characters without a figure's; in lower case.

    head     the letters that it begins with, "" if it begins otherwise
    spaced   its first word if another character stands before it, else ""
    others   the words behind its first
    is_joined  True if it goes on with a word, or may not stand right behind a figure
    """

    head: str
    spaced: str
    others: frozenset[str]
    is_joined: bool


class Vocabulary:
    """The tokens of a tokenizer by their characters. It may be shared between texts.

    spellings  token -> its words; of those of whole characters without a figure's
    figures   bool [V]: those that begin a figure: no letter stands before their first figure's character
    ends_line  bool [V]: those with a line's end in them
    root      all of whole characters
    marked    those of them with a figure's character (`words.is_marked`): never free
    plain     bool [V]: those of whole characters without one, and the first bytes of a character
    joined    int64: of these, those that begin with a word's character, or one that may not stand behind a figure
    headless  int64: of these, those that begin with no letter
    words     letters -> those that begin with them; the letters end there
    spaced    letters -> those that have another character before them
    several   those of two words and more, with these words
    parts     bytes -> tokens that are no whole characters
    first_parts  int64: of these, those that are the first bytes of a character
    Raises ValueError for a tokenizer that cannot write a digit, or a letter, on its own.
    """

    def __init__(self, tokenizer: Tokens) -> None:
        self.size = tokenizer.vocab_size
        self.eos_ids = tuple(tokenizer.eos_ids)
        self.spelled = [
            b"" if token in tokenizer.missing or tokenizer.is_control(token) else tokenizer.token_bytes(token)
            for token in range(self.size)
        ]
        self.ends_line = np.array([b"\n" in spelled for spelled in self.spelled])
        self.root, self.marked = Node(), Node()
        self.plain = np.zeros(self.size, dtype=np.bool_)
        self.figures = np.zeros(self.size, dtype=np.bool_)
        self.spellings: dict[int, Spelling] = {}
        self.parts: dict[bytes, list[int]] = {}
        self.several: list[tuple[int, frozenset[str]]] = []
        joined: list[int] = []
        headless: list[int] = []
        words: dict[str, list[int]] = {}
        spaced: dict[str, list[int]] = {}
        for token, spelled in enumerate(self.spelled):
            try:
                text = spelled.decode()
            except UnicodeDecodeError:
                self.parts.setdefault(spelled, []).append(token)
                continue
            if not text:
                continue
            _add(self.root, text, token)
            if any(map(is_marked, text)):
                _add(self.marked, text, token)
                self.figures[token] = is_marked(
                    next(letter for letter in text if letter.isalpha() or is_marked(letter))
                )
                continue
            self.plain[token] = True
            is_joined = is_word(text[0]) or text[0] in "'’^+"
            if is_joined:
                joined.append(token)
            found = list(_LETTERS.finditer(text))
            others = frozenset(match[0].lower() for match in found[1:])
            if others:
                self.several.append((token, others))
            first = found[0][0].lower() if found else ""
            begins = bool(found) and found[0].start() == 0
            if not begins:
                headless.append(token)
            if found:
                (words if begins else spaced).setdefault(first, []).append(token)
            self.spellings[token] = Spelling(first if begins else "", "" if begins else first, others, is_joined)
        self.joined, self.headless = _array(joined), _array(headless)
        self.words, self.spaced = _arrays(words), _arrays(spaced)
        self.letters = _array(token for of in words.values() for token in of)
        self.first_parts = _array(token for part, of in self.parts.items() if is_character_start(part) for token in of)
        self.plain[self.first_parts] = True
        _close(self.marked)
        for letter in "0123456789.,%$() abcdefghijklmnopqrstuvwxyz":
            if not self.can_write(letter):
                raise ValueError(f"grounding: this tokenizer cannot write {letter!r} alone")

    def can_write(self, letter: str) -> bool:
        """True if a character can be written on its own, whole or by its bytes."""
        if letter in self.root.branches and self.root.branches[letter].exact:
            return True
        spelled = letter.encode("utf-8", "surrogatepass")
        return len(spelled) > 1 and all(bytes([byte]) in self.parts for byte in spelled)

    def writable(self, texts: Iterable[str]) -> Writable:
        """The characters of some texts that can be written."""
        return Writable(
            frozenset(letter for letter in frozenset().union(*map(frozenset, texts)) if self.can_write(letter))
        )


def whole_characters(written: bytes) -> tuple[str, bytes, bool]:
    """The whole characters of some bytes, the first bytes of one more, and whether there is nothing else."""
    try:
        return written.decode(), b"", True
    except UnicodeDecodeError as error:
        rest = written[error.start :]
        return written[: error.start].decode(), rest, error.reason == "unexpected end of data"


def last_byte(rest: bytes) -> int:
    """Offset of the last byte of a character that begins with some bytes."""
    return 1 if rest[0] < 0xE0 else 2 if rest[0] < 0xF0 else 3


def completions(rest: bytes) -> list[str]:
    """The characters that begin with some bytes, if one byte is missing."""
    found = []
    for byte in range(0x80, 0xC0):
        try:
            found.append((rest + bytes([byte])).decode())
        except UnicodeDecodeError:  # a surrogate, or beyond the last character
            continue
    return found


def is_character_start(part: bytes) -> bool:
    """True for bytes that are the first of a character, and nothing else."""
    text, rest, complete = whole_characters(part)
    return complete and not text and bool(rest)


def _add(root: Node, text: str, token: int) -> None:
    node = root
    for letter in text:
        node = node.branches.setdefault(letter, Node())
    node.exact.append(token)


def _close(node: Node) -> set[str]:
    for letter, branch in node.branches.items():
        node.letters |= _close(branch) | ({letter} if is_marked(letter) else set())
    return node.letters


def _array(tokens: Iterable[int]) -> Ids:
    return np.array(sorted(tokens), dtype=np.int64)


def _arrays(tokens: dict[str, list[int]]) -> dict[str, Ids]:
    return {letters: _array(of) for letters, of in tokens.items()}
