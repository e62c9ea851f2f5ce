"""A Llama at its true size on this machine, with nothing to fetch: random weights in Meta's format, quantized to a
folder, loaded, a prompt read, tokens written behind it, one LoRA step taken.

Each stage runs in a process of its own, so that the peak of its resident memory is its own; generating goes on in the
process that loaded, and "ready" starts others.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import islice
from math import prod
from pathlib import Path
from typing import Any

import torch

from lowrank.adapters import accounting, adapter_parameters, add_adapter, use_adapter
from lowrank.checkpoints.embedded import EMBEDDED, base_folder
from lowrank.checkpoints.load import load
from lowrank.checkpoints.open_base import open_base
from lowrank.checkpoints.quantize_folder import quantize_folder
from lowrank.model.config import PRESETS, ModelConfig
from lowrank.model.generate import generate_tokens
from lowrank.model.loss import next_token_loss
from lowrank.train.optim import AdamW, clip_gradients

from .. import machine
from ..timing import summarize
from .random_llama import write_random_llama
from .resident import peak_resident_bytes

TINY = ModelConfig(dim=256, n_layers=2, n_heads=4, n_kv_heads=2, hidden_dim=768, vocab_size=2048)
SMALL = ModelConfig(dim=1024, n_layers=8, n_heads=16, n_kv_heads=16, hidden_dim=2752, vocab_size=32_000)
# The config, and in how many shards Meta gives it.
SHAPES = {
    "tiny": (TINY, 2),
    "167m": (SMALL, 1),
    "7b": (PRESETS["7b"], 1),
    "13b": (PRESETS["13b"], 2),
    "70b": (PRESETS["70b"], 8),
}
BASE, QUANTIZED = "base", "nf4-dq"
STAGES = ("make", "quantize", "ready", "load", "train")
READY_TIMES = 5
PROMPT_TOKENS, NEW_TOKENS, TRAIN_TOKENS, RANK = 8, 16, 32, 8

Row = dict[str, Any]


def run(shape: str, scratch: Path, *, threads: int | None = None, tell: Callable[[Row], None] = print) -> list[Row]:
    """Every stage on a model of a shape; `tell` gets each row as it comes, all are returned. Scratch is emptied again.

    scratch  a folder with room for the model in 16 bits and in 4: 13.5 + 3.9 GB for "7b"
    threads  of torch; left out, as many as torch takes
    Raises ValueError for another shape or too little room, RuntimeError if a stage fails.
    """
    if shape not in SHAPES:
        raise ValueError(f"shape must be one of {', '.join(SHAPES)}, got {shape!r}")
    scratch.mkdir(parents=True, exist_ok=True)
    needed, free = needed_bytes(SHAPES[shape][0]), shutil.disk_usage(scratch).free
    if needed > free:
        raise ValueError(
            f"{scratch}: a random {shape} in 16 and in 4 bits needs {needed / 1e9:.1f} GB of disk, "
            f"{free / 1e9:.1f} GB are free"
        )
    where = environment()
    rows = []
    try:
        for stage in STAGES:
            for figures in _in_a_process(stage, shape, scratch, threads):
                rows.append({"bench": "load", "shape": shape, "weights": QUANTIZED, **figures, **where})
                tell(rows[-1])
    finally:
        for folder in (BASE, QUANTIZED):
            shutil.rmtree(scratch / folder, ignore_errors=True)
    return rows


def needed_bytes(config: ModelConfig) -> int:
    """Bytes of the weights in 16 bits and of the quantized ones, plus 1 %."""
    dense = sum(2 * prod(shape) for shape in config.parameter_shapes().values())
    quantized = sum(item.bytes for item in accounting.base_items(config, QUANTIZED))
    return int(1.01 * (dense + quantized))


def environment() -> Row:
    """The machine and what runs on it."""
    return {
        "machine": machine.name(torch.device("cpu")),
        "versions": machine.versions(["torch"]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": machine.commit(),
    }


def make(shape: str, scratch: Path) -> Iterator[Row]:
    """Random weights in Meta's format."""
    config, shards = SHAPES[shape]
    yield _timed("make", lambda: write_random_llama(scratch / BASE, config, shards))


def quantize(shape: str, scratch: Path) -> Iterator[Row]:
    """The folder in 4 bits with double quantization; the bytes are those that are read."""

    def work() -> int:
        quantize_folder(scratch / BASE, scratch / QUANTIZED, QUANTIZED)
        return _stored_bytes(scratch / BASE)

    yield _timed("quantize", work)


def ready(shape: str, scratch: Path) -> Iterator[Row]:
    """`lowrank generate` up to its first prompt, READY_TIMES processes: the median after torch is there, and torch's.

    The tokenizer is the embedded base's, whose vocabulary is smaller than those of the larger shapes.
    """
    shutil.copy(base_folder(EMBEDDED) / "tokenizer.model", scratch / QUANTIZED)
    command = [sys.executable, "-W", "ignore", "-m", "lowrank.cli.generate.ready", str(scratch / QUANTIZED)]
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}
    found = [
        json.loads(subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout)
        for _ in range(READY_TIMES)
    ]
    seconds = summarize([1e3 * one["ready_s"] for one in found])
    torchs = summarize([1e3 * one["torch_s"] for one in found])
    moved = _stored_bytes(scratch / QUANTIZED)
    yield {
        "stage": "ready",
        "seconds": round(seconds.ms / 1e3, 4),
        "seconds_min": round(seconds.ms_min / 1e3, 4),
        "torch_import_seconds": round(torchs.ms / 1e3, 4),
        "dtype": found[0]["dtype"],
        "bytes": moved,
        "gb_per_s": round(moved / seconds.ms / 1e6, 4),
        "peak_resident_bytes": max(one["peak_resident_bytes"] for one in found),
        "threads": torch.get_num_threads(),
        "load_average": round(os.getloadavg()[0], 2),
    }


def load_and_generate(shape: str, scratch: Path) -> Iterator[Row]:
    """The quantized folder in bfloat16, a prompt, tokens behind it: each reads every weight but the embedding once."""
    models = []

    def loading() -> int:
        models.append(load(scratch / QUANTIZED, dtype=torch.bfloat16))
        return _stored_bytes(scratch / QUANTIZED)

    yield _timed("load", loading)
    prompt = list(range(1, 1 + PROMPT_TOKENS))
    tokens = generate_tokens(models[0], [prompt], max_new_tokens=1 + NEW_TOKENS)
    read = _stored_bytes(scratch / QUANTIZED, but="tok_embeddings.weight")

    def writing(count: int) -> int:
        assert len(list(islice(tokens, count))) == count
        return count * read

    yield {**_timed("prompt", lambda: writing(1)), "tokens": PROMPT_TOKENS}
    row = _timed("generate", lambda: writing(NEW_TOKENS))
    yield {**row, "tokens": NEW_TOKENS, "tokens_per_s": round(NEW_TOKENS / row["seconds"], 4)}


def train(shape: str, scratch: Path) -> Iterator[Row]:
    """One step of LoRA on all linears, with activations recomputed; loading is not counted in its seconds."""
    model = load(scratch / QUANTIZED)
    add_adapter(model, "bench", rank=RANK, alpha=2 * RANK, targets="all")
    use_adapter(model, "bench")
    optimizer = AdamW(adapter_parameters(model, "bench"))
    model.gradient_checkpointing = True
    tokens = torch.randint(1, model.config.vocab_size, (1, TRAIN_TOKENS), generator=torch.Generator().manual_seed(0))
    losses = []

    def work() -> int:
        nats, count = next_token_loss(model.train(), tokens, tokens)
        (nats / count).backward()
        clip_gradients(optimizer.parameters.values(), 1.0)
        optimizer.step(1e-4)
        losses.append(nats.item() / count)
        return 3 * _stored_bytes(scratch / QUANTIZED)  # forward, forward again, backward

    row = _timed("train", work)
    yield {**row, "tokens": TRAIN_TOKENS, "rank": RANK, "loss": round(losses[0], 4)}


def _timed(stage: str, work: Callable[[], int]) -> Row:
    """The row of a stage; `work` returns the bytes that it moved."""
    started = time.perf_counter()
    moved = work()
    seconds = time.perf_counter() - started
    return {
        "stage": stage,
        "seconds": round(seconds, 3),
        "bytes": moved,
        "gb_per_s": round(moved / seconds / 1e9, 4),
        "peak_resident_bytes": peak_resident_bytes(),
        "threads": torch.get_num_threads(),
        "load_average": round(os.getloadavg()[0], 2),
    }


def _stored_bytes(folder: Path, but: str = "") -> int:
    return sum(parameter.nbytes for parameter in open_base(folder).parameters() if parameter.name != but)


def _in_a_process(stage: str, shape: str, scratch: Path, threads: int | None) -> Iterator[Row]:
    command = [sys.executable, "-m", __name__, stage, shape, str(scratch), *([str(threads)] if threads else [])]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process:
        yield from map(json.loads, process.stdout)
    if process.returncode:
        raise RuntimeError(f"stage {stage} of the bench ended with status {process.returncode}")


def _main() -> None:
    """One stage, rows to standard output: what `run` starts."""
    parser = argparse.ArgumentParser()
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("scratch", type=Path)
    parser.add_argument("threads", type=int, nargs="?")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    work = {"make": make, "quantize": quantize, "ready": ready, "load": load_and_generate, "train": train}[args.stage]
    for row in work(args.shape, args.scratch):
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    _main()
