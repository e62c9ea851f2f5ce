"""Kernels in CUDA C, compiled to PTX by NVRTC and run by `block`: what `kernels.cuda` launches goes here instead.

`install(90)` before the first launch of a process; tensors are on the CPU.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch

from lowrank.kernels.cuda import gemv, nvrtc
from ptx.driver import COUNTS, SHARED_MOST, run_program
from ptx.program import Program

# Where the shared memory of a program begins, by the first digit of the compute capability: GPUs from 9.0 on keep the
# first kilobyte for themselves.
SHARED_START = {8: 0, 9: 1024}
MULTIPROCESSORS = 2  # few, so that a program has several tiles


def install(capability: int) -> None:
    """From here on a launch of a kernel in CUDA C compiles for sm_`capability` and runs all its programs."""
    most, start = SHARED_MOST[capability // 10], SHARED_START[capability // 10]

    @cache
    def kernel(device: torch.device, constants: tuple[tuple[str, int], ...]) -> Callable[..., None]:
        program = Program(nvrtc.to_ptx(gemv.SOURCE.read_text(encoding="utf-8"), capability, dict(constants)))

        def launch(grid: tuple[int, int, int], block: tuple[int, int, int], given: list[Any], shared: int) -> None:
            assert block == (program.threads, 1, 1) and shared <= most
            COUNTS.launches[program.name] += 1
            places = [(x, 0, 0) for x in range(grid[0])]
            by_place = {f"argument {place}": value for place, value in enumerate(given)}
            run_program(program, program.name, by_place, grid, places, shared, start)

        return launch

    gemv.kernel = kernel
    gemv.capacity = lambda device: (MULTIPROCESSORS, most)  # type: ignore[assignment]
