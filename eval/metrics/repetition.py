"""Repetition within a text, and distinct words over texts.

rep-4       = 1 - different 4-grams of words / 4-grams of words                  (Welleck et al. 2019)
distinct-n  = different n-grams / n-grams, over all texts of a cell              (Li et al. 2016)
repeat      = words of the longest run of words that comes twice, apart / words
"""

import re
from collections.abc import Sequence

_WORD = re.compile(r"\w+(?:[.,]\d+)*|[^\w\s]")


def words(text: str) -> list[str]:
    """Words, figures in one piece, and signs; in lower case."""
    return _WORD.findall(text.casefold())


def rep_n(text: str, n: int = 4) -> float:
    """1 - different n-grams / n-grams; 0.0 for a text of fewer than n words."""
    grams = _grams(words(text), n)
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def distinct(texts: Sequence[str], n: int) -> float:
    """Different n-grams / n-grams of all texts together; NaN if there are none."""
    grams = [gram for text in texts for gram in _grams(words(text), n)]
    return len(set(grams)) / len(grams) if grams else float("nan")


def longest_repeat(text: str) -> float:
    """The share of a text's words in the longest run that occurs again behind itself: "a b a b" has 0.5.

    length[i, j] = length[i + 1, j + 1] + 1 if words i and j are the same, and at most j - i: runs do not overlap.
    """
    sequence = words(text)
    longest, below = 0, [0] * (len(sequence) + 1)
    for i in range(len(sequence) - 1, -1, -1):
        row = [0] * (len(sequence) + 1)
        for j in range(len(sequence) - 1, i, -1):
            if sequence[i] == sequence[j]:
                row[j] = below[j + 1] + 1
                longest = max(longest, min(row[j], j - i))
        below = row
    return longest / len(sequence) if sequence else 0.0


def _grams(sequence: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return list(zip(*(sequence[start:] for start in range(n)), strict=False))
