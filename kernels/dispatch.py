"""Which path computes what: one table, read from the top.

A path is chosen for the operation, the device, the dtype, the shape, and the layout in which the weight is held. The
first row none of whose rules objects is taken; the objections to the rows above it are the reason that is given. The
last row of every operation is plain torch, which takes everything.

M rows of x flattened, N out_features, K in_features.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch

from .cpu import binding
from .crossover import crossover, is_here
from .formats import BLOCKSIZES, KERNEL_DTYPES, QUANTIZED_NAMES, Blockwise4bit, QuantizedWeight, RowwiseInt8


class Case(NamedTuple):
    """What is asked for: `op` on W [n, k] in `format`, held as `layout`, for m rows of x in `dtype` on `device`."""

    op: str
    m: int
    n: int
    k: int
    dtype: torch.dtype
    device: torch.device
    format: str
    layout: type[QuantizedWeight]


Rule = Callable[[Case], str]  # why a path does not take a case, or nothing


def triton_runs(case: Case) -> str:
    if find_spec("triton") is None:
        return "Triton is not installed (it exists on Linux only)"
    if is_here(case.device) and (got := torch.cuda.get_device_capability(case.device)) < (8, 0):
        return f"Triton's kernels need compute capability 8.0, this GPU has {got[0]}.{got[1]}"
    return ""


def c_was_compiled(case: Case) -> str:
    return binding.absence()


DEVICES = {triton_runs: "cuda", c_was_compiled: "cpu"}  # a path whose first rule this is is for no other device


def in_a_kernel_dtype(case: Case) -> str:
    names = ", ".join(_short(dtype) for dtype in KERNEL_DTYPES)
    return "" if case.dtype in KERNEL_DTYPES else f"the kernels take {names}, this is {_short(case.dtype)}"


def with_weights(case: Case) -> str:
    return "" if case.n * case.k else f"W [{case.n}, {case.k}] holds no weight"


def with_rows(case: Case) -> str:
    return "" if case.m else "x has no rows"


def below_the_crossover(case: Case) -> str:
    m, known = crossover(case.device, case.format)
    return "" if case.m < m else f"M {case.m} is not below {m}, from where the vendor's GEMM is as fast ({known})"


def below_the_panels(case: Case) -> str:
    m = PANELS_FROM[case.op]
    return "" if case.m < m else f"M {case.m} is not below {m}, from where the vendor's GEMM on panels of W is as fast"


@dataclass(frozen=True)
class Path:
    """One row: what computes `op`, where (a function of a room of `kernels`), for which weights, and when not."""

    op: str
    name: str
    where: str
    layout: type[QuantizedWeight] | None  # None: every one
    why: str
    rules: tuple[Rule, ...] = ()

    def is_for(self, case: Case) -> bool:
        device = DEVICES[self.rules[0]] if self.rules else None
        return self.op == case.op and self.layout in (None, case.layout) and device in (None, case.device.type)

    def objection(self, case: Case) -> str:
        """Why this path does not take the case; nothing if it does."""
        return next(filter(None, (rule(case) for rule in self.rules)), "")

    @cached_property
    def run(self) -> Callable[..., Any]:
        """The function. Its room is imported when it is first wanted: Triton exists on Linux only."""
        room, _, function = self.where.rpartition(".")
        run: Callable[..., Any] = getattr(import_module(f".{room}", __package__), function)
        return run


QUANTIZE, DEQUANTIZE, FORWARD, DX = OPS = ("quantize", "dequantize", "linear forward", "linear dX")

SCRATCH = "scratch + GEMM"
PANELS = "panels + GEMM"

NO_KERNEL = "no kernel is written for it"
ONE_READ = "W is read once"
ONE_LAUNCH = "nested maxima are resolved in the one launch"
ROWS = "the codes go to the matrix units as they are"
ONE_GEMM = "W is dequantized once into scratch for the vendor's GEMM, and an adapter rides along"

IN_REGISTERS = "codes are looked up in registers, W is read once and written nowhere"
A_PANEL = "W is dequantized a panel at a time, into the cache, for the vendor's GEMM"

# Rows from which panels win, on a 2-core Xeon with AVX-512 at 4096 x 4096; an adder of rows is slower backward.
PANELS_FROM = {FORWARD: 16, DX: 8}

ON_GPU = (triton_runs, in_a_kernel_dtype, with_weights)
FEW_ROWS = (*ON_GPU, with_rows, below_the_crossover)
ANY_ROWS = (*ON_GPU, with_rows)
ON_CPU = (c_was_compiled, in_a_kernel_dtype, with_weights)
FEW_ROWS_ON_CPU = (*ON_CPU, with_rows, below_the_panels)
ANY_ROWS_ON_CPU = (*ON_CPU, with_rows)

TABLE = (
    Path(QUANTIZE, "Triton", "quantize.quantize_4bit", Blockwise4bit, ONE_READ, ON_GPU),
    Path(QUANTIZE, "C", "cpu.products.quantize_4bit", Blockwise4bit, ONE_READ, ON_CPU),
    Path(QUANTIZE, "plain torch", "reference.quantize", None, NO_KERNEL),
    Path(DEQUANTIZE, "Triton", "dequantize.dequantize_4bit", Blockwise4bit, ONE_LAUNCH, ON_GPU),
    Path(DEQUANTIZE, "C", "cpu.products.dequantize", Blockwise4bit, ONE_READ, ON_CPU),
    Path(DEQUANTIZE, "C", "cpu.products.dequantize", RowwiseInt8, ONE_READ, ON_CPU),
    Path(DEQUANTIZE, "plain torch", "reference.dequantize", None, NO_KERNEL),
    Path(FORWARD, "Triton int8", "int8.linear", RowwiseInt8, ROWS, FEW_ROWS),
    Path(FORWARD, SCRATCH, "training.linear", None, ONE_GEMM, ANY_ROWS),
    Path(FORWARD, "C", "cpu.products.linear", Blockwise4bit, IN_REGISTERS, FEW_ROWS_ON_CPU),
    Path(FORWARD, "C", "cpu.products.linear", RowwiseInt8, IN_REGISTERS, FEW_ROWS_ON_CPU),
    Path(FORWARD, PANELS, "cpu.products.panel_linear", Blockwise4bit, A_PANEL, ANY_ROWS_ON_CPU),
    Path(FORWARD, PANELS, "cpu.products.panel_linear", RowwiseInt8, A_PANEL, ANY_ROWS_ON_CPU),
    Path(FORWARD, "plain torch", "reference.linear", None, NO_KERNEL),
    Path(DX, "Triton int8", "int8.linear_dx", RowwiseInt8, ROWS, FEW_ROWS),
    Path(DX, SCRATCH, "training.linear_dx", None, ONE_GEMM, ANY_ROWS),
    Path(DX, "C", "cpu.products.linear_dx", Blockwise4bit, IN_REGISTERS, FEW_ROWS_ON_CPU),
    Path(DX, "C", "cpu.products.linear_dx", RowwiseInt8, IN_REGISTERS, FEW_ROWS_ON_CPU),
    Path(DX, PANELS, "cpu.products.panel_linear_dx", Blockwise4bit, A_PANEL, ANY_ROWS_ON_CPU),
    Path(DX, PANELS, "cpu.products.panel_linear_dx", RowwiseInt8, A_PANEL, ANY_ROWS_ON_CPU),
    Path(DX, "plain torch", "reference.linear_dx", None, NO_KERNEL),
)


@dataclass(frozen=True)
class Choice:
    """The path that `op` takes, and the reason: the objections to the faster ones, or its own merit."""

    op: str
    path: str
    reason: str


@lru_cache(maxsize=4096)  # a prompt of every length is a case
def choose(case: Case) -> Path:
    """The first path of the table that takes the case."""
    return next(path for path in TABLE if path.is_for(case) and not path.objection(case))


def explain(
    m: int,
    n: int,
    k: int,
    *,
    dtype: torch.dtype,
    device: str | torch.device,
    format: str = "nf4-dq",
    blocksize: int = 64,
) -> list[Choice]:
    """The path of each operation for x [m, k] in `dtype` and W [n, k] in `format`, and why it is that one.

    The device need not be there: "cuda" on a machine without a GPU says what a GPU would do that was not measured.
    Raises ValueError for a negative size, and another device, format or blocksize than there are.
    """
    for name, size in (("m", m), ("n", n), ("k", k)):
        if size < 0:
            raise ValueError(f"{name} must be at least 0, got {size}")
    if format not in QUANTIZED_NAMES:
        raise ValueError(f"format must be one of {', '.join(QUANTIZED_NAMES)}, got {format!r}")
    if blocksize not in BLOCKSIZES:
        raise ValueError(f"blocksize must be a power of two from {BLOCKSIZES[0]} to {BLOCKSIZES[-1]}, got {blocksize}")
    try:
        where = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device {device!r}: {str(error).splitlines()[0]}") from None
    layout: type[QuantizedWeight] = RowwiseInt8 if format == "int8" else Blockwise4bit
    cases = [Case(op, m, n, k, dtype, where, format, layout) for op in OPS]
    return [Choice(case.op, choose(case).name, reason(case)) for case in cases]


@lru_cache(maxsize=4096)
def reason(case: Case) -> str:
    """Why `choose` comes to its choice."""
    chosen = choose(case)
    objections = [path.objection(case) for path in TABLE[: TABLE.index(chosen)] if path.is_for(case)]
    return "; ".join(dict.fromkeys(objections)) or chosen.why


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
