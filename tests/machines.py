"""The tests of kernels and model as other machines would run them: `make test-machines`, five emulated ones.

A processor can be asked to be a smaller one: torch's own loops by ATEN_CPU_CAPABILITY, its products by
ONEDNN_MAX_CPU_ISA and MKL_ENABLE_INSTRUCTIONS, our C library by LOWRANK_CPU_ISA. Where rounding is concerned that is
another machine. A machine that asks for more than this processor has is left out, and said to be.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

TESTS = Path(__file__).parent
MACHINES = {
    "no vectors, one thread": {
        "ATEN_CPU_CAPABILITY": "default",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "LOWRANK_CPU_ISA": "portable",
        "OMP_NUM_THREADS": "1",
    },
    "a laptop with AVX2, two threads": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "LOWRANK_CPU_ISA": "avx2",
        "OMP_NUM_THREADS": "2",
    },
    "AVX-512 without bfloat16, two threads": {
        "ATEN_CPU_CAPABILITY": "avx512",
        "ONEDNN_MAX_CPU_ISA": "AVX512_CORE",
        "LOWRANK_CPU_ISA": "avx512",
        "OMP_NUM_THREADS": "2",
    },
    "AVX-512 with bfloat16, one thread": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16", "OMP_NUM_THREADS": "1"},
    "no compiler, two threads": {"LOWRANK_CPU_LIBRARY": "none", "OMP_NUM_THREADS": "2"},
}
# What the processor does not change: kernels of GPUs, interpreted or compiled, what torch.compile makes of operators,
# and C programs that have their own flags.
ELSEWHERE = (
    "kernels/cpu/test_exact_neon.py",
    "kernels/cpu/test_sets.py",
    "kernels/cuda",
    "kernels/operators/test_quantized.py",
    "kernels/llama_ops/test_cuda_triton.py",
    "kernels/test_on_a_gpu.py",
    "kernels/triton",
    "kernels/weights/test_prmt_table.py",
)
PATHS = ("kernels", "model", "lowrank/layers/test_quant_linear.py", "lowrank/layers/test_lora.py")
# Of a model that is loaded where there was no compiler.
EXPECTED = "ignore:4-bit and 8-bit weights in plain torch"
CHOOSES = "from lowrank.kernels.cpu import library; library.unavailable_reason() or library.library()"


def main(flags: list[str]) -> int:
    """Runs the tests once a machine, with pytest's `flags`.  Returns 1 if one of them failed, else 0."""
    failed = []
    for name, settings in MACHINES.items():
        # Passive: on a machine that is busy, threads that wait for each other by spinning take many times as long.
        environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", **settings}
        print(f"== {name}: {' '.join(f'{key}={value}' for key, value in settings.items())}", flush=True)
        chosen = subprocess.run([sys.executable, "-c", CHOOSES], env=environment, capture_output=True, text=True)
        if chosen.returncode:
            print(f"   left out: {chosen.stderr.strip().splitlines()[-1]}")
            continue
        start = time.monotonic()
        command = [sys.executable, "-m", "pytest", "-q", "-rfE", "-p", "no:cacheprovider", "-W", EXPECTED]
        command += ["-n", "2", "--dist", "loadscope", *flags]
        command += [f"--ignore={TESTS / path}" for path in ELSEWHERE]
        done = subprocess.run(
            [*command, *(str(TESTS / path) for path in PATHS)], env=environment, capture_output=True, text=True
        )
        print(done.stdout if done.returncode else done.stdout.strip().splitlines()[-1], done.stderr, end="")
        print(f"\n   {time.monotonic() - start:.0f} s", flush=True)
        if done.returncode:
            failed.append(name)
    print(f"failed: {'; '.join(failed)}" if failed else "every machine passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
