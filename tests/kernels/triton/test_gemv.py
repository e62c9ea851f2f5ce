"""The decode kernels and the fused ones against float64: interpreted, compiled for three targets, on a GPU.

Triton reads TRITON_INTERPRET when a kernel is decorated, so each of these runs in a process of its own. What is checked
is in decode_checks.py.
"""

from pathlib import Path

import pytest
import torch
from child_process import environment, run_python

pytestmark = pytest.mark.long

CHECKS = ["error", "exact", "inputs", "addresses"]

COMPILED = """
import sys
from dataclasses import replace
from lowrank.bench.static.cases import decode_linear_backward, decode_linear, fused_linear_backward, fused_linear
from lowrank.bench.static.cost import TARGETS, compiled

for case in (decode_linear(8), decode_linear_backward(8), fused_linear(), fused_linear_backward(64)):
    # As a launch with one row, one output or one group has it: an integer that is 1 is a constant to the compiler.
    ones = {name: 1 for name in sys.argv[2].split(",") if name}
    kernel = compiled(replace(case, arguments=case.arguments | ones), TARGETS[sys.argv[1]])
    assert kernel.asm["cubin"] and "prmt.b32" in kernel.asm["ptx"]
print("compiled")
"""


def run(*arguments, **variables):
    return run_python(*arguments, env=environment(**variables)).stdout.strip()


@pytest.mark.parametrize("check", CHECKS)
def test_interpreted(check, tmp_path: Path) -> None:
    script = Path(__file__).with_name("gemv_checks.py")
    assert run(script, check, "cpu", tmp_path, TRITON_INTERPRET="1") == "passed"


@pytest.mark.parametrize(
    ("target", "ones"),
    [("sm_80", ""), ("sm_90", "M,N,groups,splits"), ("sm_100", "")],
    ids=["sm_80", "sm_90-all-sizes-1", "sm_100"],
)
def test_it_compiles_without_a_gpu(target, ones, tmp_path: Path) -> None:
    assert run("-c", COMPILED, target, ones, TRITON_CACHE_DIR=str(tmp_path)) == "compiled"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("check", [check for check in CHECKS if check != "addresses"])
def test_on_a_gpu(check, tmp_path: Path) -> None:
    script = Path(__file__).with_name("gemv_checks.py")
    assert run(script, check, "cuda:0", tmp_path) == "passed"
