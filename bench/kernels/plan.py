"""The cases to be timed: the shapes of Llama 2 7B, the numbers of rows, the bytes and operations of each case.

M rows of x, N out_features, K in_features.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# "into" writes W where a W was before. That is another matter only where the system hands out the memory of every new
# tensor page by page: torch keeps that of a GPU.
INTO = "dequantize into"
OPS = ("quantize", "dequantize", INTO, "forward", "dX")
ON = {"cpu": OPS, "cuda": tuple(op for op in OPS if op != INTO)}

# N x K: attention, fused q k v, one of gate and up, both, down, and the output head.
SHAPES = ((4096, 4096), (12288, 4096), (11008, 4096), (22016, 4096), (4096, 11008), (32000, 4096))
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 2048, 4096, 8192)

QUICK = {"cpu": (((1024, 1024),), (1, 16, 128)), "cuda": (((4096, 4096),), (1, 16, 512, 4096))}
FULL = {"cpu": (SHAPES, (1, 2, 4, 8, 16, 32, 64, 128, 512)), "cuda": (SHAPES, ROWS)}

# How far below the roofline a first guess at a duration is: measured on a 2-core CPU, ours and the
# peers together, and assumed for a GPU. Quantizing is bound by the search for the nearest level, not by bytes.
EFFICIENCY = {"cpu": 0.3, "cuda": 0.4}
QUANTIZE_EFFICIENCY = {"cpu": 0.01, "cuda": 0.02}
SECONDS_OF_A_CASE = {"cpu": 0.2, "cuda": 0.25}  # inputs, the truth in float64, graph capture: a provider and a case
SECONDS_OF_COMPILATION = {"cpu": 0.0, "cuda": 90.0}


@dataclass(frozen=True)
class Limits:
    """The rates of the machine: bytes read and written by a copy, bytes read alone, and a large matrix product."""

    copy_gbs: float
    read_gbs: float
    matmul_tflops: float
    measured: bool

    @property
    def stream_gbs(self) -> float:
        """The larger of the two bandwidths: a product at small M mostly reads."""
        return max(self.copy_gbs, self.read_gbs)


H200 = Limits(copy_gbs=4300, read_gbs=4300, matmul_tflops=790, measured=False)


@dataclass(frozen=True)
class Case:
    """One op at one shape; `m` is None for those that have no x."""

    op: str
    n: int
    k: int
    m: int | None = None

    @property
    def shape(self) -> str:
        """ "16x4096x11008", or "4096x11008" without an x"""
        return "x".join(str(size) for size in (self.m, self.n, self.k) if size is not None)


@dataclass(frozen=True)
class Work:
    """The least that a case has to do: every input read once, every output written once."""

    bytes: int
    flops: int

    def bound(self, op: str, limits: Limits) -> tuple[str, float]:
        """The limit of the op ("bytes" or "flops"), and the milliseconds that it takes at that limit."""
        bandwidth = limits.stream_gbs if op in ("forward", "dX") else limits.copy_gbs
        by_bytes, by_flops = self.bytes / bandwidth / 1e6, self.flops / limits.matmul_tflops / 1e9
        return ("flops", by_flops) if by_flops > by_bytes else ("bytes", by_bytes)


def work(case: Case, stored_bytes: int, itemsize: int) -> Work:
    """Bytes and multiply-adds of a case whose weight takes `stored_bytes` and whose x, y and W take `itemsize` each."""
    if case.m is None:
        return Work(stored_bytes + case.n * case.k * itemsize, 0)
    return Work(stored_bytes + case.m * (case.n + case.k) * itemsize, 2 * case.m * case.n * case.k)


def plan(device: str, shapes: str | Sequence[tuple[int, int]]) -> list[Case]:
    """Every case, a shape after the other, and within it an op after the other.

    shapes: "quick", "full", or some N x K, which get the rows of "full"
    """
    planned, rows = (QUICK if shapes == "quick" else FULL)[device]
    chosen = planned if isinstance(shapes, str) else shapes
    ops = ON[device]
    return [Case(op, n, k, m) for n, k in chosen for op in ops for m in (rows if op in ("forward", "dX") else (None,))]


def expected_seconds(
    cases: Sequence[Case], device: str, limits: Limits, providers: Mapping[str, int], repetitions: int, itemsize: int
) -> float:
    """A guess at the whole run, compilation included: what each call should take, and what surrounds it.

    providers  how many there are of each op
    """
    total = SECONDS_OF_COMPILATION[device]
    for case in cases:
        _, ms = work(case, case.n * case.k // 2, itemsize).bound(case.op, limits)
        efficiency = (QUANTIZE_EFFICIENCY if case.op == "quantize" else EFFICIENCY)[device]
        call = ms / 1e3 / efficiency
        sample = max(call, 1e-3) if device == "cuda" else call  # a graph is at least a millisecond long
        total += providers[case.op] * (SECONDS_OF_A_CASE[device] + (repetitions + 5) * sample)
    return total
