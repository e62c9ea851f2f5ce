"""A sweep side by side: nine hats in one pass through the base, and nine runs one after another.

A step of all nine a turn, each side in its own process: see `sides`.
"""

from collections.abc import Callable
from pathlib import Path

from ..rows import Row
from .sides import SHAPES, Side, make, need_shape, random_tokens, speed, take_turns, versus, what, where
from .sweep_workers import ALONE, TOGETHER

ADAPTERS = 9
LENGTHS = {"tiny": (16, 64), "167m": (64, 512)}  # tokens of the one row of each hat
WARM = 2
BARS = {64: 1.2, 512: 1.0}  # the time of nine runs over that of nine hats, at least


def run(shape: str, scratch: Path, *, turns: int, threads: int, tell: Callable[[str], None]) -> list[Row]:
    """A row a side and length: tokens a second, peak memory, losses, and the time of nine runs over that of nine hats.

    scratch: a folder for the weights, 0.8 GB for "167m".
    Raises ValueError for another shape, or a package that is not installed; RuntimeError if a side fails.
    """
    need_shape(shape, peers=False)
    rows: list[Row] = []
    for length in LENGTHS[shape]:
        folder = scratch / str(length)
        folder.mkdir()
        tell(f"weights and tokens of {shape}, {ADAPTERS} rows of {length}, into {folder}")
        make(folder, SHAPES[shape], random_tokens(SHAPES[shape], WARM + turns, ADAPTERS, length))
        sides, load = take_turns(
            "models.sweep_workers",
            folder,
            names=[TOGETHER, ALONE],
            warm=WARM,
            block=1,
            turns=turns,
            tokens=ADAPTERS * length,
            threads=threads,
            tell=tell,
        )
        rows += [{**_row(side, sides[0], shape, length), **where(threads, load)} for side in sides]
    return rows


def _row(side: Side, ours: Side, shape: str, length: int) -> Row:
    row: Row = {
        **what("sweep", side.name, shape),
        "hats": ADAPTERS,
        "tokens_a_row": length,
        **speed(side.seconds, ADAPTERS * length, 1, "steps"),
        "peak_bytes": side.peak_bytes,
        "losses": [[round(loss, 6) for loss in losses] for losses in side.results],
        "versus_ours": None,
    }
    return row if side is ours else {**row, "versus_ours": versus(ours, side)}


def bars(rows: list[Row]) -> list[str]:
    """A line for each length that has a bar: held or not."""
    lines = []
    for row in rows:
        bar = BARS.get(row["tokens_a_row"])
        if row["shape"] == "167m" and bar is not None and row["versus_ours"]:
            ratio = row["versus_ours"]["ratio"]
            is_held = "held" if ratio >= bar else "missed"
            lines.append(f"{row['tokens_a_row']} tokens: {ratio:.2f} of at least {bar:g}: {is_held}")
    return lines
