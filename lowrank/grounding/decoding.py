"""Grounded decoding: while a figure is being written, only what can become a figure of the facts keeps probability.

    p(token | text) = 0 if no text that begins with text + token has only right figures, else what the model says

`automaton` decides it for characters. A tokenizer's tokens are walked as a tree of their characters: a branch is
skipped where its first character must not be written, and allowed as a whole where no figure is near. Outside of
figures only the digits that may begin one are checked.

V vocabulary.
"""

import re
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..data.facts.fact import Facts
from .automaton import START, Rules, State, Text, is_word
from .old_matching import Record

Ids = NDArray[np.int64]
Mask = NDArray[np.bool_]

_SEVERAL_WORDS = re.compile(r"[^\W\d]\W+[^\W\d]|[^\W\d]\W*%")


class Tokens(Protocol):
    """The part of a tokenizer that grounding uses."""

    vocab_size: int

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """The tokens that end a text, any of them."""

    def token_bytes(self, token: int) -> bytes:
        """The UTF-8 bytes that a token adds to a text; none for a token without text."""


class Node:
    """The tokens that begin with the same characters.

    exact   those of exactly these characters
    apart   the branches that go on with a digit, or are not plain
    all     int64: all of them, as every other array of tokens
    plain   True if none of them has a digit behind these characters, nor two words
    under   those that go on with a mark, and those that go on with a word's character, without those set apart
    """

    __slots__ = ("all", "apart", "branches", "exact", "plain", "under")

    def __init__(self) -> None:
        self.branches: dict[str, Node] = {}
        self.exact: list[int] = []
        self.apart: list[str] = []
        self.plain = True
        self.all: Ids
        self.under: tuple[Ids, Ids]


class Vocabulary:
    """The tokens of a tokenizer by their characters.

    parts   tokens that are a part of a character, by their bytes
    lined   True if some token has a digit behind other characters, so that what is allowed follows from a whole line
    Raises ValueError for a tokenizer that cannot write a digit, or another character of a figure, on its own.
    """

    def __init__(self, tokenizer: Tokens) -> None:
        self.size = tokenizer.vocab_size
        self.eos_ids = list(tokenizer.eos_ids)
        self.spelled = [tokenizer.token_bytes(token) for token in range(self.size)]
        self.root = Node()
        self.parts: dict[bytes, list[int]] = {}
        self.lined = False
        for token, spelled in enumerate(self.spelled):
            try:
                self._add(spelled.decode(), token)
            except UnicodeDecodeError:
                self.parts.setdefault(spelled, []).append(token)
        self._close(self.root)
        for letter in "0123456789.,%$() abcdefghijklmnopqrstuvwxyz":
            if letter not in self.root.branches or not self.root.branches[letter].exact:
                raise ValueError(f"grounding: this tokenizer has no token that is {letter!r} alone")

    def _add(self, text: str, token: int) -> None:
        words = _SEVERAL_WORDS.search(text) is not None
        digits = [place for place, letter in enumerate(text) if letter.isdecimal()]
        self.lined = self.lined or words or any(not text[place - 1].isdecimal() for place in digits if place)
        node = self.root
        for place, letter in enumerate(text):
            node = node.branches.setdefault(letter, Node())
            node.plain = node.plain and not words and not any(digit > place for digit in digits)
        if text:
            node.exact.append(token)

    def _close(self, node: Node) -> list[int]:
        """Fills in `under`; the tokens of a node."""
        under: tuple[list[int], list[int]] = ([], [])
        tokens = list(node.exact)
        for letter, branch in node.branches.items():
            below = self._close(branch)
            tokens += below
            if letter.isdecimal() or not branch.plain:
                node.apart.append(letter)
            else:
                under[is_word(letter)].extend(below)
        node.under = np.array(under[0], dtype=np.int64), np.array(under[1], dtype=np.int64)
        node.all = np.array(tokens, dtype=np.int64)
        return tokens


class Grounding:
    """The tokens that may follow one text; a `Constraint` of `generate`.

    facts       the facts that its figures may state
    vocabulary  of the tokenizer that writes it; may be shared between texts
    """

    def __init__(self, facts: Facts, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self.rules = Rules(Record(facts))
        self.state = START
        self.partial = b""  # the first bytes of a character
        self.masks: dict[object, Tensor] = {}

    def allowed(self) -> Tensor:
        """bool [V]: the tokens behind which every figure is right, or can become so."""
        if self.partial:
            return torch.from_numpy(self._allow_parts(np.zeros(self.vocabulary.size, dtype=np.bool_)))
        key = self._key()
        if key not in self.masks:
            self.masks[key] = self._mask()
        return self.masks[key]

    def take(self, token: int) -> None:
        """The text goes on with an allowed token."""
        if token in self.vocabulary.eos_ids:
            return
        text, self.partial, _ = _decoded(self.partial + self.vocabulary.spelled[token])
        for letter in text:
            after = self.rules.step(self.state, letter)
            assert after is not None, f"{letter!r} must not follow {self.state.line!r}"
            self.state = after

    @property
    def unfinished(self) -> int:
        """Number of characters at the end that belong to a figure that is not right yet."""
        if self.rules.may_end(self.state):
            return 0
        return max(reading.size if isinstance(reading, Text) else len(reading.text) for reading in self.state.open)

    def _key(self) -> object:
        """The cache key of a mask: everything in the state that it depends on."""
        state = self.state
        near = self.rules.begins(state.line) if self.rules.quiet(state) else None
        return state.open, state.free, near, state.line if self.vocabulary.lined else ""

    def _mask(self) -> Tensor:
        vocabulary, state = self.vocabulary, self.state
        quiet = self.rules.quiet(state)
        allowed = np.full(vocabulary.size, quiet)
        if quiet:
            for letter in vocabulary.root.apart:
                branch = vocabulary.root.branches[letter]
                allowed[branch.all] = False
                self._try(letter, branch, state, allowed)
        else:
            self._walk(vocabulary.root, state, allowed)
            allowed[vocabulary.eos_ids] = self.rules.may_end(state)
        return torch.from_numpy(self._allow_parts(allowed))

    def _walk(self, node: Node, state: State, allowed: Mask) -> None:
        """Allows what may be written of the tokens below a node, behind the state that the node's characters led to."""
        for letter, under in zip(("|", "q"), node.under, strict=True):
            after = self.rules.step(state, letter) if len(under) else None
            if after is not None and self.rules.quiet(after):
                allowed[under] = True
        for letter in self.rules.telling(state).union(node.apart):
            if letter in node.branches:
                branch = node.branches[letter]
                allowed[branch.all] = False
                self._try(letter, branch, state, allowed)

    def _try(self, letter: str, branch: Node, state: State, allowed: Mask) -> None:
        after = self.rules.step(state, letter)
        if after is None:
            return
        if branch.plain and self.rules.quiet(after):
            allowed[branch.all] = True
        else:
            allowed[branch.exact] = True
            self._walk(branch, after, allowed)

    def _allow_parts(self, allowed: Mask) -> Mask:
        """Bytes that are no whole characters may begin one where nothing is open, and complete one that may follow."""
        for part, tokens in self.vocabulary.parts.items():
            text, rest, complete = _decoded(self.partial + part)
            state: State | None = self.state
            for letter in text:
                state = self.rules.step(state, letter) if state is not None else None
            allowed[tokens] = complete and state is not None and (not rest or state.free)
        return allowed


def _decoded(written: bytes) -> tuple[str, bytes, bool]:
    """The whole characters of some bytes, the first bytes of one more, and whether there is nothing else."""
    try:
        return written.decode(), b"", True
    except UnicodeDecodeError as error:
        rest = written[error.start :]
        return written[: error.start].decode(), rest, error.reason == "unexpected end of data"
