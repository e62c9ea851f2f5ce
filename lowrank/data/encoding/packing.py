"""Several examples in one row, none of which sees another: no computing is spent on filling.

B rows, T tokens of the longest row. `segments[b, t]` counts the examples of a row from 0, and is -1 on filling. The
model attends inside a segment only and counts its positions from 0 (`Llama.hidden`), and no token is predicted from
another segment (`next_token_loss`): loss and gradients are those of the examples in rows of their own.
"""

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .batching import Example, PreferencePair, collate

FILLING = -1


@dataclass(frozen=True)
class Row:
    """Examples that stand one behind another in a row of a batch; its length is in tokens."""

    examples: tuple[Example, ...]

    @property
    def supervised(self) -> int:
        """Number of tokens that are learned."""
        return sum(example.supervised for example in self.examples)

    def __len__(self) -> int:
        return sum(map(len, self.examples))


def rows_of_one(examples: Sequence[Example]) -> list[Row]:
    """Every example in a row of its own."""
    return [Row((example,)) for example in examples]


def computed_rows(rows: Sequence[Row]) -> list[Row]:
    """Rows as they are computed: of a pair, which is chosen and rejected, one each."""
    found: list[Row] = []
    for row in rows:
        pairs = [one for one in row.examples if isinstance(one, PreferencePair)]
        found += rows_of_one([one for pair in pairs for one in (pair.chosen, pair.rejected)]) or [row]
    return found


def pack(examples: Sequence[Example], length: int) -> list[Row]:
    """Best fit decreasing: from the longest example on, each goes where it leaves the least room, or opens a row.

    length  the tokens that a row holds
    Raises ValueError naming the first example that is longer.
    """
    rows: list[list[Example]] = []
    rooms: list[tuple[int, int]] = []  # (tokens left, row), sorted
    for example in sorted(examples, key=len, reverse=True):
        if len(example) > length:
            raise ValueError(f"entry {example.id}: {len(example)} tokens do not fit into a row of {length}")
        place = bisect_left(rooms, (len(example), 0))
        if place == len(rooms):
            room, row = length, len(rows)
            rows.append([])
        else:
            room, row = rooms.pop(place)
        rows[row].append(example)
        insort(rooms, (room - len(example), row))
    return [Row(tuple(row)) for row in rows]


def collate_rows(rows: Sequence[Row]) -> tuple[Tensor, Tensor, Tensor | None]:
    """tokens, labels and segments, int64 [B, T]; segments are None where every row holds one example."""
    tokens, labels = collate([_joined(row) for row in rows])
    if all(len(row.examples) == 1 for row in rows):
        return tokens, labels, None
    segments = torch.full_like(tokens, FILLING)
    for number, row in enumerate(rows):
        lengths = torch.tensor([len(example) for example in row.examples])
        segments[number, : len(row)] = torch.arange(len(lengths)).repeat_interleave(lengths)
    return tokens, labels, segments


def filled(rows: Sequence[Row], length: int) -> float:
    """The share of rows of `length` tokens that holds tokens of examples, 0 to 1: 1 - the share of filling."""
    return sum(map(len, rows)) / (len(rows) * length)


def _joined(row: Row) -> Example:
    return Example(
        "+".join(example.id for example in row.examples),
        tuple(token for example in row.examples for token in example.tokens),
        tuple(label for example in row.examples for label in example.labels),
    )
