"""The bars that a full run on a GPU is held to, read off its rows."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .rows import Row

DECODE, TRAINING = range(1, 65), range(512, 1 << 30)


@dataclass(frozen=True)
class Bar:
    """One bar: what is asked for, what was measured, and whether that is enough."""

    name: str
    value: float
    at_least: float

    @property
    def held(self) -> bool:
        """A value that is no number is not enough."""
        return self.value >= self.at_least

    def __str__(self) -> str:
        return f"{'held' if self.held else 'MISSED':7} {self.name}: {self.value:.3f}, at least {self.at_least:g}"


def bars(rows: Sequence[Row]) -> Iterator[Bar]:
    """Every bar that the rows can speak of.

    A ratio is the time of a peer over ours. "Slowest" is the worst case of all: nothing is averaged away in it.
    """
    shares = [row["share"] for row in rows if row["op"] == "dequantize" and row["provider"] == "ours"]
    if shares:
        yield Bar("dequantize, share of a copy's bandwidth, slowest", min(shares), 0.85)
    decode = _ratios(rows, ("forward",), DECODE, "bitsandbytes")
    if decode:
        yield Bar("forward at M 1..64 against bitsandbytes, geometric mean", _geometric_mean(decode), 1.15)
        yield Bar("forward at M 1..64 against bitsandbytes, slowest", min(decode), 1.0)
    if marlin := _ratios(rows, ("forward",), range(1, 2), "marlin"):
        yield Bar("forward at M 1 against Marlin int4, slowest", min(marlin), 0.95)
    if training := _ratios(rows, ("forward", "dX"), TRAINING, "bitsandbytes"):
        yield Bar("forward and dX at M >= 512 against bitsandbytes, slowest", min(training), 1.05)
    if dense := _ratios(rows, ("forward", "dX"), TRAINING, "dense"):
        yield Bar("forward and dX at M >= 512 against the dense product, slowest", min(dense), 1 / 1.1)


def _ratios(rows: Sequence[Row], ops: tuple[str, ...], m: range, peer: str) -> list[float]:
    chosen = (row for row in rows if row["provider"] == peer and row["op"] in ops and row["M"] in m)
    return [row["versus_ours"]["ratio"] for row in chosen]


def _geometric_mean(ratios: Sequence[float]) -> float:
    return math.exp(math.fsum(map(math.log, ratios)) / len(ratios))
