"""The Triton kernels without a GPU: interpreted on the CPU.

Triton reads TRITON_INTERPRET when a kernel is decorated, so the tests in `interpreted/` run in a process of their own.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent / "interpreted"


@pytest.mark.parametrize("file", ["storage.py", "products.py", "repacked.py"])
def test_under_the_interpreter(file: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", HERE / file, "--basetemp", tmp_path / "own"],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
