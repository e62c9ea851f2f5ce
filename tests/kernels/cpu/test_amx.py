"""Products by the matrix unit: W is rounded to bfloat16 first, and then the rules of every path hold."""

import itertools
from typing import Any

import pytest
import torch
from draws import normal
from error_bounds import assert_product_is_exact_enough, rows_for_enough, ulp
from stored_weights import begun_anywhere, small_integers

from lowrank.kernels.cpu import linear as cpu_linear
from lowrank.kernels.reference import weights as reference
from lowrank.kernels.weights.quantized_weight import Blockwise4bit

BF16 = torch.bfloat16
SHAPES = [
    (32, 128, 64),
    (5, 64, 64),
    (33, 192, 64),
    (64, 2752, 64),
    (7, 4096, 128),
    (130, 256, 256),
    (97, 1024, 1024),
    (3, 8192, 4096),
]
ROWS = (1, 2, 8, 15, 16, 17, 32, 33, 128, 130, 300)

pytestmark = pytest.mark.usefixtures("matrix_unit", "unwritten_is_nan")


def assert_products_are_exact_enough(weight: Blockwise4bit, m: int) -> None:
    """By the house rule against W; and within an ulp at max|y| against W as it is rounded."""
    exact, dense = reference.dequantize(weight).double(), reference.dequantize(weight, BF16)
    for product, w, wide in (
        (cpu_linear.tiled_linear, dense.T, exact.T),
        (cpu_linear.tiled_linear_backward, dense, exact),
    ):
        x = normal(rows_for_enough(m, w.shape[1]), w.shape[0], seed=1).to(BF16)
        y = torch.cat([product(rows, weight) for rows in x.split(m)])
        assert_product_is_exact_enough(y, x, w, wide, m)
        assert (y.double() - x.double() @ w.double()).abs().max() <= ulp(x.double() @ wide, BF16)


@pytest.mark.parametrize(("n", "k", "blocksize"), SHAPES, ids=lambda size: str(size))
@pytest.mark.parametrize("format", ["nf4", "fp4"])
def test_products_are_as_exact_as_matmul(format: Any, n: int, k: int, blocksize: int) -> None:
    weight = reference.quantize_4bit(normal(n, k), format, blocksize, double_quant=format == "nf4")
    for m in ROWS:
        assert_products_are_exact_enough(weight, m)


@pytest.mark.parametrize(("n", "k"), [(70, 9280), (9281, 64)], ids=["long-rows", "many-rows"])
@pytest.mark.parametrize("m", [1, 33, 130, 550], ids="M{}".format)  # 550: more than one block of tiles
def test_sums_that_are_put_aside_half_way(m: int, n: int, k: int) -> None:
    assert_products_are_exact_enough(reference.quantize_4bit(normal(n, k)), m)


@pytest.mark.parametrize(("n", "k", "blocksize"), SHAPES, ids=lambda size: str(size))
def test_one_hot_rows_read_the_weight_back(n: int, k: int, blocksize: int) -> None:
    weight = reference.quantize_4bit(normal(n, k), "nf4", blocksize, double_quant=True)
    w = reference.dequantize(weight, BF16)
    for m in (1 + k // 3, k):  # the whole at once, and in parts
        read = torch.cat([cpu_linear.tiled_linear(x, weight) for x in torch.eye(k, dtype=BF16).split(m)])
        assert torch.equal(read.T, w)
    for m in (1, n):
        read = torch.cat([cpu_linear.tiled_linear_backward(dy, weight) for dy in torch.eye(n, dtype=BF16).split(m)])
        assert torch.equal(read, w)


@pytest.mark.usefixtures("integer_levels")
@pytest.mark.parametrize(("n", "k"), [(16, 64), (5, 192), (34, 1088)], ids=["even", "odd-rows", "wide"])
def test_small_integers_are_multiplied_exactly(n: int, k: int) -> None:
    generator = torch.Generator().manual_seed(3)
    weight, w = small_integers(n, k, generator)
    for m in ROWS:
        x = torch.randint(-4, 5, (m, k), generator=generator).to(BF16)
        dy = torch.randint(-4, 5, (m, n), generator=generator).to(BF16)
        assert torch.equal(cpu_linear.tiled_linear(x, weight), (x.double() @ w.T).to(BF16))
        assert torch.equal(cpu_linear.tiled_linear_backward(dy, weight), (dy.double() @ w).to(BF16))


def test_x_may_be_a_view_and_begin_anywhere() -> None:
    weight = reference.quantize_4bit(normal(48, 192))
    for product, size in ((cpu_linear.tiled_linear, 192), (cpu_linear.tiled_linear_backward, 48)):
        x = normal(5, 7, 2 * size + 3).to(BF16)
        for view in (x[0, 0, 1 : size + 1], x[..., 1 : size + 1], x[..., : 2 * size : 2]):
            flat = product(view.reshape(-1, size).clone(), weight)
            assert torch.equal(product(view, weight), flat.view(*view.shape[:-1], -1))
        odd = torch.zeros(9 * size + 1, dtype=BF16)[1:].view(9, size).copy_(x[0, :1, :size].expand(9, -1))
        assert torch.equal(product(odd, weight), product(x[0, :1, :size], weight).expand(9, -1))


def test_codes_and_maxima_may_begin_anywhere() -> None:
    weight = reference.quantize_4bit(normal(33, 192), double_quant=True)
    odd, x, dy = begun_anywhere(weight), normal(20, 192).to(BF16), normal(20, 33).to(BF16)
    assert torch.equal(cpu_linear.tiled_linear(x, odd), cpu_linear.tiled_linear(x, weight))
    assert torch.equal(cpu_linear.tiled_linear_backward(dy, odd), cpu_linear.tiled_linear_backward(dy, weight))


def test_nan_and_infinity_in_x_reach_y_and_no_other_row() -> None:
    weight = reference.quantize_4bit(normal(33, 192))
    w = reference.dequantize(weight, BF16).double()  # torch's product in bfloat16 lets a NaN of one row into another
    for product, size, truth in (
        (cpu_linear.tiled_linear, 192, w.T),
        (cpu_linear.tiled_linear_backward, 33, w),
    ):
        for m, place, bad in itertools.product((1, 17), (0, size - 1), (torch.nan, torch.inf, -torch.inf)):
            x = normal(m, size).to(BF16)
            x[m - 1, place] = bad
            ours, theirs = product(x, weight), (x.double() @ truth).to(BF16)
            assert torch.equal(ours.isnan(), theirs.isnan()) and torch.equal(ours.isfinite(), theirs.isfinite())
            assert torch.equal(ours[ours.isinf()], theirs[theirs.isinf()])


@pytest.mark.parametrize(("n", "k"), [(131, 4160), (1100, 192)], ids=["long-rows", "many-rows"])
@pytest.mark.parametrize("m", [1, 17, 550], ids="M{}".format)
def test_the_number_of_threads_changes_no_result(m: int, n: int, k: int, threads: Any) -> None:
    weight, results = reference.quantize_4bit(normal(n, k)), []
    for count in (1, 2, 3):
        threads(count)
        y = cpu_linear.tiled_linear(normal(m, k).to(BF16), weight)
        results.append((y, cpu_linear.tiled_linear_backward(normal(m, n).to(BF16), weight)))
    for y, dx in results[1:]:
        assert torch.equal(y, results[0][0]) and torch.equal(dx, results[0][1])
