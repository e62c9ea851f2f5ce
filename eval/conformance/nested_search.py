"""The 8-bit code of a scaled maximum, as each of bitsandbytes' back ends finds it: they differ near midpoints.

nearest   the nearest level, a tie to the lower: its torch back end, and ours
table     bitsandbytes 0.50 on a CPU: x in [-1, 1] becomes one of 65,536 places, each of which has a code
bisection CUDA: seven steps of bisection, then the midpoint with one neighbour (by reading its source, not run)
"""

from collections.abc import Callable

import torch
from torch import Tensor

from lowrank.kernels.reference.weights import nearest_code
from lowrank.kernels.weights.codebooks import dynamic8

PLACES = 65_536


def nearest(x: Tensor) -> Tensor:
    """uint8 codes of x in [-1, 1], float32"""
    return nearest_code(x, dynamic8())


def table(x: Tensor) -> Tensor:
    """The code of the nearest of 65,536 evenly spaced places."""
    places = torch.arange(PLACES, dtype=torch.float32) / (PLACES - 1) * 2 - 1
    index = ((x.clamp(-1, 1) + 1) * 0.5 * (PLACES - 1) + 0.5).to(torch.int64)
    return nearest(places)[index]


def bisection(x: Tensor) -> Tensor:
    """Element by element, as a thread of the GPU does it."""
    levels = dynamic8().tolist()
    return torch.tensor([_bisect(levels, value) for value in x.flatten().tolist()], dtype=torch.uint8).view(x.shape)


def _bisect(levels: list[float], x: float) -> int:
    pivot, above, below, lower, upper = 127, 255, 0, -1.0, 1.0
    value = levels[pivot]
    for step in (64, 32, 16, 8, 4, 2, 1):
        if x > value:
            below, lower = pivot, value
            pivot += step
        else:
            above, upper = pivot, value
            pivot -= step
        value = levels[pivot]
    upper = levels[above] if above == 255 else upper
    lower = levels[below] if below == 0 else lower
    if x > value:
        return above if x > _half(upper, value) else pivot
    return below if x < _half(lower, value) else pivot


def _half(one: float, other: float) -> float:
    """The midpoint as float32 has it."""
    return float(torch.tensor(one + other, dtype=torch.float32) * 0.5)


SEARCHES: dict[str, Callable[[Tensor], Tensor]] = {"nearest": nearest, "table": table, "bisection": bisection}
