"""The layout of the decode kernels: where each code lies, that nothing is lost, and what is refused."""

import pytest
import torch

from lowrank.kernels import ops
from lowrank.kernels.reference import weights as reference
from lowrank.kernels.weights.prmt_table import code_order
from lowrank.kernels.weights.quantized_weight import Blockwise4bit, NestedAbsmax, stored_bytes
from lowrank.kernels.weights.repack import not_repackable_reason, repack, to_file_layout, unpack


def quantized(shape, format="nf4", blocksize=64, nested=False):
    w = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return reference.quantize_4bit(w, format, blocksize, nested)


@pytest.mark.parametrize("nested", [False, True], ids=["plain", "nested"])
@pytest.mark.parametrize("format", ["nf4", "fp4"])
@pytest.mark.parametrize(
    ("shape", "blocksize", "group"),
    [((1, 64), 64, 1), ((5, 128), 64, 2), ((3, 192), 64, 1), ((33, 1024), 64, 4), ((7, 384), 128, 1)],
    ids=["N1-K64", "N5-K128", "N3-K192", "N33-K1024", "N7-K384-b128"],
)
def test_unpack_gives_back_every_byte(shape, blocksize, group, format, nested) -> None:
    weight = quantized(shape, format, blocksize, nested)
    packed = repack(weight)
    rows, columns = shape
    assert packed.codes.shape == (columns // blocksize // group, rows, group, blocksize // 2)
    again = unpack(packed)
    assert (again.format, again.blocksize, again.shape) == (format, blocksize, shape)
    for name, tensor in weight.tensors().items():
        assert torch.equal(again.tensors()[name], tensor), name


def test_a_byte_holds_weights_half_a_block_apart_under_new_numbers() -> None:
    weight = quantized((2, 512))
    packed = repack(weight)
    codes = torch.stack([weight.codes >> 4, weight.codes & 15], dim=1).view(2, 512)
    order = torch.tensor(code_order("nf4"))
    for n, k in [(0, 0), (1, 31), (0, 32), (1, 63), (0, 64), (1, 300), (0, 511)]:
        block, inside = divmod(k, 64)
        byte = packed.codes[block // 4, n, block % 4, inside % 32]
        assert order[int(byte >> 4 * (inside // 32) & 15)] == codes[n, k]
        assert isinstance(packed.absmax, torch.Tensor) and isinstance(weight.absmax, torch.Tensor)
        assert packed.absmax[block // 4, n, block % 4] == weight.absmax[n * 8 + block]


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (quantized((3, 96)), "repack: K must be a multiple of blocksize 64, got K 96"),
        (quantized((3, 256), blocksize=256), "repack: blocksize must be 64 or 128, got 256"),
        (quantized((0, 64)), r"repack: a weight must hold something, got shape \(0, 64\)"),
        (quantized((192,)), r"repack: a weight must be \[N, K\], got shape \(192,\)"),
    ],
    ids=["ragged-K", "blocksize", "no-rows", "one-dimension"],
)
def test_other_weights_are_refused_by_rule_and_value(weight, message) -> None:
    assert not_repackable_reason(weight.shape, weight.blocksize) == message.removeprefix("repack: ").replace("\\", "")
    assert ops.to_fast_layout(weight, torch.bfloat16) is weight
    with pytest.raises(ValueError, match=message):
        repack(weight)


def test_a_nested_maximum_never_changes_inside_a_group() -> None:
    weight = quantized((40, 768), nested=True)  # 12 blocks a row: rows begin anywhere in the 256 of a nested block
    packed = repack(weight)
    assert packed.group == 4
    assert isinstance(weight, Blockwise4bit) and isinstance(packed.absmax, NestedAbsmax)
    blocks = torch.arange(40 * 12).view(-1, packed.group) // 256
    assert torch.equal(blocks[:, 0], blocks[:, -1])


@pytest.mark.parametrize("format", ["nf4", "fp4"])
def test_a_repacked_weight_is_its_tensors_and_the_same_numbers(format) -> None:
    weight = quantized((5, 128), format, nested=True)
    packed = repack(weight)
    copy = packed.with_tensors({name: tensor.clone() for name, tensor in packed.tensors().items()})
    assert (copy.name, copy.shape, copy.group) == (weight.name, (5, 128), 2)
    assert stored_bytes(copy) == stored_bytes(weight)
    x, dy = torch.randn(3, 128).requires_grad_(), torch.randn(3, 5)
    y = ops.linear(x, copy)
    assert torch.equal(y, x @ ops.dequantize(weight).T) and torch.equal(ops.dequantize(copy), ops.dequantize(weight))
    assert torch.equal(torch.autograd.grad(y, x, dy)[0], dy @ ops.dequantize(weight))


def test_what_lies_as_in_a_file_stays_as_it_is() -> None:
    weight = quantized((5, 128))
    assert to_file_layout(weight) is weight
    assert ops.to_fast_layout(weight, torch.bfloat16) is weight  # on a CPU no kernel reads the other layout
