"""A block as it is stored, where rows are no multiple of it and codes begin in the middle of a byte."""

from pathlib import Path

import torch

from lowrank.eval.inspect.block import read_block, row_name
from lowrank.kernels.reference import weights as reference
from lowrank.kernels.reference.codes import unpacked
from lowrank.model.checkpoint import open_checkpoint


def test_rows_that_are_no_multiple_of_a_block() -> None:
    w = torch.randn(5, 50, generator=torch.Generator().manual_seed(0))
    stored = reference.quantize_4bit(w)
    whole = reference.dequantize(stored)
    found = read_block(stored, row=3, block=0, original=w)  # weight 150 lies in block 2, which begins at 128
    assert found.index == 2 and len(found.weights) == 64
    assert (found.weights[0].row, found.weights[0].column) == (2, 28)
    assert all(weight.value == float(whole[weight.row, weight.column]) for weight in found.weights)
    assert len(read_block(stored, row=4, block=0, original=None).weights) == 250 - 192


def test_the_first_code_of_a_byte_is_in_its_high_nibble() -> None:
    packed = torch.tensor([0x12, 0x34, 0x56], dtype=torch.uint8)
    assert unpacked(packed, 0, 6).tolist() == [1, 2, 3, 4, 5, 6]
    assert unpacked(packed, 1, 4).tolist() == [2, 3, 4]


def test_rows_are_named_by_head_and_channel(golden: Path) -> None:
    config = open_checkpoint(golden / "meta-tiny-gqa-mp2").config
    h = config.head_dim
    assert row_name("layers.0.attention.wk", h + 2, config).startswith("head 1, channel 2; RoPE turns it together with")
    assert row_name("layers.0.attention.wv", 3, config) == "head 0, channel 3"
    assert row_name("layers.0.feed_forward.w1", 3, config) == "output channel 3"
