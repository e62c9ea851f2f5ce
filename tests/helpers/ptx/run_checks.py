"""Runs a script of checks on compiled kernels: `python run_checks.py CAPABILITY SCRIPT ARGUMENT...`, without a GPU."""

import runpy
import sys
import time

from ptx import driver

if __name__ == "__main__":
    capability, *command = sys.argv[1:]
    driver.install(int(capability))
    from lowrank.kernels.triton import gemm, launch

    # Tensors are on the CPU, for which these two would choose what the interpreter needs.
    launch.by_prmt = lambda dtype, device: dtype.itemsize == 2
    gemm.has_wide_units = lambda device: int(capability) // 10 in (9, 10)
    start = time.perf_counter()
    sys.argv = command
    runpy.run_path(command[0], run_name="__main__")
    counts = driver.COUNTS
    print(
        dict(counts.launches),
        sum(counts.instructions.values()),
        "instructions",
        dict(counts.bytes),
        round(time.perf_counter() - start),
        "s",
        file=sys.stderr,
    )
