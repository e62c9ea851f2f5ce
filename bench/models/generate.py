"""Generation side by side: ours and transformers + PEFT + bitsandbytes, with the same weights, hat and prompts.

A prompt a turn, each side in its own process: see `sides`. Both wear the hat unmerged; its B is not zero.
"""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

from ..kernels.targets import Bar
from ..rows import Row
from .generate_workers import NEW_TOKENS
from .sides import SHAPES, Side, both, make, need_shape, random_tokens, speed, take_turns, versus, what, where
from .worker import PEER

PROMPT_TOKENS, B_STD = 64, 0.02  # B as wide as the random weights: the hat is a tenth of a linear, and changes tokens
WARM = 1  # turns that are not counted
BAR_SHAPE, AT_LEAST = "167m", 3.0


def run(shape: str, scratch: Path, *, peers: bool, turns: int, threads: int, tell: Callable[[str], None]) -> list[Row]:
    """A row a side: tokens a second, the prompt's time among it, peak memory, and how many times as long as ours.

    scratch: a folder for the weights, 0.7 GB for "167m".
    Raises ValueError for another shape, or a peer that is not installed; RuntimeError if a side fails.
    """
    need_shape(shape, peers)
    tell(f"weights, hat and prompts of {shape} into {scratch}")
    make(scratch, SHAPES[shape], random_tokens(SHAPES[shape], WARM + turns, PROMPT_TOKENS), B_STD)
    sides, load = take_turns(
        "models.generate_workers",
        scratch,
        names=both(peers),
        warm=WARM,
        block=1,
        turns=turns,
        tokens=NEW_TOKENS,
        threads=threads,
        tell=tell,
    )
    return [{**_row(side, sides[0], shape), **where(threads, load)} for side in sides]


def _row(side: Side, ours: Side, shape: str) -> Row:
    row: Row = {
        **what("generate", side.name, shape),
        "prompt_tokens": PROMPT_TOKENS,
        "new_tokens": NEW_TOKENS,
        **speed(side.seconds, NEW_TOKENS, NEW_TOKENS, "turns"),
        "peak_bytes": side.peak_bytes,
        "missing": missing_reason(side.name),
        "versus_ours": None,
    }
    if side is not ours:
        equal = [leading(a, b) for a, b in zip(ours.results, side.results, strict=True)]
        row["versus_ours"] = {**versus(ours, side), "equal_tokens": equal}
    return row


def missing_reason(provider: str) -> str:
    """The fast path that a peer has not here for want of a package, "" if none is wanting."""
    if provider == PEER and find_spec("kernels") is None:
        return "without the package kernels bitsandbytes has no further product for few rows on a CPU"
    return ""


def leading(a: Sequence[int], b: Sequence[int]) -> int:
    """The number of leading tokens that are equal in both."""
    pairs = list(zip(a, b, strict=True))
    return next((place for place, (x, y) in enumerate(pairs) if x != y), len(pairs))


def bars(rows: Sequence[Row]) -> list[Bar]:
    """The bar of the true shape; none without the peer."""
    measured = [row["versus_ours"]["ratio"] for row in rows if row["versus_ours"] and row["shape"] == BAR_SHAPE]
    return [Bar("generation against transformers + peft + bitsandbytes", ratio, AT_LEAST) for ratio in measured]
