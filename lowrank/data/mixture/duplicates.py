"""Rows that ask the same, exactly or nearly.

    near:  |A & B| / |A | B| >= 0.8     A, B: the shingles of two texts

A shingle is five words in a row, of a tweet nine characters in a row, punctuation left out. MinHash finds the pairs to
look at, the similarity itself decides.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

from ...extras import need
from .clean import by_question, comparable
from .layouts import TWEET
from .rows import MixtureRow
from .sources import TASKS

THRESHOLD = 0.8
PERMUTATIONS = 128
WORDS = 5
CHARACTERS = 9
SKETCH_SEED = 1

# Weights of a false and of a missed candidate. With datasketch's own (0.5, 0.5) the index misses 60% of the pairs at a
# similarity of 0.8 and 31% at 0.85; with these 5% and 0.6%. False ones cost a comparison, nothing else.
_WEIGHTS = (0.05, 0.95)

Shingles = Callable[[str], frozenset[str]]


def words(text: str) -> list[str]:
    """The words of a text as they are compared: no punctuation, no case."""
    return re.findall(r"\w+", comparable(text))


def word_shingles(text: str, length: int = WORDS) -> frozenset[str]:
    """Every `length` words in a row; a shorter text is one shingle."""
    found = words(text)
    return frozenset(" ".join(found[i : i + length]) for i in range(max(1, len(found) - length + 1)))


def tweet_shingles(text: str) -> frozenset[str]:
    """Every nine characters in a row; a shorter text is one shingle."""
    line = " ".join(words(text))
    return frozenset(line[i : i + CHARACTERS] for i in range(max(1, len(line) - CHARACTERS + 1)))


def is_tweet(row: MixtureRow) -> bool:
    """True if the text of a row is compared by characters."""
    return row.instruction == TWEET


class NearIndex:
    """Texts, asked for one that is nearly the same."""

    def __init__(self, shingles: Shingles) -> None:
        datasketch = need("datasketch", "data mixture")
        self._shingles = shingles
        # The scheme is named, since datasketch's versions differ in their default and so in every sketch.
        self._empty = datasketch.MinHash(PERMUTATIONS, SKETCH_SEED, scheme="affine32")
        self._index = datasketch.MinHashLSH(THRESHOLD, PERMUTATIONS, weights=_WEIGHTS)
        self._texts: list[str] = []

    def add(self, text: str) -> None:
        """Puts the text into the index."""
        self._insert(text, self._sketch(self._shingles(text)))

    def add_new(self, text: str) -> bool:
        """Puts the text into the index unless one nearly the same is there; says whether it did."""
        shingles = self._shingles(text)
        sketch = self._sketch(shingles)
        if self._has_near_duplicate(shingles, sketch):
            return False
        self._insert(text, sketch)
        return True

    def has_near_duplicate(self, text: str) -> bool:
        """True if a text nearly the same is in the index."""
        shingles = self._shingles(text)
        return self._has_near_duplicate(shingles, self._sketch(shingles))

    def _sketch(self, shingles: frozenset[str]) -> Any:
        sketch = self._empty.copy()
        sketch.update_batch(shingle.encode() for shingle in shingles)
        return sketch

    def _insert(self, text: str, sketch: Any) -> None:
        self._index.insert(len(self._texts), sketch)
        self._texts.append(text)

    def _has_near_duplicate(self, shingles: frozenset[str], sketch: Any) -> bool:
        candidates = (self._shingles(self._texts[i]) for i in self._index.query(sketch))
        return any(len(shingles & other) >= THRESHOLD * len(shingles | other) for other in candidates)


def conflicting(rows: Sequence[MixtureRow]) -> set[str]:
    """Rows that ask the same and answer differently: all of them."""
    groups = (group for group in by_question(rows) if len({row.output for row in group}) > 1)
    return {row.id for group in groups for row in group}


def repeated(rows: Sequence[MixtureRow]) -> set[str]:
    """Rows that ask the same: all but the first by id."""
    return {row.id for group in by_question(rows) for row in group[1:]}


def nearly_repeated(rows: Sequence[MixtureRow]) -> set[str]:
    """Rows of one task that ask nearly the same as one before them by id that is kept."""
    indexes: dict[tuple[str, bool], NearIndex] = {}
    dropped = set()
    for row in sorted(rows, key=lambda row: row.id):
        kind = TASKS[row.source], is_tweet(row)
        if kind not in indexes:
            indexes[kind] = NearIndex(tweet_shingles if is_tweet(row) else word_shingles)
        if not indexes[kind].add_new(row.input):
            dropped.add(row.id)
    return dropped
