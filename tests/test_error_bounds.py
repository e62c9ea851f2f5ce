"""The rule of errors: plain products keep it, and one wrong number breaks it."""

import pytest
import torch
from draws import normal
from error_bounds import (
    ENOUGH,
    assert_as_exact_as_plain,
    assert_logits_are_equal,
    assert_product_is_exact_enough,
    assert_sums_are_exact_enough,
    rows_for_enough,
    ulp,
)
from torch import Tensor

EVERY_DTYPE = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
# M, N, K: enough outputs, too few, and one.
EVERY_SHAPE = pytest.mark.parametrize(("m", "n", "k"), [(20, 50, 96), (3, 5, 77), (1, 1, 64), (1, 1, 1)], ids=str)


def product(m: int, n: int, k: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """y as it is best, x, w, and w before it was rounded."""
    x, exact = normal(m, k, seed=1).to(dtype), normal(k, n, seed=2).double()
    return (x.double() @ exact).to(dtype), x, exact.to(dtype), exact


@EVERY_DTYPE
@EVERY_SHAPE
def test_plain_products_and_the_best_ones_keep_the_rule(m: int, n: int, k: int, dtype: torch.dtype) -> None:
    y, x, w, exact = product(m, n, k, dtype)
    assert_product_is_exact_enough(y, x, w, exact)
    assert_product_is_exact_enough(x @ w, x, w, exact)


@EVERY_DTYPE
@EVERY_SHAPE
def test_one_wrong_number_breaks_it(m: int, n: int, k: int, dtype: torch.dtype) -> None:
    y, x, w, exact = product(m, n, k, dtype)
    magnitude = (x.double().abs() @ exact.abs())[-1, -1]
    y[-1, -1] += 1.5 * (k**0.5 * torch.finfo(dtype).eps * magnitude).to(dtype) + 2 * ulp(y.double(), dtype).to(dtype)
    with pytest.raises(AssertionError, match="outputs"):
        assert_product_is_exact_enough(y, x, w, exact)


@EVERY_DTYPE
def test_a_number_that_is_none_breaks_it(dtype: torch.dtype) -> None:
    for m, n, k in ((20, 50, 96), (3, 5, 77)):
        y, x, w, exact = product(m, n, k, dtype)
        y[0, 0] = torch.nan
        with pytest.raises(AssertionError, match="outputs"):
            assert_product_is_exact_enough(y, x, w, exact)


def test_a_weight_one_code_off_breaks_it_in_a_product_of_enough_outputs() -> None:
    _, x, w, exact = product(20, 50, 96, torch.float32)
    wrong = exact.clone()
    wrong[7, 3] += 0.1
    with pytest.raises(AssertionError, match="outputs"):
        assert_product_is_exact_enough((x.double() @ wrong).float(), x, w, exact)


def test_the_bound_is_twice_the_plain_error_and_one_ulp() -> None:
    exact = torch.ones(ENOUGH, dtype=torch.float64)
    plain, step = exact.float(), 2.0**-23
    plain[5] += 3 * step
    for steps, kept in ((7, True), (8, False)):
        ours = exact.float()
        ours[9] -= steps * step
        if kept:
            assert_as_exact_as_plain(ours, plain, exact)
        else:
            with pytest.raises(AssertionError, match="over 1000 outputs"):
                assert_as_exact_as_plain(ours, plain, exact)


def test_few_outputs_are_not_measured_by_the_luck_of_the_plain_product() -> None:
    exact = torch.full((1, 1), 1.0, dtype=torch.float64)
    far, near = exact.float() + 1, exact.float() + 2 * 2.0**-23
    assert_sums_are_exact_enough(near, exact.float(), exact, exact, 4)  # the plain one happens to be right
    with pytest.raises(AssertionError, match="1 of 1 outputs"):
        assert_sums_are_exact_enough(far, far, exact, exact, 4)  # it happens to be as wrong


def test_shapes_and_dtypes_are_compared() -> None:
    exact = torch.ones(2, 3, dtype=torch.float64)
    for ours, plain in ((exact.float(), exact.half()), (exact.float()[:1], exact.float())):
        with pytest.raises(AssertionError):
            assert_as_exact_as_plain(ours, plain, exact)


def test_rows_for_enough_outputs() -> None:
    assert [rows_for_enough(*pair) for pair in ((1, 32), (1, 31), (3, 70), (17, 5000), (8, 125))] == [32, 1, 15, 17, 8]


def test_the_bound_of_logits_grows_with_them_alone() -> None:
    small, large = torch.tensor([0.5, -6.0]), torch.tensor([0.5, -60.0])
    assert_logits_are_equal(small + torch.tensor([1.9e-5, 0]), small)
    assert_logits_are_equal(large + torch.tensor([1.9e-4, 0]), large)
    for theirs, error in ((small / 100, 2.1e-5), (small, 2.1e-5), (large, 2.1e-4)):
        with pytest.raises(AssertionError):
            assert_logits_are_equal(theirs + torch.tensor([error, 0]), theirs)
