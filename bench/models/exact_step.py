"""The cost of exact numerics: a training step with `run.numerics` exact and fast, in turns, on a CPU.

    python -m lowrank.bench.models.exact_step --shape 167m --out bench/results

Random weights in nf4-dq, a hat of rank 8 on every linear, float32, clipping and AdamW; every row is full and
learned. Both sides take the same model, one after the other. That both compute the same is checked by the tests: here
only that the losses are finite.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from math import isfinite
from pathlib import Path

import torch
from torch import Tensor, nn

from lowrank.data.encoding.batching import Example
from lowrank.data.encoding.packing import rows_of_one
from lowrank.kernels.llama_ops.cpu import CPU_OPS
from lowrank.layers.recompute import use_ops
from lowrank.model.llama import Llama
from lowrank.train.exact.llama import ExactNextToken
from lowrank.train.exact.optim import ExactAdamW, ExactProcess
from lowrank.train.optim import AdamW
from lowrank.train.parallel.single import SingleProcess
from lowrank.train.step import NextToken, StepState, accumulate, finish, step_units

from .. import machine, rows
from ..timing import paired_ratio, summarize
from .decode_step import FORMAT, random_model
from .random_hat import wear_random_hat
from .sides import RANK, SHAPES, where

BATCHES = {"tiny": (2, 32), "167m": (2, 512)}
WARM, STEPS = 2, 10  # of each side; WARM are not counted
SIDES = {
    "exact": (ExactNextToken(), ExactAdamW, ExactProcess()),
    "fast": (NextToken(), AdamW, SingleProcess()),
}


def measure(
    model: Llama, parameters: dict[str, nn.Parameter], tokens: Tensor, steps: int
) -> tuple[dict[str, list[float]], list[float]]:
    """Milliseconds of each step, by side, and all losses;  tokens int64 [B, T]"""
    batches = [rows_of_one([Example(str(i), tuple(row), tuple(row)) for i, row in enumerate(tokens.tolist())])]
    optimizers = {name: kind(parameters) for name, (_, kind, _) in SIDES.items()}
    taken: dict[str, list[float]] = {name: [] for name in SIDES}
    losses = []
    for number in range(WARM + steps):
        for name in sorted(SIDES, reverse=number % 2 == 1):
            objective, _, team = SIDES[name]
            start, state = time.perf_counter(), StepState()
            accumulate(model, batches[0], step_units(objective, batches), state, team, objective)
            row = finish(batches, state, optimizers[name], 1e-4, 1.0, team, objective)
            losses.append(float("nan") if row["loss"] is None else row["loss"])
            if number >= WARM:
                taken[name].append(1e3 * (time.perf_counter() - start))
    return taken, losses


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 1 if a loss is not finite, of which there is no figure."""
    parser = argparse.ArgumentParser(
        "python -m lowrank.bench.models.exact_step", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--shape", choices=tuple(BATCHES), default="tiny")
    parser.add_argument("--steps", type=int, default=STEPS, help="of each side")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="add a row to its exact.jsonl")
    args = parser.parse_args(arguments)
    threads = machine.pin(args.threads)
    model = random_model(SHAPES[args.shape], torch.device("cpu"), torch.float32)
    use_ops(model, CPU_OPS)
    parameters = wear_random_hat(model, RANK, trainable=True)
    tokens = torch.randint(3, model.config.vocab_size, BATCHES[args.shape])
    meter = machine.LoadMeter()
    taken, losses = measure(model.train(), parameters, tokens, args.steps)
    load = meter.load()
    if not all(map(isfinite, losses)):
        print("wrong: a loss is not finite: no figure", file=sys.stderr)
        return 1
    ratio = paired_ratio(taken["fast"], taken["exact"])
    row: rows.Row = {"bench": "exact", "shape": args.shape, "format": FORMAT, "dtype": "fp32", "rank": RANK}
    row |= {"batch": tokens.shape[0], "length": tokens.shape[1]}
    row |= {name: vars(summarize(times)) for name, times in taken.items()} | {"exact_over_fast": vars(ratio)}
    row |= where(threads, load, ["torch"]) | {"load": vars(load)}
    exact, fast = (summarize(taken[name]).ms for name in ("exact", "fast"))
    interval = f"{ratio.low:.2f} to {ratio.high:.2f}"
    print(
        f"a step of {args.shape}: exact {exact:.0f} ms, fast {fast:.0f}: {ratio.ratio:.2f} times as long ({interval})"
    )
    if load.is_busy:
        print(f"not quiet: {load.others:.0%} of the processor went to others", file=sys.stderr)
    if args.out:
        rows.append(args.out / "exact.jsonl", [row])
    return 0


if __name__ == "__main__":
    sys.exit(main())
