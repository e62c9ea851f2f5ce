"""The Triton kernels without a GPU: compiled ahead of time for three of them."""

from pathlib import Path

import pytest
from child_process import environment, run_python

pytestmark = pytest.mark.long


@pytest.mark.parametrize("capability", [80, 90, 100], ids=["sm_80", "sm_90", "sm_100"])
def test_every_kernel_compiles_and_keeps_the_arithmetic_of_the_reference(capability: int, tmp_path: Path) -> None:
    script = Path(__file__).with_name("ahead_of_time.py")
    run_python(script, capability, env=environment(TRITON_CACHE_DIR=str(tmp_path)))
