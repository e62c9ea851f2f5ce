"""Products of small matrices by the tensor cores: mma of a warp, wgmma of four.

Numbers are multiplied and added in float64 and rounded to float32 once an instruction.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from ptx.arithmetic import halves, is_of_whole_warps, widen
from ptx.program import registers

if TYPE_CHECKING:
    from ptx.block import Array, Block, Mask, Step
    from ptx.program import Instruction

_WGMMA_SHAPE = re.compile(r"m64n(\d+)k16")
WARPS = 4  # of a wgmma


def _mma(instruction: Instruction) -> Step:
    """mma.m16n8k16.row.col.f32: D [16, 8] = A [16, 16] B [16, 8] + C

    The registers of lane 4 g + t:
    A        (g, 2t), (g + 8, 2t), (g, 2t + 8), (g + 8, 2t + 8), each with the number to its right
    B        (2t, g), (2t + 8, g), each with the number below
    C and D  (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1)
    """
    assert "m16n8k16" in instruction.parts and instruction.parts[-4] == instruction.parts[-1] == "f32", instruction.text
    type = instruction.parts[-3]
    to, a, b, c = (registers(operand) for operand in instruction.operands)

    def run(block: Block, mask: Mask) -> None:
        assert is_of_whole_warps(mask), instruction.text
        lane, warp = block.threads & 31, block.threads >> 5
        g, t = lane >> 2, lane & 3
        warps = len(block.threads) // 32
        left, right, start = np.zeros((warps, 16, 16)), np.zeros((warps, 16, 8)), np.zeros((warps, 16, 8))
        for place, register in enumerate(a):
            row, column = g + 8 * (place & 1), 2 * t + 8 * (place >> 1)
            left[warp, row, column], left[warp, row, column + 1] = halves(block.raw(register, 32), type)
        for place, register in enumerate(b):
            row = 2 * t + 8 * place
            right[warp, row, g], right[warp, row + 1, g] = halves(block.raw(register, 32), type)
        for place, register in enumerate(c):
            start[warp, g + 8 * (place >> 1), 2 * t + (place & 1)] = block.get(register, "f32")
        product = (left @ right + start).astype(np.float32)
        for place, register in enumerate(to):
            block.put(register, product[warp, g + 8 * (place >> 1), 2 * t + (place & 1)], mask)

    return run


def _wgmma(instruction: Instruction) -> Step:
    """wgmma.mma_async.m64nNk16.f32: D [64, N] = A [64, 16] B [16, N] + D or 0, by four warps

    A is in registers, 16 rows a warp as in mma, or in shared memory as B always is: see `_tile`. D is in registers, the
    eight columns of each four as in mma. The sums land when their group is waited for; until then another product may
    go on with them.
    """
    if instruction.parts[1] == "fence":
        return lambda block, mask: None
    if instruction.parts[1] == "commit_group":
        return lambda block, mask: block.shared.commit_products()
    if instruction.parts[1] == "wait_group":
        unfinished = int(instruction.operands[0], 0)
        return lambda block, mask: _wait(block, unfinished)
    columns = next(int(match[1]) for part in instruction.parts if (match := _WGMMA_SHAPE.fullmatch(part)))
    assert instruction.parts[-3] == "f32", instruction.text
    type, sums = instruction.parts[-1], registers(instruction.operands[0])
    a, b, scale, *flags = instruction.operands[1:]
    signs, transposed = [int(flag, 0) for flag in flags[:2]], [flag != "0" for flag in flags[2:]]
    in_registers = a.startswith("{")

    def run(block: Block, mask: Mask) -> None:
        assert mask.all(), instruction.text
        group, thread = block.threads >> 7, block.threads & 127
        g, t = (thread & 31) >> 2, thread & 3
        row = 16 * (thread >> 5) + g
        groups = len(block.threads) // 128
        left = np.zeros((groups, 64, 16))
        if in_registers:
            for place, register in enumerate(registers(a)):
                at, column = row + 8 * (place & 1), 2 * t + 8 * (place >> 1)
                left[group, at, column], left[group, at, column + 1] = halves(block.raw(register, 32), type)
        else:
            descriptors = block.raw(a, 64)[::128]
            left[:] = [_tile(block, int(d), 64, transposed[0], type) for d in descriptors]
        is_right_turned = bool(transposed) and transposed[-1]
        right = np.stack([_tile(block, int(d), columns, is_right_turned, type) for d in block.raw(b, 64)[::128]])
        product = signs[0] * signs[1] * (left @ right.swapaxes(1, 2))
        keeps = block.get(scale, "pred") if scale.startswith("%") else np.full(len(block.threads), scale != "0")
        for place, register in enumerate(sums):
            at, column = row + 8 * (place >> 1 & 1), 8 * (place >> 2) + 2 * t + (place & 1)
            before, _ = block.landing.get(register) or (block.get(register, "f32"), 0)
            total = product[group, at, column] + np.where(keeps, before, 0).astype(np.float64)
            block.landing[register] = total.astype(np.float32), block.shared.products_committed

    return run


def _wait(block: Block, unfinished: int) -> None:
    block.shared.wait_for_products(unfinished)
    over = block.shared.products_committed - unfinished
    for register, (sums, group) in list(block.landing.items()):
        if group < over:
            block.put(register, sums, np.ones(len(block.threads), bool))
            del block.landing[register]


def _tile(block: Block, descriptor: int, rows: int, is_transposed: bool, type: str) -> Array:
    """[rows, 16] numbers of a matrix in shared memory

    descriptor  in units of 16 bytes: start (bits 0-13), leading offset (16-29), stride (32-45); swizzle (62-63)
    Plain, the 16 numbers of a row lie side by side; groups of 8 rows are `stride` apart, and rows one swizzle width.
    Transposed, rows lie side by side, as many as the width holds, wider ones `leading` apart; of the 16 the groups of 8
    are `stride` apart. The address's bits 4 and up are xored with those from 7 on, as many as the width has.
    """
    start, leading, stride = ((descriptor >> shift & 0x3FFF) << 4 for shift in (0, 16, 32))
    swizzle = descriptor >> 62 & 3
    width = {0: 16, 1: 128, 2: 64, 3: 32}[swizzle]
    row, column = np.meshgrid(np.arange(rows), np.arange(16), indexing="ij")
    if is_transposed:
        each = width // 2
        offset = row // each * leading + column // 8 * stride + column % 8 * width + 2 * (row % each)
    else:
        offset = row // 8 * stride + row % 8 * width + 2 * column
    address = start + offset
    if swizzle:
        address ^= (address >> 7 & width // 16 - 1) << 4
    places = np.stack([address, address + 1], axis=-1)
    numbers = np.ascontiguousarray(block.shared.read_for_product(places)).view(np.uint16)[..., 0]
    tile: Array = widen(numbers, type).astype(np.float64)
    return tile


INSTRUCTIONS: dict[str, Callable[[Instruction], Step]] = {"mma": _mma, "wgmma": _wgmma}
