"""Every path of the table on a GPU, against plain torch on the CPU. The same rules as under the interpreter."""

from dataclasses import replace

import pytest
import torch
from draws import normal
from error_bounds import assert_product_is_exact_enough, assert_sums_are_exact_enough
from torch import Tensor

from lowrank.kernels import ops
from lowrank.kernels.reference import weights as reference
from lowrank.kernels.weights.quantized_weight import QUANTIZED_NAMES, Blockwise4bit, QuantizedWeight
from lowrank.layers.lora import AdapterConfig, LoRALinear
from lowrank.layers.quant_linear import QuantLinear

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
SHAPES = [(1, 48, 96), (3, 5, 77), (64, 4096, 1024), (200, 4096, 1024), (300, 1024, 4096)]
EVERY_DTYPE = pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
EVERY_SHAPE = pytest.mark.parametrize(("m", "n", "k"), SHAPES, ids=[f"M{m}-N{n}-K{k}" for m, n, k in SHAPES])
EVERY_FORMAT = pytest.mark.parametrize("format", QUANTIZED_NAMES)


def on_gpu(weight: QuantizedWeight) -> QuantizedWeight:
    return weight.with_tensors({name: tensor.cuda() for name, tensor in weight.tensors().items()})


def arranged(weight: QuantizedWeight, dtype: torch.dtype) -> QuantizedWeight:
    """As a base is loaded: repacked where it can be."""
    return ops.to_fast_layout(on_gpu(weight), dtype)


@EVERY_DTYPE
@pytest.mark.parametrize("format", ["nf4", "nf4-dq", "fp4", "fp4-dq"])
@pytest.mark.parametrize("shape", [(1, 1), (5, 77), (1024, 4096)], ids=str)
def test_bytes_and_bits(shape: tuple[int, int], format: str, dtype: torch.dtype) -> None:
    w = normal(*shape).to(dtype).cuda()
    w.view(-1)[: w.numel() // 3] = 0
    ours, truth = ops.quantize(w, format), reference.quantize_4bit(w, format[:3], 64, format.endswith("-dq"))
    assert isinstance(ours, Blockwise4bit)
    for part, tensor in truth.tensors().items():
        assert torch.equal(ours.tensors()[part].reshape(-1), tensor.reshape(-1)), part
    assert torch.equal(ops.dequantize(ours, dtype), reference.dequantize_4bit(truth, dtype))


@EVERY_DTYPE
@pytest.mark.parametrize("format", ["nf4", "nf4-dq", "fp4"])
def test_bits_of_a_repacked_weight(format: str, dtype: torch.dtype) -> None:
    weight = ops.quantize(normal(37, 512), format)
    assert torch.equal(ops.dequantize(arranged(weight, dtype), dtype).cpu(), reference.dequantize(weight, dtype))


@pytest.mark.parametrize("exponent", [-149, -128, -127, -126, 0, 127])
def test_denormal_and_large_blocks_have_the_bytes_of_the_cpu(exponent: int) -> None:
    w = normal(4, 64).clamp(-1, 1) * 2.0**exponent
    ours, truth = ops.quantize(w.cuda(), "nf4"), reference.quantize_4bit(w)
    for part, tensor in truth.tensors().items():
        assert torch.equal(ours.tensors()[part].cpu(), tensor), part


@EVERY_DTYPE
@EVERY_SHAPE
@EVERY_FORMAT
def test_product_and_gradient_are_as_exact_as_matmul(format: str, m: int, n: int, k: int, dtype: torch.dtype) -> None:
    weight = arranged(ops.quantize(normal(n, k), format), dtype)
    exact, w = reference.dequantize(weight).double(), reference.dequantize(weight, dtype)
    x, dy = normal(m, k, seed=1).cuda().to(dtype).requires_grad_(), normal(m, n, seed=2).cuda().to(dtype)
    y = ops.linear(x, weight)
    y.backward(dy)
    assert_product_is_exact_enough(y.detach(), x.detach(), w.T, exact.T)
    assert_product_is_exact_enough(x.grad, dy, w, exact)


@EVERY_DTYPE
@EVERY_FORMAT
def test_one_hot_rows_read_the_weight_back(format: str, dtype: torch.dtype) -> None:
    weight = on_gpu(ops.quantize(normal(5, 77), format))
    x = torch.eye(77, dtype=dtype, device="cuda", requires_grad=True)
    assert torch.equal(ops.linear(x, weight).T, reference.dequantize(weight, dtype))
    ops.linear(x[:5], weight).backward(torch.eye(5, dtype=dtype, device="cuda"))
    assert torch.equal(x.grad[:5], reference.dequantize(weight, dtype))


@EVERY_DTYPE
@pytest.mark.parametrize("rank", [1, 8, 11], ids="r{}".format)
@EVERY_SHAPE
def test_an_adapter_in_the_product_is_as_exact_as_matmul(m: int, n: int, k: int, rank: int, dtype: torch.dtype) -> None:
    layer = LoRALinear(QuantLinear(on_gpu(ops.quantize(normal(n, k), "nf4-dq"))), k, n)
    A, B = normal(rank, k, seed=2).cuda(), normal(n, rank).cuda()
    layer.add("hat", AdapterConfig(rank, 0.75 * rank, ()), A, B, trainable=True)
    layer.active = (("hat", 1.0),)
    x, dy = normal(m, k, seed=1).cuda().to(dtype).requires_grad_(), normal(m, n).cuda().to(dtype)
    assert layer.not_fused_reason(x) == ""
    y = layer(x)
    y.backward(dy)
    ours = (y.detach(), x.grad, layer.lora_A["hat"].grad.to(dtype), layer.lora_B["hat"].grad.to(dtype))

    def apart(w: Tensor, x: Tensor, A: Tensor, B: Tensor, dy: Tensor) -> tuple[Tensor, ...]:
        u, v = 0.75 * (x @ A.T), 0.75 * (dy @ B)
        return x @ w.T + u @ B.T, dy @ w + v @ A, v.T @ x, dy.T @ u

    weight, x = layer.base.quantized, x.detach()
    theirs = apart(reference.dequantize(weight, dtype), x, A.to(dtype), B.to(dtype), dy)
    rounded = (A.to(dtype).double(), B.to(dtype).double())
    inputs = (reference.dequantize(weight).double(), x.double(), *rounded, dy.double())
    exact, magnitude = apart(*inputs), apart(*(tensor.abs() for tensor in inputs))
    for *part, terms in zip(ours, theirs, exact, magnitude, (k + rank, n + rank, n + m, k + m), strict=True):
        assert_sums_are_exact_enough(*part, terms)


@pytest.mark.parametrize("m", [1, 100, 300], ids="M{}".format)
@EVERY_FORMAT
def test_a_step_is_captured_as_a_graph(format: str, m: int) -> None:
    layer = QuantLinear(arranged(ops.quantize(normal(48, 128), format), torch.float16))
    x = normal(m, 128).cuda().half()
    expected = layer(x)  # and everything that is made once is made
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = layer(x)
    QuantLinear(on_gpu(ops.quantize(normal(512, 512), "nf4")))(normal(2, 512).cuda())  # the scratch grows
    graph.replay()
    assert torch.equal(y, expected)


def test_streams_do_not_meet_in_the_scratch() -> None:
    layers = [QuantLinear(on_gpu(ops.quantize(normal(1024, 1024, seed=seed), "nf4"))) for seed in range(2)]
    x = torch.eye(1024, device="cuda")
    streams = [torch.cuda.Stream() for _ in layers]
    torch.cuda.synchronize()
    outputs: list[list[Tensor]] = [[], []]
    for _ in range(20):
        for layer, stream, output in zip(layers, streams, outputs, strict=True):
            with torch.cuda.stream(stream):
                output.append(layer(x))
    torch.cuda.synchronize()
    for layer, output in zip(layers, outputs, strict=True):
        assert all(torch.equal(y.T, layer.dequantize()) for y in output)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA GPUs")
@EVERY_FORMAT
def test_a_gpu_that_is_not_the_current_one(format: str) -> None:
    w = normal(48, 96).to("cuda:1")
    weight = ops.quantize(w, format)
    assert torch.equal(ops.linear(torch.eye(96, device="cuda:1"), weight).T, reference.dequantize(weight))


def test_a_weight_and_x_on_two_devices_are_refused() -> None:
    weight = on_gpu(ops.quantize(normal(5, 77), "nf4"))
    with pytest.raises(ValueError, match="x must be on cuda:0, where the weight is, got cpu"):
        ops.linear(normal(2, 77), weight)
    assert isinstance(weight, Blockwise4bit)
    with pytest.raises(ValueError, match="absmax must be on cuda:0"):
        ops.linear(normal(2, 77).cuda(), replace(weight, absmax=weight.absmax.cpu()))
