"""Packed codes to levels inside a Triton kernel: the one place where the assembly has a plain twin, and differs from it.

The assembly takes words of eight codes, the low and high nibbles of four bytes, and writes pairs of neighbouring low
nibbles and pairs of neighbouring high nibbles: registers as the matrix units read them. `register_table` tells how
eight registers hold sixteen levels. The twin, for Triton's interpreter, for float32 and for GPUs without PRMT, gathers
from the levels in memory.
"""

import triton
import triton.language as tl


def _assembly(by_xor: bool) -> str:
    """PTX from a word of codes, $4, to two registers of low nibbles, $0 $1, and two of high ones, $2 $3.

    The two halves of the table are looked up separately. bfloat16: their XOR is the level. float16: bit 3 of the code
    chooses between them, by a third PRMT.
    """
    # Each word of the table comes as four operands, one for each byte that the assembly takes: the first is as good as any.
    table = [f"${5 + 4 * word}" for word in range(8)]
    text = [".reg .b32 lower, upper, choice, low, high, low_lower, low_upper, high_lower, high_upper;"]
    if by_xor:
        text += ["mov.b32 lower, $4;", "xor.b32 upper, $4, 0x88888888;"]
        choose = "xor.b32 {0}, {0}_lower, {0}_upper;"
    else:
        text += ["and.b32 lower, $4, 0x77777777;", "mov.b32 upper, lower;"]
        # nibble i of the selector is i, or i + 4 for the upper half
        text += ["shr.u32 choice, $4, 1;", "and.b32 choice, choice, 0x44444444;", "or.b32 choice, choice, 0x32103210;"]
        choose = "prmt.b32 {0}, {0}_lower, {0}_upper, choice;"
    for pair in (0, 1):
        if pair == 1:  # PRMT reads the lower 16 bits of its selector: the upper two bytes follow
            text += ["shr.u32 lower, lower, 16;", "shr.u32 upper, upper, 16;", "shr.u32 choice, choice, 16;"]
        for byte, words in (("low", table[:4]), ("high", table[4:])):
            text += [
                f"prmt.b32 {byte}_lower, {words[0]}, {words[1]}, lower;",
                f"prmt.b32 {byte}_upper, {words[2]}, {words[3]}, upper;",
                choose.format(byte),
            ]
        # bytes 0 and 2 are of low nibbles, bytes 1 and 3 of high ones
        text += [f"prmt.b32 ${pair}, low, high, 0x6240;", f"prmt.b32 ${pair + 2}, low, high, 0x7351;"]
    return "{\n" + "\n".join(text) + "\n}"


ASSEMBLY_BF16 = tl.constexpr(_assembly(by_xor=True))
ASSEMBLY_FP16 = tl.constexpr(_assembly(by_xor=False))
CONSTRAINTS = tl.constexpr(",".join(["=r"] * 4 + ["r"] * 33))


@triton.jit
def load_table(table_ptr):
    """The eight words of `register_table`. Loaded, not written out: the compiler would rebuild constants in the loop."""
    word = table_ptr + tl.zeros((1, 1), tl.int32)
    return (
        tl.load(word),
        tl.load(word + 1),
        tl.load(word + 2),
        tl.load(word + 3),
        tl.load(word + 4),
        tl.load(word + 5),
        tl.load(word + 6),
        tl.load(word + 7),
    )


@triton.jit
def look_up(codes, table, levels_ptr, ASSEMBLY: tl.constexpr):
    """(levels of the low nibbles, levels of the high nibbles), each of the shape of `codes` and the dtype of levels_ptr

    codes uint8, with a multiple of four bytes a thread; table from `load_table`; levels_ptr [16] by repacked code.
    """
    if ASSEMBLY:
        low, high = tl.inline_asm_elementwise(
            asm=ASSEMBLY_BF16 if levels_ptr.dtype.element_ty == tl.bfloat16 else ASSEMBLY_FP16,
            constraints=CONSTRAINTS,
            args=(codes, table[0], table[1], table[2], table[3], table[4], table[5], table[6], table[7]),
            dtype=(levels_ptr.dtype.element_ty, levels_ptr.dtype.element_ty),
            is_pure=True,
            pack=4,
        )
    else:
        low = tl.load(levels_ptr + (codes & 15))
        high = tl.load(levels_ptr + (codes >> 4))
    return low, high
