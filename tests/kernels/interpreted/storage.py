"""Quantizing and dequantizing under Triton's interpreter: the bytes of the plain-torch truth.

Not collected by itself: Triton reads TRITON_INTERPRET when a kernel is decorated, so `test_interpreted.py` runs this
file in a process of its own.
"""

from dataclasses import replace

import pytest
import torch
from draws import normal
from torch import Tensor

from lowrank.kernels.reference import weights as reference
from lowrank.kernels.triton.dequantize import dequantize_4bit
from lowrank.kernels.triton.quantize import quantize_4bit, quantize_absmax
from lowrank.kernels.weights.codebooks import CODEBOOKS
from lowrank.kernels.weights.quantized_weight import BLOCKSIZES, Blockwise4bit, NestedAbsmax

SHAPES = [(1, 1), (3, 5), (5, 77), (7, 1000), (33, 128)]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
EVERY_SHAPE = pytest.mark.parametrize("shape", SHAPES, ids=[f"N{n}-K{k}" for n, k in SHAPES])
EVERY_DTYPE = pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
EVERY_FORMAT = pytest.mark.parametrize("format", CODEBOOKS)


def bits(tensor: Tensor) -> Tensor:
    return tensor.contiguous().view(torch.uint8)


def assert_same_bytes(ours: Blockwise4bit, truth: Blockwise4bit) -> None:
    assert (ours.name, ours.blocksize, ours.shape) == (truth.name, truth.blocksize, truth.shape)
    for part, tensor in truth.tensors().items():
        assert ours.tensors()[part].dtype == tensor.dtype
        assert torch.equal(bits(ours.tensors()[part].reshape(-1)), bits(tensor.reshape(-1))), part


@EVERY_DTYPE
@EVERY_SHAPE
@EVERY_FORMAT
def test_quantized_bytes(format: str, shape: tuple[int, int], dtype: torch.dtype) -> None:
    w = normal(*shape).to(dtype)
    w.view(-1)[: w.numel() // 3] = 0
    assert_same_bytes(quantize_4bit(w, format, 64, True), reference.quantize_4bit(w, format, 64, True))


@EVERY_FORMAT
@pytest.mark.parametrize("blocksize", BLOCKSIZES)
def test_quantized_bytes_at_every_blocksize(blocksize: int, format: str) -> None:
    w = normal(3, 2741)  # an odd count, and a short last block
    assert_same_bytes(quantize_4bit(w, format, blocksize), reference.quantize_4bit(w, format, blocksize))


@EVERY_FORMAT
@pytest.mark.parametrize("exponent", [-149, -140, -128, -127, -126, 0, 127])
def test_quantized_bytes_at_every_magnitude_that_float32_has(exponent: int, format: str) -> None:
    w = torch.cat([CODEBOOKS[format](), -CODEBOOKS[format](), normal(32).clamp(-1, 1)])[None] * 2.0**exponent
    assert_same_bytes(quantize_4bit(w, format, 32), reference.quantize_4bit(w, format, 32))


@EVERY_FORMAT
def test_a_tie_goes_to_the_lower_level(format: str) -> None:
    midpoints, _ = reference.boundaries(CODEBOOKS[format]())
    w = torch.cat([torch.ones(1), midpoints, midpoints.nextafter(torch.tensor(2.0))])[None]
    assert_same_bytes(quantize_4bit(w, format, 32), reference.quantize_4bit(w, format, 32))


def test_every_8_bit_code_of_the_nested_maxima() -> None:
    absmax = torch.cat([normal(1500).abs(), torch.full((77,), 0.25), torch.zeros(300)])
    ours, truth = quantize_absmax(absmax), reference.quantize_absmax(absmax)
    for part in ("codes", "nested_absmax", "offset"):
        assert torch.equal(bits(getattr(ours, part).reshape(-1)), bits(getattr(truth, part).reshape(-1))), part
    assert len(truth.codes.unique()) > 150


@pytest.mark.parametrize("bad", [float("nan"), -float("nan"), float("inf"), float("-inf")])
@EVERY_DTYPE
def test_what_is_not_finite_is_refused_by_name_and_place(dtype: torch.dtype, bad: float) -> None:
    w = normal(4, 64).to(dtype)
    w[2, 5] = bad
    with pytest.raises(ValueError, match=r"layers.0.wq: .*finite, got -?(nan|inf) at \[2, 5\]"):
        quantize_4bit(w, name="layers.0.wq")


def test_quantizing_takes_a_transposed_and_a_misaligned_weight() -> None:
    w = normal(65, 33)
    for view in (w.T, w.flatten()[1:-32].view(33, 64), w[::2, ::3]):
        assert_same_bytes(quantize_4bit(view), reference.quantize_4bit(view))


@pytest.mark.parametrize(
    ("w", "options", "rule"),
    [
        (torch.ones(2, 64, dtype=torch.float64), {}, "wq: w must be of .*float16, got torch.float64"),
        (torch.ones(0, 64), {}, r"wq: w must hold at least one weight, got shape \(0, 64\)"),
        (torch.ones(2, 64), {"blocksize": 96}, "wq: blocksize must be one of 32, .*4096, got 96"),
    ],
    ids=["dtype", "empty", "blocksize"],
)
def test_what_the_quantizer_does_not_take_is_refused(w: Tensor, options: dict[str, int], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        quantize_4bit(w, name="wq", **options)


@EVERY_DTYPE
@EVERY_SHAPE
@pytest.mark.parametrize("format", ["nf4", "nf4-dq", "fp4", "fp4-dq"])
def test_dequantized_bits(format: str, shape: tuple[int, int], dtype: torch.dtype) -> None:
    weight = reference.quantize_4bit(normal(*shape), format[:3], 64, format.endswith("-dq"))
    assert torch.equal(bits(dequantize_4bit(weight, dtype)), bits(reference.dequantize_4bit(weight, dtype)))


@pytest.mark.parametrize("blocksize", BLOCKSIZES)
def test_dequantized_bits_at_every_blocksize(blocksize: int) -> None:
    weight = reference.quantize_4bit(normal(3, 2741), "nf4", blocksize, True)
    assert torch.equal(bits(dequantize_4bit(weight)), bits(reference.dequantize_4bit(weight)))


@pytest.mark.parametrize("shape", [(5, 77), (3, 1376), (40, 128), (9, 6), (2, 8192)], ids=str)
@pytest.mark.parametrize("gap", [0, 1, 16])
def test_dequantizing_into_rows_that_stand_apart(gap: int, shape: tuple[int, int]) -> None:
    weight, (n, k) = reference.quantize_4bit(normal(*shape), "nf4", 64, True), shape
    wide = torch.full((n, k + gap), 7.0)
    out = wide[:, :k]
    assert dequantize_4bit(weight, out=out) is out
    assert torch.equal(out, reference.dequantize_4bit(weight))
    assert (wide[:, k:] == 7).all()


def test_addresses_past_2_to_the_31(tmp_path) -> None:
    weight = reference.quantize_4bit(normal(5, 96))
    far = 2**30  # 2^31 elements from the third row on, in a file that takes no room where nothing is written
    sparse = torch.from_file(str(tmp_path / "sparse"), shared=True, size=4 * far + 96, dtype=torch.float16)
    out = sparse.as_strided((5, 96), (far, 1))
    dequantize_4bit(weight, torch.float16, out)
    assert torch.equal(out, reference.dequantize_4bit(weight, torch.float16))


@pytest.mark.parametrize(
    ("out", "rule"),
    [
        (torch.empty(4, 64), r"out must have shape, .*\(5, 77\), torch.bfloat16.* got \(\(4, 64\), torch.float32"),
        (torch.empty(77, 5, dtype=torch.bfloat16).T, r"adjacent columns .* got strides \(1, 5\)"),
        (torch.empty(77, dtype=torch.bfloat16).expand(5, 77), r"do not overlap, got strides \(0, 1\)"),
    ],
    ids=["shape", "columns", "rows"],
)
def test_an_out_that_the_kernel_cannot_write_is_refused(out: Tensor, rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        dequantize_4bit(reference.quantize_4bit(normal(5, 77)), torch.bfloat16, out)


def test_stored_tensors_that_do_not_fit_their_shape_are_refused() -> None:
    weight = reference.quantize_4bit(normal(5, 77), double_quant=True)
    nested = weight.absmax
    assert isinstance(nested, NestedAbsmax)
    for wrong, rule in (
        (replace(weight, codes=weight.codes[1:]), r"codes must be torch.uint8 \[193\] .*got torch.uint8 \[192\]"),
        (replace(weight, absmax=torch.ones(6)), r"absmax must be torch.float32 \[7\] .*\[6\]"),
        (replace(weight, absmax=replace(nested, offset=nested.offset.double())), "offset must be torch.float32"),
        (replace(weight, absmax=replace(nested, codes=nested.codes.repeat(2)[::2])), "absmax must be contiguous"),
    ):
        with pytest.raises(ValueError, match=rule):
            dequantize_4bit(wrong)
    with pytest.raises(ValueError, match=r"dtype must be one of .*got torch.float64"):
        dequantize_4bit(weight, torch.float64)


def test_a_weight_without_rows_is_dequantized() -> None:
    weight = reference.quantize_4bit(torch.empty(0, 64))
    assert dequantize_4bit(weight).shape == (0, 64)
