"""From which M on the next path is as fast: measured on this GPU, and stored for the table.

    python -m lowrank.bench.kernels.crossover

What competes is what the table of `kernels.dispatch.table` has: a path for few rows, of 4 bits the fused one, scratch
+ GEMM.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import product
from pathlib import Path

import torch
from torch import Tensor

from lowrank.atomic_io import write_text
from lowrank.kernels import ops
from lowrank.kernels.dispatch import crossover, table
from lowrank.kernels.weights.quantized_weight import QuantizedWeight

SHAPES = ((4096, 4096), (11008, 4096), (4096, 11008))  # N, K: the linears of a block of Llama-2-7B
ROWS = (16, 32, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
FORMATS = ("nf4", "nf4-dq", "fp4", "fp4-dq", "int8")
Stopwatch = Callable[[Callable[[], Tensor]], float]


def first_as_fast(few: Iterable[float], many: Iterable[float], rows: tuple[int, ...] = ROWS) -> int:
    """The least M from which on `many` is never slower; beyond the last of `rows` if it is still slower there."""
    slower = [m for m, ours, theirs in zip(rows, few, many, strict=True) if theirs > ours]
    return next((m for m in rows if m > max(slower, default=0)), rows[-1] + 1)


def measure(format: str, op: str, dtype: torch.dtype, device: torch.device, stopwatch: Stopwatch) -> dict[str, int]:
    """The two crossovers of an operation in a format, over the times of all SHAPES together.

    Scratch is held against the better of the other two at every M, so that fused is never above scratch.
    """
    times: dict[str, list[float]] = {}
    for n, k in SHAPES:
        weight = ops.to_fast_layout(ops.quantize(torch.randn(n, k, device=device), format), dtype)
        for place, m in enumerate(ROWS):
            x = torch.randn(m, k if op == table.FORWARD else n, dtype=dtype, device=device)
            for name, call in _products(op, x, weight).items():
                times.setdefault(name, [0.0] * len(ROWS))[place] += stopwatch(call)
    few, scratch = times["few"], times["scratch"]
    fused = times.get("fused", few)
    least = first_as_fast(map(min, few, fused), scratch)
    return {"fused": min(first_as_fast(few, fused) if "fused" in times else least, least), "scratch": least}


def _products(op: str, x: Tensor, weight: QuantizedWeight) -> dict[str, Callable[[], Tensor]]:
    """The product by each path that the table has for the weight on a GPU, whatever the crossovers are now."""
    n, k = weight.shape
    case = table.Case(op, len(x), n, k, x.dtype, torch.device("cuda"), weight.name, type(weight))
    names = {table.FUSED: "fused", table.SCRATCH: "scratch"}
    paths = {names.get(path.name, "few"): path for path in table.TABLE if path.is_for(case) and path.rules}
    return {name: partial(path.run, x, weight) for name, path in paths.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 2 without a GPU. The file of the table is written after every format, and copied to every --out."""
    parser = argparse.ArgumentParser(
        "python -m lowrank.bench.kernels.crossover", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--out", action="append", default=[], type=Path, metavar="FOLDER", help="a copy of the file")
    parser.add_argument("--dry-run", action="store_true", help="print what would be measured; no run")
    args = parser.parse_args(arguments)
    if args.dry_run:
        print(f"{', '.join(FORMATS)}, forward and dX, at {len(ROWS)} numbers of rows -> {crossover.FILE}")
        return 0
    if not torch.cuda.is_available():
        print(f"{parser.prog}: no CUDA device here (torch {torch.__version__})", file=sys.stderr)
        return 2
    from triton.testing import do_bench  # it empties the cache before every call

    device = torch.device("cuda")
    name = torch.cuda.get_device_name(device)
    stored = json.loads(crossover.FILE.read_text(encoding="utf-8"))
    for format, op in product(FORMATS, (table.FORWARD, table.BACKWARD)):
        stored.setdefault(name, {}).setdefault(format, {})[op] = measure(
            format, op, torch.bfloat16, device, lambda call: float(do_bench(call, return_mode="median"))
        )
        for file in (crossover.FILE, *(folder / crossover.FILE.name for folder in args.out)):
            write_text(file, json.dumps(stored, indent=2) + "\n")
    print(f"{name}: {stored[name]} -> {crossover.FILE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
