"""Products in C, by every instruction set of this processor: the rules that every path is held to."""

import itertools
from typing import Any

import pytest
import torch
from draws import normal
from error_bounds import assert_product_is_exact_enough, rows_for_enough
from stored_weights import begun_anywhere, small_integers

from lowrank.kernels.cpu import library
from lowrank.kernels.cpu import linear as cpu_linear
from lowrank.kernels.reference import weights as reference
from lowrank.kernels.weights.quantized_weight import QuantizedWeight

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
EVERY_DTYPE = pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
EVERY_FORMAT = pytest.mark.parametrize("format", ["nf4", "fp4", "int8"])
FORWARD = (cpu_linear.linear, cpu_linear.panel_linear)
BACKWARD = (cpu_linear.linear_backward, cpu_linear.panel_linear_backward)
SHAPES = ((1, 1), (5, 77), (3, 64), (33, 192), (9, 2752), (70, 130))
ROWS = (1, 2, 3, 5, 8, 9, 17)

pytestmark = pytest.mark.usefixtures("instruction_set", "unwritten_is_nan")


def quantized(n: int, k: int, format: Any, blocksize: int = 64, double_quant: bool = False) -> QuantizedWeight:
    return reference.quantize(normal(n, k), format, blocksize, double_quant)


def assert_products_are_exact_enough(weight: QuantizedWeight, m: int, dtype: torch.dtype) -> None:
    """Products of m rows at a time, of as many rows as the rule asks for."""
    exact, dense = reference.dequantize(weight).double(), reference.dequantize(weight, dtype)
    n, k = weight.shape
    x, dy = normal(rows_for_enough(m, n), k, seed=1).to(dtype), normal(rows_for_enough(m, k), n, seed=2).to(dtype)
    for product in FORWARD:
        y = torch.cat([product(rows, weight) for rows in x.split(m)])
        assert_product_is_exact_enough(y, x, dense.T, exact.T, m)
    for product in BACKWARD:
        dx = torch.cat([product(rows, weight) for rows in dy.split(m)])
        assert_product_is_exact_enough(dx, dy, dense, exact, m)


@EVERY_DTYPE
@EVERY_FORMAT
def test_products_are_as_exact_as_matmul(format: str, dtype: torch.dtype) -> None:
    for (n, k), m in itertools.product(SHAPES, ROWS):
        assert_products_are_exact_enough(quantized(n, k, format), m, dtype)


@EVERY_DTYPE
@pytest.mark.parametrize("blocksize", [32, 128, 4096])
def test_blocks_of_any_size_with_nested_maxima(blocksize: int, dtype: torch.dtype) -> None:
    for (n, k), m in itertools.product([(5, 4096), (7, 8192), (6, 352), (5, 77)], (1, 3, 7)):
        assert_products_are_exact_enough(quantized(n, k, "nf4", blocksize, double_quant=True), m, dtype)


@EVERY_FORMAT
@pytest.mark.parametrize("m", [16, 32, 128, 130, 300], ids="M{}".format)
def test_many_rows(m: int, format: str) -> None:
    assert_products_are_exact_enough(quantized(33, 192, format), m, torch.bfloat16)


@pytest.mark.slow
def test_more_than_one_panel() -> None:
    for format in ("nf4", "int8"):
        for m in (3, 7):
            assert_products_are_exact_enough(quantized(150, 5120, format), m, torch.float32)
            assert_products_are_exact_enough(quantized(5121, 150, format), m, torch.float32)


@EVERY_DTYPE
@EVERY_FORMAT
@pytest.mark.parametrize(("n", "k"), [(16, 64), (5, 77), (7, 352)], ids=["whole", "ragged", "cut-chunk"])
@pytest.mark.parametrize("m", [1, 3, 8], ids="M{}".format)
def test_one_hot_rows_read_the_weight_back(m: int, n: int, k: int, format: str, dtype: torch.dtype) -> None:
    weight = quantized(n, k, format, 32)
    w = reference.dequantize(weight, dtype)
    for product, size, read in [*((p, k, w.T) for p in FORWARD), *((p, n, w) for p in BACKWARD)]:
        rows = torch.eye(size, dtype=dtype).split(m if product in (FORWARD[0], BACKWARD[0]) else size)
        assert torch.equal(torch.cat([product(x, weight) for x in rows]), read)


@pytest.mark.usefixtures("integer_levels")
@EVERY_DTYPE
@pytest.mark.parametrize(("n", "k"), [(16, 64), (5, 77), (3, 129), (34, 1088)], ids=["even", "odd", "odd-rows", "wide"])
def test_small_integers_are_multiplied_exactly(n: int, k: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(3)
    weight, w = small_integers(n, k, generator)
    for m in (1, 2, 5, 8, 17):
        x = torch.randint(-4, 5, (m, k), generator=generator).to(dtype)
        dy = torch.randint(-4, 5, (m, n), generator=generator).to(dtype)
        for product in FORWARD:
            assert torch.equal(product(x, weight), (x.double() @ w.T).to(dtype))
        for product in BACKWARD:
            assert torch.equal(product(dy, weight), (dy.double() @ w).to(dtype))


@EVERY_FORMAT
def test_x_may_be_a_view_and_have_any_leading_shape(format: str) -> None:
    for (n, k), dtype in itertools.product([(48, 96), (5, 77)], DTYPES.values()):
        weight = quantized(n, k, format, 32)
        exact, dense = reference.dequantize(weight).double(), reference.dequantize(weight, dtype)
        for (in_c, by_panels), size, w, wide in ((FORWARD, k, dense.T, exact.T), (BACKWARD, n, dense, exact)):
            x = normal(2, 3, 2 * size + 3).to(dtype)
            for view in (x[0, 0, 1 : size + 1], x[..., 1 : size + 1], x[..., : 2 * size : 2], x[:, 0, 3 : size + 3]):
                flat = in_c(view.reshape(-1, size).clone(), weight)
                assert torch.equal(in_c(view, weight), flat.view(*view.shape[:-1], -1))
                assert_product_is_exact_enough(by_panels(view, weight), view, w, wide)  # by the vendor's GEMM


@EVERY_FORMAT
def test_stored_tensors_may_begin_anywhere(format: str) -> None:
    weight = quantized(6, 352, format, 32, double_quant=True)
    odd = begun_anywhere(weight)
    x, dy = normal(3, 352), normal(3, 6)
    assert torch.equal(cpu_linear.linear(x, odd), cpu_linear.linear(x, weight))
    assert torch.equal(cpu_linear.linear(x[:1], odd), cpu_linear.linear(x[:1], weight))
    assert torch.equal(cpu_linear.linear_backward(dy, odd), cpu_linear.linear_backward(dy, weight))
    assert torch.equal(cpu_linear.dequantize(odd), reference.dequantize(weight))


@EVERY_DTYPE
@EVERY_FORMAT
def test_nan_and_infinity_in_x_reach_y_as_in_the_reference(format: str, dtype: torch.dtype) -> None:
    for (n, k), m in itertools.product([(40, 352), (5, 77)], (1, 2, 9)):
        weight = quantized(n, k, format, 32)
        for functions, size, truth in ((FORWARD, k, reference.linear), (BACKWARD, n, reference.linear_backward)):
            for place, bad in itertools.product((0, size // 2, size - 1), (torch.nan, torch.inf, -torch.inf)):
                x = normal(m, size).to(dtype)
                x[m - 1, place] = bad
                theirs = truth(x, weight)
                for product in functions:
                    ours = product(x, weight)
                    assert torch.equal(ours.isnan(), theirs.isnan())
                    assert torch.equal(ours[ours.isinf()], theirs[theirs.isinf()])
                    assert torch.equal(ours.isfinite(), theirs.isfinite())


@EVERY_FORMAT
def test_the_number_of_threads_changes_no_result(format: str, threads: Any) -> None:
    for (n, k), m in itertools.product([(131, 1024), (131, 1001)], (1, 4, 5, 130)):
        weight, results = quantized(n, k, format), []
        for count in (1, 2, 3):
            threads(count)
            results.append((cpu_linear.linear(normal(m, k), weight), cpu_linear.linear_backward(normal(m, n), weight)))
        for y, dx in results[1:]:
            assert torch.equal(y, results[0][0]) and torch.equal(dx, results[0][1])


@EVERY_FORMAT
def test_a_row_is_what_it_is_whatever_rows_are_beside_it(format: str) -> None:
    for n, k in ((70, 1120), (131, 1001)):
        weight, x, dy = quantized(n, k, format, 32), normal(260, k), normal(260, n)
        for first, rows in ((1, range(2, 9)), (9, (10, 64, 260))):  # looked up in registers, and in panels
            y = cpu_linear.linear(x[:first], weight)
            assert all(torch.equal(cpu_linear.linear(x[:m], weight)[:first], y) for m in rows)
        dx = cpu_linear.linear_backward(dy[:1], weight)
        assert all(torch.equal(cpu_linear.linear_backward(dy[:m], weight)[:1], dx) for m in (2, 3, 4, 5, 6, 7, 260))


def test_no_memory_is_an_error_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library.library(), "lowrank_linears", lambda *arguments: -1)
    with pytest.raises(MemoryError, match="lowrank_linears: no memory for its rows"):
        cpu_linear.linear(normal(1, 64), quantized(4, 64, "nf4"))
