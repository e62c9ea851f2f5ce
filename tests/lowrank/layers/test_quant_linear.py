"""A linear layer over a quantized weight, and one over a dense weight of another dtype."""

import pytest
import torch
from draws import normal

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
    assert (layer.format, layer.state_dict().keys()) == ("int8", {"codes", "scale"})
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
