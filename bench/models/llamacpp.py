"""Generation beside llama.cpp, where its library is built: prompts of 128 and 512 tokens, and tokens behind them.

The base is ours, exported to GGUF in fp16 and quantized by llama.cpp's own function; heads are of equal bits on both
sides, 16 and about 8, with and without an adapter. A side is a process (`llamacpp_worker`, tests/llamacpp/runner.cpp)
that times itself; sides take turns, the order reversed every turn, and the ones that wait sleep. Of a 7B two are in
memory at a time: each peer with what it is compared with.

Its products round activations to 8 bits, ours do not.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Self

import torch

from lowrank.checkpoints.load import load
from lowrank.checkpoints.open_base import open_base
from lowrank.checkpoints.quantize_folder import quantize_folder
from lowrank.gguf.export import export_adapter_gguf, export_base_gguf
from lowrank.gguf.header import read_header
from lowrank.kernels.weights.quantized_weight import expected_bytes
from lowrank.model.config import PRESETS
from lowrank.model.param_names import is_block_linear

from .. import machine
from ..rows import Row
from ..timing import paired_ratio, summarize
from . import sides
from .generate import B_STD
from .random_llama import write_random_llama
from .sides import make_hat, random_tokens

FOLDER = "LOWRANK_LLAMACPP"  # what tests/llamacpp/build.sh prints
RUNNER = "runner"
SHORT, LONG, NEW_TOKENS = 128, 512, 64
WARM = 1  # turns that are not counted
LARGE = "7b"
SHAPES = {**sides.SHAPES, LARGE: PRESETS[LARGE]}
PACKAGES = ["torch"]


@dataclass(frozen=True)
class Side:
    """One of the sides.

    format   of the linears of the blocks: "nf4-dq", or one of llama.cpp's
    head     "bf16", "int8"; of llama.cpp "f16", or "default" (Q6_K)
    against  the number of the side of ours with a head of equal bits, and a hat if this one has one; None for ours
    """

    format: str
    head: str
    has_hat: bool
    against: int | None

    @property
    def provider(self) -> str:
        """Whose it is."""
        return "ours" if self.against is None else "llama.cpp"

    @property
    def name(self) -> str:
        """Its name in files and lines: "llama.cpp-Q4_0-f16-hat"."""
        return "-".join([self.provider, self.format, self.head, *(["hat"] if self.has_hat else [])])


SIDES = (
    Side("nf4-dq", "bf16", False, None),
    Side("nf4-dq", "int8", False, None),
    Side("nf4-dq", "bf16", True, None),
    Side("nf4-dq", "int8", True, None),
    Side("Q4_0", "f16", False, 0),
    Side("Q4_0", "default", False, 1),
    Side("IQ4_NL", "f16", False, 0),
    Side("IQ4_NL", "default", False, 1),
    Side("Q4_K_M", "f16", False, 0),
    Side("Q4_K_M", "default", False, 1),
    Side("Q4_0", "f16", True, 2),
    Side("Q4_0", "default", True, 3),
)


def groups_of(shape: str) -> list[list[Side]]:
    """The sides that take turns with each other: all of them, or of the large shape pairs, with heads of 16 bits."""
    if shape != LARGE:
        return [list(SIDES)]
    peers = [side for side in SIDES if side.against is not None and side.head == "f16" and side.format != "Q4_K_M"]
    return [[_ours(peer), peer] for peer in peers]


def _ours(peer: Side) -> Side:
    assert peer.against is not None
    return SIDES[peer.against]


def not_built_reason() -> str:
    """Why llama.cpp is not there to be compared with, "" if it is."""
    folder = os.environ.get(FOLDER)
    if not folder:
        return f"{FOLDER} names no folder: tests/llamacpp/build.sh builds llama.cpp and prints it"
    runner = Path(folder) / RUNNER
    return "" if runner.is_file() else f"{runner} is missing: tests/llamacpp/build.sh builds it"


def run(shape: str, scratch: Path, *, turns: int, threads: int, tell: Callable[[str], None]) -> list[Row]:
    """A row a side: tokens a second of prompts and of writing, bits a weight, bytes a token, and its time over ours.

    scratch  a folder for the weights: 2 GB for "167m", 40 GB for "7b"
    Raises ValueError for another shape or a llama.cpp that is not built, RuntimeError if a side fails.
    """
    if shape not in SHAPES:
        raise ValueError(f"shape must be one of {', '.join(SHAPES)}, got {shape!r}")
    if reason := not_built_reason():
        raise ValueError(reason)
    config, runner = SHAPES[shape], Path(os.environ[FOLDER]) / RUNNER
    groups = groups_of(shape)
    written = list(dict.fromkeys(side for group in groups for side in group))
    tell(f"weights of {shape} in {len(written)} forms into {scratch}")
    write_random_llama(scratch / "base", config, 1)
    quantize_folder(scratch / "base", scratch / SIDES[0].name, SIDES[0].format, head=SIDES[0].head)
    make_hat(load(scratch / SIDES[0].name, dtype=torch.bfloat16), scratch / "hat", B_STD)
    sizes = {side: _write(side, scratch, runner) for side in written}
    prompts: list[list[int]] = random_tokens(config, WARM + turns, LONG).tolist()
    rows: dict[Side, Row] = {}
    for group in groups:
        meter = machine.LoadMeter()
        answers = _take_turns(group, scratch, prompts, threads, tell)
        busy = meter.load()
        for side in group:
            ours = None if side.against is None else answers[_ours(side)]
            row = {**_row(side, shape, sizes[side], answers[side], ours), **sides.where(threads, busy, PACKAGES)}
            row["busy"] = busy.is_busy
            rows.setdefault(side, row)  # of a side of ours that is in several groups, the first
    return [rows[side] for side in written]


def _take_turns(
    group: Sequence[Side],
    scratch: Path,
    prompts: Sequence[Sequence[int]],
    threads: int,
    tell: Callable[[str], None],
) -> dict[Side, list[dict[str, Any]]]:
    """The answers of each side, without those of the first turns."""
    answers: dict[Side, list[dict[str, Any]]] = {side: [] for side in group}
    with ExitStack() as stack:
        processes = {side: stack.enter_context(_process(side, scratch, threads)) for side in group}
        for turn, prompt in enumerate(prompts):
            for side in group if turn % 2 == 0 else group[::-1]:
                short = processes[side].ask(prompt[:SHORT], NEW_TOKENS)
                long = processes[side].ask(prompt, 0)
                answers[side].append({**short, "long_s": long["prompt_s"]})
            counted = " (not counted)" if turn < WARM else ""
            tell(f"{len(group)} sides, turn {turn + 1} of {len(prompts)}{counted}")
    return {side: all_of_them[WARM:] for side, all_of_them in answers.items()}


def _write(side: Side, scratch: Path, runner: Path) -> tuple[float, int]:
    """Writes what a side reads; bits a weight of the linears of the blocks, and bytes that a token reads."""
    out = scratch / f"{side.name.removesuffix('-hat')}"
    if side.against is None:
        if not out.exists():
            quantize_folder(scratch / "base", out, side.format, head=side.head)
        parameters = open_base(out).parameters()
        shapes = open_base(out).config.parameter_shapes()
        parts = [(p.name, prod(shapes[p.name]), p.nbytes) for p in parameters if p.name != "tok_embeddings.weight"]
        shapes = {name: shape for name, shape in shapes.items() if is_block_linear(name)}
        linears = [(prod(shape), expected_bytes(shape, side.format)) for shape in shapes.values()]  # without levels
    else:
        plain, adapter = scratch / "base.gguf", scratch / "hat.gguf"
        if not plain.exists():
            export_base_gguf(scratch / "base", plain)
            export_adapter_gguf(scratch / "hat", scratch / "base", adapter)
        if not out.exists():
            command = [str(runner), "quantize", str(plain), str(out), side.format, side.head]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(f"{side.name} failed: {done.stderr.strip().splitlines()[-1:]}")
        tensors = [one for name, one in read_header(out).tensors.items() if name != "token_embd.weight"]
        parts = [(one.name, prod(one.shape), one.nbytes) for one in tensors]
        linears = [(count, size) for name, count, size in parts if name.startswith("blk.") and "norm" not in name]
    bits = 8 * sum(size for _, size in linears) / sum(count for count, _ in linears)
    return round(bits, 3), sum(size for _, _, size in parts)


def _process(side: Side, scratch: Path, threads: int) -> "Answering":
    path = scratch / side.name.removesuffix("-hat")
    if side.against is not None:
        return serving(path, threads, LONG + NEW_TOKENS, *([scratch / "hat.gguf"] if side.has_hat else []))
    worker = [sys.executable, "-m", "lowrank.bench.models.llamacpp_worker", str(path), str(threads)]
    return Answering(side.name, [*worker, *([str(scratch / "hat")] if side.has_hat else [])])


def serving(file: Path, threads: int, room: int, *adapter: Path) -> "Answering":
    """llama.cpp's process for a GGUF file, and an adapter's, with room for so many tokens.

    Raises ValueError where llama.cpp is not built.
    """
    if reason := not_built_reason():
        raise ValueError(reason)
    runner = Path(os.environ[FOLDER]) / RUNNER
    return Answering(file.name, [str(runner), "serve", str(file), str(threads), str(room), *map(str, adapter)])


class Answering:
    """A side's process: ready to be asked in the block, and ended behind it.  Raises RuntimeError if it fails."""

    def __init__(self, name: str, command: Sequence[str]) -> None:
        self.name = name
        environment, pipe = {**os.environ, "PYTHONSAFEPATH": "1"}, subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment)

    def __enter__(self) -> Self:
        try:
            self._answer()
        except RuntimeError:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.__exit__(None, None, None)

    def ask(self, prompt: Sequence[int], new: int) -> dict[str, Any]:
        """The seconds of a prompt, and of `new` tokens behind it: `prompt_s`, `tokens_s`."""
        assert self._process.stdin is not None
        self._process.stdin.write(" ".join(map(str, (new, *prompt))) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None and self._process.stderr is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} failed: {self._process.stderr.read().strip().splitlines()[-1:]}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def _row(
    side: Side,
    shape: str,
    size: tuple[float, int],
    mine: Sequence[dict[str, Any]],
    ours: Sequence[dict[str, Any]] | None,
) -> Row:
    """The figures of a side; `ours` are the answers that it is compared with, turn by turn."""
    row: Row = {
        **{"bench": "generate-llamacpp", "provider": side.provider, "shape": shape},
        **{"format": side.format, "head": side.head, "hat": side.has_hat, "turns": len(mine)},
        **{"bits_a_weight": size[0], "bytes_a_token": size[1]},
        "peak_bytes": max(answer["peak_bytes"] for answer in mine),
    }
    for what, key, tokens in (
        (f"prompt_{SHORT}", "prompt_s", SHORT),
        (f"prompt_{LONG}", "long_s", LONG),
        ("tokens", "tokens_s", NEW_TOKENS),
    ):
        seconds = [answer[key] for answer in mine]
        found = summarize([1e3 * one / tokens for one in seconds])
        row[what] = {"per_s": round(1e3 / found.ms, 1), "ms": round(found.ms, 4)}
        row[what]["ms_spread"] = round(found.ms_spread, 4)
        if ours is not None:
            ratio = paired_ratio([answer[key] for answer in ours], seconds)
            row[what]["versus_ours"] = [round(one, 4) for one in (ratio.ratio, ratio.low, ratio.high)]
    return row
