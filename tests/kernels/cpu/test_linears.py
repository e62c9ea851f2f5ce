"""Linears of one input in C, with what adapters add: against float64, and each alone."""

import itertools
from typing import Any

import pytest
import torch
from draws import normal
from error_bounds import assert_sums_are_exact_enough, rows_for_enough
from torch import Tensor

from lowrank.kernels import ops
from lowrank.kernels.cpu import linear as cpu_linear
from lowrank.kernels.dispatch import run
from lowrank.kernels.reference import weights as reference
from lowrank.kernels.weights.linear_with_adapter import LinearWithAdapter

from .test_linear import EVERY_DTYPE

pytestmark = pytest.mark.usefixtures("instruction_set", "unwritten_is_nan")

# Whole blocks, ragged ones, and one row.
SHAPES = ((70, 192), (5, 77), (1, 64), (131, 1024))
RANKS = (1, 2, 8, 16, 17, 64)


def adapted(
    n: int, k: int, format: str, rank: int, dtype: torch.dtype = torch.float32, seed: int = 0
) -> LinearWithAdapter:
    """W is in `format`, or as it is in a dtype of torch; rank 0 is no adapter."""
    w = normal(n, k, seed=seed)
    weight = w.to(getattr(torch, format)) if "float" in format else ops.quantize(w, format)
    if not rank:
        return LinearWithAdapter(weight)
    lora_A, lora_B = normal(rank, k, seed=seed + 1).to(dtype), normal(n, rank, seed=seed + 2).to(dtype)
    return LinearWithAdapter(weight, lora_A, lora_B, 0.75)


def dequantized(part: LinearWithAdapter) -> Tensor:
    return part.weight.float() if isinstance(part.weight, Tensor) else reference.dequantize(part.weight)


def assert_exact_enough(y: Tensor, x: Tensor, part: LinearWithAdapter, rows: int) -> None:
    """The house rule, with torch's products in the dtype of x, and the adapter's beside them."""
    w, dtype = dequantized(part), x.dtype
    no_adapter = (x.new_zeros(0, x.shape[-1]), x.new_zeros(w.shape[0], 0))
    A, B = no_adapter if part.lora_A is None or part.lora_B is None else (part.lora_A, part.lora_B)

    def product(x: Tensor, w: Tensor, A: Tensor, B: Tensor) -> Tensor:
        return x @ w.T + part.scaling * (x @ A.T) @ B.T

    wide = [tensor.double() for tensor in (x, w, A, B)]
    rounded = [tensor.to(dtype) for tensor in (w, A, B)]
    theirs = torch.cat([product(some, *rounded) for some in x.split(rows)])
    magnitude = product(*(tensor.abs() for tensor in wide))
    assert_sums_are_exact_enough(y, theirs, product(*wide), magnitude, x.shape[-1] + len(A))


@EVERY_DTYPE
@pytest.mark.parametrize("format", ["nf4-dq", "fp4", "int8", "float32", "bfloat16", "float16"])
def test_an_adapter_rides_in_the_product(format: str, dtype: torch.dtype) -> None:
    for ((n, k), rank), m in itertools.product(zip(SHAPES * 2, (*RANKS, 0, 3), strict=True), (1, 3, 8, 9)):
        part, x = adapted(n, k, format, rank), normal(rows_for_enough(18, n), k, seed=9).to(dtype)
        y = torch.cat([cpu_linear.linears(rows, [part])[0] for rows in x.split(m)])
        assert_exact_enough(y, x, part, m)


@EVERY_DTYPE
def test_several_are_what_each_is_alone(dtype: torch.dtype) -> None:
    for k in (192, 77):
        rows = itertools.product((40, 3, 17), ("nf4", "int8", "bfloat16"))
        parts = [adapted(n, k, format, n % 5, seed=n) for n, format in rows]
        for shape in ((k,), (1, 1, k), (2, 3, k)):
            x = normal(*shape, seed=4).to(dtype)
            together = cpu_linear.linears(x, parts)
            for y, part in zip(together, parts, strict=True):
                assert y.shape == (*shape[:-1], part.weight.shape[0]) and y.dtype == dtype
                assert torch.equal(y, cpu_linear.linears(x, [part])[0])


def test_matrices_may_be_views_and_of_any_dtype() -> None:
    part, x = adapted(33, 192, "nf4", 6), normal(2, 192, seed=5)
    assert part.lora_A is not None and part.lora_B is not None
    expected = cpu_linear.linears(x, [part])[0]
    views = part._replace(lora_A=part.lora_A.T.contiguous().T, lora_B=part.lora_B.repeat(1, 2)[:, :6])
    assert torch.equal(cpu_linear.linears(x, [views])[0], expected)
    wide = part._replace(lora_A=part.lora_A.double(), lora_B=part.lora_B.double())
    assert torch.equal(cpu_linear.linears(x, [wide])[0], expected)
    short = part._replace(lora_A=part.lora_A.bfloat16(), lora_B=part.lora_B.half())
    assert_exact_enough(cpu_linear.linears(x.bfloat16(), [short])[0], x.bfloat16(), short, 2)


def test_the_number_of_threads_changes_no_result(threads: Any) -> None:
    parts = [adapted(n, 512, format, 9) for n, format in ((131, "nf4-dq"), (130, "int8"), (129, "bfloat16"))]
    for m in (1, 5):
        results = []
        for count in (1, 2, 3):
            threads(count)
            results.append(cpu_linear.linears(normal(m, 512, seed=3).bfloat16(), parts))
        for other in results[1:]:
            assert all(torch.equal(y, z) for y, z in zip(other, results[0], strict=True))


def test_what_is_taken_at_once() -> None:
    quantized, dense = adapted(64, 64, "nf4", 2), adapted(64, 64, "bfloat16", 2)
    strided = dense._replace(weight=torch.ones(64, 128)[:, ::2])
    for parts, m, dtype, taken in (
        ([quantized, dense], 8, torch.float32, True),
        ([dense], 9, torch.float32, False),  # the vendor's GEMM is better
        ([dense], 0, torch.float32, False),
        ([quantized], 100, torch.float32, False),
        ([quantized, dense], 1, torch.float64, False),
        ([strided], 1, torch.float32, False),
    ):
        assert run.can_run_in_one_call(torch.ones(m, 64, dtype=dtype), parts) is taken
