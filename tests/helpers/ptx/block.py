"""One block of threads, in step: registers, guards, branches, barriers.

Each instruction is turned into a Python function once a program; a register is a numpy array, an element a thread.
Where threads part ways, those that are least far in the program go first, so they meet again behind a branch or a loop.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ptx import arithmetic, tensor_cores, transfers
from ptx.memory import GlobalMemory, Ints, SharedMemory
from ptx.program import Instruction, Program

Array = np.ndarray[Any, np.dtype[Any]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]

MOST_STEPS = 2_000_000
RAW = {1: np.bool_, 8: np.uint8, 16: np.uint16, 32: np.uint32, 64: np.uint64}
TYPES: dict[str, Any] = {
    "pred": np.bool_, "b8": np.uint8, "u8": np.uint8, "s8": np.int8,
    "b16": np.uint16, "u16": np.uint16, "s16": np.int16, "b32": np.uint32, "u32": np.uint32, "s32": np.int32,
    "b64": np.uint64, "u64": np.uint64, "s64": np.int64,
    "f32": np.float32, "f64": np.float64, "f16": np.uint16, "bf16": np.uint16, "f16x2": np.uint32, "bf16x2": np.uint32,
}  # fmt: skip
UNWRITTEN = 0xDEADBEEFDEADBEEF  # of a register: what comes of it must not matter
_NUMBER = re.compile(r"-?(0x[0-9a-fA-F]+|\d+)U?")
_ADDRESS = re.compile(r"\[\s*([%$\w]+)\s*(?:\+\s*(-?\w+))?\s*\]")


class Unsupported(Exception):
    """An instruction, or a way of using one, that the emulator does not have."""


class Block:
    """Block `place` of a grid; `arguments` are the kernel's parameters as whole numbers."""

    def __init__(
        self,
        program: Program,
        memory: GlobalMemory,
        arguments: Sequence[int],
        grid: tuple[int, int, int] = (1, 1, 1),
        place: tuple[int, int, int] = (0, 0, 0),
        shared: int = 0,
        shared_start: int = 0,
    ) -> None:
        self.program, self.memory, self.shared = program, memory, SharedMemory(shared_start + shared)
        self.shared_start = shared_start  # where the block's shared memory begins; a GPU may keep what is before it
        self.threads = np.arange(program.threads)
        self.parameters = {f"{program.name}_param_{i}": value for i, value in enumerate(arguments)}
        self._places = {name: 16 * place for place, name in enumerate(self.parameters)}  # an address of each
        self.registers: dict[str, Array] = {}
        self.landing: dict[str, tuple[Array, int]] = {}  # sums of asynchronous products under way, and their group
        self.copies: list[list[tuple[Ints, Array, Ints]]] = [[]]  # asynchronous ones by group; the last is open
        self.counts: Counter[str] = Counter()
        lane = self.threads & 31
        self._special = {
            "%tid.x": self.threads,
            "%laneid": lane,
            "%warpid": self.threads >> 5,
            "%lanemask_lt": (1 << lane) - 1,
        }
        for axis, (index, size) in zip("xyz", zip(place, grid, strict=True), strict=True):
            self._special[f"%ctaid.{axis}"] = np.full(program.threads, index)
            self._special[f"%nctaid.{axis}"] = np.full(program.threads, size)

    def run(self) -> None:
        """All instructions, to the end. Raises MemoryError for a fault or a race, and Unsupported."""
        code, everyone = _compiled(self.program), np.ones(self.program.threads, bool)
        waiting = {0: everyone}  # which threads are where
        with np.errstate(all="ignore"):
            for _ in range(MOST_STEPS):
                if not waiting:
                    return
                at = min(waiting)
                here = waiting.pop(at)
                if at == len(code):
                    continue
                instruction, run = code[at]
                opcode = instruction.parts[0]
                self.counts[opcode] += 1
                mask = here
                if instruction.guard:
                    mask = here & (self.registers[instruction.guard] ^ instruction.is_negated)
                if opcode in ("bra", "ret"):
                    to = len(code) if opcode == "ret" else self.program.labels[instruction.operands[0]]
                    _arrive(waiting, to, mask)
                    here = here & ~mask
                elif mask.any():
                    try:
                        if opcode in ("bar", "barrier") and any(len(code) > other for other in waiting):
                            raise Unsupported("some threads of the block have passed a barrier that others wait at")
                        run(self, mask)
                    except MemoryError as error:
                        raise MemoryError(f"{self.program.name}: {instruction.text}: {error}") from error
                _arrive(waiting, at + 1, here)
        raise AssertionError(f"{self.program.name} did not end within {MOST_STEPS} instructions")

    # Operands -----------------------------------------------------------------------------------------------------

    def raw(self, operand: str, bits: int) -> Array:
        """An operand as unsigned numbers of so many bits: a wider register is cut, a narrower one filled with zeros."""
        if operand in self.registers:
            held = self.registers[operand]
            return held if held.itemsize * 8 == bits else held.astype(RAW[bits])
        if operand.startswith("%") and operand not in self._special:
            width = self.program.width(operand)
            return np.full(len(self.threads), UNWRITTEN & ((1 << width) - 1), RAW[max(width, 8)]).astype(RAW[bits])
        if operand in self._special:
            return self._special[operand].astype(RAW[bits])
        number = self._places[operand] if operand in self._places else self._constant(operand)
        return np.full(len(self.threads), number & ((1 << bits) - 1), RAW[bits])

    def get(self, operand: str, type: str) -> Array:
        """An operand as numbers of `type`; 16-bit floats stay their bits."""
        if type == "pred":
            if operand.startswith("!"):
                return ~self.get(operand[1:], "pred")
            return self.registers[operand] if operand.startswith("%") else np.full(len(self.threads), operand != "0")
        kind = TYPES[type]
        return self.raw(operand, np.dtype(kind).itemsize * 8).view(kind)

    def put(self, operand: str, value: Array, mask: Mask) -> None:
        """Writes a register where `mask` is set; a signed value is extended by its sign, another by zeros."""
        if operand == "_":
            return
        width = self.program.width(operand)
        if width == 1:
            new = value.astype(np.bool_)
        elif value.itemsize * 8 == width:
            new = np.ascontiguousarray(value).view(RAW[width])
        else:
            assert value.dtype.kind in "iub", f"{self.program.name}: {value.dtype} into {width} bits"
            new = value.astype(np.dtype(f"{'i' if value.dtype.kind == 'i' else 'u'}{width // 8}")).view(RAW[width])
        if not mask.all():
            before = self.registers.get(operand)
            new = np.where(mask, new, np.zeros_like(new) if before is None else before)
        self.registers[operand] = new

    def address(self, operand: str) -> Ints:
        """[base + offset], int64 a thread; of shared memory it counts from its beginning."""
        match = _ADDRESS.fullmatch(operand)
        assert match, operand
        offset = int(match[2], 0) if match[2] else 0
        if match[1] == self.program.dynamic_shared:
            return np.full(len(self.threads), self.shared_start + offset, np.int64)
        width = self.program.width(match[1])
        return self.raw(match[1], width).astype(np.int64) + offset

    def _constant(self, operand: str) -> int:
        """A whole number, the bits of a float (0f3F800000), or shared memory with an offset."""
        if operand[:2] in ("0f", "0F", "0d", "0D"):
            return int(operand[2:], 16)
        name, _, offset = operand.partition("+")
        if self.program.dynamic_shared and name == self.program.dynamic_shared:
            return self.shared_start + int(offset or "0", 0)
        if not _NUMBER.fullmatch(operand):
            raise Unsupported(f"operand {operand!r}")
        return int(operand.rstrip("U"), 0)

    def parameter(self, operand: str) -> int:
        """By its name, or by the address of one that all threads have in a register."""
        name = operand.strip("[] ").partition("+")[0].strip()
        if name in self.parameters:
            return self.parameters[name]
        place = np.unique(self.address(operand))
        if len(place) > 1:
            raise Unsupported(f"{self.program.name}: threads load several parameters: {operand}")
        return self.parameters[f"{self.program.name}_param_{place[0] // 16}"]


def _arrive(waiting: dict[int, Mask], at: int, threads: Mask) -> None:
    """Adds threads to those that are at a place."""
    if threads.any():
        waiting[at] = waiting[at] | threads if at in waiting else threads


Step = Callable[[Block, Mask], None]
ROOMS = (arithmetic, transfers, tensor_cores)


def _compiled(program: Program) -> list[tuple[Instruction, Step]]:
    """Each instruction with the function that runs it."""
    if not program.steps:
        program.steps = [(instruction, _step(instruction)) for instruction in program.instructions]
    return program.steps


def _step(instruction: Instruction) -> Step:
    root = instruction.parts[0]
    if root in ("bra", "ret"):
        return lambda block, mask: None
    for room in ROOMS:
        if make := room.INSTRUCTIONS.get(root):
            return make(instruction)  # type: ignore[no-any-return]
    raise Unsupported(instruction.text)
