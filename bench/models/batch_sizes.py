"""Many texts at once on a CPU, by their number: tokens a second of all of them together, and what each of them gets.

A random Llama in nf4-dq writes on from random prompts, greedily, in a `ContinuousBatch` whose rows are all taken. The
sizes take turns, so that what slows the machine slows all. Reading the prompts is not in the time: it is the same work
however many are written at once.
"""

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import cast

import torch

from lowrank.adapters import adapter_parameters, add_adapter, using_adapter
from lowrank.checkpoints.load import load
from lowrank.kernels.weights.quantized_weight import DENSE_DTYPES
from lowrank.model.continuous_batch import ContinuousBatch, Request
from lowrank.model.llama import Llama
from lowrank.model.tokenizer import Tokenizer

from .. import machine
from ..rows import Row
from ..timing import summarize
from .random_llama import write_random_llama
from .sides import RANK, SHAPES

SIZES = (1, 2, 4, 8, 16, 32, 64)
PROMPT_TOKENS, NEW_TOKENS, B_STD = 64, 32, 0.02
FORMAT = "nf4-dq"


class NoText:
    """A tokenizer for texts that nobody reads, and that end at their length alone."""

    eos_ids, spaced = (), False

    def rows_without_piece(self, rows: int) -> list[int]:
        """None of them."""
        return []

    def token_bytes(self, token: int) -> bytes:
        """Nothing."""
        return b""


def run(
    shape: str,
    scratch: Path,
    *,
    dtype: str,
    hats: int,
    turns: int,
    threads: int,
    sizes: Sequence[int] = SIZES,
    tell: Callable[[str], None],
) -> list[Row]:
    """A row a size: median tokens a second over `turns`, after one turn that is not counted.

    dtype    of the activations, "fp32" or "bf16"
    hats     that the texts wear in turns; 0 for none
    scratch  a folder for the weights
    Raises ValueError for another shape.
    """
    if shape not in SHAPES:
        raise ValueError(f"shape must be one of {', '.join(SHAPES)}, got {shape!r}")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        tell(f"weights of {shape} into {scratch}")
        write_random_llama(scratch / "base", SHAPES[shape], 1)
        model = load(scratch / "base", FORMAT, DENSE_DTYPES[dtype])
        names = wear(model, hats)
        meter, taken = machine.LoadMeter(), {size: list[float]() for size in sizes}
        for turn in range(1 + turns):
            for size in sizes if turn % 2 else reversed(sizes):
                seconds = written_in(model, size, names)
                if turn:
                    taken[size].append(seconds)
                    tell(f"turn {turn} of {turns}: {size} at once: {size * NEW_TOKENS / seconds:,.1f} tokens a second")
        load_meanwhile = meter.load()
    finally:
        torch.set_num_threads(before)
    where: Row = {
        "machine": machine.name(torch.device("cpu")),
        "threads": threads,
        "versions": machine.versions(["torch"]),
        "commit": machine.commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "load": {
            "before": load_meanwhile.average_before,
            "after": load_meanwhile.average_after,
            "steal": load_meanwhile.steal,
        },
    }
    about: Row = {"bench": "batch", "provider": "ours", "shape": shape, "format": FORMAT, "dtype": dtype, "hats": hats}
    one = median(taken[sizes[0]]) / sizes[0]
    return [{**about, "rank": RANK if hats else 0, **_figures(size, taken[size], one), **where} for size in sizes]


def wear(model: Llama, hats: int) -> list[str | None]:
    """The names of so many random hats, which the model then has; [None] for none."""
    for number in range(hats):
        add_adapter(model, f"hat{number}", rank=RANK, alpha=2 * RANK, seed=number)
        generator = torch.Generator().manual_seed(number)
        with torch.no_grad():
            for path, parameter in adapter_parameters(model, f"hat{number}").items():
                if path.endswith("lora_B"):
                    parameter.normal_(0, B_STD, generator=generator)
    return [f"hat{number}" for number in range(hats)] or [None]


def written_in(model: Llama, size: int, names: Sequence[str | None]) -> float:
    """The seconds of `NEW_TOKENS` steps of so many texts, all of whose prompts are read."""
    generator = torch.Generator().manual_seed(size)
    prompts = torch.randint(3, model.config.vocab_size, (size, PROMPT_TOKENS), generator=generator).tolist()
    batch = ContinuousBatch(model, cast(Tokenizer, NoText()), rows=size, drafts=False, parts_a_step=size)
    for hat, name in enumerate(names):
        with using_adapter(model, name):  # texts in one hat share a context
            for prompt in prompts[hat :: len(names)]:
                batch.add(Request(prompt, 1 + NEW_TOKENS))
    batch.step()
    begun, steps = time.perf_counter(), 0
    while batch:
        batch.step()
        steps += 1
    assert steps == NEW_TOKENS
    return time.perf_counter() - begun


def _figures(size: int, seconds: Sequence[float], one: float) -> Row:
    """The keys of a row that say how fast.

    one  median seconds of a text alone
    """
    summary = summarize([1e3 * second / NEW_TOKENS for second in seconds])
    return {
        "texts": size,
        "prompt_tokens": PROMPT_TOKENS,
        "new_tokens": NEW_TOKENS,
        "tokens_per_s": round(1e3 * size / summary.ms, 1),
        "times_one": round(one * size / median(seconds), 3),
        "step_ms": round(summary.ms, 4),
        "step_ms_min": round(summary.ms_min, 4),
        "step_ms_spread": round(summary.ms_spread, 4),
        "turns": summary.repetitions,
    }
