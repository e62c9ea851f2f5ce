"""Every Triton kernel once, on a small case, against plain torch in float64.

    python -m lowrank.bench.gpu.smoke --device cuda --out FOLDER

A row a check, as it comes: whether it holds, its error and bound, and the seconds with compiling. The rule is that of
the tests: at most twice the error of plain torch in the dtype, plus one ulp at the largest value; to the byte where
that is promised. Checks are shared out among processes, for what takes time is to compile.
"""

import argparse
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from datetime import UTC, datetime
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from lowrank.kernels.reference import decode_step as step_reference
from lowrank.kernels.reference import llama_ops, weights
from lowrank.kernels.reference.decode_step import CacheWindow, StepSizes
from lowrank.kernels.weights.linear_with_adapter import BlockWeights, LinearWithAdapter
from lowrank.kernels.weights.quantized_weight import QuantizedWeight, RowwiseInt8
from lowrank.kernels.weights.repack import repack

from .. import machine, rows

PROCESSES = 8
N, K = 256, 512
DTYPE = torch.bfloat16


class Results(NamedTuple):
    """Outputs of ours, of plain torch in the same dtype, and the exact ones in float64."""

    ours: tuple[Tensor, ...]
    plain: tuple[Tensor, ...]
    exact: tuple[Tensor, ...]


def draw(*shape: int, seed: int = 0) -> Tensor:
    """float32 on the CPU, the same on every machine"""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def on(weight: QuantizedWeight, device: str) -> QuantizedWeight:
    """The weight on a device."""
    return weight.with_tensors({name: tensor.to(device) for name, tensor in weight.tensors().items()})


def product(module: str, name: str, rows_of_x: int) -> Callable[[str], Results]:
    """A product with a repacked weight, by the function of that name in a module of the kernels."""

    def run(device: str) -> Results:
        function = getattr(import_module(f"lowrank.kernels.{module}"), name)
        stored = weights.quantize_4bit(draw(N, K), "nf4", 64, True)
        is_forward = name.endswith("linear")
        x = draw(rows_of_x, K if is_forward else N).to(DTYPE)
        w = weights.dequantize(stored).T if is_forward else weights.dequantize(stored)
        y = function(x.to(device), repack(on(stored, device)))  # type: ignore[arg-type]
        return Results((y,), (x @ w.to(DTYPE),), (x.double() @ w.double(),))

    return run


def int8(device: str) -> Results:
    """Both products with 8-bit rows."""
    from lowrank.kernels.triton import int8_linear

    stored = weights.quantize(draw(N, K), "int8", 64, False)
    x, dy = draw(3, K).to(DTYPE), draw(3, N).to(DTYPE)
    w, weight = weights.dequantize(stored), on(stored, device)
    assert isinstance(weight, RowwiseInt8)
    ours = int8_linear.linear(x.to(device), weight), int8_linear.linear_backward(dy.to(device), weight)
    wide = w.double()
    return Results(ours, (x @ w.to(DTYPE).T, dy @ w.to(DTYPE)), (x.double() @ wide.T, dy.double() @ wide))


def storage(device: str) -> Results:
    """Quantize and dequantize, in both layouts, to the byte: the exact ones are those of the reference."""
    from lowrank.kernels.triton import dequantize, quantize

    w = draw(N, K).to(DTYPE)
    truth = weights.quantize_4bit(w, "nf4", 64, True)
    ours = quantize.quantize_4bit(w.to(device), "nf4", 64, True, "w")
    dense = weights.dequantize_4bit(truth, DTYPE)
    found = [*(tensor.reshape(-1) for tensor in ours.tensors().values())]
    expected = [*(tensor.reshape(-1) for tensor in truth.tensors().values()), dense, dense]
    found += [dequantize.dequantize_4bit(ours, DTYPE), dequantize.dequantize_repacked(repack(ours), DTYPE)]
    return Results(tuple(found), tuple(expected), tuple(tensor.double() for tensor in expected))


def compared(
    ours: Callable[..., object], plain: Callable[..., object], *given: Tensor | float | bool | None, device: str
) -> Results:
    """One function of ours and its reference, on the same arguments."""

    def outputs(result: object) -> tuple[Tensor, ...]:
        return tuple(result) if isinstance(result, tuple) else (result,)  # type: ignore[return-value]

    def at(change: Callable[[Tensor], Tensor]) -> list[object]:
        return [change(x) if isinstance(x, Tensor) and x.is_floating_point() else x for x in given]

    there = [x.to(device) if isinstance(x, Tensor) else x for x in given]
    copies = [x.clone() if isinstance(x, Tensor) else x for x in there]  # some work in place
    exact = outputs(plain(*at(lambda x: x.double())))
    return Results(outputs(ours(*copies)), outputs(plain(*at(lambda x: x.clone()))), exact)


def norms(device: str) -> Results:
    from lowrank.kernels.triton import rms_norm

    x, residual, weight = (draw(5, K, seed=i).to(DTYPE)[: 5 if i < 2 else 1] for i in range(3))
    forward = compared(rms_norm.rms_norm, llama_ops.rms_norm, x, residual, weight[0], 1e-5, device=device)
    rstd = llama_ops.rms_norm(x, None, weight[0], 1e-5)[2]
    given = (residual, x, x, rstd, weight[0], True)
    back = compared(rms_norm.rms_norm_backward, llama_ops.rms_norm_backward, *given, device=device)
    return Results(*(one + other for one, other in zip(forward, back, strict=True)))


def rotation(device: str) -> Results:
    from lowrank.kernels.triton import rope

    angle = 4096 * draw(1, 7, 1, 32).abs()
    given = (draw(1, 7, 5, 64).to(DTYPE), angle.cos(), angle.sin(), True, False)
    return compared(rope.rope, llama_ops.rope, *given, device=device)


def gates(device: str) -> Results:
    from lowrank.kernels.triton import swiglu

    gate, up, dy = (draw(9, 333, seed=i).to(DTYPE) for i in range(3))
    forward = compared(swiglu.swiglu, llama_ops.swiglu, gate, up, device=device)
    back = compared(swiglu.swiglu_backward, llama_ops.swiglu_backward, dy, gate, up, device=device)
    return Results(*(one + other for one, other in zip(forward, back, strict=True)))


def losses(device: str) -> Results:
    from lowrank.kernels.triton import cross_entropy

    logits, targets = draw(6, 5000).to(DTYPE), torch.arange(6)
    given = (logits, targets, False)
    return compared(cross_entropy.cross_entropy_, llama_ops.cross_entropy_, *given, device=device)


def one_query(device: str) -> Results:
    from lowrank.kernels.triton import decode_attention

    q, k, v = draw(2, 8, 1, 128).to(DTYPE), draw(2, 2, 300, 128).to(DTYPE), draw(2, 2, 300, 128, seed=1).to(DTYPE)
    mask = (torch.arange(300) > 20).view(1, 1, 1, 300)
    return compared(decode_attention.decode_attention, llama_ops.decode_attention, q, k, v, mask, device=device)


def decode_step(rank: int, ffn: int) -> Callable[[str], Results]:
    """One token through two blocks, in a hat or without; ffn: its hidden channels, for pairs a multiple of 256"""

    def part(n: int, k: int, seed: int, device: str) -> LinearWithAdapter:
        weight = repack(on(weights.quantize_4bit(draw(n, k, seed=seed) / k**0.5, "nf4", 64, True), device))  # type: ignore[arg-type]
        if not rank:
            return LinearWithAdapter(weight)
        matrices = (draw(rank, k, seed=seed) / k**0.5).to(device), draw(n, rank, seed=seed).to(device)
        return LinearWithAdapter(weight, *matrices, 0.5)

    def run(device: str) -> Results:
        from lowrank.kernels.triton import decode_step as triton

        sizes = StepSizes(4, 2, 128, 1e-5, True)
        shapes = ((K, K), (N, K), (N, K), (K, K), (ffn, K), (ffn, K), (K, ffn))
        kept, angle = 1 + draw(1, 1, 1, 64).abs(), torch.tensor([100])
        found = []
        for kind, decode in ((DTYPE, triton.decode_blocks), (DTYPE, None), (torch.float64, None)):
            at = device if decode else "cpu"
            norm = (1 + 0.1 * draw(K)).to(at, DTYPE)
            blocks = [
                BlockWeights(norm, norm, tuple(part(n, k, layer + i, at) for i, (n, k) in enumerate(shapes)))
                for layer in range(2)
            ]
            k, v = (draw(2, 1, 2, 128, 128, seed=i).to(DTYPE).to(at, kind) for i in range(2))
            cache = CacheWindow(k, v, 128, angle.to(at), torch.zeros(1, dtype=torch.int64, device=at))
            x = draw(1, 1, K).to(DTYPE).to(at, kind)
            run = decode or step_reference.decode_blocks
            hidden = run(x, blocks, cache, kept.cos().to(at), kept.sin().to(at), sizes)
            found.append((hidden, k, v))
        return Results(*found)

    return run


CHECKS: dict[str, Callable[[str], Results]] = {
    "decode step": decode_step(0, 768),
    "decode step in a hat": decode_step(8, 768),
    "decode step by look-ups": decode_step(0, 704),
    "decode step by look-ups in a hat": decode_step(8, 704),
    "table of pairs, 1 row": product("cuda.gemv", "decode_linear", 1),
    "decode_linear, 1 row": product("triton.gemv", "decode_linear", 1),
    "decode_linear, 20 rows": product("triton.gemv", "decode_linear", 20),
    "decode_dx, 1 row": product("triton.gemv", "decode_linear_backward", 1),
    "fused_linear, 130 rows": product("triton.gemm", "fused_linear", 130),
    "fused_dx, 130 rows": product("triton.gemm", "fused_linear_backward", 130),
    "quantize and dequantize": storage,
    "decode_attention": one_query,
    "rms_norm": norms,
    "rope": rotation,
    "swiglu": gates,
    "cross_entropy": losses,
    "int8": int8,
}


def check(name: str, device: str) -> rows.Row:
    """One check as a row; what it raises is in the row too."""
    start = time.perf_counter()
    row: rows.Row = {"op": "smoke", "check": name}
    try:
        results = CHECKS[name](device)
        worst = max(_shares_of_the_bound(results))
        row |= {"holds": worst <= 1, "share_of_the_bound": worst if worst < float("inf") else None}
    except (RuntimeError, ValueError, TypeError, AssertionError, ImportError) as error:
        row |= {"holds": False, "error": " ".join(str(error).split())[:500]}
    return row | {"seconds": round(time.perf_counter() - start, 2)}


def _shares_of_the_bound(results: Results) -> Iterator[float]:
    """The error of each output over its bound; what is NaN alone in ours is infinitely wrong."""
    for ours, plain, exact in zip(*results, strict=True):
        if not exact.numel():
            continue
        mine, truth = ours.detach().cpu().double(), exact.double()
        if not ours.is_floating_point():
            yield 0.0 if torch.equal(mine, truth) else float("inf")
            continue
        ulp = torch.finfo(ours.dtype).eps * max(truth.abs().max().item(), torch.finfo(torch.float32).tiny)
        allowed = 2 * (plain.double() - truth).abs().max().item() + ulp
        error = (mine - truth).abs().max().item()
        yield error / allowed if error == error else float("inf")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 1 if a check does not hold; 2 without the device."""
    parser = argparse.ArgumentParser("python -m lowrank.bench.gpu.smoke", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda", help="cpu: under TRITON_INTERPRET=1")
    parser.add_argument("--only", default="", help="checks whose name fits this expression")
    parser.add_argument("--processes", type=int, default=PROCESSES)
    parser.add_argument("--out", action="append", default=[], type=Path, metavar="FOLDER")
    parser.add_argument("--dry-run", action="store_true", help="print the checks; no run")
    args = parser.parse_args(arguments)
    names = [name for name in CHECKS if re.search(args.only, name)]
    if args.dry_run:
        print(f"{len(names)} checks in {args.processes} processes: {', '.join(names)}")
        return 0
    if args.device == "cuda" and not torch.cuda.is_available():
        print(f"{parser.prog}: no CUDA device here (torch {torch.__version__})", file=sys.stderr)
        return 2
    device = torch.device(args.device)
    about = {"device": args.device, "machine": machine.name(device), "commit": machine.commit()}
    about |= {"source": machine.source(), "versions": machine.versions(["torch", "triton"])}
    failed = 0
    for row in _run_all(names, args.device, args.processes):
        failed += not row["holds"]
        said = row.get("error") or f"{row.get('share_of_the_bound')} of its bound"
        print(f"{'holds' if row['holds'] else 'WRONG'}  {row['check']:26} {row['seconds']:6.1f} s  {said}", flush=True)
        stamped = row | about | {"date": datetime.now(UTC).isoformat(timespec="seconds")}
        for folder in args.out:
            rows.append(folder / machine.file_name(f"smoke {machine.name(device)}"), [stamped])
    return 1 if failed else 0


def _run_all(names: Sequence[str], device: str, processes: int) -> Iterator[rows.Row]:
    """The rows as they come."""
    if processes < 2:
        yield from (check(name, device) for name in names)
        return
    with ProcessPoolExecutor(min(processes, len(names)), mp_context=get_context("spawn")) as pool:
        for done in as_completed([pool.submit(check, name, device) for name in names]):
            yield done.result()


if __name__ == "__main__":
    sys.exit(main())
