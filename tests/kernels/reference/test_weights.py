"""The plain-torch truth: bitsandbytes' bytes, and blocks worked out by hand."""

from fractions import Fraction
from typing import Any

import pytest
import torch
from draws import normal
from torch import Tensor

from lowrank.kernels.reference import weights as reference
from lowrank.kernels.reference.weights import (
    dequantize_4bit,
    dequantize_absmax,
    dequantize_int8,
    mean_absmax,
    quantize_4bit,
    quantize_absmax,
    quantize_int8,
)
from lowrank.kernels.weights.codebooks import CODEBOOKS, NF4_LEVELS
from lowrank.kernels.weights.quantized_weight import BLOCKSIZES, Blockwise4bit, NestedAbsmax

CASES = ("normal", "normal_bf16", "normal_fp16", "heavy_tail", "tiny", "zeros_block", "const", "ragged", "large")


def same_bytes(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a.view(torch.uint8), b.view(torch.uint8))


def codes_of(weight: Blockwise4bit) -> list[int]:
    """One code an element of `codes`' nibbles, the padding of an odd count among them."""
    return [nibble for byte in weight.codes.tolist() for nibble in (byte >> 4, byte & 15)]


@pytest.mark.parametrize("blocksize", [64, 128])
@pytest.mark.parametrize("format", ["nf4", "fp4"])
@pytest.mark.parametrize("case", CASES)
def test_bytes_of_bitsandbytes(case: str, format: str, blocksize: int, vectors: dict[str, Tensor]) -> None:
    w, stored = vectors[f"{case}.input"], f"{case}.{format}.b{blocksize}"
    weight = quantize_4bit(w, format, blocksize)
    assert same_bytes(weight.codes, vectors[f"{stored}.codes"].flatten())
    assert same_bytes(weight.absmax, vectors[f"{stored}.absmax"])
    assert same_bytes(dequantize_4bit(weight, w.dtype), vectors[f"{stored}.dequant"])


def test_every_stored_vector_is_among_the_cases(vectors: dict[str, Tensor]) -> None:
    assert {key.removesuffix(".input") for key in vectors if key.endswith(".input")} == set(CASES)


@pytest.mark.parametrize("case", ["normal", "large"])
def test_double_quantization_of_bitsandbytes(case: str, vectors: dict[str, Tensor]) -> None:
    stored = {part: vectors[f"{case}.nf4.b64.dq.{part}"] for part in ("codes", "absmax8", "nested_absmax", "offset")}
    weight = quantize_4bit(vectors[f"{case}.input"], double_quant=True)
    assert same_bytes(weight.codes, stored["codes"].flatten())
    assert same_bytes(weight.absmax.nested_absmax, stored["nested_absmax"])
    assert same_bytes(weight.absmax.offset[None], stored["offset"])
    # bitsandbytes' CPU finds the 8-bit code through a table and now and then takes a neighbour.
    assert (weight.absmax.codes.int() - stored["absmax8"].int()).abs().max() <= 1


@pytest.mark.parametrize("case", ["normal", "large"])
def test_dequantization_of_bitsandbytes_own_nested_codes(case: str, vectors: dict[str, Tensor]) -> None:
    part = {name: vectors[f"{case}.nf4.b64.dq.{name}"] for name in ("codes", "absmax8", "nested_absmax", "offset")}
    absmax = NestedAbsmax(part["absmax8"], part["nested_absmax"], part["offset"].squeeze())
    weight = Blockwise4bit(part["codes"].flatten(), absmax, "nf4", 64, tuple(vectors[f"{case}.input"].shape))
    assert same_bytes(dequantize_4bit(weight), vectors[f"{case}.nf4.b64.dq.dequant"])


@pytest.mark.slow
@pytest.mark.parametrize("spread", [1, 30, 200], ids="2^{}".format)
def test_the_mean_of_the_maxima_is_that_of_exact_numbers_in_any_order_and_by_any_number_of_threads(
    spread: int, threads: Any
) -> None:
    generator = torch.Generator().manual_seed(0)
    exponents = torch.randint(-spread, 1, (200_003,), generator=generator)
    absmax = torch.rand(200_003, generator=generator) * 2.0**exponents
    exact = sum(map(Fraction, absmax.tolist())) / len(absmax)
    found = set()
    for count in (1, 2, 3):
        threads(count)
        orders = (absmax, absmax.flip(0), absmax.sort().values, absmax[torch.randperm(len(absmax))])
        found |= {mean_absmax(order).item() for order in orders}
    assert found == {torch.tensor(float(exact)).item()}


def test_the_mean_of_maxima_that_are_all_zero_or_as_large_as_float32_has_them() -> None:
    for value in (0.0, 2.0**-149, torch.finfo(torch.float32).max):
        assert mean_absmax(torch.full((777,), value)).item() == value


@pytest.mark.parametrize("format", ["nf4", "fp4"])
@pytest.mark.parametrize("blocksize", BLOCKSIZES)
def test_a_code_counts_the_midpoints_below_the_scaled_weight(blocksize: int, format: str) -> None:
    w = normal(3, 2741)  # 8223: an odd count, and a short last block at every blocksize
    weight = quantize_4bit(w, format, blocksize)
    levels, order = CODEBOOKS[format]().sort(stable=True)
    midpoints = (levels[:-1] + levels[1:]) / 2
    codes = codes_of(weight)
    for number, block in enumerate(w.flatten().split(blocksize)):
        absmax = block.abs().max()
        ranks = (block * (1 / absmax) > midpoints[:, None]).sum(0)
        assert weight.absmax[number] == absmax
        assert codes[number * blocksize :][: len(block)] == order[ranks].tolist()
        restored = dequantize_4bit(weight).flatten()[number * blocksize :][: len(block)]
        assert torch.equal(restored, levels[ranks] * absmax)


def test_the_first_of_a_pair_is_in_the_high_nibble_and_a_block_is_64_weights_in_row_order() -> None:
    w = torch.zeros(2, 64)
    w[0, 0], w[0, 3], w[1, 1] = 2.0, -2.0, 0.5
    weight = quantize_4bit(w)
    assert weight.codes[:2].tolist() == [0xF7, 0x70]
    assert weight.codes[32:34].tolist() == [0x7F, 0x77]
    assert weight.absmax.tolist() == [2.0, 0.5]


@pytest.mark.parametrize(("format", "byte"), [("nf4", 0xF7), ("fp4", 0x30)])
def test_an_odd_count_is_completed_with_the_code_of_zero(format: str, byte: int) -> None:
    weight = quantize_4bit(torch.ones(1, 1), format)
    assert weight.codes.tolist() == [byte]
    assert dequantize_4bit(weight).tolist() == [[1.0]]


@pytest.mark.parametrize(("format", "byte"), [("nf4", 0x77), ("fp4", 0x00)])
@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_a_block_of_zeros_is_zero_again(format: str, byte: int, zero: float) -> None:
    weight = quantize_4bit(torch.full((1, 64), zero), format)
    assert set(weight.codes.tolist()) == {byte}
    assert not dequantize_4bit(weight).any()


@pytest.mark.parametrize("scale", [2.0**-149, 2.0**-140, 2.0**-127, 2.0**-126, 2.0**-30, 2.0**127])
def test_a_block_is_coded_alike_at_every_magnitude_that_float32_has(scale: float) -> None:
    weight = quantize_4bit(torch.tensor([[scale, 0.0, -scale, -0.0]]))
    assert codes_of(weight) == [15, 7, 0, 7]
    assert dequantize_4bit(weight).tolist() == [[scale, 0.0, -scale, 0.0]]


def test_denormal_blocks_keep_their_levels() -> None:
    w = torch.tensor([NF4_LEVELS]) * 2.0**-130  # 1 / absmax overflows
    assert codes_of(quantize_4bit(w)) == list(range(16))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("quantize", [quantize_4bit, quantize_int8])
def test_what_is_not_finite_is_refused_by_name_and_place(quantize, bad: float) -> None:
    w = normal(4, 64)
    w[2, 5] = bad
    with pytest.raises(ValueError, match=rf"layers.0.wq: .*finite, got {bad} at \[2, 5\]"):
        quantize(w, name="layers.0.wq")


@pytest.mark.parametrize("quantize", [quantize_4bit, quantize_int8])
def test_what_float32_cannot_hold_is_refused(quantize) -> None:
    with pytest.raises(ValueError, match="wq"):
        quantize(torch.tensor([[1e39, 1.0]], dtype=torch.float64), name="wq")


@pytest.mark.parametrize("blocksize", [0, -64, 16, 63, 96, 8192])
def test_a_blocksize_that_is_no_power_of_two_in_range_is_refused(blocksize: int) -> None:
    with pytest.raises(ValueError, match=f"blocksize .* got {blocksize}"):
        quantize_4bit(normal(2, 64), blocksize=blocksize)


@pytest.mark.parametrize("double_quant", [False, True])
@pytest.mark.parametrize("shape", [(3, 4096), (5, 2731)], ids=["whole", "ragged"])
def test_chunks_do_not_show_in_the_bytes(
    shape: tuple[int, int], double_quant: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    w = normal(*shape)
    whole = quantize_4bit(w, double_quant=double_quant).tensors()
    monkeypatch.setattr(reference, "CHUNK", 4096)
    chunked = quantize_4bit(w, double_quant=double_quant).tensors()
    assert all(torch.equal(whole[name], chunked[name]) for name in whole)


@pytest.mark.parametrize("double_quant", [False, True], ids=["nf4", "nf4-dq"])
def test_quantizing_again_gives_the_same_nibbles(double_quant: bool) -> None:
    once = quantize_4bit(normal(64, 320), double_quant=double_quant)
    values = dequantize_4bit(once)
    twice = quantize_4bit(values, double_quant=double_quant)
    assert torch.equal(once.codes, twice.codes)
    assert double_quant or torch.equal(dequantize_4bit(twice), values)


def test_fp4_quantized_again_gives_the_same_values() -> None:
    values = dequantize_4bit(quantize_4bit(normal(64, 320), "fp4"))
    assert torch.equal(dequantize_4bit(quantize_4bit(values, "fp4")), values)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_dequantization_rounds_once_from_float32(dtype: torch.dtype) -> None:
    weight = quantize_4bit(normal(8, 96))
    assert torch.equal(dequantize_4bit(weight, dtype), dequantize_4bit(weight).to(dtype))


def test_nested_maxima_by_hand() -> None:
    # 256 maxima, then one more: the mean is 3; the first block spans +-2, the second +-(7 - 3).
    absmax = torch.tensor([5.0] * 126 + [1.0] * 128 + [3.0] * 2 + [7.0])
    nested = quantize_absmax(absmax)
    assert (nested.offset.item(), nested.nested_absmax.tolist()) == (3.0, [2.0, 4.0])
    assert nested.codes.dtype == torch.uint8
    assert set(nested.codes[:126].tolist()) == {255} == {nested.codes[256].item()}
    # -1 is no level: the nearest is the last midpoint of the top decade, 127/128 of the way from 0.1 to 1 and more.
    lowest = (-0.1 - 0.9 * (63.5 / 64)) * 2 + 3
    assert set(nested.codes[126:254].tolist()) == {0}
    restored = dequantize_absmax(nested)
    torch.testing.assert_close(restored, torch.tensor([5.0] * 126 + [lowest] * 128 + [3.0] * 2 + [7.0]))


def test_equal_maxima_survive_double_quantization_exactly() -> None:
    absmax = torch.full((300,), 0.75)
    assert torch.equal(dequantize_absmax(quantize_absmax(absmax)), absmax)


def test_int8_rows_by_hand() -> None:
    w = torch.tensor([[127.0, -127.0, 0.5, 1.5, 62.6], [0.0, 0.0, -0.0, 0.0, 0.0], [0.25, -0.5, 0.0, 0.5, 0.125]])
    weight = quantize_int8(w)
    assert weight.scale.tolist() == [127.0, 0.0, 0.5]
    assert weight.codes.dtype == torch.int8
    assert weight.codes[1].tolist() == [0] * 5
    assert weight.codes[2].tolist() == [64, -127, 0, 127, 32]
    assert dequantize_int8(weight)[2].tolist() == pytest.approx([64 / 254, -0.5, 0, 0.5, 32 / 254], rel=2**-22)


def test_int8_is_within_half_a_step_of_every_weight() -> None:
    w = normal(16, 77).double()
    half_step = w.abs().amax(1, keepdim=True) / 254
    # Three float32 roundings of numbers below the row's maximum come on top of the half step.
    assert ((dequantize_int8(quantize_int8(w)).double() - w).abs() <= half_step * (1 + 254 * 3 * 2**-23)).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_int8_dequantization_rounds_once_from_float32(dtype: torch.dtype) -> None:
    weight = quantize_int8(normal(8, 96))
    assert torch.equal(dequantize_int8(weight, dtype), dequantize_int8(weight).to(dtype))
