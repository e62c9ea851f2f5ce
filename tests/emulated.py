"""The checks of GPU kernels on what Triton and NVRTC compile, run by the emulator in tests/helpers/ptx, without a GPU.

    make test-emulated                  those that CI runs
    make test-emulated EMULATED=all     every check, for sm_90 and sm_80; writes docs/kernels-emulated.md

Two processes at a time, each check in one of its own: Triton reads its environment when a kernel is decorated.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

TESTS = Path(__file__).parent
RUNNER = TESTS / "helpers" / "ptx" / "run_checks.py"
PRODUCTS = TESTS / "kernels" / "triton" / "gemv_checks.py"
STEP = TESTS / "kernels" / "triton" / "decode_step_checks.py"
ADAPTERS = TESTS / "kernels" / "triton" / "riding_adapter_checks.py"
LLAMA_OPS = TESTS / "kernels" / "llama_ops" / "cuda_checks.py"
CHECKS = {
    **{name: (PRODUCTS, name) for name in ("inputs", "exact", "error")},
    **{f"step {name}": (STEP, name) for name in ("plain", "hat", "order", "traffic")},
    **{f"step pairs {name}": (STEP, f"pairs {name}") for name in ("plain", "hat", "order", "traffic")},
    **{f"adapters {name}": (ADAPTERS, name) for name in ("block_matrix", "beside", "gradients", "products")},
    **{name: (LLAMA_OPS, name) for name in ("rms_norm", "rope", "swiglu", "cross_entropy", "decode_attention")},
}
IN_CI = [("inputs", 90), ("inputs", 80), ("swiglu", 90), ("decode_attention", 90), ("rope", 80)]
IN_CI += [("step pairs hat", 90), ("step pairs traffic", 90), ("step hat", 90)]
IN_CI += [("adapters block_matrix", 90), ("adapters beside", 80), ("adapters gradients", 90)]
CAPABILITIES = (90, 80)
ALL = [(check, capability) for capability in CAPABILITIES for check in CHECKS]
RESULT = TESTS.parent / "docs" / "kernels-emulated.md"
PAGE = """# The emulator's last run

The kernels of a GPU as Triton and NVRTC compile them, executed without one: what `make test-emulated EMULATED=all`
wrote on {date}, of the kernels of {versions}.
**{passed} of {count} checks passed**; together they took {minutes} minutes of a process.

Seconds are by the clock, on {machine}, at a load
of {load} in the end; instructions are of blocks, all threads of a block in step. What a check asks is said in the
script that `tests/emulated.py` names for it; CI runs some of them.

| check | {head} |
|{rule}
{rows}
"""
COUNTED = re.compile(r"; ([\d,]+) instructions of blocks$")


class Outcome(NamedTuple):
    """A check that was run: whether it passed, its seconds, and the instructions of blocks that it took."""

    passed: bool
    seconds: float
    instructions: str


def run(check: str, capability: int, folder: str) -> Outcome:
    """Runs a check. Its time and counts are printed, or all that it said if it failed."""
    script, name = CHECKS[check]
    path = os.pathsep.join(filter(None, [str(TESTS / "helpers"), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "TRITON_CACHE_DIR": f"{folder}/cache"}
    start = time.monotonic()
    command = [sys.executable, "-W", "ignore", RUNNER, str(capability), script, name, "cpu", folder]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    seconds = time.monotonic() - start
    counts = done.stderr.strip().splitlines()[-1:] if not done.returncode else ["FAILED", done.stdout, done.stderr]
    print(f"sm_{capability} {check}: {seconds:.0f} s;", *counts, sep="\n   ", flush=True)
    counted = COUNTED.search(counts[0])
    return Outcome(not done.returncode, seconds, counted[1] if counted else "")


def page(outcomes: dict[tuple[str, int], Outcome]) -> str:
    """The committed page about a run of all checks."""
    import torch
    import triton

    from lowrank.bench import machine
    from lowrank.kernels.cuda import nvrtc

    command = ("git", "log", "-1", "--format=%h", "--", "kernels")
    commit = subprocess.run(command, cwd=TESTS.parent, capture_output=True, text=True, check=True).stdout.strip()
    passed, seconds = (sum(getattr(outcome, name) for outcome in outcomes.values()) for name in ("passed", "seconds"))
    rows = []
    for check in CHECKS:
        told = [outcomes[check, capability] for capability in CAPABILITIES]
        cells = [f"{it.seconds:.0f} s | {it.instructions}" if it.passed else "FAILED |" for it in told]
        rows.append(" | ".join([f"| {check}", *cells]) + " |")
    return PAGE.format(
        passed=passed,
        count=len(outcomes),
        minutes=f"{seconds / 60:.0f}",
        date=f"{datetime.now(UTC):%Y-%m-%d}",
        versions=f"commit {commit}, Triton {triton.__version__}, NVRTC {nvrtc.version()}",
        load=f"{os.getloadavg()[2]:.1f}",
        machine=machine.name(torch.device("cpu")),
        head=" | ".join(f"sm_{capability} | instructions" for capability in CAPABILITIES),
        rule="---|" * (1 + 2 * len(CAPABILITIES)),
        rows="\n".join(rows),
    )


def run_all(checks: Sequence[tuple[str, int]]) -> dict[tuple[str, int], Outcome]:
    """The outcome of each check."""
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as two:
        return dict(zip(checks, two.map(lambda check: run(*check, folder), checks), strict=True))


def main(which: str) -> int:
    """Runs the checks of CI, or all.  Returns 1 if one of them failed, else 0."""
    outcomes = run_all(ALL if which == "all" else IN_CI)
    if which == "all":
        RESULT.write_text(page(outcomes), encoding="utf-8")
    passed = sum(outcome.passed for outcome in outcomes.values())
    print(f"{passed} of {len(outcomes)} passed")
    return 0 if passed == len(outcomes) else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
