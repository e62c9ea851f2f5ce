"""The stages of the first call on a real device, most valuable first."""

import shutil
from dataclasses import dataclass
from pathlib import Path

RACECHECK = ("--tool", "racecheck", "--error-exitcode", "9")
SANITIZERS = ("compute-sanitizer", "/usr/local/cuda/bin/compute-sanitizer")


@dataclass(frozen=True)
class Stage:
    """A module with its arguments, run in a process of its own.

    seconds    after which it is stopped
    writes     True if it takes --out
    sanitizer  a check of NVIDIA's around the process
    """

    name: str
    module: str
    arguments: tuple[str, ...]
    seconds: int
    writes: bool = True
    sanitizer: tuple[str, ...] = ()

    def missing(self) -> str:
        """The program that this stage needs and that is not here, "" if nothing is missing."""
        return SANITIZERS[0] if self.sanitizer and not sanitizer() else ""

    def command(self, python: str, out: list[Path], dry_run: bool) -> list[str]:
        """The command line."""
        prefix = [sanitizer(), *self.sanitizer] if self.sanitizer and not dry_run else []
        given = [word for folder in out for word in ("--out", str(folder))] if self.writes else []
        return [*prefix, python, "-m", self.module, *self.arguments, *given, *(["--dry-run"] if dry_run else [])]


def sanitizer() -> str:
    """The path of compute-sanitizer, "" where there is none."""
    return next((found for name in SANITIZERS if (found := shutil.which(name))), "")


ON_GPU = ("--device", "cuda")
PRODUCTS, DECODE = "lowrank.bench.kernels.products", "lowrank.bench.models.decode_step"
ALL_PRODUCTS = (*ON_GPU, "--peers", "--shapes", "full", "--go-on")
STAGES = (
    Stage("smoke", "lowrank.bench.gpu.smoke", ON_GPU, 60),
    Stage("decode step", DECODE, ("--shape", "7b", *ON_GPU), 60),
    Stage("decode step in a hat", DECODE, ("--shape", "7b", *ON_GPU, "--rank", "8"), 60),
    Stage("products of one row", PRODUCTS, (*ALL_PRODUCTS, "--rows", "1"), 90),
    Stage("training step", "lowrank.bench.models.train_step", ("--shape", "7b", *ON_GPU), 90),
    Stage(
        "races",
        "lowrank.bench.gpu.smoke",
        (*ON_GPU, "--only", "decode step", "--processes", "1"),
        90,
        writes=False,
        sanitizer=RACECHECK,
    ),
    Stage("products", PRODUCTS, ALL_PRODUCTS, 300),
    Stage("operations of Llama", "lowrank.bench.kernels.llama_ops", ON_GPU, 90),
    Stage("crossover", "lowrank.bench.kernels.crossover", (), 120),
)
