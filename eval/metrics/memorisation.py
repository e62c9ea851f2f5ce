"""Memorisation: the share of a text that it has in common, character by character, with the texts that were trained on.

    copied        = characters of the longest piece that stands in a training text as well / characters
    copied_masked = the same after every figure has become one sign, so that a template with other figures shows
    from_training = wrong figures of the text that stand in a training text / wrong figures

Documents of one kind share their wordings, so `copied_masked` is high where nothing is wrong; a high `copied`, and
wrong figures that come from training, are what a memory looks like.

How the longest shared piece of every text is found at once: rank[k][i] numbers the pieces of 2^k characters that start
at i, in their order (Karp, Miller and Rosenberg 1972). The last level sorts all suffixes; the best match of one is the
nearest training suffix before or behind it, and how far two agree follows from the levels, largest first.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lowrank.data.facts.figure import Figure
from lowrank.data.facts.figures import read_figures

from .faithfulness import Figure as Checked

MASK = "\N{REPLACEMENT CHARACTER}"
Ints = NDArray[np.int64]
Ranks = NDArray[np.int32]


@dataclass(frozen=True)
class Memory:
    """Measures of one text: the two shares, 0 to 1; its wrong figures, and those of them in training texts."""

    copied: float
    copied_masked: float
    wrong: int
    wrong_from_training: int


def check_memory(texts: Sequence[str], wrong: Sequence[Iterable[Checked]], training: Sequence[str]) -> list[Memory]:
    """The memorisation of each text.

    wrong  the figures of each text that are in no fact
    """
    known = {_value(figure) for text in training for figure in read_figures(text)}
    copied = longest_shared(texts, training)
    masked = [mask_figures(text) for text in texts]
    copied_masked = longest_shared(masked, [mask_figures(text) for text in training])
    memories = []
    for text, hidden, one, other, figures in zip(texts, masked, copied, copied_masked, wrong, strict=True):
        values = [_value(figure.read) for figure in figures]
        shares = (one / max(1, len(text)), other / max(1, len(hidden)))
        memories.append(Memory(*shares, len(values), sum(value in known for value in values)))
    return memories


def mask_figures(text: str) -> str:
    """The text with one sign for every figure, its unit included."""
    pieces, end = [], 0
    for figure in read_figures(text):
        pieces += [text[end : figure.start], MASK]
        end = figure.end
    return "".join((*pieces, text[end:]))


def longest_shared(texts: Sequence[str], training: Sequence[str]) -> list[int]:
    """For each text, the characters of the longest piece of it that is a piece of some training text too."""
    if not training or not any(texts):
        return [0] * len(texts)
    codes, starts = _joined([*training, *texts])
    levels = _ranks(codes, max(map(len, texts)))
    order = np.argsort(levels[-1], kind="stable")
    first = starts[len(training)]  # where the texts begin
    is_training = order < first
    places = np.arange(len(order))
    best = np.zeros(len(order), dtype=np.int64)
    for before, filler in (
        (np.maximum.accumulate(np.where(is_training, places, -1)), -1),
        (np.minimum.accumulate(np.where(is_training, places, len(order))[::-1])[::-1], len(order)),
    ):
        asked = ~is_training & (before != filler)
        agree = _agreement(levels, order[asked], order[before[asked]])
        best[order[asked]] = np.maximum(best[order[asked]], agree)
    ends = [*starts[len(training) + 1 :], len(codes)]
    return [int(best[start:end].max()) for start, end in zip(starts[len(training) :], ends, strict=True)]


def _joined(texts: Sequence[str]) -> tuple[Ints, list[int]]:
    """All texts in one row of code points, each behind it a sign of its own that no other piece can hold."""
    pieces, starts, place = [], [], 0
    for number, text in enumerate(texts):
        starts.append(place)
        pieces.append(np.array([*map(ord, text), 0x110000 + number], dtype=np.int64))
        place += len(text) + 1
    return np.concatenate(pieces), starts


def _ranks(codes: Ints, longest: int) -> list[Ranks]:
    """rank[k], k = 0, 1 ... until 2^k is at least `longest`: equal numbers, equal pieces of 2^k characters."""
    ranks = [_numbered(codes)]
    length = 1
    while length < longest:
        behind = np.full(len(codes), -1)
        behind[:-length] = ranks[-1][length:]
        ranks.append(_numbered(ranks[-1].astype(np.int64) * (len(codes) + 1) + behind))
        length *= 2
    return ranks


def _numbered(keys: Ints) -> Ranks:
    """0 for the smallest key, 1 for the next: 32 bits, since there are some dozen of these over all training texts."""
    return np.unique(keys, return_inverse=True)[1].astype(np.int32)


def _agreement(levels: Sequence[Ranks], a: Ints, b: Ints) -> Ints:
    """Number of equal characters from a and b on; separators are all distinct, so it ends at a text's end."""
    agree = np.zeros(len(a), dtype=np.int64)
    for k in range(len(levels) - 1, -1, -1):
        same = levels[k][a + agree] == levels[k][b + agree]
        agree += same * 2**k
    return agree


def _value(figure: Figure) -> tuple[str, object]:
    return figure.currencies[0] if figure.currencies else figure.kind, figure.magnitude
