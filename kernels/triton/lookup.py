"""Packed codes to levels inside a Triton kernel: the one place with assembly, and with a plain twin of it.

The assembly takes words of eight codes, the low and high nibbles of four bytes, and writes pairs of neighbouring low
nibbles and pairs of neighbouring high nibbles: registers as the matrix units read them. `register_table` tells how
eight registers hold sixteen levels. The twin, for Triton's interpreter, for float32 and for GPUs without PRMT, gathers
from the levels in memory.
"""

import triton
import triton.language as tl


def _assembly(by_xor: bool) -> str:
    """PTX from a word of codes, $4, to two registers of low nibbles, $0 $1, and two of high ones, $2 $3.

    The two halves of the table are looked up separately. by_xor: their XOR is the level. Otherwise bit 3 of the code
    chooses between them, by a third PRMT.

    PRMT, AND and shifts share one pipe of the GPU, which they would fill. So the complement and the shift by 16 are
    multiplications, by constants that the compiler does not know (else it would turn them back): ~x = -1 * x - 1, and
    x >> 16 is the upper half of the 64-bit x * 2^16.
    """
    # A word of the table comes four times, once for each byte that the assembly takes. The first is as good as any.
    *table, shift, ones = (f"${5 + 4 * word}" for word in range(10))
    text = [".reg .b64 wide;", ".reg .b32 rest, lower, upper, choice, low, low0, low1, high, high0, high1;"]
    if by_xor:
        text += ["mov.b32 lower, $4;"]
        choose = "xor.b32 {0}, {0}0, {0}1;"
    else:
        # nibble i of `choice` is i, or i + 4 where bit 3 of the code is set
        text += ["shr.u32 choice, $4, 1;", "and.b32 choice, choice, 0x44444444;", "or.b32 choice, choice, 0x32103210;"]
        text += ["and.b32 lower, $4, 0x77777777;"]
        choose = "prmt.b32 {0}, {0}0, {0}1, choice;"
    for pair in (0, 1):
        if pair == 1:  # PRMT reads the lower 16 bits of its selector: the other two bytes follow
            for name in ("lower",) if by_xor else ("lower", "choice"):
                text += [f"mul.wide.u32 wide, {name}, {shift};", f"mov.b64 {{rest, {name}}}, wide;"]
        text += [f"mad.lo.u32 upper, lower, {ones}, {ones};" if by_xor else "mov.b32 upper, lower;"]
        for byte, words in (("low", table[:4]), ("high", table[4:])):
            text += [f"prmt.b32 {byte}0, {words[0]}, {words[1]}, lower;"]
            text += [f"prmt.b32 {byte}1, {words[2]}, {words[3]}, upper;"]
            text += [choose.format(byte)]
        # bytes 0 and 2 are of low nibbles, bytes 1 and 3 of high ones
        text += [f"prmt.b32 ${pair}, low, high, 0x6240;", f"prmt.b32 ${pair + 2}, low, high, 0x7351;"]
    return "{\n" + "\n".join(text) + "\n}"


ASSEMBLY_BF16 = tl.constexpr(_assembly(by_xor=True))
ASSEMBLY_FP16 = tl.constexpr(_assembly(by_xor=False))
CONSTRAINTS = tl.constexpr(",".join(["=&r"] * 4 + ["r"] * 41))  # &: outputs are written before all inputs are read
# Zero: bit 31 of the mask of the lanes before this one, as there is no lane 32. The compiler does not know that either.
LANE_ZERO = tl.constexpr("{ .reg .b32 mask; mov.u32 mask, %lanemask_lt; shr.u32 $0, mask, 31; }")


@triton.jit
def load_table(table_ptr, ASSEMBLY: tl.constexpr):
    """The words of `register_table`, in vector registers throughout.

    Constants written out would be built anew in the loop, and words that the compiler knows to be the same in all lanes
    would be moved to uniform registers and back for each use: so they are loaded, from addresses that seem to differ.
    """
    first = tl.zeros((1, 1), tl.int32)
    if ASSEMBLY:
        first = tl.inline_asm_elementwise(LANE_ZERO, "=r,r", (first,), dtype=tl.int32, is_pure=True, pack=1)
    word = table_ptr + first
    return (
        tl.load(word),
        tl.load(word + 1),
        tl.load(word + 2),
        tl.load(word + 3),
        tl.load(word + 4),
        tl.load(word + 5),
        tl.load(word + 6),
        tl.load(word + 7),
        tl.load(word + 8),
        tl.load(word + 9),
    )


@triton.jit
def look_up(codes, table, levels_ptr, ASSEMBLY: tl.constexpr):
    """(levels of the low nibbles, levels of the high nibbles), each of the shape of `codes` and the dtype of levels_ptr

    codes uint8, a multiple of four to a thread; table from `load_table`; levels_ptr [16], by repacked code.
    """
    if ASSEMBLY:
        t = table
        low, high = tl.inline_asm_elementwise(
            asm=ASSEMBLY_BF16 if levels_ptr.dtype.element_ty == tl.bfloat16 else ASSEMBLY_FP16,
            constraints=CONSTRAINTS,
            args=(codes, t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7], t[8], t[9]),
            dtype=(levels_ptr.dtype.element_ty, levels_ptr.dtype.element_ty),
            is_pure=True,
            pack=4,
        )
    else:
        low = tl.load(levels_ptr + (codes & 15))
        high = tl.load(levels_ptr + (codes >> 4))
    return low, high
