"""A row of a file of examples, before its format is known."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Item:
    """Where a row is, and its value, or what is wrong with it.

    number  its line; in a JSON array and in Parquet its place from 1
    place   the number as it is told: "17", in an array "[17]"
    """

    number: int
    place: str
    data: Any
    error: str | None = None
