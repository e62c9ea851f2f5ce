"""The kernels of a decode step against float64: interpreted, and on a GPU. What is checked is in decode_step_checks.py.

Triton reads TRITON_INTERPRET when a kernel is decorated, so each check runs in a process of its own. Compiled kernels
are run by `make test-emulated`, and counted by tests/bench/static.
"""

from pathlib import Path

import pytest
import torch
from child_process import environment, run_python

pytestmark = pytest.mark.long

CHECKS = ["plain", "hat"]
BY_PAIRS = ["pairs plain", "pairs hat"]  # of products in CUDA C, which the interpreter does not have
SCRIPT = Path(__file__).with_name("decode_step_checks.py")


def run(*arguments: object, **variables: str) -> str:
    return run_python(SCRIPT, *arguments, env=environment(**variables)).stdout.strip()


@pytest.mark.parametrize("check", CHECKS)
def test_interpreted(check: str, tmp_path: Path) -> None:
    assert run(check, "cpu", tmp_path, TRITON_INTERPRET="1") == "passed"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("check", CHECKS + BY_PAIRS)
def test_on_a_gpu(check: str, tmp_path: Path) -> None:
    assert run(check, "cuda:0", tmp_path) == "passed"
