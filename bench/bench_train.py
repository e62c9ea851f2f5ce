"""Training side by side: ours and transformers + PEFT + bitsandbytes, from the same weights, hat and tokens.

Each side is a process of its own, so that the peak of its resident memory is its own. They take turns, a few steps at a
time, and the one that waits sleeps: whatever slows the machine slows both.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from lowrank.adapter_files import save_adapter
from lowrank.adapters import add_adapter
from lowrank.eval.oracles import need, transformers_model
from lowrank.kernels.formats import DENSE_DTYPES
from lowrank.model.checkpoint import open_checkpoint
from lowrank.model.config import ModelConfig
from lowrank.model.llama import Llama

from . import machine
from .harness import paired_ratio, summarize
from .random_llama import write_random_llama
from .rows import Row
from .train_workers import PROVIDERS

SHAPES = {
    "tiny": ModelConfig(dim=64, n_layers=2, n_heads=2, n_kv_heads=2, hidden_dim=256, vocab_size=256),
    "167m": ModelConfig(dim=1024, n_layers=8, n_heads=16, n_kv_heads=16, hidden_dim=2752, vocab_size=32_000),
}
BATCHES = {"tiny": (2, 16), "167m": (2, 512)}
RANK, WARM, BLOCK = 8, 2, 3  # WARM steps are not counted; BLOCK steps a turn
PACKAGES = ["torch", "transformers", "peft", "bitsandbytes"]


def run(shape: str, scratch: Path, *, peers: bool, turns: int, threads: int, tell: Callable[[str], None]) -> list[Row]:
    """A row a side: tokens a second, peak memory, losses, and how many times as long as ours it takes.

    scratch: a folder for the weights, 0.4 GB for "167m".
    Raises ValueError for another shape, or a peer that is not installed; RuntimeError if a side fails.
    """
    if shape not in SHAPES:
        raise ValueError(f"shape must be one of {', '.join(SHAPES)}, got {shape!r}")
    for package in PACKAGES[1:]:
        need(package)
    names = list(PROVIDERS) if peers else ["ours"]
    tell(f"weights, hat and tokens of {shape} into {scratch}")
    rows, length = BATCHES[shape]
    make(scratch, SHAPES[shape], rows, length, WARM + turns * BLOCK)
    meter = machine.LoadMeter()
    sides = {name: _Side(name, scratch, threads) for name in names}
    try:
        for name, side in sides.items():
            side.steps(WARM)
            tell(f"{name}: ready")
        for turn in range(turns):
            order = names if turn % 2 == 0 else names[::-1]
            for name in order:
                seconds = sides[name].steps(BLOCK)
                tell(f"turn {turn + 1} of {turns}: {name}: {rows * length * BLOCK / sum(seconds):,.0f} tokens a second")
    finally:
        for side in sides.values():
            side.close()
    load = meter.load()
    return [
        {
            **_row(sides[name], sides["ours"], shape, rows * length),
            "machine": machine.name(torch.device("cpu")),
            "threads": threads,
            "versions": machine.versions(PACKAGES),
            "commit": machine.commit(),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "load": {"before": load.average_before, "after": load.average_after, "steal": load.steal},
        }
        for name in names
    ]


def make(folder: Path, config: ModelConfig, rows: int, length: int, steps: int) -> None:
    """`base`, random, in Hugging Face's layout; `hat`, A drawn and B zero; `tokens.pt`, int64 [steps, rows, length]."""
    write_random_llama(folder / "meta", config, 1)
    theirs = transformers_model(open_checkpoint(folder / "meta")).to(DENSE_DTYPES["bf16"])
    theirs.save_pretrained(folder / "base")
    with torch.device("cpu"):
        model = Llama(open_checkpoint(folder / "base").config)
    add_adapter(model, "bench", rank=RANK, alpha=2 * RANK, targets="all")
    save_adapter(model, "bench", folder / "hat")
    generator = torch.Generator().manual_seed(0)
    torch.save(torch.randint(3, config.vocab_size, (steps, rows, length), generator=generator), folder / "tokens.pt")


class _Side:
    """One provider's process, and what it has answered after its first steps."""

    def __init__(self, name: str, folder: Path, threads: int) -> None:
        self.name, self.peak_bytes = name, 0
        self.seconds: list[float] = []
        self.losses: list[float] = []
        command = [sys.executable, "-m", "lowrank.bench.train_workers", name, str(folder), str(threads)]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONSAFEPATH": "1"}
        self._log = (folder / f"{name}.log").open("w+")
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True, env=environment
        )

    def steps(self, count: int) -> list[float]:
        """Takes so many steps; returns their seconds."""
        assert self._process.stdin is not None and self._process.stdout is not None
        first = not self.losses
        try:
            self._process.stdin.write(json.dumps({"steps": count}) + "\n")
            self._process.stdin.flush()
            answer = json.loads(self._process.stdout.readline() or "null")
        except BrokenPipeError:
            answer = None
        if answer is None:
            self._log.seek(0)
            raise RuntimeError(f"{self.name} failed: {self._log.read().strip().splitlines()[-1:]}")
        seconds: list[float] = answer["seconds"]
        self.losses += answer["losses"]
        self.peak_bytes = answer["peak_bytes"]
        if not first:
            self.seconds += seconds
        return seconds

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._log.close()


def _row(side: _Side, ours: _Side, shape: str, tokens: int) -> Row:
    summary = summarize([1e3 * seconds for seconds in side.seconds])
    row: dict[str, Any] = {
        "bench": "train",
        "provider": side.name,
        "shape": shape,
        "format": "nf4-dq",
        "dtype": "bf16",
        "rank": RANK,
        "tokens_a_step": tokens,
        "tokens_per_s": round(1e3 * tokens / summary.ms, 1),
        "ms": round(summary.ms, 2),
        "ms_min": round(summary.ms_min, 2),
        "ms_spread": round(summary.ms_spread, 2),
        "steps": summary.repetitions,
        "peak_bytes": side.peak_bytes,
        "losses": [round(loss, 6) for loss in side.losses],
        "versus_ours": None,
    }
    if side is not ours:
        ratio = paired_ratio(ours.seconds, side.seconds)
        row["versus_ours"] = {
            "ratio": round(ratio.ratio, 4),
            "low": round(ratio.low, 4),
            "high": round(ratio.high, 4),
            "our_peak": round(ours.peak_bytes / side.peak_bytes, 4),
            "largest_loss_difference": max(abs(a - b) for a, b in zip(ours.losses, side.losses, strict=True)),
        }
    return row


def missing_peers() -> list[str]:
    """Peers that are named, and not timed: unsloth has no path for a CPU."""
    return [] if find_spec("unsloth") is None else ["unsloth: installed, but it needs a GPU"]
