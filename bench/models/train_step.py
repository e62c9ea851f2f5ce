"""A training step of a Llama in a hat: random weights at true size, made on the device; forward, backward, update.

    python -m lowrank.bench.models.train_step --shape 7b --device cuda --out bench/results

The seven linears of a block in nf4-dq, a hat of rank 8 on each, AdamW in float32, gradients clipped. Every row of the
batch is full, so that peers can be given the same tokens. Only that loss and gradients are finite is looked at here:
what they are is checked by the tests.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from math import isfinite
from pathlib import Path

import torch
from torch import Tensor, nn

from lowrank.kernels.llama_ops.linear_cross_entropy import linear_cross_entropy
from lowrank.model.llama import Llama
from lowrank.train.optim import AdamW, clip_gradients

from .. import machine, rows
from ..timing import summarize
from .decode_step import FORMAT, SHAPES, random_model
from .random_hat import wear_random_hat

RANK, WARM, STEPS = 8, 3, 12
BATCHES = {"7b": ((1, 512), (2, 2048), (1, 2048)), "tiny": ((2, 64),)}


def step(model: Llama, tokens: Tensor, parameters: dict[str, nn.Parameter], optimizer: AdamW) -> tuple[Tensor, Tensor]:
    """One update on tokens [B, T], each the target of the one before; the loss a token, and the gradient's norm."""
    hidden = model.hidden(tokens[:, :-1])
    nats = linear_cross_entropy(hidden.flatten(0, 1), model.output.weight, tokens[:, 1:].flatten())
    loss = nats / tokens[:, 1:].numel()
    loss.backward()
    norm = clip_gradients(parameters.values(), 1.0)
    optimizer.step(1e-4)
    return loss.detach(), norm


def measure(
    model: Llama, parameters: dict[str, nn.Parameter], shape: tuple[int, int], steps: int
) -> tuple[list[float], float]:
    """Milliseconds of each step on a batch of `shape`, and the last loss, NaN if a gradient was not finite."""
    device = model.tok_embeddings.weight.device
    optimizer = AdamW(parameters)
    tokens = torch.randint(3, model.config.vocab_size, (shape[0], shape[1] + 1), device=device)
    taken, last = [], 0.0
    for number in range(WARM + steps):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        loss, norm = step(model, tokens, parameters, optimizer)
        last = loss.item() if isfinite(norm.item()) else float("nan")  # waits for the device
        if number >= WARM:
            taken.append(1e3 * (time.perf_counter() - start))
    return taken, last


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 1 if a loss or a gradient is not finite, of which there is no figure; 2 without the device."""
    parser = argparse.ArgumentParser(
        "python -m lowrank.bench.models.train_step", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--shape", choices=tuple(SHAPES), default="tiny")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--out", action="append", default=[], type=Path, metavar="FOLDER", help="add rows to a file")
    parser.add_argument("--dry-run", action="store_true", help="print what would be timed; no run")
    args = parser.parse_args(arguments)
    batches = BATCHES[args.shape]
    if args.dry_run:
        sizes = ", ".join(f"{batch} x {length}" for batch, length in batches)
        print(f"training step {args.shape}: {args.steps} steps of {sizes} tokens")
        return 0
    if args.device == "cuda" and not torch.cuda.is_available():
        print(f"{parser.prog}: no CUDA device here (torch {torch.__version__})", file=sys.stderr)
        return 2
    device = torch.device(args.device, 0) if args.device == "cuda" else torch.device("cpu")
    model = random_model(SHAPES[args.shape], device, torch.bfloat16 if device.type == "cuda" else torch.float32)
    parameters = wear_random_hat(model, RANK, trainable=True)
    model.train()
    failed = False
    for batch in batches:
        taken, loss = measure(model, parameters, batch, args.steps)
        if not isfinite(loss):
            failed = True
            print(f"wrong: {batch}: loss or gradient is not finite: no figure", file=sys.stderr)
            continue
        summary = summarize(taken)
        row: rows.Row = {"op": "training step", "provider": "ours", "shape": args.shape, "format": FORMAT}
        row |= {"rank": RANK, "batch": batch[0], "length": batch[1], "loss": loss, **vars(summary)}
        row |= {"tokens_a_second": 1e3 * batch[0] * batch[1] / summary.ms, "device": device.type}
        if device.type == "cuda":
            row["peak_bytes"] = torch.cuda.max_memory_allocated(device)
            torch.cuda.reset_peak_memory_stats(device)
        row |= {"machine": machine.name(device), "versions": machine.versions(["torch", "triton"])}
        row |= {"commit": machine.commit(), "source": machine.source()}
        row["date"] = datetime.now(UTC).isoformat(timespec="seconds")
        speed = f"{summary.ms:.2f} ms, {row['tokens_a_second']:,.0f} tokens a second"
        print(f"training step {args.shape} {batch[0]} x {batch[1]}: {speed}", flush=True)
        for folder in args.out:
            rows.append(folder / machine.file_name(f"train step {machine.name(device)}"), [row])
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
