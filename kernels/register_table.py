"""Sixteen levels as a look-up table in eight registers, for the PRMT instruction of NVIDIA GPUs.

PRMT d, a, b, s writes four bytes: byte i of d is byte s_i of the eight bytes of (a, b), s_i being the low three bits
of nibble i of s. Where bit 3 of the nibble is set, all eight bits of the byte are the chosen byte's top bit instead:
0x00 or 0xFF. Four codes are thus looked up at a time in a table of eight bytes, and a 16-bit level has two bytes.

A code c has a partner c ^ 8, at the same place of the upper half of the table. For a byte A of code c < 8 and the
byte B of its partner, with equal top bits t, the tables

    lower = A        upper = B ^ (0xFF if t else 0x00)

give the byte of either code as PRMT(lower, codes) ^ PRMT(upper, codes ^ 8): for c the first is A and the second 0x00,
as the top bit of `upper` is clear; for c ^ 8 the first is t eight times over and the second takes that off B again.
So the codes are renumbered, once, when a weight is repacked, such that partners agree in the top bit of both bytes of
their bfloat16 levels. Zero may be stored as -0 for it, which no product with it shows.

No numbering does this for NF4 in float16, whose tables hold A and B as they are; `lookup` then chooses by bit 3.
"""

from functools import cache

import torch
from torch import Tensor

from .codebook import CODEBOOKS
from .formats import FourBit

TOP_BITS = 0x8080  # of the two bytes of a level


def bits(levels: Tensor) -> list[int]:
    """The bit patterns of bfloat16 or float16 levels, 0 to 65535."""
    return [pattern & 0xFFFF for pattern in levels.view(torch.int16).tolist()]


@cache
def code_order(format: FourBit) -> tuple[int, ...]:
    """The code of the format that each repacked code stands for: repacked codes c and c ^ 8 are partners.

    Raises ValueError for a codebook whose levels cannot be paired.
    """
    patterns = bits(CODEBOOKS[format]().bfloat16())
    zeros = [code for code, pattern in enumerate(patterns) if pattern & 0x7FFF == 0]
    for negative in range(len(zeros) + 1):
        signed = [0x8000 if code in zeros[:negative] else pattern for code, pattern in enumerate(patterns)]
        kinds: dict[int, list[int]] = {}
        for code, pattern in enumerate(signed):
            kinds.setdefault(pattern & TOP_BITS, []).append(code)
        if all(len(kind) % 2 == 0 for kind in kinds.values()):
            lower = [code for kind in kinds.values() for code in kind[0::2]]
            upper = [code for kind in kinds.values() for code in kind[1::2]]
            return (*lower, *upper)
    raise ValueError(f"{format}: the levels of a codebook must pair up by sign and exponent bit, got {patterns}")


def ordered_levels(format: FourBit, dtype: torch.dtype) -> Tensor:
    """The levels by repacked code, [16] in `dtype`; zero has the sign of its partner."""
    levels = CODEBOOKS[format]()[list(code_order(format))]
    partner = levels.roll(8)
    return torch.where(levels == 0, torch.copysign(levels, partner), levels).to(dtype)


def register_table(format: FourBit, dtype: torch.dtype) -> Tensor:
    """int32 [8]: low bytes of codes 0-3, 4-7, 8-11, 12-15, then high bytes of the same, a byte a code

    bfloat16: the upper half is made for XOR, as above.  float16: the bytes as they are.
    """
    patterns = torch.tensor(bits(ordered_levels(format, dtype)), dtype=torch.int32)
    if dtype == torch.bfloat16:
        tops = patterns[:8] & TOP_BITS
        assert torch.equal(tops, patterns[8:] & TOP_BITS)
        patterns[8:] ^= (tops >> 7) * 0xFF  # each top bit, eight times over
    table = torch.stack([patterns & 0xFF, patterns >> 8]).to(torch.uint8)
    return table.view(torch.int32).flatten()
