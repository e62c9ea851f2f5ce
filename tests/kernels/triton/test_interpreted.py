"""The Triton kernels without a GPU: interpreted on the CPU.

Triton reads TRITON_INTERPRET when a kernel is decorated, so the tests in `interpreted/` run in a process of their own.
"""

from pathlib import Path

import pytest
from child_process import environment, run_python

pytestmark = pytest.mark.long

HERE = Path(__file__).parent.parent / "interpreted"
FILES = sorted(path.name for path in HERE.glob("*.py") if path.name != "conftest.py")


@pytest.mark.parametrize("file", FILES)
def test_under_the_interpreter(file: str, tmp_path: Path) -> None:
    command = ("-m", "pytest", "-q", "-p", "no:cacheprovider", HERE / file, "--basetemp", tmp_path / "own")
    run_python(*command, env=environment(TRITON_INTERPRET="1"), cwd=HERE)
