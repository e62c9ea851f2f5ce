"""The limits of a machine, measured in the run whose figures are compared with them."""

import time

import torch

from ..timing import Call, Rotation, event_stopwatch, interleave, wall_stopwatch
from .plan import Limits

GPU_BYTES, CPU_BYTES = 2 << 30, 256 << 20  # of the tensor that is copied: far more than any cache
GPU_SIDE, CPU_SIDE = 8192, 2048  # of the square matrices that are multiplied
LONG_ENOUGH = 2.0  # seconds of calls


def measure_limits(device: torch.device, dtype: torch.dtype, cache_bytes: int) -> Limits:
    """The best of several: a copy (bytes read and written), a sum (bytes read), and a matrix product in `dtype`."""
    size = max(GPU_BYTES if device.type == "cuda" else CPU_BYTES, 2 * cache_bytes)
    source = torch.ones(size // 4, device=device)
    target = torch.empty_like(source)
    copy = _least_ms(lambda: target.copy_(source), device)
    read = _least_ms(source.sum, device)
    product = measure_product(device, dtype)
    return Limits(2 * size / copy / 1e6, size / read / 1e6, product, measured=True)


def measure_product(device: torch.device, dtype: torch.dtype, repetitions: int = 10) -> float:
    """10^12 multiplications and additions a second of a large square product, the best of several."""
    side = GPU_SIDE if device.type == "cuda" else CPU_SIDE
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    return 2 * side**3 / _least_ms(lambda: left @ right.T, device, repetitions) / 1e9


def share_of_cores(repetitions: int = 3) -> float:
    """CPU time of a large product over elapsed time, a thread: near 1 where nothing else has the cores."""
    left = torch.ones(CPU_SIDE, CPU_SIDE)
    started, spent = time.perf_counter(), time.process_time()
    for _ in range(repetitions):
        left @ left
    return (time.process_time() - spent) / (time.perf_counter() - started) / torch.get_num_threads()


def _least_ms(call: Call, device: torch.device, repetitions: int = 10) -> float:
    """The shortest of some calls after a first one: a limit is what the machine can do, not what it mostly does.

    Fewer calls where the first is slow, as products of bfloat16 are on a processor that has none: LONG_ENOUGH in all.
    """
    started = time.perf_counter()
    call()
    fitting = int(LONG_ENOUGH / (time.perf_counter() - started))
    stopwatch = event_stopwatch if device.type == "cuda" else wall_stopwatch
    return min(interleave({"call": stopwatch(Rotation([call]))}, max(1, min(repetitions, fitting)))["call"])
