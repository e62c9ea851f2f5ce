"""From which M on each path of a CPU is as fast as looking up in registers: measured rows, committed in crossover.json.

Nothing is timed while a program runs, so a processor takes the same paths, and gives the same bits, every time. A row
names a processor ("AuthenticAMD 25", vendor and family), an instruction set, an operation, a dtype and a path of the
table of `dispatch`; an empty name is any, and "from" is null where the path was the slower one at every M measured. The
first row that fits is taken, so the particular ones stand first.
"""

import json
import sys
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch

from . import library

FILE = Path(__file__).with_name("crossover.json")


class FirstRows(NamedTuple):
    """Rows of x from which the path is taken, and how that is known."""

    m: int
    known: str


def first_rows(path: str, op: str, dtype: torch.dtype) -> FirstRows:
    """For the processor and the instruction set in use."""
    return _first_rows(library.processor(), library.instruction_set(), op, str(dtype).removeprefix("torch."), path)


@cache
def _first_rows(*asked: str) -> FirstRows:
    keys = ("processor", "instruction_set", "op", "dtype", "path")
    for row in json.loads(FILE.read_text(encoding="utf-8")):
        if all(row[key] in ("", name) for key, name in zip(keys, asked, strict=True)):
            return FirstRows(sys.maxsize if row["from"] is None else row["from"], row["known"])
    raise AssertionError(f"{FILE} has no row for {asked}")
