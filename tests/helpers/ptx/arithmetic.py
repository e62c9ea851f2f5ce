"""Instructions on registers. A function makes each: it reads the opcode once and returns what is run.

Floats are rounded to nearest even; `.ftz` takes a denormal input or result for zero. The approximate functions (ex2,
lg2, rcp, rsqrt, sin, cos, div.approx, div.full) are exact here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ptx.program import registers

if TYPE_CHECKING:
    from ptx.block import Array, Block, Mask, Step
    from ptx.program import Instruction

_FLOATS = ("f16", "bf16", "f16x2", "bf16x2", "f32", "f64")


# 16-bit floats -----------------------------------------------------------------------------------------------------


def widen(bits: Array, type: str) -> Array:
    """f16 or bf16 as their bits -> float32"""
    if type == "f16":
        return bits.view(np.float16).astype(np.float32)
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def narrow(values: Array, type: str) -> Array:
    """float32 or float64 -> the bits of f16 or bf16, rounded once, to nearest even; NaN is 0x7fff"""
    if type == "f16":
        bits = values.astype(np.float16).view(np.uint16)
    else:
        odd = to_odd_float32(values) if values.dtype == np.float64 else values
        word = odd.astype(np.float32).view(np.uint32).astype(np.uint64)
        bits = (word + np.uint64(0x7FFF) + (word >> np.uint64(16) & np.uint64(1)) >> np.uint64(16)).astype(np.uint16)
    result: Array = np.where(np.isnan(values), np.uint16(0x7FFF), bits)
    return result


def halves(word: Array, type: str) -> tuple[Array, Array]:
    """The low and the high 16-bit float of a register, as float32"""
    low, high = (word & np.uint32(0xFFFF)).astype(np.uint16), (word >> np.uint32(16)).astype(np.uint16)
    return widen(low, type), widen(high, type)


def joined(low: Array, high: Array) -> Array:
    """Two times 16 bits in one register"""
    both: Array = low.astype(np.uint32) | high.astype(np.uint32) << np.uint32(16)
    return both


def is_of_whole_warps(mask: Mask) -> bool:
    """True if of each warp all threads are in the mask, or none."""
    warps = mask.reshape(-1, 32)
    return bool((warps.all(axis=1) == warps.any(axis=1)).all())


def to_odd_float32(values: Array) -> Array:
    """float64 -> float32 rounded to odd: a later rounding to fewer bits is then the rounding of the float64."""
    near = values.astype(np.float32)
    away = np.abs(near.astype(np.float64)) > np.abs(values)
    cut = np.where(away, (near.view(np.uint32) - 1).astype(np.uint32), near.view(np.uint32))
    inexact = (near.astype(np.float64) != values) & np.isfinite(values)
    odd: Array = np.where(inexact, cut | np.uint32(1), near.view(np.uint32)).astype(np.uint32).view(np.float32)
    return odd


def fused(a: Array, b: Array, c: Array) -> Array:
    """a b + c of float32, rounded once

    The product is exact in float64. The sum is rounded to odd there, so that rounding it again to float32 is right.
    """
    product, addend = a.astype(np.float64) * b.astype(np.float64), c.astype(np.float64)
    total = product + addend
    part = total - product
    error = (product - (total - part)) + (addend - part)
    is_even = (total.view(np.uint64) & np.uint64(1)) == 0
    inexact = np.isfinite(total) & (error != 0) & is_even
    toward = np.where((error > 0) == (total > 0), 1, -1)
    odd = np.where(inexact, (total.view(np.int64) + toward).view(np.float64), total)
    result: Array = odd.astype(np.float32)
    return result


def flushed(values: Array) -> Array:
    """Denormal float32 as zero of their sign"""
    return np.where(np.abs(values) < np.finfo(np.float32).tiny, np.copysign(np.float32(0), values), values).astype(
        np.float32
    )


# Makers -------------------------------------------------------------------------------------------------------------


def _type(instruction: Instruction) -> str:
    return instruction.parts[-1]


def _of(function: Callable[..., Array]) -> Callable[[Instruction], Step]:
    """An instruction whose result is `function` of its sources, all of the type that the opcode ends in."""

    def make(instruction: Instruction) -> Step:
        type, (target, *sources) = _type(instruction), instruction.operands
        is_flushed = "ftz" in instruction.parts

        def run(block: Block, mask: Mask) -> None:
            if type in ("f16x2", "bf16x2"):
                parts = zip(*(halves(block.get(source, type), type[:-2]) for source in sources), strict=True)
                results = (function(*(half.astype(np.float64) for half in part)) for part in parts)
                block.put(target, joined(*(narrow(result, type[:-2]) for result in results)), mask)
                return
            values = [block.get(source, type) for source in sources]
            if type in ("f16", "bf16"):
                result = function(*(widen(value, type).astype(np.float64) for value in values))
                block.put(target, narrow(result, type), mask)
                return
            if is_flushed:
                values = [flushed(value) for value in values]
            result = function(*values)
            block.put(target, flushed(result) if is_flushed else result.astype(values[0].dtype, copy=False), mask)

        return run

    return make


def _multiply(instruction: Instruction) -> Step:
    """mul, mad: .lo, .hi and .wide of integers, floats otherwise"""
    type = _type(instruction)
    if type in _FLOATS:
        if instruction.parts[0] == "mad":
            return _fma(instruction)
        return _of(lambda a, b: a * b)(instruction)
    target, *sources = instruction.operands
    part, bits = instruction.parts[1], int(type[1:])

    def run(block: Block, mask: Mask) -> None:
        a, b = (block.get(source, type).astype(object) for source in sources[:2])
        product = a * b
        if part == "hi":
            product = product >> bits
        width = 2 * bits if part == "wide" else bits
        if len(sources) == 3:
            product = product + block.get(sources[2], f"{type[0]}{width}").astype(object)
        whole = np.array([int(number) & ((1 << width) - 1) for number in product], f"u{width // 8}")
        block.put(target, whole, mask)

    def fast(block: Block, mask: Mask) -> None:
        """Products that wrap around as numpy's do, or that fit."""
        wide = f"{type[0]}{2 * bits}" if part == "wide" else type
        kind = np.dtype(f"{'i' if type[0] == 's' else 'u'}{int(wide[1:]) // 8}")
        a, b = (block.get(source, type).astype(kind) for source in sources[:2])
        result = a * b
        if len(sources) == 3:
            result = result + block.get(sources[2], wide)
        block.put(target, result, mask)

    return run if part == "hi" else fast


def _fma(instruction: Instruction) -> Step:
    type = _type(instruction)
    if type == "f32":
        return _of(fused)(instruction)
    if type == "f64":
        raise NotImplementedError(instruction.text)
    return _of(lambda a, b, c: a * b + c)(instruction)


def _move(instruction: Instruction) -> Step:
    type, (target, source) = _type(instruction), instruction.operands

    def run(block: Block, mask: Mask) -> None:
        if source.startswith("{"):
            parts = registers(source)
            bits = int(type[1:]) // len(parts)
            whole = np.zeros(len(block.threads), f"u{int(type[1:]) // 8}")
            for place, part in enumerate(parts):
                whole |= block.raw(part, bits).astype(whole.dtype) << whole.dtype.type(place * bits)
            block.put(target, whole, mask)
        elif target.startswith("{"):
            parts = registers(target)
            bits = int(type[1:]) // len(parts)
            whole = block.raw(source, int(type[1:]))
            for place, part in enumerate(parts):
                piece = whole >> whole.dtype.type(place * bits)
                block.put(part, piece.astype(f"u{bits // 8}"), mask)
        else:
            block.put(target, block.get(source, type), mask)

    return run


_COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal,
    "lo": np.less, "ls": np.less_equal, "hi": np.greater, "hs": np.greater_equal,
    "num": lambda a, b: ~(np.isnan(a) | np.isnan(b)), "nan": lambda a, b: np.isnan(a) | np.isnan(b),
}  # fmt: skip


def _compare(instruction: Instruction) -> Step:
    """setp: a predicate. `ne` is false of NaN; a comparison that ends in u (equ, neu, ltu ...) is true of it."""
    type, (target, *sources) = _type(instruction), instruction.operands
    name = instruction.parts[1]
    is_unordered = name not in _COMPARISONS
    compare = _COMPARISONS[name[:-1] if is_unordered else name]
    combine = {"and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor}.get(instruction.parts[2])

    def run(block: Block, mask: Mask) -> None:
        a, b = (block.get(source, type) for source in sources[:2])
        if type in ("f16", "bf16"):
            a, b = widen(a, type), widen(b, type)
        result = compare(a, b)
        if type in _FLOATS and name not in ("num", "nan"):
            unknown = np.isnan(a) | np.isnan(b)
            result = result | unknown if is_unordered else result & ~unknown
        if combine is not None:
            result = combine(result, block.get(sources[2], "pred"))
        block.put(target, result, mask)

    return run


def _select(instruction: Instruction) -> Step:
    type, (target, yes, no, condition) = _type(instruction), instruction.operands

    def run(block: Block, mask: Mask) -> None:
        block.put(target, np.where(block.get(condition, "pred"), block.get(yes, type), block.get(no, type)), mask)

    return run


def _shift(is_left: bool) -> Callable[[Instruction], Step]:
    """shl, shr: a distance past the width gives 0, or the sign"""

    def make(instruction: Instruction) -> Step:
        type, (target, source, distance) = _type(instruction), instruction.operands
        bits = int(type[1:])

        def run(block: Block, mask: Mask) -> None:
            value, by = block.get(source, type), block.get(distance, "u32")
            near = np.minimum(by, bits - 1).astype(value.dtype)
            moved = value << near if is_left else value >> near
            if is_left or type[0] != "s":
                moved = np.where(by < bits, moved, 0).astype(value.dtype)
            block.put(target, moved, mask)

        return run

    return make


def _extract(instruction: Instruction) -> Step:
    """bfe: `length` bits from `start` on, extended by their own sign where the type has one"""
    type, (target, source, start, length) = _type(instruction), instruction.operands
    bits = int(type[1:])

    def run(block: Block, mask: Mask) -> None:
        value = block.get(source, f"u{bits}").astype(np.uint64)
        begin, count = (block.get(o, "u32").astype(np.uint64) & np.uint64(0xFF) for o in (start, length))
        assert (begin < bits).all() and (begin + count <= bits).all(), instruction.text
        found = value >> begin & ((np.uint64(1) << count) - np.uint64(1))
        if type[0] == "s":
            sign = np.uint64(1) << np.maximum(count, 1) - np.uint64(1)
            found = (found ^ sign) - sign
        block.put(target, found.astype(f"u{bits // 8}"), mask)

    return run


def _insert(instruction: Instruction) -> Step:
    """bfi: the low `length` bits of the first number, put into the second from `start` on"""
    type, (target, source, into, start, length) = _type(instruction), instruction.operands
    bits = int(type[1:])

    def run(block: Block, mask: Mask) -> None:
        value, base = (block.get(o, f"u{bits}").astype(np.uint64) for o in (source, into))
        begin, count = (block.get(o, "u32").astype(np.uint64) & np.uint64(0xFF) for o in (start, length))
        assert (begin + count <= bits).all(), instruction.text
        field = (np.uint64(1) << count) - np.uint64(1) << begin
        block.put(target, (base & ~field | value << begin & field).astype(f"u{bits // 8}"), mask)

    return run


def _permute(instruction: Instruction) -> Step:
    """prmt.b32: each nibble of the selector takes one of the eight bytes of b:a, or with its top bit the byte's sign"""
    assert instruction.parts[1] == "b32", instruction.text
    target, low, high, selector = instruction.operands

    def run(block: Block, mask: Mask) -> None:
        both = block.get(low, "u32").astype(np.uint64) | block.get(high, "u32").astype(np.uint64) << np.uint64(32)
        select = block.get(selector, "u32").astype(np.uint64)
        result = np.zeros(len(both), np.uint64)
        for place in range(4):
            nibble = select >> np.uint64(4 * place) & np.uint64(15)
            byte = both >> (nibble & np.uint64(7)) * np.uint64(8) & np.uint64(255)
            byte = np.where(nibble >> np.uint64(3), np.where(byte >> np.uint64(7), 255, 0), byte).astype(np.uint64)
            result |= byte << np.uint64(8 * place)
        block.put(target, result.astype(np.uint32), mask)

    return run


def _truth_table(instruction: Instruction) -> Step:
    """lop3.b32: bit by bit the truth table of three inputs"""
    target, *sources, table = instruction.operands
    truth = int(table, 0)

    def run(block: Block, mask: Mask) -> None:
        a, b, c = (block.get(source, "u32") for source in sources)
        result = np.zeros_like(a)
        for case in range(8):
            if truth >> case & 1:
                terms = (a if case & 4 else ~a, b if case & 2 else ~b, c if case & 1 else ~c)
                result |= terms[0] & terms[1] & terms[2]
        block.put(target, result, mask)

    return run


def _funnel(instruction: Instruction) -> Step:
    """shf.l, shf.r: 32 bits out of the 64 of b:a"""
    is_left, is_clamped = instruction.parts[1] == "l", instruction.parts[2] == "clamp"
    target, low, high, distance = instruction.operands

    def run(block: Block, mask: Mask) -> None:
        both = block.get(low, "u32").astype(np.uint64) | block.get(high, "u32").astype(np.uint64) << np.uint64(32)
        by = block.get(distance, "u32")
        by = (np.minimum(by, 32) if is_clamped else by & 31).astype(np.uint64)
        moved = both << by >> np.uint64(32) if is_left else both >> by
        block.put(target, moved.astype(np.uint32), mask)

    return run


def _convert(instruction: Instruction) -> Step:
    """cvt.to.from, with a rounding for what loses digits"""
    parts, (target, *sources) = instruction.parts, instruction.operands
    to, source_type = parts[-2:]
    rounding = next((part for part in parts if part in ("rn", "rz", "rm", "rp", "rni", "rzi", "rmi", "rpi")), "")
    assert "sat" not in parts and "relu" not in parts and rounding not in ("rz", "rm", "rp"), instruction.text

    def as_float(values: Array) -> Array:
        return widen(values, source_type) if source_type in ("f16", "bf16") else values

    def run(block: Block, mask: Mask) -> None:
        values = [as_float(block.get(source, source_type)) for source in sources]
        if "ftz" in parts and values[0].dtype == np.float32:
            values = [flushed(value) for value in values]
        if to in ("f16x2", "bf16x2"):  # the first source is the high half
            block.put(target, joined(narrow(values[1], to[:-2]), narrow(values[0], to[:-2])), mask)
            return
        (value,) = values
        if rounding.endswith("i"):
            value = {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}[rounding](value)
        if to in ("f16", "bf16"):
            result = narrow(value.astype(np.float64) if value.dtype.kind in "iu" else value, to)
        elif to in ("f32", "f64"):
            result = value.astype(np.float32 if to == "f32" else np.float64)
        elif value.dtype.kind == "f":
            limits = np.iinfo(np.dtype(f"{'i' if to[0] == 's' else 'u'}{int(to[1:]) // 8}"))
            inside = np.clip(np.nan_to_num(value.astype(np.float64), nan=0.0), float(limits.min), float(limits.max))
            result = inside.astype(limits.dtype)
        else:
            result = value.astype(np.dtype(f"{'i' if to[0] == 's' else 'u'}{int(to[1:]) // 8}"))
        block.put(target, result, mask)

    return run


def _shuffle(instruction: Instruction) -> Step:
    """shfl.sync: a register of another lane, within segments of the warp; its own where there is none

    The last operands are the segment's mask and clamp (c) and the lanes that take part, which must be all of them.
    """
    mode, operands = instruction.parts[2], instruction.operands
    target, _, found = (part.strip() for part in operands[0].partition("|"))
    source, by, clamp, members = operands[1:]

    def run(block: Block, mask: Mask) -> None:
        assert is_of_whole_warps(mask) and (block.get(members, "u32")[mask] == 0xFFFFFFFF).all(), instruction.text
        lane, distance, c = (
            block.threads & 31,
            block.get(by, "u32").astype(np.int64),
            block.get(clamp, "u32").astype(np.int64),
        )
        segment = c >> 8 & 31
        first = lane & segment
        last = first | c & 31 & ~segment
        if mode == "up":
            lane_read = lane - distance
            inside = lane_read >= last
        elif mode == "down":
            lane_read = lane + distance
            inside = lane_read <= last
        elif mode == "bfly":
            lane_read = lane ^ distance
            inside = lane_read <= last
        else:
            lane_read = first | distance & 31 & ~segment
            inside = lane_read <= last
        thread = np.where(inside, block.threads - lane + lane_read, block.threads)
        block.put(target, block.get(source, "b32")[thread], mask)
        if found:
            block.put(found, inside, mask)

    return run


def _reduce(instruction: Instruction) -> Step:
    """redux.sync: one number of all lanes of a warp"""
    name, type, (target, source, members) = instruction.parts[2], _type(instruction), instruction.operands
    reduce = {"add": np.add, "min": np.minimum, "max": np.maximum, "and": np.bitwise_and, "or": np.bitwise_or}[name]

    def run(block: Block, mask: Mask) -> None:
        assert is_of_whole_warps(mask) and (block.get(members, "u32")[mask] == 0xFFFFFFFF).all(), instruction.text
        warps = block.get(source, type).reshape(-1, 32)
        block.put(target, np.repeat(reduce.reduce(warps, axis=1), 32).astype(warps.dtype), mask)

    return run


def _absolute(x: Array) -> Array:
    return np.abs(x)


def _divide(a: Array, b: Array) -> Array:
    """div: exact of floats; of integers towards zero"""
    if a.dtype.kind == "f":
        quotient: Array = a / b
        return quotient
    whole = np.abs(a.astype(object)) // np.abs(b.astype(object))
    signed: Array = np.where((a < 0) != (b < 0), -whole, whole).astype(a.dtype)
    return signed


def _remainder(a: Array, b: Array) -> Array:
    left: Array = (a.astype(object) - _divide(a, b).astype(object) * b.astype(object)).astype(a.dtype)
    return left


def _in_double(function: Callable[[Any], Any]) -> Callable[[Array], Array]:
    """A function of float32, computed in float64 and rounded once"""
    return lambda x: function(x.astype(np.float64)).astype(np.float32)


def _minimum(a: Array, b: Array) -> Array:
    return np.fmin(a, b) if a.dtype.kind == "f" else np.minimum(a, b)


def _maximum(a: Array, b: Array) -> Array:
    return np.fmax(a, b) if a.dtype.kind == "f" else np.maximum(a, b)


def _extreme(keeping: Callable[..., Array], spreading: Callable[..., Array]) -> Callable[[Instruction], Step]:
    """min, max: of NaN and a number the number, with .NaN the NaN"""
    return lambda instruction: _of(spreading if "NaN" in instruction.parts else keeping)(instruction)


INSTRUCTIONS: dict[str, Callable[[Instruction], Step]] = {
    "mov": _move, "cvta": _move, "cvt": _convert, "selp": _select, "setp": _compare,
    "add": _of(lambda a, b: a + b), "sub": _of(lambda a, b: a - b), "neg": _of(lambda a: -a), "abs": _of(_absolute),
    "mul": _multiply, "mad": _multiply, "fma": _fma, "div": _of(_divide), "rem": _of(_remainder),
    "min": _extreme(_minimum, np.minimum), "max": _extreme(_maximum, np.maximum),
    "and": _of(np.bitwise_and), "or": _of(np.bitwise_or), "xor": _of(np.bitwise_xor), "not": _of(np.invert),
    "shl": _shift(True), "shr": _shift(False), "shf": _funnel, "bfe": _extract, "bfi": _insert,
    "prmt": _permute, "lop3": _truth_table,
    "sqrt": _of(_in_double(np.sqrt)), "rsqrt": _of(_in_double(lambda x: 1 / np.sqrt(x))),
    "rcp": _of(_in_double(lambda x: 1 / x)), "ex2": _of(_in_double(np.exp2)), "lg2": _of(_in_double(np.log2)),
    "sin": _of(_in_double(np.sin)), "cos": _of(_in_double(np.cos)), "tanh": _of(_in_double(np.tanh)),
    "shfl": _shuffle, "redux": _reduce,
}  # fmt: skip
