"""The trained tokens: every token of a row with its label, position and segment, and totals over a data set.

A row is looked at as `collate_rows` hands it to the model, and positions are the model's own.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from ...model.loss import IGNORED
from ...model.packed_texts import segment_starts
from ...model.tokenizer import Tokenizer
from .batching import Example, split_by_length
from .packing import Row, collate_rows, filled, pack


@dataclass(frozen=True)
class Token:
    """One token: its entry of the vocabulary, and the model's inputs for it."""

    piece: str
    id: int
    supervised: bool
    position: int
    segment: int


@dataclass(frozen=True)
class Shown:
    """A row: the entry of each segment, and the tokens of all of them. `left_out`: too long, so not trained on."""

    entries: tuple[str, ...]
    tokens: tuple[Token, ...]
    left_out: bool = False

    def segment(self, number: int) -> list[Token]:
        """The tokens of one segment."""
        return [token for token in self.tokens if token.segment == number]


@dataclass(frozen=True)
class Totals:
    """A data set in figures.

    entries               all of them
    over_long             id -> tokens of those with more than `max_tokens`: they are left out
    tokens, supervised    of the others: all, and those that are learned
    p50, p95, longest     of the lengths of all entries in tokens: the value that half, or 95 %, do not exceed
    row_length, rows      how many packed rows of that many tokens the others need
    packing_efficiency    the share of those rows that is not filling, 0 to 1
    """

    entries: int
    max_tokens: int
    over_long: dict[str, int]
    tokens: int
    supervised: int
    p50: int
    p95: int
    longest: int
    row_length: int
    rows: int
    packing_efficiency: float

    @property
    def supervised_share(self) -> float:
        """supervised / tokens; 0 if every entry is left out."""
        return self.supervised / self.tokens if self.tokens else 0.0

    def to_json(self) -> dict[str, Any]:
        """The figures as plain values."""
        return {**asdict(self), "supervised_share": self.supervised_share}


def show(row: Row, tokenizer: Tokenizer, *, left_out: bool = False) -> Shown:
    """A row as the model gets it."""
    tokens, labels, segments = collate_rows([row])
    if segments is None:
        segments = torch.zeros_like(tokens)
    positions = torch.arange(tokens.shape[1]) - segment_starts(segments)
    columns = zip(*(tensor[0].tolist() for tensor in (tokens, labels, positions, segments)), strict=True)
    return Shown(
        tuple(example.id for example in row.examples),
        tuple(
            Token(visible(tokenizer.piece(id)), id, label != IGNORED, position, segment)
            for id, label, position, segment in columns
        ),
        left_out,
    )


def count(examples: Sequence[Example], max_tokens: int, row_length: int) -> Totals:
    """The totals of at least one example; row_length is at least max_tokens."""
    kept, dropped = split_by_length(examples, max_tokens)
    lengths = sorted(map(len, examples))
    rows = pack(kept, row_length)
    return Totals(
        entries=len(examples),
        max_tokens=max_tokens,
        over_long={example.id: len(example) for example in dropped},
        tokens=sum(map(len, kept)),
        supervised=sum(example.supervised for example in kept),
        p50=percentile(lengths, 50),
        p95=percentile(lengths, 95),
        longest=lengths[-1],
        row_length=row_length,
        rows=len(rows),
        packing_efficiency=filled(rows, row_length) if rows else 0.0,
    )


def percentile(ordered: Sequence[int], percent: int) -> int:
    """ordered[ceil(percent / 100 * n) - 1], the smallest value that so many percent of the n do not exceed."""
    return ordered[-(-percent * len(ordered) // 100) - 1]


def visible(piece: str) -> str:
    r"""A piece with nothing in it that would move the cursor: a line break is shown as \n."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in piece)
