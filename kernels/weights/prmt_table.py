"""Sixteen levels as a look-up table in eight registers, for the PRMT instruction of NVIDIA GPUs.

PRMT d, a, b, s writes four bytes: byte i of d is byte s_i of the eight bytes of (a, b), s_i being the low three bits
of nibble i of s. Where bit 3 of the nibble is set, all eight bits of the byte are the chosen byte's top bit instead:
0x00 or 0xFF. Four codes are thus looked up at a time in a table of eight bytes, and a 16-bit level has two bytes.

The partner of code c < 8 is c + 8. Let A and B be the same byte of their levels, with equal top bits t. Two tables

    lower[c] = A        upper[7 - c] = B ^ (0xFF if t else 0x00)

give the byte of either code x as PRMT(lower, x) ^ PRMT(upper, ~x), ~ being the complement of all four bits: for x = c
the first is A, and the second 0x00, as the top bits of `upper` are clear; for x = c + 8 the first is t, eight times
over, and the second is what that turns into B. So codes are renumbered, once, when a weight is repacked, such that the
bfloat16 levels of partners agree in the top bits of both their bytes. Zero may be stored as -0 for it, which no product
with it shows.

No numbering does this for NF4 in float16. Its tables hold A and B as they are, and `lookup` chooses by bit 3 of x.
"""

import os
from functools import cache

import torch
from torch import Tensor

from .codebooks import CODEBOOKS
from .quantized_weight import FourBit

TOP_BITS = 0x8080  # of the two bytes of a level


def can_use_prmt(dtype: torch.dtype, device: torch.device) -> bool:
    """True if codes become levels of `dtype` by PRMT: levels of 16 bits, on an NVIDIA GPU, not interpreted."""
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    return device.type == "cuda" and torch.version.hip is None and dtype.itemsize == 2 and not interpreted


def bits(levels: Tensor) -> list[int]:
    """The bit patterns of bfloat16 or float16 levels, 0 to 65535."""
    return [pattern & 0xFFFF for pattern in levels.view(torch.int16).tolist()]


@cache
def code_order(format: FourBit) -> tuple[int, ...]:
    """The code of the format that each repacked code stands for.

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
    """int32 [10]: lower (2 words) and upper (2) for the low bytes of the levels, the same for the high bytes, 2^16, ~0

    dtype bfloat16: `upper` is made for XOR, as above.  float16: upper[c] = B.  The last two words are the multipliers
    with which `lookup` shifts and complements.
    """
    patterns = torch.tensor(bits(ordered_levels(format, dtype)), dtype=torch.int32)
    lower, upper = patterns[:8], patterns[8:]
    if dtype == torch.bfloat16:
        tops = lower & TOP_BITS
        assert torch.equal(tops, upper & TOP_BITS)
        upper = (upper ^ (tops >> 7) * 0xFF).flip(0)  # a top bit, eight times over
    words = torch.stack([lower & 0xFF, upper & 0xFF, lower >> 8, upper >> 8]).to(torch.uint8).view(torch.int32)
    return torch.cat([words.flatten(), torch.tensor([1 << 16, -1], dtype=torch.int32)])
