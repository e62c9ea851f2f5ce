"""The bound on a result's distance from float64: the rule of this repository, written once.

    max|ours - exact| <= 2 max|plain - exact| + one ulp at max|exact|        over at least 1,000 outputs

exact   the result in float64, of the weights as they are stored
plain   the result of plain torch in the dtype of ours, of the weights rounded to that dtype
Of fewer outputs the plain product's largest error is luck, so each of them is held to an a priori bound instead:

    |y - exact| <= sqrt(K) eps sum_k |w_k x_k|

with eps the distance of 1 from the next number of the dtype, and K the terms of the sum; of a sum of sums, the terms of
both, which are added one behind the other.
"""

import torch
from torch import Tensor

ENOUGH = 1_000  # outputs
LOGITS, STORED_LOGIT = 2e-5, 6.0  # error of float32 logits that reach so far (tests/golden/README.md)


def rows_for_enough(rows: int, columns: int) -> int:
    """The least multiple of `rows` that has enough outputs at so many columns; `rows` where that is over 32 of them."""
    times = -(-ENOUGH // (rows * columns))
    return rows * (times if times <= 32 else 1)


def ulp(exact: Tensor, dtype: torch.dtype) -> Tensor:
    """The distance of max|exact| from the next number of the dtype, float64."""
    largest = exact.abs().max().to(dtype)
    return (largest.nextafter(torch.full_like(largest, torch.inf)) - largest).double()


def assert_as_exact_as_plain(ours: Tensor, plain: Tensor, exact: Tensor) -> None:
    """At most twice the error of plain torch, plus one ulp at max|exact|."""
    _check(ours, plain, exact)
    exact = exact.to(ours.device)
    error, allowed = (ours.double() - exact).abs().max(), 2 * (plain.double().to(ours.device) - exact).abs().max()
    allowed = allowed + ulp(exact, ours.dtype)
    assert error <= allowed, f"error {error.item():.3g}, allowed {allowed.item():.3g} over {exact.numel()} outputs"


def assert_sums_are_exact_enough(ours: Tensor, plain: Tensor, exact: Tensor, magnitude: Tensor, terms: int) -> None:
    """The rule for sums of `terms` products.

    magnitude: the same sums of absolute values, float64, of the shape of ours
    """
    if exact.numel() >= ENOUGH:
        assert_as_exact_as_plain(ours, plain, exact)
        return
    _check(ours, plain, exact)
    assert magnitude.shape == exact.shape
    allowed = terms**0.5 * torch.finfo(ours.dtype).eps * magnitude.to(ours.device)
    error = (ours.double() - exact.to(ours.device)).abs()
    wrong = int((~(error <= allowed)).sum())  # NaN is wrong
    assert not wrong, f"{wrong} of {error.numel()} outputs are off by up to {error.max():.3g}"


def assert_product_is_exact_enough(y: Tensor, x: Tensor, w: Tensor, exact: Tensor, rows: int | None = None) -> None:
    """The rule for y = x w.

    x      [*, K], of the dtype of y
    w      [K, N], rounded to that dtype
    exact  [K, N] float64, w as it is stored
    rows   of x that were multiplied at a time, and are by torch too: a vendor adds otherwise for few rows than for many
    """
    assert x.dtype == w.dtype == y.dtype and exact.dtype == torch.float64
    magnitude = x.double().abs() @ exact.abs()
    plain = x @ w if rows is None else torch.cat([part @ w for part in x.split(rows)])
    assert_sums_are_exact_enough(y, plain, x.double() @ exact, magnitude, x.shape[-1])


def assert_logits_are_equal(ours: Tensor, theirs: Tensor) -> None:
    """float32 logits of two programs: 2e-5 where they reach 6, and in proportion where they reach farther."""
    bound = LOGITS * max(1.0, theirs.abs().max().item() / STORED_LOGIT)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=bound)


def _check(ours: Tensor, plain: Tensor, exact: Tensor) -> None:
    assert ours.dtype == plain.dtype and exact.dtype == torch.float64
    assert ours.shape == plain.shape == exact.shape, (ours.shape, plain.shape, exact.shape)
