"""Products by dot products of bfloat16 pairs: W is rounded to bfloat16 first, and then the rules of every path hold."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from draws import normal
from error_bounds import assert_product_is_exact_enough
from stored_weights import begun_anywhere, small_integers
from torch import Tensor

from lowrank.kernels.cpu import linear as cpu_linear
from lowrank.kernels.reference import weights as reference
from lowrank.kernels.weights.linear_with_adapter import LinearWithAdapter
from lowrank.kernels.weights.quantized_weight import Blockwise4bit

BF16 = torch.bfloat16
FORWARD = (cpu_linear.linear, cpu_linear.dot_linear)  # rows of weights in registers, and panels of them
# One row, fewer than a panel, an odd number, several panels; whole chunks of 128 weights, and half of one at the end.
SHAPES = [
    (1, 64, 64),
    (5, 64, 64),
    (24, 256, 64),
    (33, 192, 64),
    (73, 576, 64),
    (50, 2752, 64),
    (7, 4096, 128),
    (130, 256, 256),
    (97, 1024, 1024),
    (3, 8192, 4096),
]
ROWS = (*range(1, 34), 47, 48, 49, 64, 79, 80, 81, 96, 130)
FEWER = (1, 2, 5, 8, 13, 16, 17, 25, 33, 81)

pytestmark = pytest.mark.usefixtures("bf16_dots", "unwritten_is_nan")


def ulp_of(largest: Tensor) -> Tensor:
    return (largest.nextafter(torch.full_like(largest, torch.inf)) - largest).double()


def assert_products_are_exact_enough(weight: Blockwise4bit, m: int) -> None:
    """By the house rule against W; and within an ulp at max|y| against W as it is rounded."""
    exact, dense = reference.dequantize(weight).double(), reference.dequantize(weight, BF16)
    x, dy = normal(m, weight.shape[1], seed=1).to(BF16), normal(m, weight.shape[0], seed=2).to(BF16)
    forward = [(product(x, weight), x, exact.T, dense.T) for product in FORWARD]
    for y, rows, w, rounded in (*forward, (cpu_linear.dot_linear_backward(dy, weight), dy, exact, dense)):
        assert_product_is_exact_enough(y, rows, rounded, w)
        against = rows.double() @ rounded.double()
        assert (y.double() - against).abs().max() <= ulp_of(against.abs().max().to(BF16))


@pytest.mark.parametrize(("n", "k", "blocksize"), SHAPES, ids=lambda size: str(size))
@pytest.mark.parametrize("format", ["nf4", "fp4"])
def test_products_are_as_exact_as_matmul(format: Any, n: int, k: int, blocksize: int) -> None:
    weight = reference.quantize_4bit(normal(n, k), format, blocksize, double_quant=format == "nf4")
    for m in ROWS if n * k < 20_000 else FEWER:
        assert_products_are_exact_enough(weight, m)


@pytest.mark.parametrize(("m", "k"), [*((m, 448) for m in (383, 385, 512, 513, 521, 780)), (530, 1088)])
def test_more_rows_than_meet_a_panel_at_a_time(m: int, k: int) -> None:
    assert_products_are_exact_enough(reference.quantize_4bit(normal(260, k), double_quant=True), m)


@pytest.mark.parametrize(("n", "k"), [(70, 11008), (9281, 64)], ids=["long-rows", "many-rows"])
@pytest.mark.parametrize("m", [1, 4, 8, 20, 64], ids="M{}".format)
def test_long_sums(m: int, n: int, k: int) -> None:
    assert_products_are_exact_enough(reference.quantize_4bit(normal(n, k)), m)


@pytest.mark.parametrize("rows", ["ones", "positive"])
def test_rows_and_weights_of_one_sign(rows: str) -> None:
    """Where rounding goes one way, sums would drift: levels that are rounded before their maximum fail here."""
    weight = reference.quantize_4bit(normal(64, 4096).abs())
    x = torch.ones(8, 4096, dtype=BF16) if rows == "ones" else normal(8, 4096).abs().to(BF16)
    exact, dense = reference.dequantize(weight).double(), reference.dequantize(weight, BF16)
    for product in FORWARD:
        assert_product_is_exact_enough(product(x, weight), x, dense.T, exact.T)


@pytest.mark.parametrize(("n", "k", "blocksize"), SHAPES, ids=lambda size: str(size))
def test_one_hot_rows_read_the_weight_back(n: int, k: int, blocksize: int) -> None:
    weight = reference.quantize_4bit(normal(n, k), "nf4", blocksize, double_quant=True)
    w = reference.dequantize(weight, BF16)
    for product, m in itertools.product(FORWARD, (1, 3, 8, 16, 40, k)):
        read = torch.cat([product(x, weight) for x in torch.eye(k, dtype=BF16)[: 8 * m].split(m)])
        assert torch.equal(read.T, w[:, : 8 * m])
    for m in (1, 5, n):
        read = torch.cat([cpu_linear.dot_linear_backward(dy, weight) for dy in torch.eye(n, dtype=BF16).split(m)])
        assert torch.equal(read, w)


@pytest.mark.usefixtures("integer_levels")
@pytest.mark.parametrize(("n", "k"), [(16, 64), (5, 192), (34, 1088)], ids=["even", "odd-rows", "wide"])
def test_small_integers_are_multiplied_exactly(n: int, k: int) -> None:
    generator = torch.Generator().manual_seed(3)
    weight, w = small_integers(n, k, generator)
    for m in ROWS:
        x = torch.randint(-4, 5, (m, k), generator=generator).to(BF16)
        dy = torch.randint(-4, 5, (m, n), generator=generator).to(BF16)
        for product in FORWARD:
            assert torch.equal(product(x, weight), (x.double() @ w.T).to(BF16))
        assert torch.equal(cpu_linear.dot_linear_backward(dy, weight), (dy.double() @ w).to(BF16))


def test_x_may_be_a_view_and_begin_anywhere() -> None:
    weight = reference.quantize_4bit(normal(48, 192))
    cases: list[tuple[Callable[..., Tensor], int]] = [(product, 192) for product in FORWARD]
    for product, size in (*cases, (cpu_linear.dot_linear_backward, 48)):
        x = normal(5, 7, 2 * size + 3).to(BF16)
        for view in (x[0, 0, 1 : size + 1], x[..., 1 : size + 1], x[..., : 2 * size : 2]):
            flat = product(view.reshape(-1, size).clone(), weight)
            assert torch.equal(product(view, weight), flat.view(*view.shape[:-1], -1))
        odd = torch.zeros(9 * size + 1, dtype=BF16)[1:].view(9, size).copy_(x[0, :1, :size].expand(9, -1))
        assert torch.equal(product(odd, weight), product(odd.clone(), weight))


def test_codes_and_maxima_may_begin_anywhere() -> None:
    weight = reference.quantize_4bit(normal(33, 192), double_quant=True)
    odd, x, dy = begun_anywhere(weight), normal(20, 192).to(BF16), normal(20, 33).to(BF16)
    for m, product in itertools.product((1, 20), FORWARD):
        assert torch.equal(product(x[:m], odd), product(x[:m], weight))
    assert torch.equal(cpu_linear.dot_linear_backward(dy, odd), cpu_linear.dot_linear_backward(dy, weight))


def test_nan_and_infinity_in_x_reach_y_and_no_other_row() -> None:
    weight = reference.quantize_4bit(normal(33, 192))
    w = reference.dequantize(weight, BF16).double()  # torch's product in bfloat16 lets a NaN of one row into another
    cases: list[tuple[Callable[..., Tensor], int, Tensor]] = [(product, 192, w.T) for product in FORWARD]
    for product, size, truth in (*cases, (cpu_linear.dot_linear_backward, 33, w)):
        for m, place, bad in itertools.product((1, 3, 17, 30), (0, size - 1), (torch.nan, torch.inf, -torch.inf)):
            x = normal(m, size).to(BF16)
            x[m - 1, place] = bad
            ours, theirs = product(x, weight), (x.double() @ truth).to(BF16)
            assert torch.equal(ours.isnan(), theirs.isnan()) and torch.equal(ours.isfinite(), theirs.isfinite())
            assert torch.equal(ours[ours.isinf()], theirs[theirs.isinf()])


@pytest.mark.parametrize(("n", "k"), [(131, 4160), (1100, 192)], ids=["long-rows", "many-rows"])
@pytest.mark.parametrize("m", [1, 3, 8, 21, 31, 550], ids="M{}".format)
def test_the_number_of_threads_changes_no_result(m: int, n: int, k: int, threads: Any) -> None:
    weight, results = reference.quantize_4bit(normal(n, k)), []
    x, dy = normal(m, k).to(BF16), normal(m, n).to(BF16)
    for count in (1, 2, 3):
        threads(count)
        results.append((*(product(x, weight) for product in FORWARD), cpu_linear.dot_linear_backward(dy, weight)))
    for others in results[1:]:
        assert all(torch.equal(mine, other) for mine, other in zip(results[0], others, strict=True))


@pytest.mark.parametrize("m", [1, 2, 8, 11], ids="M{}".format)
def test_parts_that_need_x_in_other_forms_are_what_each_is_alone(m: int) -> None:
    """One x for weights that take it in pairs, for some that take it in float32, and for adapters."""
    w, x = normal(40, 192), normal(m, 192, seed=4).to(BF16)
    blocks = [reference.quantize_4bit(w, "nf4", blocksize) for blocksize in (64, 32, 256)]
    adapter = {"lora_A": normal(3, 192, seed=5), "lora_B": normal(40, 3, seed=6), "scaling": 0.5}
    parts = [LinearWithAdapter(weight) for weight in (*blocks, reference.quantize_int8(w), w)]
    parts += [part._replace(**adapter) for part in parts]
    for y, part in zip(cpu_linear.linears(x, parts), parts, strict=True):
        assert torch.equal(y, cpu_linear.linears(x, [part])[0])
