"""The operators that torch.compile sees: their schemas, fakes and formulas, and a layer that is taken whole."""

import pytest
import torch
from draws import normal
from torch import Tensor

from lowrank.kernels import ops
from lowrank.kernels.operators import quantized as operators
from lowrank.kernels.weights.repack import repack
from lowrank.layers.lora import AdapterConfig, LoRALinear
from lowrank.layers.quant_linear import QuantLinear

pytestmark = pytest.mark.slow

EVERY_FORMAT = pytest.mark.parametrize("format", ["int8", "nf4-dq", "fp4"])  # every number of stored tensors
EVERY_BACKEND = pytest.mark.parametrize("backend", ["eager", "aot_eager"])


@pytest.fixture(autouse=True)
def nothing_is_compiled_yet() -> None:
    torch.compiler.reset()


@EVERY_FORMAT
def test_the_operators_are_what_torch_asks_of_an_operator(format: str) -> None:
    weight = operators.arguments(ops.quantize(normal(5, 77), format))
    torch.library.opcheck(torch.ops.lowrank.quantize.default, (normal(5, 77), format, 64, "w"))
    torch.library.opcheck(torch.ops.lowrank.dequantize.default, (*weight, torch.bfloat16))
    for x in (normal(3, 77), normal(2, 3, 77), normal(77, 3).T):
        torch.library.opcheck(torch.ops.lowrank.linear.default, (x.requires_grad_(), *weight))
    torch.library.opcheck(torch.ops.lowrank.linear_backward.default, (normal(3, 5).requires_grad_(), *weight))


@EVERY_FORMAT
def test_a_weight_is_its_tensors_one_string_and_a_shape(format: str) -> None:
    weight = ops.quantize(normal(5, 77), format)
    tensors, spec, shape = operators.arguments(weight)
    again = operators._weight(tensors, operators.parse_spec(spec), shape)
    assert operators.arguments(again)[1:] == (spec, shape) and type(again) is type(weight)
    assert (again.shape, again.name) == ((5, 77), format)
    assert all(a is b for a, b in zip(again.tensors().values(), weight.tensors().values(), strict=True))


def test_the_spec_of_a_weight_names_its_tensors_and_blocksizes() -> None:
    _, spec, _ = operators.arguments(ops.quantize(normal(3, 64), "nf4-dq", blocksize=32))
    assert spec == "Blockwise4bit:nf4-dq:32:256:codes,absmax,nested_absmax,offset"


@EVERY_FORMAT
def test_their_gradients_by_finite_differences(format: str) -> None:
    weight = ops.quantize(normal(5, 7), format)
    x = normal(2, 7).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: operators.linear(x, weight), x)
    assert torch.autograd.gradgradcheck(lambda x: operators.linear(x, weight), x)


@EVERY_FORMAT
def test_the_weight_is_kept_as_it_is_stored(format: str) -> None:
    weight, kept = ops.quantize(normal(48, 96), format), []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        operators.linear(normal(2, 96).requires_grad_(), weight)
    assert [part.data_ptr() for part in kept] == [part.data_ptr() for part in weight.tensors().values()]


@EVERY_BACKEND
@EVERY_FORMAT
def test_a_layer_is_compiled_whole(format: str, backend: str) -> None:
    layer = QuantLinear(ops.quantize(normal(5, 77), format))
    compiled = torch.compile(layer, backend=backend, fullgraph=True)
    for m in (1, 3, 4):  # the second number of rows makes it dynamic
        x, x_compiled = (normal(m, 77, seed=m).requires_grad_() for _ in range(2))
        y, y_compiled = layer(x), compiled(x_compiled)
        y.square().sum().backward()
        y_compiled.square().sum().backward()
        assert torch.equal(y, y_compiled)
        assert torch.equal(x.grad, x_compiled.grad)


@EVERY_BACKEND
def test_a_layer_with_an_adapter_is_compiled_whole(backend: str) -> None:
    layer = LoRALinear(QuantLinear(ops.quantize(normal(5, 77), "nf4-dq")), 77, 5)
    layer.add("hat", AdapterConfig(2, 4.0, ()), normal(2, 77), normal(5, 2), trainable=True)
    layer.active = (("hat", 1.0),)
    x = normal(3, 77)
    y = torch.compile(layer, backend=backend, fullgraph=True)(x)
    y.sum().backward()
    gradient = layer.lora_A["hat"].grad.clone()
    layer.zero_grad()
    layer(x).sum().backward()
    torch.testing.assert_close(y, layer(x))
    torch.testing.assert_close(gradient, layer.lora_A["hat"].grad)


def test_a_repacked_weight_goes_in_whole() -> None:
    weight = repack(ops.quantize(normal(5, 128), "nf4-dq"))
    x = normal(3, 128).double().requires_grad_()
    torch.library.opcheck(torch.ops.lowrank.linear.default, (x, *operators.arguments(weight)))
    assert torch.autograd.gradcheck(lambda x: operators.linear(x, weight), x)
    layer = QuantLinear(weight)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    (gradient,) = torch.autograd.grad(compiled(x).sum(), x)
    assert torch.equal(compiled(x), layer(x))
    assert torch.equal(gradient, torch.autograd.grad(layer(x).sum(), x)[0])
    assert torch.equal(torch.compile(layer.dequantize, backend="eager", fullgraph=True)(), layer.dequantize())


@EVERY_BACKEND
@EVERY_FORMAT
def test_quantizing_and_dequantizing_are_compiled_whole(format: str, backend: str) -> None:
    def there_and_back(w: Tensor) -> Tensor:
        return ops.dequantize(ops.quantize(w, format), torch.float16)

    w = normal(5, 77)
    assert torch.equal(torch.compile(there_and_back, backend=backend, fullgraph=True)(w), there_and_back(w))


def test_a_matrix_of_any_size_is_quantized_and_dequantized_by_compiled_code() -> None:
    def quantize_and_back(w: Tensor) -> Tensor:
        return ops.dequantize(ops.quantize(w, "nf4-dq"), torch.float32)

    compiled = torch.compile(quantize_and_back, backend="aot_eager", fullgraph=True, dynamic=True)
    for n, k in ((5, 77), (6, 80), (7, 64)):
        assert torch.equal(compiled(normal(n, k)), quantize_and_back(normal(n, k)))


def test_what_is_compiled_is_one_operator() -> None:
    layer, graphs = QuantLinear(ops.quantize(normal(5, 77), "nf4-dq")), []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> object:
        graphs.append([node.target for node in graph.graph.nodes if node.op == "call_function"])
        return graph.forward

    torch.compile(layer, backend=backend, fullgraph=True)(normal(3, 77))
    assert [[str(target) for target in graph] for graph in graphs] == [["lowrank.linear.default"]]
