"""Runs a script of checks on compiled kernels: `python run_checks.py CAPABILITY SCRIPT ARGUMENT...`, without a GPU."""

import runpy
import sys

from ptx import cuda_c, driver

if __name__ == "__main__":
    capability, *command = sys.argv[1:]
    driver.install(int(capability))
    cuda_c.install(int(capability))
    from lowrank.kernels.triton import gemm, launch

    # Tensors are on the CPU, for which these two would choose what the interpreter needs.
    launch.can_use_prmt = lambda dtype, device: dtype.itemsize == 2
    gemm.has_wide_units = lambda device: int(capability) // 10 in (9, 10)
    sys.argv = command
    runpy.run_path(command[0], run_name="__main__")
    launches, instructions = driver.COUNTS.launches, sum(driver.COUNTS.instructions.values())
    told = ", ".join(f"{count} x {kernel}" for kernel, count in sorted(launches.items()))
    print(f"{told}; {instructions:,} instructions of blocks", file=sys.stderr)
