"""The linear product and its gradient: the rules that every path of the dispatcher is held to."""

import pytest
import torch
from draws import normal
from error_bounds import assert_product_is_exact_enough
from stored_weights import small_integers

from lowrank.kernels.ops import dequantize, linear, quantize
from lowrank.kernels.weights.quantized_weight import QUANTIZED_NAMES

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
SHAPES = [(1, 48, 96), (1, 1040, 192), (3, 5, 77), (17, 64, 130), (128, 33, 256)]
EVERY_DTYPE = pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
EVERY_SHAPE = pytest.mark.parametrize(("m", "n", "k"), SHAPES, ids=[f"M{m}-N{n}-K{k}" for m, n, k in SHAPES])
EVERY_FORMAT = pytest.mark.parametrize("format", QUANTIZED_NAMES)


@pytest.mark.slow
@EVERY_DTYPE
@EVERY_SHAPE
@EVERY_FORMAT
def test_product_and_gradient_are_as_exact_as_matmul(format: str, m: int, n: int, k: int, dtype: torch.dtype) -> None:
    weight = quantize(normal(n, k), format)
    w, exact = dequantize(weight, dtype), dequantize(weight).double()
    x, dy = normal(m, k, seed=1).to(dtype).requires_grad_(), normal(m, n, seed=2).to(dtype)
    y = linear(x, weight)
    y.backward(dy)
    assert (y.dtype, x.grad.dtype) == (dtype, dtype)
    assert_product_is_exact_enough(y.detach(), x.detach(), w.T, exact.T)
    assert_product_is_exact_enough(x.grad, dy, w, exact)


@EVERY_FORMAT
def test_gradient_by_finite_differences(format: str) -> None:
    weight = quantize(normal(5, 77), format)
    assert torch.autograd.gradcheck(lambda x: linear(x, weight), normal(2, 77).double().requires_grad_())


@EVERY_DTYPE
@EVERY_FORMAT
def test_one_hot_rows_read_the_weight_back(format: str, dtype: torch.dtype) -> None:
    weight = quantize(normal(5, 77), format)
    x = torch.eye(77, dtype=dtype, requires_grad=True)
    linear(x, weight).backward(torch.zeros(77, 5, dtype=dtype).index_fill_(0, torch.tensor(0), 1))
    assert torch.equal(linear(x, weight).T, dequantize(weight, dtype))
    y = torch.eye(5, dtype=dtype)
    assert torch.equal(torch.autograd.grad(linear(x[:5], weight), x, y)[0][:5], dequantize(weight, dtype))


@pytest.mark.parametrize(("n", "k"), [(16, 64), (5, 77), (3, 129)], ids=["even", "odd", "odd-rows"])
def test_small_integers_are_multiplied_exactly(n: int, k: int, integer_levels: None) -> None:
    generator = torch.Generator().manual_seed(3)
    weight, w = small_integers(n, k, generator)
    x = torch.randint(-4, 5, (9, k), generator=generator).float().requires_grad_()
    dy = torch.randint(-4, 5, (9, n), generator=generator).float()
    y = linear(x, weight)
    y.backward(dy)
    assert torch.equal(y.double(), x.double() @ w.T)
    assert torch.equal(x.grad.double(), dy.double() @ w)


@pytest.mark.parametrize("shape", [(96,), (0, 96), (2, 3, 96)], ids=str)
def test_x_may_have_any_leading_shape(shape: tuple[int, ...]) -> None:
    weight, x = quantize(normal(48, 96), "nf4"), normal(*shape)
    rows = linear(x.reshape(-1, 96), weight)
    assert torch.equal(linear(x, weight), rows.view(*shape[:-1], 48))


def test_x_need_not_be_contiguous() -> None:
    weight, one_hot = quantize(normal(48, 96), "nf4"), torch.eye(192)[::2, ::2]
    assert torch.equal(linear(one_hot, weight).T, dequantize(weight))


def test_x_of_another_width_is_refused() -> None:
    with pytest.raises(ValueError, match=r"in_features 96, got shape \(2, 95\)"):
        linear(normal(2, 95), quantize(normal(48, 96), "nf4"))


@pytest.mark.parametrize("format", ["nf3", "NF4", "nf4-", "int8-dq", "fp32", ""])
def test_a_format_that_is_none_is_refused_by_name(format: str) -> None:
    with pytest.raises(ValueError, match="wq: format must be one of int8, nf4"):
        quantize(normal(4, 64), format, name="wq")


@pytest.mark.parametrize("format", ["nf4", "fp4"])
def test_the_suffix_dq_means_double_quant(format: str) -> None:
    by_name, by_flag = quantize(normal(9, 99), f"{format}-dq"), quantize(normal(9, 99), format, double_quant=True)
    assert by_name.name == by_flag.name == f"{format}-dq"
    assert all(torch.equal(tensor, by_flag.tensors()[part]) for part, tensor in by_name.tensors().items())


def test_blocksize_reaches_the_format() -> None:
    assert quantize(normal(4, 256), "nf4", blocksize=128).absmax.shape == (8,)


def test_the_weight_is_not_kept_for_the_backward_pass() -> None:
    weight, kept = quantize(normal(48, 96), "nf4"), []
    with torch.autograd.graph.saved_tensors_hooks(kept.append, lambda tensor: tensor):
        linear(normal(2, 96).requires_grad_(), weight)
    assert kept == []
