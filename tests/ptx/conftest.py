"""Small kernels in PTX, written around the instructions under test."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ptx.block import Block
from ptx.memory import GlobalMemory
from ptx.program import Program

BASE = 1 << 40
WIDTHS = {"pred": 1} | {f"{letter}{bits}": bits for letter in "busf" for bits in (8, 16, 32, 64)} | {"bf16": 16}
KERNEL = """
.extern .shared .align 16 .b8 global_smem[];
.visible .entry kernel(
	.param .u64 .ptr .global .align 1 kernel_param_0
)
.reqntid {threads}
{{
	.reg .pred %p<9>; .reg .b16 %h<99>; .reg .b32 %r<99>; .reg .b64 %q<99>;
	ld.param.b64 %q90, [kernel_param_0];   // the tensors, 4096 bytes apart
	mov.u32 %r90, %tid.x;
	{code}
	ret;
}}
"""


class Run:
    """A block that ran, and the memory that it was given."""

    def __init__(self, code: str, data: dict[int, np.ndarray[Any, Any]], threads: int, shared: int) -> None:
        memory = GlobalMemory()
        for place, array in data.items():
            memory.add(BASE + 4096 * place, array.view(np.uint8).reshape(-1), f"tensor {place}")
        self.block = Block(Program(KERNEL.format(threads=threads, code=code)), memory, [BASE], shared=shared)
        self.block.run()

    def register(self, name: str, type: Any) -> np.ndarray[Any, Any]:
        return self.block.registers[name].view(type)


@pytest.fixture
def run() -> Callable[..., Run]:
    """run(code, {place: array}): the code as a kernel of one block; %r90 the thread, %q90 the address of tensor 0."""

    def kernel(code: str, data: Any = None, threads: int = 32, shared: int = 0) -> Run:
        return Run(code, data or {}, threads, shared)

    return kernel


@pytest.fixture
def computed(run: Callable[..., Run]) -> Callable[..., Any]:
    """computed("add.s32 %d, %a, %b;", "s32", [1], [2]): what %d holds for each element of the inputs."""

    def of(code: str, type: str, *inputs: list[Any], result: str = "") -> Any:
        result = result or type
        letters = {8: "h", 16: "h", 32: "r", 64: "q"}
        arrays = [_bits(values, type) for values in inputs]
        bits = arrays[0].itemsize * 8
        names = {letter: f"%{letters[bits]}{place}" for place, letter in enumerate("abc"[: len(inputs)])}
        out = WIDTHS[result]
        names["d"] = "%p0" if out == 1 else f"%{letters[out]}9"
        for letter, name in names.items():
            code = code.replace(f"%{letter}", name)
        loads = "".join(
            f"mul.wide.u32 %q91, %r90, {bits // 8}; add.s64 %q92, %q90, %q91; ld.global.b{bits} {{ {names[letter]} }}, "
            f"[ %q92 + {4096 * place} ];\n"
            for place, letter in enumerate("abc"[: len(inputs)])
        )
        padded = [np.resize(array, 32) for array in arrays]
        block = run(loads + code, dict(enumerate(padded))).block
        found = block.registers[names["d"]][: len(arrays[0])]
        return [value.item() for value in _values(found, result)]

    return of


def _bits(values: list[Any], type: str) -> np.ndarray[Any, Any]:
    """Numbers as the bits that a register has; those of 16-bit floats are given as bits."""
    kinds: dict[str, Any] = {"f16": np.uint16, "bf16": np.uint16}
    kind = kinds.get(type) or np.dtype({"b": "u", "u": "u", "s": "i", "f": "f"}[type[0]] + str(int(type[1:]) // 8))
    array = np.array(values, kind)
    return array.view(f"u{array.itemsize}")


def _values(bits: np.ndarray[Any, Any], type: str) -> np.ndarray[Any, Any]:
    if type in ("pred", "f16", "bf16") or type[0] in "bu":
        return bits
    return bits.view(f"{'i' if type[0] == 's' else 'f'}{bits.itemsize}")
