"""The tensors of a quantized weight and their bytes, as foretold and as stored."""

import pytest
import torch

from lowrank.kernels.ops import dequantize, quantize
from lowrank.kernels.weights.quantized_weight import (
    DENSE_DTYPES,
    QUANTIZED_NAMES,
    check_stored,
    expected_bytes,
    parts,
    parts_of,
    stored_bytes,
)

SHAPES = [(4, 64), (5, 77), (1, 1), (129, 257)]


@pytest.mark.parametrize("name", QUANTIZED_NAMES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_bytes_foretold_are_the_bytes_stored(shape: tuple[int, int], name: str) -> None:
    assert stored_bytes(quantize(torch.ones(shape), name)) == expected_bytes(shape, name)


@pytest.mark.parametrize("name", DENSE_DTYPES)
def test_the_bytes_of_a_dense_weight(name: str) -> None:
    dense = torch.ones(5, 77, dtype=DENSE_DTYPES[name])
    assert expected_bytes((5, 77), name) == dense.numel() * dense.element_size()


@pytest.mark.parametrize(("name", "bits"), [("nf4", 4.5), ("nf4-dq", 4 + 8 / 64 + 32 / (64 * 256))])
def test_bits_a_weight_of_the_paper(name: str, bits: float) -> None:
    # The mean of the maxima takes four bytes once a tensor.
    assert 8 * (expected_bytes((4096, 4096), name) - 4 * name.endswith("dq")) / 4096**2 == bits


@pytest.mark.parametrize("name", QUANTIZED_NAMES)
def test_a_weight_is_its_tensors(name: str) -> None:
    weight = quantize(torch.randn(5, 77), name)
    copy = weight.with_tensors({part: tensor.clone() for part, tensor in weight.tensors().items()})
    assert (copy.name, tuple(copy.shape)) == (name, (5, 77))
    assert torch.equal(dequantize(copy), dequantize(weight))
    for tensor in weight.tensors().values():
        tensor.zero_()
    assert dequantize(copy).any()


@pytest.mark.parametrize("name", QUANTIZED_NAMES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_parts_foretold_are_the_tensors_stored(shape: tuple[int, int], name: str) -> None:
    weight = quantize(torch.ones(shape), name)
    stored = {part: (tuple(tensor.shape), tensor.dtype) for part, tensor in weight.tensors().items()}
    assert list(parts(shape, name).items()) == list(stored.items())
    assert parts_of(weight) == parts(shape, name)


@pytest.mark.parametrize("name", QUANTIZED_NAMES)
def test_a_part_of_another_size_or_dtype_is_refused_by_name(name: str) -> None:
    weight = quantize(torch.randn(5, 77), name)
    check_stored(weight)
    for part, tensor in weight.tensors().items():
        longer = torch.cat([tensor.flatten(), tensor.flatten()[:1]])
        for changed in (longer, tensor.double())[name == "int8" and part == "codes" :]:  # whose shape is the weight's
            with pytest.raises(ValueError, match=rf"^{part} must be"):
                check_stored(weight.with_tensors({**weight.tensors(), part: changed}))
