"""Training side by side: ours and transformers + PEFT + bitsandbytes, from the same weights, hat and tokens.

A few steps a turn, each side in its own process: see `sides`.
"""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from ..rows import Row
from .sides import SHAPES, Side, both, make, need_shape, random_tokens, speed, take_turns, versus, what, where

BATCHES = {"tiny": (2, 16), "167m": (2, 512)}
WARM, BLOCK = 2, 3  # WARM steps are not counted; BLOCK steps a turn


def run(shape: str, scratch: Path, *, peers: bool, turns: int, threads: int, tell: Callable[[str], None]) -> list[Row]:
    """A row a side: tokens a second, peak memory, losses, and how many times as long as ours it takes.

    scratch: a folder for the weights, 0.4 GB for "167m".
    Raises ValueError for another shape, or a peer that is not installed; RuntimeError if a side fails.
    """
    need_shape(shape, peers)
    tell(f"weights, hat and tokens of {shape} into {scratch}")
    rows, length = BATCHES[shape]
    make(scratch, SHAPES[shape], random_tokens(SHAPES[shape], WARM + turns * BLOCK, rows, length))
    sides, load = take_turns(
        "models.train_workers",
        scratch,
        names=both(peers),
        warm=WARM,
        block=BLOCK,
        turns=turns,
        tokens=rows * length,
        threads=threads,
        tell=tell,
    )
    return [{**_row(side, sides[0], shape, rows * length), **where(threads, load)} for side in sides]


def _row(side: Side, ours: Side, shape: str, tokens: int) -> Row:
    row: Row = {
        **what("train", side.name, shape),
        "tokens_a_step": tokens,
        **speed(side.seconds, tokens, 1, "steps"),
        "peak_bytes": side.peak_bytes,
        "losses": [round(loss, 6) for loss in side.results],
        "versus_ours": None,
    }
    if side is not ours:
        apart = max(abs(a - b) for a, b in zip(ours.results, side.results, strict=True))
        row["versus_ours"] = {**versus(ours, side), "largest_loss_difference": apart}
    return row


def missing_peers() -> list[str]:
    """Peers that are named, and not timed: unsloth has no path for a CPU."""
    return [] if find_spec("unsloth") is None else ["unsloth: installed, but it needs a GPU"]
