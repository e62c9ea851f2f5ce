"""The checks of GPU kernels on what Triton and NVRTC compile, run by the emulator in tests/helpers/ptx, without a GPU.

    make test-emulated                  those that CI runs
    make test-emulated EMULATED=all     every check, for sm_90 and sm_80

Two processes at a time, each check in one of its own: Triton reads its environment when a kernel is decorated.
"""

import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

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
IN_CI += [
    ("step pairs hat", 90),
    ("step pairs traffic", 90),
    ("step hat", 90),
    ("adapters block_matrix", 90),
    ("adapters beside", 80),
    ("adapters gradients", 90),
]
ALL = [(check, capability) for capability in (90, 80) for check in CHECKS]


def run(check: str, capability: int, folder: str) -> bool:
    """True if a check passed. Its time and counts are printed, or all that it said if it failed."""
    script, name = CHECKS[check]
    path = os.pathsep.join(filter(None, [str(TESTS / "helpers"), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "TRITON_CACHE_DIR": f"{folder}/cache"}
    start = time.monotonic()
    command = [sys.executable, "-W", "ignore", RUNNER, str(capability), script, name, "cpu", folder]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    counts = done.stderr.strip().splitlines()[-1:] if not done.returncode else ["FAILED", done.stdout, done.stderr]
    print(f"sm_{capability} {check}: {time.monotonic() - start:.0f} s;", *counts, sep="\n   ", flush=True)
    return not done.returncode


def main(which: str) -> int:
    """Runs the checks of CI, or all.  Returns 1 if one of them failed, else 0."""
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as two:
        passed = list(two.map(lambda check: run(*check, folder), ALL if which == "all" else IN_CI))
    print(f"{sum(passed)} of {len(passed)} passed")
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
