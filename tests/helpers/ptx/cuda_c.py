"""Kernels in CUDA C, compiled to PTX by NVRTC and run by `block`: what `kernels.cuda` launches goes here instead.

`install(90)` before the first launch of a process; tensors are on the CPU, which counts as a GPU.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch

from lowrank.kernels.cuda import nvrtc, pairs
from ptx import driver
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
    def kernel(device: torch.device, name: str, constants: tuple[tuple[str, int], ...]) -> Callable[..., None]:
        program = Program(nvrtc.to_ptx(pairs.source(name), capability, dict(constants)))

        def launch(grid: tuple[int, int, int], block: tuple[int, int, int], given: list[Any], shared: int) -> None:
            assert block == (program.threads, 1, 1) and shared <= most
            COUNTS.launches[program.name] += 1
            places = [(x, 0, 0) for x in range(grid[0])]
            places = places if driver.arrange is None else driver.arrange(places)
            by_place = {f"argument {place}": _as_double(value) for place, value in enumerate(given)}
            run_program(program, program.name, by_place, grid, places, shared, start)

        return launch

    pairs.kernel = kernel
    pairs.capacity = lambda device: pairs.Capacity(MULTIPROCESSORS, most, most)  # type: ignore[assignment]
    pairs.unavailable_reason = lambda device: nvrtc.unavailable_reason()


def _as_double(value: Any) -> Any:
    """A float as its bits: torch gives a kernel a double. Anything else as it is."""
    return int(np.float64(value).view(np.uint64)) if isinstance(value, float) else value
