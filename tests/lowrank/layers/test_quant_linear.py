"""A linear layer over a quantized weight, and one over a dense weight of another dtype."""

from typing import Any

import numpy as np
import pytest
import torch
from draws import normal

import lowrank
from lowrank.kernels.ops import dequantize, linear, quantize
from lowrank.kernels.weights.quantized_weight import QUANTIZED_NAMES, Blockwise4bit, Repacked4bit
from lowrank.kernels.weights.repack import repack
from lowrank.layers.quant_linear import CastLinear, QuantLinear

EVERY_FORMAT = pytest.mark.parametrize("format", QUANTIZED_NAMES)


@EVERY_FORMAT
def test_the_layer_is_the_product_with_its_weight(format: str) -> None:
    weight, x = quantize(normal(6, 70), format), normal(3, 70, seed=1)
    layer = QuantLinear(weight)
    assert torch.equal(layer(x), linear(x, weight))
    assert torch.equal(layer.dequantize(), dequantize(weight))
    assert (layer.in_features, layer.out_features, layer.format) == (70, 6, format)
    assert f"weights={format}" in repr(layer)


def test_a_layer_can_hold_its_weight_in_another_layout() -> None:
    layer, rows = QuantLinear(quantize(normal(6, 70), "nf4-dq")), quantize(normal(6, 70), "int8")
    layer.hold(rows)
    assert (layer.format, layer.state_dict().keys()) == ("int8", {"codes", "scale", "quant_state"})
    assert torch.equal(layer.dequantize(), dequantize(rows))
    with pytest.raises(ValueError, match=r"W must be \(6, 70\), got shape \(70, 6\)"):
        layer.hold(quantize(normal(70, 6), "nf4"))


@EVERY_FORMAT
def test_the_stored_tensors_are_buffers_and_move_with_the_layer(format: str) -> None:
    layer = QuantLinear(quantize(normal(6, 70), format))
    assert not list(layer.parameters())
    assert {tensor.device.type for tensor in layer.to("meta").quantized.tensors().values()} == {"meta"}


@EVERY_FORMAT
def test_the_stored_tensors_are_the_state(format: str) -> None:
    one, other = QuantLinear(quantize(normal(6, 70), format)), QuantLinear(quantize(normal(6, 70, seed=9), format))
    other.load_state_dict(one.state_dict())
    assert torch.equal(other.dequantize(), one.dequantize())


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((64, 128), {"format": "fp4"}),
        ((128, 64), {"format": "nf4"}),
        ((64, 128), {"format": "nf4", "blocksize": 128}),
        ((64, 128), {"format": "nf4-dq"}),
        ((64, 128), {"format": "int8"}),
    ],
    ids=str,
)
def test_a_state_of_another_format_shape_or_blocksize_is_refused_and_changes_nothing(shape, options) -> None:
    layer = lowrank.quantize(normal(64, 128), "nf4")
    before = layer.dequantize()
    for module, state in (
        (layer, lowrank.quantize(normal(*shape), **options).state_dict()),
        (torch.nn.Sequential(layer), torch.nn.Sequential(lowrank.quantize(normal(*shape), **options)).state_dict()),
    ):
        with pytest.raises(RuntimeError, match=r"quant_state: W must be .*nf4.*64, 128.*, got .*format") as error:
            module.load_state_dict(state)
        assert str(error.value).count("\n\t") == 1
    assert torch.equal(layer.dequantize(), before)


def test_a_state_without_what_it_holds_is_missing_it() -> None:
    layer = lowrank.quantize(normal(64, 128), "nf4")
    state = {name: tensor for name, tensor in layer.state_dict().items() if name != "quant_state"}
    with pytest.raises(RuntimeError, match=r'Missing key.*"quant_state"'):
        layer.load_state_dict(state)
    layer.load_state_dict(state, strict=False)


@pytest.mark.parametrize("format", QUANTIZED_NAMES)
def test_a_weight_that_is_not_contiguous_is_quantized_as_its_copy(format: str) -> None:
    w = normal(64, 96).T
    layer, x = lowrank.quantize(w, format), normal(3, 64)
    assert torch.equal(layer(x), lowrank.quantize(w.contiguous(), format)(x))


@pytest.mark.parametrize(
    ("w", "said"),
    [
        ([[1.0, 2.0]], "w must be a tensor .see torch.as_tensor., got builtins.list"),
        (np.ones((2, 64), np.float32), "w must be a tensor .see torch.as_tensor., got numpy.ndarray"),
        (torch.ones(2, 64, dtype=torch.int64), "w must be of a floating dtype of 16 bits or more, got torch.int64"),
        (torch.ones(2, 64, dtype=torch.bool), "got torch.bool"),
        (torch.ones(2, 64).to(torch.float8_e4m3fn), "got torch.float8_e4m3fn"),
        (torch.ones(2, 64).to_sparse(), "w must be dense and hold a number, got torch.sparse_coo"),
        (torch.ones(0, 64), r"w must be dense and hold a number, got torch.strided \(0, 64\)"),
    ],
    ids=["list", "numpy", "int64", "bool", "float8", "sparse", "empty"],
)
@pytest.mark.parametrize("format", ["nf4", "int8"])
def test_what_is_no_dense_floating_tensor_is_refused_in_words(w: Any, said: str, format: str) -> None:
    with pytest.raises(ValueError, match=said):
        lowrank.quantize(w, format)


@pytest.mark.parametrize("format", ["nf4", "nf4-dq", "fp4-dq"])
def test_a_repacked_weight_is_saved_in_the_bytes_of_files(format: str) -> None:
    weight = quantize(normal(6, 128), format)
    dense, layer, plain = dequantize(weight), QuantLinear(repack(weight)), QuantLinear(weight)
    ours, truth = layer.state_dict(), plain.state_dict()
    assert list(ours) == list(truth)
    for name, tensor in truth.items():
        assert ours[name].shape == tensor.shape and torch.equal(ours[name], tensor), name
    other = QuantLinear(quantize(normal(6, 128, seed=9), format))
    other.load_state_dict(layer.state_dict())
    layer.load_state_dict(QuantLinear(quantize(normal(6, 128, seed=9), format)).state_dict())
    assert isinstance(layer.quantized, Repacked4bit) and isinstance(other.quantized, Blockwise4bit)
    assert torch.equal(other.dequantize(), dense)
    assert torch.equal(layer.dequantize(), dequantize(quantize(normal(6, 128, seed=9), format)))


@EVERY_FORMAT
def test_casting_a_model_leaves_the_stored_tensors_alone(format: str) -> None:
    layer = QuantLinear(quantize(normal(6, 70), format))
    before = layer.dequantize()
    assert torch.equal(layer.bfloat16().dequantize(), before)


def test_a_cast_layer_keeps_its_weight_and_computes_in_the_dtype_of_x() -> None:
    layer, x = CastLinear(normal(6, 70).bfloat16()), normal(3, 70, seed=1)
    assert layer.format == "bf16"
    assert torch.equal(layer(x), x @ layer.weight.float().T)
    assert layer.weight.dtype == torch.bfloat16
    assert not layer.weight.requires_grad
