"""One kernel as `static_cost` compiles it: its arguments as the compiler sees them, and what it does in a turn."""

from dataclasses import dataclass, field
from typing import Any

Argument = str | int | bool | None
NVIDIA = ("sm_80", "sm_90", "sm_100")
ALL_NVIDIA = ("sm_80", "sm_89", "sm_90", "sm_100", "sm_120")  # for what a token takes most of its time in


@dataclass(frozen=True)
class Case:
    """A kernel, for certain types and constants, and what is needed to count its cost by the element.

    arguments  a string is a type ("*bf16", "i32"), anything else the value of a constant. Pointers, and the integers in
               `aligned`, are multiples of 16. Of a kernel in CUDA C: its constants alone
    elements   weights, or whatever is counted, that a program takes in a turn of its inner loop, or in all without one
    bytes      per element, what has to be moved to and from memory
    flops      per element, what is computed in tensor cores
    """

    name: str
    kernel: str  # "module:function" below lowrank; where the module is in kernels.cuda, the function is in CUDA C
    arguments: dict[str, Argument]
    elements: int
    bytes: float
    flops: float = 0.0
    aligned: tuple[str, ...] = ()
    targets: tuple[str, ...] = (*NVIDIA, "gfx942")
    options: dict[str, Any] = field(default_factory=dict)
