"""Instructions that move memory, and those that order it: loads, stores, asynchronous copies, ldmatrix, barriers."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from ptx.program import registers

if TYPE_CHECKING:
    from ptx.block import Array, Block, Mask, Step
    from ptx.program import Instruction

_VECTOR = re.compile(r"v([248])")


def _space(instruction: Instruction) -> str:
    """param, global or shared"""
    spaces = {part.partition("::")[0] for part in instruction.parts[1:]} & {"param", "global", "shared"}
    assert len(spaces) == 1, instruction.text
    return spaces.pop()


def _bytes_each(instruction: Instruction) -> tuple[int, int]:
    """(registers a thread, bytes of each)"""
    count = next((int(match[1]) for part in instruction.parts if (match := _VECTOR.fullmatch(part))), 1)
    return count, int(re.sub(r"\D+", "", instruction.parts[-1])) // 8


def _load(instruction: Instruction) -> Step:
    space, (target, source) = _space(instruction), instruction.operands
    count, size = _bytes_each(instruction)
    names, type = registers(target), f"{instruction.parts[-1][0]}{8 * size}"
    assert len(names) == count, instruction.text

    def run(block: Block, mask: Mask) -> None:
        if space == "param":
            value = block.parameter(source) & ((1 << 8 * size) - 1)
            block.put(target, np.full(len(block.threads), value, f"u{size}"), mask)
            return
        addresses = block.address(source)[mask]
        data = np.zeros((len(block.threads), count * size), np.uint8)
        if space == "global":
            data[mask] = block.memory.read(addresses, count * size)
        else:
            data[mask] = block.shared.read(addresses, count * size, block.threads[mask])
        words = data.view(f"{'i' if type[0] == 's' else 'u'}{size}")
        for place, register in enumerate(names):
            block.put(register, words[:, place], mask)

    return run


def _store(instruction: Instruction) -> Step:
    space, (target, source) = _space(instruction), instruction.operands
    count, size = _bytes_each(instruction)
    names = registers(source)
    assert len(names) == count and space != "param", instruction.text

    def run(block: Block, mask: Mask) -> None:
        words = np.stack([block.raw(register, 8 * size) for register in names], axis=1)
        data, addresses = np.ascontiguousarray(words[mask]).view(np.uint8), block.address(target)[mask]
        if space == "global":
            block.memory.write(addresses, data)
        else:
            block.shared.write(addresses, data, block.threads[mask])

    return run


def _prefetch(instruction: Instruction) -> Step:
    """prefetch.global: memory that a load will want, which must be there"""
    assert _space(instruction) == "global", instruction.text

    def run(block: Block, mask: Mask) -> None:
        block.memory.read(block.address(instruction.operands[0])[mask], 1)

    return run


def _atomic(instruction: Instruction) -> Step:
    """atom.global...add: threads add one after another, in their order, and each gets what was there before"""
    assert _space(instruction) == "global" and "add" in instruction.parts, instruction.text
    (_, size), (target, place, source) = _bytes_each(instruction), instruction.operands
    kind = instruction.parts[-1]

    def run(block: Block, mask: Mask) -> None:
        addresses, added = block.address(place), block.get(source, kind)
        before = np.zeros(len(block.threads), added.dtype)
        for thread in np.flatnonzero(mask):
            at = addresses[thread : thread + 1]
            before[thread] = block.memory.read(at, size).view(added.dtype)[0, 0]
            block.memory.write(at, (before[thread] + added[thread]).reshape(1, 1).view(np.uint8))
        block.put(target, before, mask)

    return run


def _copy(instruction: Instruction) -> Step:
    """cp.async: 4, 8 or 16 bytes from global to shared memory, of which the last operand are read and the rest zeros"""
    assert instruction.parts[1] == "async" and "bulk" not in instruction.parts, instruction.text
    if "commit_group" in instruction.parts:
        return lambda block, mask: block.copies.append([])
    if "wait_group" in instruction.parts or "wait_all" in instruction.parts:
        kept = int(instruction.operands[0], 0) + 1 if "wait_group" in instruction.parts else 0
        return lambda block, mask: _wait(block, kept)
    target, source, size = instruction.operands[0], instruction.operands[1], int(instruction.operands[2], 0)
    read = instruction.operands[3] if len(instruction.operands) > 3 else ""

    def run(block: Block, mask: Mask) -> None:
        count = block.get(read, "u32") if read else np.full(len(block.threads), size, np.uint32)
        assert np.isin(count[mask], (0, size)).all(), f"{instruction.text}: a part of a copy"
        is_read = mask & (count == size)
        data = np.zeros((len(block.threads), size), np.uint8)
        if is_read.any():
            data[is_read] = block.memory.read(block.address(source)[is_read], size)
        addresses, threads = block.address(target)[mask], block.threads[mask]
        block.shared.begin_copy(addresses, size, threads)
        block.copies[-1].append((addresses, data[mask], threads))

    return run


def _wait(block: Block, kept: int) -> None:
    """All groups of copies have arrived but the last `kept`, the open one among them."""
    while len(block.copies) > kept:
        for copy in block.copies.pop(0):
            block.shared.end_copy(*copy)
    if not block.copies:
        block.copies.append([])


def _matrices(instruction: Instruction) -> tuple[int, bool]:
    """(matrices of 8 x 8 numbers of 16 bits, whether they are transposed)"""
    assert "m8n8" in instruction.parts and instruction.parts[-1] == "b16", instruction.text
    return next(
        int(part[1]) for part in instruction.parts if re.fullmatch("x[124]", part)
    ), "trans" in instruction.parts


def _load_matrix(instruction: Instruction) -> Step:
    """ldmatrix: lane 8 i + r names row r of matrix i; lane 4 g + t gets of each the numbers 2 t and 2 t + 1 of row g"""
    (count, is_transposed), (target, source) = _matrices(instruction), instruction.operands
    names = registers(target)

    def run(block: Block, mask: Mask) -> None:
        assert mask.all(), instruction.text
        rows, lane = _rows(block, source, count), block.threads & 31
        data = block.shared.read(rows.ravel(), 16, np.repeat(block.threads[::32], 8 * count))
        numbers = data.view(np.uint16).reshape(-1, count, 8, 8)
        if is_transposed:
            numbers = numbers.swapaxes(2, 3)
        warp = block.threads >> 5
        for place, register in enumerate(names):
            low, high = (numbers[warp, place, lane >> 2, 2 * (lane & 3) + side].astype(np.uint32) for side in (0, 1))
            block.put(register, low | high << np.uint32(16), mask)

    return run


def _store_matrix(instruction: Instruction) -> Step:
    """stmatrix: the inverse of ldmatrix"""
    (count, is_transposed), (target, source) = _matrices(instruction), instruction.operands
    names = registers(source)

    def run(block: Block, mask: Mask) -> None:
        assert mask.all(), instruction.text
        rows, lane, warp = _rows(block, target, count), block.threads & 31, block.threads >> 5
        numbers = np.zeros((len(rows), count, 8, 8), np.uint16)
        for place, register in enumerate(names):
            word = block.raw(register, 32)
            for side in (0, 1):
                numbers[warp, place, lane >> 2, 2 * (lane & 3) + side] = word >> np.uint32(16 * side) & np.uint32(
                    0xFFFF
                )
        if is_transposed:
            numbers = numbers.swapaxes(2, 3)
        data = np.ascontiguousarray(numbers).view(np.uint8).reshape(-1, 16)
        block.shared.write(rows.ravel(), data, np.repeat(block.threads[::32], 8 * count))

    return run


def _rows(block: Block, operand: str, count: int) -> Array:
    """Addresses of the rows of each warp's matrices, [warps, 8 count]."""
    return block.address(operand).reshape(-1, 32)[:, : 8 * count]


def _barrier(instruction: Instruction) -> Step:
    if instruction.parts[1] == "warp":
        return lambda block, mask: block.shared.warp_barrier()
    assert instruction.parts[1] == "sync" and len(instruction.operands) == 1, instruction.text
    return lambda block, mask: block.shared.block_barrier()


def _fence(instruction: Instruction) -> Step:
    if instruction.parts[1:3] == ("proxy", "async"):
        return lambda block, mask: block.shared.fence()
    return lambda block, mask: None


INSTRUCTIONS: dict[str, Callable[[Instruction], Step]] = {
    "ld": _load, "st": _store, "prefetch": _prefetch, "atom": _atomic, "cp": _copy,
    "ldmatrix": _load_matrix, "stmatrix": _store_matrix,
    "bar": _barrier, "barrier": _barrier, "fence": _fence, "membar": _fence,
}  # fmt: skip
