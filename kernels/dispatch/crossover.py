"""From which M on another path computes a product as fast: two numbers for a GPU, a format and an operation.

    M < fused                the decode kernels, which decode W anew for every few rows of x
    fused <= M < scratch     the fused kernel, whose tiles share what is decoded among 128 rows
    scratch <= M             W is dequantized once, and the product is the vendor's GEMM

Measured on each kind of GPU (`bench/kernels/crossover.py`) and stored in crossover.json:
{"NVIDIA H200": {"nf4-dq": {"linear forward": {"fused": 65, "scratch": 256}, ...}, ...}, ...}.
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

FILE = Path(__file__).with_name("crossover.json")


@dataclass(frozen=True)
class Crossover:
    """The two numbers of rows, and how they are known."""

    fused: int
    scratch: int
    known: str


# W written to memory and read again is 4 bytes a weight, as long as the multiply-adds of 370 rows take on an H200
# (4.3 TB/s, 790 TFLOP/s). A fused kernel that reaches 40 % of the vendor's GEMM breaks even where M / 0.4 = M + 370.
SCRATCH = 256
# By the static costs (bench/results/static_cost.md, sm_90), for 11008 x 4096: a fused tile of 128 rows takes 15 us,
# forward and backward. `decode` takes 9.9 us for 64 rows forward, so twice that for 65; backward 13 for 32, 20 for 64.
FUSED = {"linear forward": 65, "linear dX": 33}
# In float32 nothing is fused. W written and read is 9 bytes a weight, 94 us for 11008 x 4096, and the decode kernel
# takes 27 us for each 8 rows: three of them, and the vendor's GEMM of that many is still bound by those bytes.
SCRATCH_FLOAT32 = 25


def is_here(device: torch.device) -> bool:
    """True if this machine has the GPU; `torch.device("cuda")` can be named on any machine."""
    return device.type == "cuda" and (device.index or 0) < torch.cuda.device_count()


@cache
def crossover(device: torch.device, format: str, op: str, dtype: torch.dtype) -> Crossover:
    """The numbers of crossover.json for this GPU, measured in bfloat16; without an entry, the derived ones above."""
    if dtype == torch.float32:
        return Crossover(SCRATCH_FLOAT32, SCRATCH_FLOAT32, "derived for float32")
    if is_here(device):
        name = torch.cuda.get_device_name(device)
        measured = json.loads(FILE.read_text(encoding="utf-8")).get(name, {}).get(format, {})
        if op in measured:
            return Crossover(**measured[op], known=f"measured on {name}")
        return Crossover(FUSED[op], SCRATCH, f"not measured on {name}")
    return Crossover(FUSED[op], SCRATCH, "not measured on this GPU")
