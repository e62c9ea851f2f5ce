"""Quantizing and dequantizing in C: the bytes of the plain-torch truth, by every instruction set of this processor."""

import itertools
from typing import Any

import pytest
import torch
from draws import normal
from torch import Tensor

from lowrank.kernels.cpu import linear as cpu_linear
from lowrank.kernels.cpu.library import Submatrix
from lowrank.kernels.reference import weights as reference
from lowrank.kernels.weights.codebooks import CODEBOOKS
from lowrank.kernels.weights.quantized_weight import Blockwise4bit, QuantizedWeight, RowwiseInt8

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
SHAPES = ((1, 1), (1, 31), (5, 77), (3, 64), (33, 192), (9, 128), (70, 130), (7, 4097))
EVERY_DTYPE = pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
EVERY_FORMAT = pytest.mark.parametrize("format", ["nf4", "fp4"])
DENORMAL = {torch.float32: 1e-41, torch.bfloat16: 1e-39, torch.float16: 1e-6}

pytestmark = pytest.mark.usefixtures("instruction_set", "unwritten_is_nan")


def assert_same(ours: QuantizedWeight, theirs: QuantizedWeight) -> None:
    for name, tensor in theirs.tensors().items():
        assert torch.equal(ours.tensors()[name], tensor), name


@EVERY_FORMAT
@EVERY_DTYPE
@pytest.mark.parametrize("blocksize", [32, 64, 256, 4096])
def test_every_shape_is_quantized_and_dequantized_to_the_byte(blocksize: int, dtype: torch.dtype, format: Any) -> None:
    for shape, double_quant in itertools.product(SHAPES, (False, True)):
        w = normal(*shape).to(dtype)
        weight = reference.quantize_4bit(w, format, blocksize, double_quant)
        assert_same(cpu_linear.quantize_4bit(w, format, blocksize, double_quant), weight)
        for out in DTYPES.values():
            assert torch.equal(cpu_linear.dequantize(weight, out), reference.dequantize(weight, out)), (shape, out)


@EVERY_FORMAT
@EVERY_DTYPE
def test_blocks_of_zeros_of_one_value_and_of_denormal_numbers(dtype: torch.dtype, format: Any) -> None:
    w = normal(9, 200).to(dtype)
    w[1:3] = 0
    w[3:5] = -0.37
    w[5:7] *= DENORMAL[dtype]
    w[7] = 0
    w[7, 100] = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps  # the smallest of all
    w[8] *= torch.finfo(dtype).max / 8
    for double_quant in (False, True):
        weight = reference.quantize_4bit(w[:8], format, 32, double_quant)
        assert_same(cpu_linear.quantize_4bit(w[:8], format, 32, double_quant), weight)
        assert torch.equal(cpu_linear.dequantize(weight, dtype), reference.dequantize(weight, dtype))
    assert_same(cpu_linear.quantize_4bit(w, format, 32), reference.quantize_4bit(w, format, 32))


@EVERY_FORMAT
def test_a_tie_goes_to_the_lower_level(format: Any) -> None:
    midpoints, _ = reference.boundaries(CODEBOOKS[format]())
    around = torch.cat([midpoints, midpoints.nextafter(torch.tensor(2.0)), midpoints.nextafter(torch.tensor(-2.0))])
    w = torch.cat([around, torch.ones(3)]).repeat(4)[None]
    assert_same(cpu_linear.quantize_4bit(w, format, 32), reference.quantize_4bit(w, format, 32))


@EVERY_DTYPE
@pytest.mark.parametrize("place", [(0, 0), (2, 1999), (130, 1000), (199, 2002)], ids=str)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf], ids=str)
def test_a_weight_that_is_not_finite_is_refused_as_the_reference_does(
    bad: float, place: tuple[int, int], dtype: torch.dtype
) -> None:
    w = torch.ones(200, 2003, dtype=dtype)
    w[place] = bad
    with pytest.raises(ValueError) as theirs:
        reference.quantize_4bit(w, name="layers.3.wq")
    with pytest.raises(ValueError) as ours:
        cpu_linear.quantize_4bit(w, name="layers.3.wq")
    assert str(ours.value) == str(theirs.value)


def test_a_blocksize_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="blocksize must be a power of two from 32 to 4096, got 8192"):
        cpu_linear.quantize_4bit(normal(4, 64), blocksize=8192)


def test_w_may_be_a_view() -> None:
    w = normal(64, 193)
    for view in (w[:, 1:], w.T, w[::2, ::3], w.flatten()[1:].view(-1, 1)):
        assert_same(cpu_linear.quantize_4bit(view), reference.quantize_4bit(view))


def test_more_than_256_nested_maxima_and_a_ragged_rest() -> None:
    absmax = normal(3 * 256 + 77).abs()
    absmax[256:512] = absmax.mean()
    ours, theirs = cpu_linear.quantize_absmax(absmax), reference.quantize_absmax(absmax)
    for name in ("codes", "nested_absmax", "offset"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name)), name


@EVERY_DTYPE
def test_nothing_is_written_beside_the_part_that_is_asked_for(dtype: torch.dtype) -> None:
    for weight in (reference.quantize_4bit(normal(9, 200), "nf4", 64, True), reference.quantize_int8(normal(9, 200))):
        w = reference.dequantize(weight, dtype)
        for row, rows, column, columns in [
            (0, 9, 0, 200),
            (2, 5, 64, 64),
            (8, 1, 199, 1),
            (1, 3, 33, 130),
            (4, 2, 7, 0),
        ]:
            memory = torch.full((rows + 2, columns + 5), torch.nan, dtype=dtype)
            cpu_linear._dequantize(weight, Submatrix(row, rows, column, columns), memory[1:-1, 2 : 2 + columns])
            part = memory[1:-1, 2 : 2 + columns].clone()
            assert torch.equal(part, w[row : row + rows, column : column + columns])
            memory[1:-1, 2 : 2 + columns] = torch.nan
            assert memory.isnan().all()


@EVERY_DTYPE
def test_int8_is_dequantized_to_the_byte(dtype: torch.dtype) -> None:
    for shape in SHAPES:
        weight = reference.quantize_int8(normal(*shape))
        assert torch.equal(cpu_linear.dequantize(weight, dtype), reference.dequantize(weight, dtype))


def floats() -> Tensor:
    """Random bit patterns of float32, and every number halfway between two of 16 bits, with its neighbours."""
    bits = torch.randint(-(2**31), 2**31, (1 << 15,), generator=torch.Generator().manual_seed(0)).int()
    patterns = torch.arange(1 << 16).to(torch.int32)
    halves = patterns.to(torch.int16).view(torch.float16).float().view(torch.int32)
    bfloats = patterns << 16
    ties = torch.cat([halves + (1 << 12), bfloats + (1 << 15)])
    denormal_ties = (torch.arange(1 << 11).float() + 0.5) * 2.0**-24  # between denormal numbers of float16
    edges = torch.tensor([65504.0, 65519.996, 65520.0, 65536.0, 3.4e38, torch.inf, torch.nan])
    wide = torch.cat([denormal_ties, denormal_ties * (1 + 2**-20), denormal_ties * (1 - 2**-20), edges])
    every = torch.cat([bits, halves, bfloats, ties, ties - 1, ties + 1]).view(torch.float32)
    return torch.cat([every, wide, -wide])


@pytest.mark.long
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
@pytest.mark.parametrize("columns", [32, 33], ids=["whole-blocks", "cut-blocks"])
def test_float32_is_rounded_as_torch_rounds_it(columns: int, dtype: torch.dtype) -> None:
    """Weights whose level is 1: W is the maximum of its block."""
    maxima = floats()
    rows = -(-len(maxima) * 32 // columns)
    maxima = torch.cat([maxima, maxima[: -(-rows * columns // 32) - len(maxima)]])
    codes = torch.full((-(-rows * columns // 2),), 0xFF, dtype=torch.uint8)
    ours = cpu_linear.dequantize(Blockwise4bit(codes, maxima, "nf4", 32, (rows, columns)), dtype).flatten()
    theirs = maxima.repeat_interleave(32)[: rows * columns].to(dtype)
    assert torch.equal(ours.isnan(), theirs.isnan())
    known = ~theirs.isnan()
    assert torch.equal(ours[known].view(torch.int16), theirs[known].view(torch.int16))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_every_number_of_16_bits_is_widened_and_narrowed_again(dtype: torch.dtype) -> None:
    every = torch.arange(1 << 16).to(torch.int16).view(dtype)
    finite = every[every.isfinite()]
    blocks = torch.zeros(len(finite), 32, dtype=dtype)
    blocks[:, 5] = finite
    assert torch.equal(cpu_linear.quantize_4bit(blocks, blocksize=32).absmax, finite.float().abs())
    one = RowwiseInt8(torch.ones(1, 1, dtype=torch.int8), torch.full((1,), 127.0))
    y = cpu_linear.linear(every[:, None], one)[:, 0]
    torch.testing.assert_close(y, every, rtol=0, atol=0, equal_nan=True)


def test_the_number_of_threads_changes_no_byte(threads: Any) -> None:
    w = normal(131, 2003)
    weights = []
    for count in (1, 2, 3):
        threads(count)
        weights.append(cpu_linear.quantize_4bit(w, "nf4", 64, True))
        assert torch.equal(cpu_linear.dequantize(weights[-1]), cpu_linear.dequantize(weights[0]))
        assert_same(weights[-1], weights[0])
