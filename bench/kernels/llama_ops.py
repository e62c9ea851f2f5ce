"""The operations between Llama's matrix products, and the loss with its head: ours, torch's own, Liger where installed.

    python -m lowrank.bench.kernels.llama_ops --device cuda --out bench/results

Each forward, and forward with its gradient ("... + gradient"), at the sizes of Llama 2 7B for 4096 tokens. Correct
first, as everywhere: the error against float64 is at most twice that of torch's own operations in the dtype, plus one
ulp at the largest value; a peer's three times as much. Rows are those of the kernel bench, with the tokens as M and the
width as N.
"""

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lowrank.kernels.llama_ops import cuda
from lowrank.kernels.llama_ops.linear_cross_entropy import linear_cross_entropy

from .. import machine, rows
from ..timing import Rotation, Stopwatch, cuda_stopwatch, interleave, paired_ratio, rotations, summarize, wall_stopwatch
from .limits import measure_limits

OPS = ("rms_norm", "rope", "swiglu", "linear_cross_entropy")
# Tokens, model dim, ffn hidden, vocabulary, heads: Llama 2 7B, and small enough for a CPU.
SIZES = {"cuda": (4096, 4096, 11008, 32000, 32), "cpu": (64, 256, 768, 1024, 4)}
REPETITIONS, EPS, PEER_ROUNDINGS = 50, 1e-5, 3

Operation = Callable[..., Tensor]


@dataclass(frozen=True)
class Work:
    """The least that an operation moves and multiplies: inputs read once, outputs written once."""

    bytes: int
    flops: int


def torch_rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """(a, b) -> (a cos - b sin, a sin + b cos), the pairs (i, i + h/2); angles in the dtype of x, as in transformers"""
    a, b = x.chunk(2, dim=-1)
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


OURS: dict[str, Operation] = {
    "rms_norm": partial(cuda.rms_norm, eps=EPS),
    "rope": partial(cuda.rope, layout="half"),
    "swiglu": cuda.swiglu,
    "linear_cross_entropy": linear_cross_entropy,
}
TORCH: dict[str, Operation] = {
    "rms_norm": lambda x, weight: F.rms_norm(x, weight.shape, weight, EPS),
    "rope": torch_rope,
    "swiglu": lambda gate, up: F.silu(gate) * up,
    "linear_cross_entropy": lambda x, weight, targets: F.cross_entropy(
        (x @ weight.T).to(torch.promote_types(x.dtype, torch.float32)), targets, reduction="sum"
    ),
}


def liger(functions: Any) -> dict[str, Operation]:
    """Liger's autograd functions, with the arguments that its own Llama gives them."""

    def rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """It turns q and k at once: all heads but one go in as q. Its angles are for both halves of a head."""
        both = [torch.cat([angle, angle], dim=-1)[:, :, 0] for angle in (cos, sin)]
        heads = x.transpose(1, 2)
        q, k = functions.LigerRopeFunction.apply(heads[:, 1:], heads[:, :1], *both)
        return torch.cat([k, q], dim=1).transpose(1, 2)

    return {
        "rms_norm": lambda x, weight: functions.LigerRMSNormFunction.apply(x, weight, EPS, 0.0, "llama", False),
        "rope": rope,
        "swiglu": functions.LigerSiLUMulFunction.apply,
        "linear_cross_entropy": lambda x, weight, targets: functions.LigerFusedLinearCrossEntropyFunction.apply(
            x, weight, targets, None, None, -100, 0.0, 0.0, "sum"
        )[0],
    }


def find() -> tuple[dict[str, dict[str, Operation]], str | None]:
    """Ours, torch's and Liger's operations by provider; and why Liger's are not among them."""
    found = {"ours": OURS, "torch": TORCH}
    try:
        found["liger"] = liger(import_module("liger_kernel.ops"))
    except (ImportError, RuntimeError, OSError, AttributeError) as error:
        return found, " ".join(str(error).split())
    return found, None


class FusedRun:
    """Operands, checks and timings of one device and dtype."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.device, self.dtype = device, dtype
        self.tokens, self.dim, self.hidden, self.vocabulary, self.heads = SIZES[device.type]
        self.generator = torch.Generator(device).manual_seed(0)

    def _normal(self, *size: int) -> Tensor:
        return torch.randn(size, generator=self.generator, device=self.device).to(self.dtype)

    def operands(self, op: str) -> list[Tensor]:
        """The operands of an operation, those with a gradient first."""
        if op == "rms_norm":
            return [self._normal(self.tokens, self.dim), self._normal(self.dim)]
        if op == "swiglu":
            return [self._normal(self.tokens, self.hidden) for _ in range(2)]
        if op == "rope":
            head_dim = self.dim // self.heads
            angles = torch.randn(1, self.tokens, 1, head_dim // 2, generator=self.generator, device=self.device)
            return [self._normal(1, self.tokens, self.heads, head_dim), angles.cos(), angles.sin()]
        targets = torch.randint(self.vocabulary, (self.tokens,), generator=self.generator, device=self.device)
        return [self._normal(self.tokens, self.dim), self._normal(self.vocabulary, self.dim) * 0.02, targets]

    def work(self, op: str, gradient: bool) -> Work:
        """Forward, and with its gradient (of the loss: of x alone, as the head is frozen)."""
        size, x = self.dtype.itemsize, self.tokens * self.dim
        if op == "linear_cross_entropy":
            product = 2 * x * self.vocabulary
            moved = (1 + gradient) * x + self.vocabulary * self.dim
            return Work(size * moved, (1 + gradient) * product)
        numbers = {"rms_norm": (2 * x, 3 * x), "rope": (2 * x, 2 * x)}
        wide = self.tokens * self.hidden
        forward, backward = numbers.get(op, (3 * wide, 5 * wide))
        return Work(size * (forward + gradient * backward), 0)

    def call(self, operation: Operation, op: str, operands: Sequence[Tensor], gradient: bool) -> list[Tensor]:
        """[output], or [output, gradients...] for a gradient of ones."""
        if not gradient:
            with torch.no_grad():
                return [operation(*operands)]
        with_gradient = {"swiglu": 2, "rms_norm": 2}.get(op, 1)
        inputs = [tensor.detach().requires_grad_() for tensor in operands[:with_gradient]]
        y = operation(*inputs, *operands[with_gradient:])
        return [y.detach(), *torch.autograd.grad(y, inputs, torch.ones_like(y))]

    def inexact_reason(self, operation: Operation, op: str, roundings: int) -> str | None:
        """The first error of an operation; None if it is within its bound."""
        operands = self.operands(op)
        exact = self.call(TORCH[op], op, [x.double() if x.is_floating_point() else x for x in operands], True)
        plain = self.call(TORCH[op], op, operands, True)
        mine = self.call(operation, op, [x.clone() for x in operands], True)  # some work in place
        for place, (ours, theirs, truth) in enumerate(zip(mine, plain, exact, strict=True)):
            ulp = torch.finfo(ours.dtype).eps * 2.0 ** truth.abs().max().log2().floor()
            allowed = roundings * (2 * (theirs.double() - truth).abs().max() + ulp).item()
            error = (ours.double() - truth).abs().max().item()
            if not error <= allowed:
                return f"{op}, output {place}: error {error:.3g}, at most {allowed:.3g} allowed"
        return None

    def stopwatch(self, operation: Operation, op: str, gradient: bool) -> tuple[Stopwatch, str]:
        """Over copies of the operands, so that no call finds its own in a cache."""
        first = self.operands(op)
        size = sum(x.numel() * x.element_size() for x in first)
        most = 4 if self.device.type == "cpu" else None
        copies = [first, *([x.clone() for x in first] for _ in range(rotations(size, 0, most) - 1))]
        rotation = Rotation([partial(self.call, operation, op, operands, gradient) for operands in copies])
        if self.device.type == "cpu":
            rotation.step()
            return wall_stopwatch(rotation), "wall"
        return cuda_stopwatch(rotation, capture=not gradient)  # autograd runs on a thread of its own


def measure(run: FusedRun, providers: dict[str, dict[str, Operation]], repetitions: int) -> Iterable[list[rows.Row]]:
    """The rows of an operation, ours first, as they come."""
    limits = measure_limits(run.device, run.dtype, machine.cache_bytes(run.device))
    about = {
        "dtype": str(run.dtype).removeprefix("torch."),
        "device": run.device.type,
        "machine": machine.name(run.device),
        "versions": machine.versions(["torch", "triton", "liger_kernel"]),
        "commit": machine.commit(),
        "source": machine.source(),
        "limits": vars(limits),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    for op, gradient in ((op, gradient) for op in OPS for gradient in (False, True)):
        watches = {name: run.stopwatch(made[op], op, gradient) for name, made in providers.items() if op in made}
        if not watches:
            continue
        samples = interleave({name: watch for name, (watch, _) in watches.items()}, repetitions)
        needed = run.work(op, gradient)
        least = max(needed.bytes / limits.copy_gbs / 1e6, needed.flops / limits.matmul_tflops / 1e9)
        width = {"swiglu": run.hidden, "linear_cross_entropy": run.vocabulary}.get(op, run.dim)
        found = []
        for name, taken in samples.items():
            summary = summarize(taken)
            ratio = paired_ratio(samples["ours"], taken) if name != "ours" else None
            row: rows.Row = {"op": op + (" + gradient" if gradient else ""), "provider": name, "format": None}
            row |= {"M": run.tokens, "N": width, "K": None, **vars(summary), "timing": watches[name][1]}
            row |= {"bytes": needed.bytes, "flops": needed.flops, "share": least / summary.ms}
            row["versus_ours"] = vars(ratio) if ratio else None
            found.append(row | about)
        yield found


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 1 if an output of ours was wrong, whose operation is not timed; 2 without the device."""
    parser = argparse.ArgumentParser(
        "python -m lowrank.bench.kernels.llama_ops", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--device", choices=tuple(SIZES), default="cpu")
    parser.add_argument(
        "--out", action="append", default=[], type=Path, metavar="FOLDER", help="add rows to a file here"
    )
    parser.add_argument("--repetitions", type=int, default=REPETITIONS)
    parser.add_argument("--dry-run", action="store_true", help="print what would be timed; no run")
    args = parser.parse_args(arguments)
    if args.dry_run:
        tokens, dim, hidden, vocabulary, heads = SIZES[args.device]
        print(f"{', '.join(OPS)}, and their gradients: {tokens} tokens of {dim}, {hidden}, {vocabulary}, {heads} heads")
        return 0
    if args.device == "cuda" and not torch.cuda.is_available():
        print(f"{parser.prog}: no CUDA device here (torch {torch.__version__})", file=sys.stderr)
        return 2
    run = FusedRun(torch.device(args.device, 0), torch.bfloat16)
    providers, absent = find()
    if absent:
        print(f"note: liger_kernel is not compared: {absent}", file=sys.stderr)
    failed = False
    for op in OPS:
        for name in list(providers):
            made = providers[name]
            if op not in made:
                continue
            try:
                wrong = run.inexact_reason(made[op], op, 1 if name == "ours" else PEER_ROUNDINGS)
            except (RuntimeError, ValueError, TypeError, AttributeError, AssertionError) as error:
                wrong = " ".join(str(error).split())[:200]
            if not wrong:
                continue
            failed |= name == "ours"
            told = (
                f"wrong: {op}: {wrong}: not timed" if name == "ours" else f"note: {op}: {name} is not compared: {wrong}"
            )
            print(told, file=sys.stderr)
            left_out = list(providers) if name == "ours" else [name]
            providers |= {who: {o: f for o, f in providers[who].items() if o != op} for who in left_out}
    stream = torch.cuda.Stream() if args.device == "cuda" else None
    with torch.cuda.stream(stream):
        for found in measure(run, providers, args.repetitions):
            for row in found:
                ratio = f"   {row['versus_ours']['ratio']:.2f} x ours" if row["versus_ours"] else ""
                print(f"{row['op']:31} {row['provider']:6} {row['ms']:9.4f} ms  {row['share']:6.1%}{ratio}", flush=True)
            for folder in args.out:
                rows.append(folder / machine.file_name(f"fused {machine.name(run.device)}"), found)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
