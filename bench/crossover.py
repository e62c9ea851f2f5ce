"""From which M on it is as fast to dequantize W for the vendor's GEMM: measured on this GPU, and stored for the table.

    python -m lowrank.bench.crossover

What competes is what the table of `kernels.dispatch` has: of each format the path for few rows, and scratch + GEMM.
"""

import json
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from ..kernels import crossover, dispatch, ops, run
from ..kernels.formats import QuantizedWeight

SHAPES = ((4096, 4096), (11008, 4096), (4096, 11008))  # N, K: the linears of a block of Llama-2-7B
ROWS = (16, 32, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
FORMATS = ("int8",)  # those for which the table has a path for few rows

Stopwatch = Callable[[Callable[[], Tensor]], float]


def first_as_fast(few: Iterable[float], many: Iterable[float], rows: tuple[int, ...] = ROWS) -> int:
    """The least M from which on `many` is never slower; beyond the last of `rows` if it is still slower there."""
    slower = [m for m, ours, theirs in zip(rows, few, many, strict=True) if theirs > ours]
    return next((m for m in rows if m > max(slower, default=0)), rows[-1] + 1)


def measure(format: str, dtype: torch.dtype, device: torch.device, stopwatch: Stopwatch) -> int:
    """The crossover of a format, over the times of all SHAPES together."""
    few, many = ([0.0] * len(ROWS) for _ in range(2))
    for n, k in SHAPES:
        weight = ops.quantize(torch.randn(n, k, device=device), format)
        for place, m in enumerate(ROWS):
            x = torch.randn(m, k, dtype=dtype, device=device)
            few[place] += stopwatch(_product(x, weight, few_rows=True))
            many[place] += stopwatch(_product(x, weight, few_rows=False))
    return first_as_fast(few, many)


def _product(x: Tensor, weight: QuantizedWeight, few_rows: bool) -> Callable[[], Tensor]:
    """x W^T by the path of the table for few rows, or for many, whatever the crossover is now."""
    case = run.linear_case(x, weight)
    (path,) = (
        path
        for path in dispatch.TABLE
        if path.is_for(case) and path.rules and (dispatch.below_the_crossover in path.rules) == few_rows
    )
    return lambda: path.run(x, weight)


def main() -> None:
    from triton.testing import do_bench  # it empties the cache before every call

    device = torch.device("cuda")
    name = torch.cuda.get_device_name(device)
    stored = json.loads(crossover.FILE.read_text(encoding="utf-8"))
    for format in FORMATS:
        stored.setdefault(name, {})[format] = measure(
            format, torch.bfloat16, device, lambda call: float(do_bench(call, return_mode="median"))
        )
    crossover.FILE.write_text(json.dumps(stored, indent=2) + "\n", encoding="utf-8")
    print(f"{name}: {stored[name]} -> {crossover.FILE}")


if __name__ == "__main__":
    main()
