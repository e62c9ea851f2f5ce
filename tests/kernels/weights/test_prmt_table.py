"""The assembly of `lookup`, executed here instruction by instruction for every input, against the codebooks."""

import re

import pytest
import torch

from lowrank.kernels.triton import lookup
from lowrank.kernels.weights import prmt_table as tables
from lowrank.kernels.weights.codebooks import CODEBOOKS

WORD = 0xFFFFFFFF


def prmt(a, b, selector):
    """Four bytes out of the eight of (a, b), as PTX defines the default mode of `prmt`."""
    result = torch.zeros_like(selector)
    for byte in range(4):
        nibble = selector >> 4 * byte & 15
        chosen = (a | b << 32) >> 8 * (nibble & 7) & 0xFF
        sign = (chosen >> 7) * 0xFF
        result |= torch.where(nibble > 7, sign, chosen) << 8 * byte
    return result


OPERATIONS = {
    "mov.b32": lambda a: a,
    "xor.b32": lambda a, b: a ^ b,
    "and.b32": lambda a, b: a & b,
    "or.b32": lambda a, b: a | b,
    "shr.u32": lambda a, b: a >> b,
    "mul.wide.u32": lambda a, b: a * b,  # up to 2^48 here: an int64 holds it
    "mad.lo.u32": lambda a, b, c: (a * b + c) & WORD,
    "prmt.b32": prmt,
}


def execute(assembly, registers):
    """Runs PTX on `registers`, tensors of 32-bit values in int64 by name, and returns them all."""
    for statement in assembly.strip(" {}\n").split(";"):
        name, _, operands = statement.strip().partition(" ")
        if not name or name == ".reg":
            continue
        if name == "mov.b64":  # {low, high} of a 64-bit register
            low, high, source = re.findall(r"[\w$]+", operands)
            registers[low], registers[high] = registers[source] & WORD, registers[source] >> 32
            continue
        target, *sources = re.split(r",\s*", operands)
        values = [registers[s] if s in registers else torch.tensor(int(s, 0)) for s in sources]
        registers[target] = OPERATIONS[name](*torch.broadcast_tensors(*values))
    return registers


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
@pytest.mark.parametrize("format", ["nf4", "fp4"])
def test_the_assembly_gives_the_codebook_for_every_four_codes(format, dtype) -> None:
    first = torch.arange(1 << 16)
    words = first | (first * 40503 & 0xFFFF) << 16  # an odd factor: the upper half has every value too, another one
    registers = {"$4": words}
    for word, value in enumerate(tables.register_table(format, dtype).tolist()):
        registers |= {f"${5 + 4 * word + copy}": torch.tensor(value & WORD) for copy in range(4)}
    assembly = lookup.ASSEMBLY_BF16 if dtype == torch.bfloat16 else lookup.ASSEMBLY_FP16
    registers = execute(assembly.value, registers)

    levels = CODEBOOKS[format]().to(dtype)[list(tables.code_order(format))]
    for half, outputs in enumerate((("$0", "$1"), ("$2", "$3"))):  # low nibbles, high nibbles
        for byte in range(4):
            pattern = registers[outputs[byte // 2]] >> 16 * (byte % 2) & 0xFFFF
            ours = pattern.to(torch.uint16).view(dtype)
            assert torch.equal(ours, levels[words >> 8 * byte + 4 * half & 15]), (half, byte)


def test_prmt_repeats_the_top_bit_where_bit_3_of_the_selector_is_set() -> None:
    # bytes of (a, b), from the lowest: 10 80 7f ff 01 02 03 84
    a, b = torch.tensor(0xFF7F8010), torch.tensor(0x84030201)
    assert prmt(a, b, torch.tensor(0x7410)).item() == 0x84018010
    assert prmt(a, b, torch.tensor(0xFA98)).item() == 0xFF00FF00


@pytest.mark.parametrize("format", ["nf4", "fp4"])
def test_repacked_codes_are_a_permutation_whose_levels_are_the_codebook(format) -> None:
    order = tables.code_order(format)
    assert sorted(order) == list(range(16))
    levels = tables.ordered_levels(format, torch.float32)
    assert torch.equal(levels, CODEBOOKS[format]()[list(order)])  # -0 equals 0


def test_a_codebook_without_pairs_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CODEBOOKS, "fp4", lambda: torch.arange(16.0) - 8)
    with pytest.raises(ValueError, match="fp4: the levels of a codebook must pair up by sign and exponent bit"):
        tables.code_order.__wrapped__("fp4")
