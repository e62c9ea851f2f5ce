"""Two sides of a bench, ours and transformers + PEFT + bitsandbytes, that take turns at the same jobs.

Each side is a process of its own (`worker`), so that the peak of its resident memory is its own. The one that waits
sleeps: whatever slows the machine slows both.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lowrank.adapters import adapter_parameters, add_adapter
from lowrank.adapters.files import save_adapter
from lowrank.checkpoints.open_base import open_base
from lowrank.eval.parity.reference_models import transformers_model
from lowrank.extras import need
from lowrank.kernels.weights.quantized_weight import DENSE_DTYPES
from lowrank.model.config import ModelConfig
from lowrank.model.llama import Llama

from .. import machine
from ..rows import Row
from ..timing import paired_ratio, summarize
from .random_llama import write_random_llama
from .worker import OURS, PEER

SHAPES = {
    "tiny": ModelConfig(dim=64, n_layers=2, n_heads=2, n_kv_heads=2, hidden_dim=256, vocab_size=256),
    "167m": ModelConfig(dim=1024, n_layers=8, n_heads=16, n_kv_heads=16, hidden_dim=2752, vocab_size=32_000),
}
RANK = 8
PACKAGES = ["torch", "transformers", "peft", "bitsandbytes"]


def need_shape(shape: str, peers: bool) -> None:
    """Raises ValueError for another shape, or a package that is not installed: transformers writes the base."""
    if shape not in SHAPES:
        raise ValueError(f"shape must be one of {', '.join(SHAPES)}, got {shape!r}")
    for package in PACKAGES[1:] if peers else ["transformers"]:
        need(package, "a bench of whole models")


def make(folder: Path, config: ModelConfig, tokens: Tensor, b_std: float = 0.0) -> None:
    """Writes the inputs of both sides: `base`, random, in Hugging Face's layout; `hat`; `tokens.pt`, a row a job.

    tokens  int64 [jobs, ...]
    b_std   the deviation of the hat's B, drawn from a normal; zero leaves a hat that changes nothing yet
    """
    write_random_llama(folder / "meta", config, 1)
    theirs = transformers_model(open_base(folder / "meta")).to(DENSE_DTYPES["bf16"])
    theirs.save_pretrained(folder / "base")
    with torch.device("cpu"):
        make_hat(Llama(open_base(folder / "base").config), folder / "hat", b_std)
    torch.save(tokens, folder / "tokens.pt")


def make_hat(model: Llama, folder: Path, b_std: float) -> None:
    """Writes a hat of all linears of a model, which stays in it; B is drawn from a normal of that deviation."""
    add_adapter(model, "bench", rank=RANK, alpha=2 * RANK, targets="all")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for path, parameter in adapter_parameters(model, "bench").items():
            if path.endswith("lora_B"):
                parameter.normal_(0, b_std, generator=generator)
    save_adapter(model, "bench", folder)


def random_tokens(config: ModelConfig, *shape: int) -> Tensor:
    """int64 of that shape, drawn evenly from what is no special token"""
    return torch.randint(3, config.vocab_size, shape, generator=torch.Generator().manual_seed(0))


class Side:
    """One provider's process, and what it has answered; the seconds of its first jobs are not kept."""

    def __init__(self, name: str, worker: str, folder: Path, threads: int) -> None:
        self.name, self.peak_bytes = name, 0
        self.seconds: list[float] = []
        self.results: list[Any] = []
        command = [sys.executable, "-m", f"lowrank.bench.{worker}", name, str(folder), str(threads)]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONSAFEPATH": "1"}
        self._log = (folder / f"{name}.log").open("w+")
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True, env=environment
        )

    def take(self, count: int) -> list[float]:
        """Does so many jobs; returns their seconds.  Raises RuntimeError if the process fails."""
        assert self._process.stdin is not None and self._process.stdout is not None
        first = not self.results
        try:
            self._process.stdin.write(json.dumps({"count": count}) + "\n")
            self._process.stdin.flush()
            answer = json.loads(self._process.stdout.readline() or "null")
        except BrokenPipeError:
            answer = None
        if answer is None:
            self._log.seek(0)
            raise RuntimeError(f"{self.name} failed: {self._log.read().strip().splitlines()[-1:]}")
        seconds: list[float] = answer["seconds"]
        self.results += answer["results"]
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


def both(peers: bool) -> list[str]:
    """The names of both sides, or of ours alone."""
    return [OURS, PEER] if peers else [OURS]


def take_turns(
    worker: str,
    folder: Path,
    *,
    names: Sequence[str],
    warm: int,
    block: int,
    turns: int,
    tokens: int,
    threads: int,
    tell: Callable[[str], None],
) -> tuple[list[Side], machine.Load]:
    """`warm` jobs of each side, which are not counted, then turns of `block` jobs, the order reversed every turn.

    worker  the module of this folder that the processes run
    names   of its providers, ours first
    tokens  of one job, for `tell`
    Returns our side first, and what the machine did meanwhile.  Raises RuntimeError if a side fails.
    """
    meter = machine.LoadMeter()
    sides = {name: Side(name, worker, folder, threads) for name in names}
    try:
        for name, side in sides.items():
            side.take(warm)
            tell(f"{name}: ready")
        for turn in range(turns):
            for name in names if turn % 2 == 0 else list(names)[::-1]:
                seconds = sides[name].take(block)
                tell(f"turn {turn + 1} of {turns}: {name}: {tokens * block / sum(seconds):,.0f} tokens a second")
    finally:
        for side in sides.values():
            side.close()
    return list(sides.values()), meter.load()


def what(bench: str, provider: str, shape: str) -> Row:
    """The first keys of a row: what was done, by whom."""
    return {"bench": bench, "provider": provider, "shape": shape, "format": "nf4-dq", "dtype": "bf16", "rank": RANK}


def speed(seconds: list[float], tokens: int, each: int, repetitions: str) -> Row:
    """The keys of a row that say how fast.

    tokens, each  of one job, and in how many parts its milliseconds are given
    repetitions   the key of how many jobs were timed
    """
    summary = summarize([1e3 * second / each for second in seconds])
    return {
        "tokens_per_s": round(1e3 * tokens / each / summary.ms, 1),
        "ms": round(summary.ms, 4),
        "ms_min": round(summary.ms_min, 4),
        "ms_spread": round(summary.ms_spread, 4),
        repetitions: summary.repetitions,
    }


def versus(ours: Side, side: Side) -> Row:
    """The peer's time over ours, job by job, and our peak of memory over the peer's."""
    ratio = paired_ratio(ours.seconds, side.seconds)
    return {
        "ratio": round(ratio.ratio, 4),
        "low": round(ratio.low, 4),
        "high": round(ratio.high, 4),
        "our_peak": round(ours.peak_bytes / side.peak_bytes, 4),
    }


def where(threads: int, load: machine.Load, packages: Sequence[str] = PACKAGES) -> Row:
    """The last keys of a row: where it comes from, with the versions of the packages."""
    return {
        "machine": machine.name(torch.device("cpu")),
        "threads": threads,
        "versions": machine.versions([*packages]),
        "commit": machine.commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "load": {"before": load.average_before, "after": load.average_after, "steal": load.steal},
    }
