"""The bars that a run is held to, read off its rows."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from lowrank.kernels.cpu.library import BF16_DOTS

from ..rows import Row
from .plan import INTO

PEER = "bitsandbytes"
DECODE, TRAINING = range(1, 65), range(512, 1 << 30)


@dataclass(frozen=True)
class Bar:
    """One bar: what is asked for, what was measured, and whether that is enough."""

    name: str
    value: float
    at_least: float

    @property
    def is_met(self) -> bool:
        """A value that is no number is not enough."""
        return self.value >= self.at_least

    def __str__(self) -> str:
        return f"{'held' if self.is_met else 'MISSED':7} {self.name}: {self.value:.3f}, at least {self.at_least:g}"


def bars(rows: Sequence[Row], device: str, instruction_set: str = "") -> Iterator[Bar]:
    """Every bar of a device that the rows can speak of; a CPU with dot products of bfloat16 has bars of its own.

    A ratio is the time of a peer over ours. "Slowest" is the worst case of all: nothing is averaged away in it.
    """
    if device == "cuda":
        return _on_a_gpu(rows)
    products = _of_bf16_dots if instruction_set == BF16_DOTS else _of_other_sets
    return chain(_of_storage(rows), products(rows))


def _of_storage(rows: Sequence[Row]) -> Iterator[Bar]:
    for op, least in (("quantize", 20.0), ("dequantize", 3.0), (INTO, 3.0)):
        if ratios := _ratios(rows, (op,), None, PEER):
            yield Bar(f"{op} against bitsandbytes, slowest", min(ratios), least)


def _of_bf16_dots(rows: Sequence[Row]) -> Iterator[Bar]:
    for op, m, peer, least in (
        ("forward", range(1, 2), PEER, 1.2),
        ("forward", range(2, 17), PEER, 1.15),
        ("forward", range(32, 513), PEER, 1.3),
        ("forward", range(32, 513), "dense", 1 / 1.05),
        ("dX", range(128, 513), PEER, 1.15),
        ("dX", range(128, 513), "dense", 1 / 1.05),
    ):
        if ratios := _ratios(rows, (op,), m, peer):
            rows_of_x = f"{m.start}..{m.stop - 1}" if len(m) > 1 else str(m.start)
            yield Bar(f"{op} at M {rows_of_x} against {peer}, slowest", min(ratios), least)


def _of_other_sets(rows: Sequence[Row]) -> Iterator[Bar]:
    one = range(1, 2)
    if shares := [
        row["share"] for row in rows if row["op"] == "forward" and row["provider"] == "ours" and row["M"] == 1
    ]:
        yield Bar("forward at M 1, share of the bandwidth of reading, slowest", min(shares), 0.95)
    if ratios := _ratios(rows, ("forward",), one, PEER):
        yield Bar("forward at M 1 against bitsandbytes, slowest", min(ratios), 1.0)
    if ratios := _ratios(rows, ("forward",), range(2, 65), PEER):
        yield Bar("forward at M 2..64 against bitsandbytes, geometric mean", _geometric_mean(ratios), 1.1)
    if ratios := _ratios(rows, ("forward",), range(512, 513), PEER):
        yield Bar("forward at M 512 against bitsandbytes, slowest", min(ratios), 1.4)
    # In training bitsandbytes dequantizes for the forward product too.
    for forward, backward, name, least in (
        (f"{PEER}-dequantize", PEER, PEER, 1.15),
        ("dense", "dense", "dense", 1 / 1.07),
    ):
        if ratios := list(_training(rows, forward, backward)):
            yield Bar(f"forward and dX at M 512 against {name}, slowest", min(ratios), least)


def _training(rows: Sequence[Row], forward: str, backward: str) -> Iterator[float]:
    """A peer's time over ours for both products at M = 512, shape by shape."""
    ms = {(row["op"], row["provider"], row["N"], row["K"]): row["ms"] for row in rows if row["M"] == 512}
    for n, k in dict.fromkeys((row["N"], row["K"]) for row in rows):
        theirs = [("forward", forward, n, k), ("dX", backward, n, k)]
        ours = [("forward", "ours", n, k), ("dX", "ours", n, k)]
        if all(key in ms for key in theirs + ours):
            yield sum(ms[key] for key in theirs) / sum(ms[key] for key in ours)


def _on_a_gpu(rows: Sequence[Row]) -> Iterator[Bar]:
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


def _ratios(rows: Sequence[Row], ops: tuple[str, ...], m: range | None, peer: str) -> list[float]:
    """m None: of ops that have no rows of x"""
    of_op = (row for row in rows if row["provider"] == peer and row["op"] in ops)
    chosen = (row for row in of_op if (row["M"] is None if m is None else row["M"] in m))
    return [row["versus_ours"]["ratio"] for row in chosen]


def _geometric_mean(ratios: Sequence[float]) -> float:
    return math.exp(math.fsum(map(math.log, ratios)) / len(ratios))
