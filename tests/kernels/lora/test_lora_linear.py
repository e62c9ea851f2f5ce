"""Linears that share their input: outputs and gradients, alone and together, and x kept once."""

from functools import partial

import draws
import pytest
import torch
from error_bounds import assert_sums_are_exact_enough
from torch import Tensor

from lowrank.kernels import ops
from lowrank.kernels.lora.dropout import apply_dropout
from lowrank.kernels.lora.lora_linear import lora_linears
from lowrank.kernels.weights.linear_with_adapter import LinearWithAdapter

normal = partial(draws.normal, dtype=torch.float64)


def parts(drops: tuple[float, ...] = (0.0, 0.0), quantized: bool = False) -> list[LinearWithAdapter]:
    """Two linears of [*, 6]: to 5 with rank 2 and to 3 with rank 1."""
    made = []
    for number, ((n, r), drop) in enumerate(zip(((5, 2), (3, 1)), drops, strict=True)):
        dense = normal(n, 6, seed=number)
        weight = ops.quantize(dense.float(), "nf4", blocksize=32) if quantized else dense
        matrices = (normal(r, 6, seed=10 + number), normal(n, r, seed=20 + number))
        made.append(
            LinearWithAdapter(weight, *(m.requires_grad_() for m in matrices), 2.0, (drop, number) if drop else None)
        )
    return made


def by_hand(x: Tensor, part: LinearWithAdapter) -> Tensor:
    weight = part.weight if isinstance(part.weight, Tensor) else ops.dequantize(part.weight, x.dtype)
    rows = x.reshape(-1, x.shape[-1])
    inner = (rows if part.drop is None else apply_dropout(rows, *part.drop)) @ part.lora_A.T
    return (rows @ weight.T + part.scaling * inner @ part.lora_B.T).view(*x.shape[:-1], -1)


@pytest.mark.parametrize("quantized", [False, True], ids=["dense", "nf4"])
@pytest.mark.parametrize("drops", [(0.0, 0.0), (0.5, 0.25), (0.5, 0.0)], ids=str)
def test_outputs_and_gradients_are_those_of_autograd(drops: tuple[float, ...], quantized: bool) -> None:
    ours, theirs = parts(drops, quantized), parts(drops, quantized)
    x, same = normal(2, 4, 6, seed=5).requires_grad_(), normal(2, 4, 6, seed=5).requires_grad_()
    dys = [normal(2, 4, 5, seed=6), normal(2, 4, 3, seed=7)]
    ys = lora_linears(x, ours)
    expected = [by_hand(same, part) for part in theirs]
    torch.autograd.backward(ys, dys)
    torch.autograd.backward(expected, dys)
    for y, truth in zip(ys, expected, strict=True):
        torch.testing.assert_close(y, truth)
    torch.testing.assert_close(x.grad, same.grad)
    for part, truth in zip(ours, theirs, strict=True):
        torch.testing.assert_close(part.lora_A.grad, truth.lora_A.grad)
        torch.testing.assert_close(part.lora_B.grad, truth.lora_B.grad)


@pytest.mark.parametrize("drops", [(0.0, 0.0), (0.5, 0.0)], ids=str)
def test_gradients_by_finite_differences(drops: tuple[float, ...]) -> None:
    made = parts(drops)

    def outputs(x: Tensor, *matrices: Tensor) -> tuple[Tensor, ...]:
        pairs = zip(matrices[::2], matrices[1::2], strict=True)
        fresh = [
            LinearWithAdapter(part.weight, a, b, part.scaling, part.drop)
            for part, (a, b) in zip(made, pairs, strict=True)
        ]
        return lora_linears(x, fresh)

    inputs = [normal(3, 6, seed=5), *(m.detach() for part in made for m in (part.lora_A, part.lora_B))]
    assert torch.autograd.gradcheck(outputs, tuple(tensor.requires_grad_() for tensor in inputs))


def test_an_input_without_a_gradient_has_none() -> None:
    made = parts()
    sum(y.sum() for y in lora_linears(normal(3, 6), made)).backward()
    assert all(part.lora_A.grad is not None and part.lora_B.grad is not None for part in made)


def test_matrices_in_float32_beside_bfloat16_get_gradients_in_float32() -> None:
    matrices = [torch.randn(2, 6).requires_grad_(), torch.randn(5, 2).requires_grad_()]
    x = torch.randn(4, 6).bfloat16().requires_grad_()
    (y,) = lora_linears(x, [LinearWithAdapter(torch.randn(5, 6), *matrices, 1.0)])
    y.sum().backward()
    assert (y.dtype, x.grad.dtype) == (torch.bfloat16, torch.bfloat16)
    assert all(matrix.grad.dtype == torch.float32 for matrix in matrices)


def test_x_is_kept_once_and_as_the_tensor_that_it_is() -> None:
    x, held = normal(64, 6).requires_grad_(), {}

    def pack(tensor: Tensor) -> Tensor:
        held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    made = parts()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        lora_linears(x, made)
    assert x.untyped_storage().data_ptr() in held
    matrices = sum(m.nbytes for part in made for m in (part.lora_A, part.lora_B))
    assert sum(held.values()) == x.nbytes + 64 * 3 * 8 + matrices


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("rows", [1, 8, 9], ids=lambda rows: f"M{rows}")
def test_without_a_gradient_rows_are_as_exact_as_with_one(rows: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x, A, B = torch.randn(rows, 256).to(dtype), torch.randn(8, 256), torch.randn(128, 8)
    weight = ops.quantize(torch.randn(128, 256), "nf4-dq")
    part = LinearWithAdapter(weight, A, B, 2.0)
    with torch.enable_grad():
        graded = lora_linears(x, [part])[0]
    with torch.no_grad():
        y = lora_linears(x, [part])[0]
    truth = x.double() @ ops.dequantize(weight).double().T + 2 * (x.double() @ A.double().T) @ B.double().T
    magnitude = x.double().abs() @ ops.dequantize(weight).double().abs().T
    magnitude += 2 * (x.double().abs() @ A.double().abs().T) @ B.double().abs().T
    assert y.dtype == dtype
    assert_sums_are_exact_enough(y, graded, truth, magnitude, 256 + 8)
