"""Axes and ticks."""

import pytest

from lowrank.eval.html.svg import Axis, ticks


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 4, [0, 1, 2, 3, 4]), (0, 2.3, [0, 0.5, 1.0, 1.5, 2.0]), (1, 300, [100, 200, 300]), (0, 0.05, [0, 0.01])],
    ids=["whole", "halves", "not-from-0", "small"],
)
def test_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high)[: len(expected)] == pytest.approx(expected)
    assert ticks(low, high)[-1] <= high * (1 + 1e-9)


def test_ticks_need_a_range() -> None:
    with pytest.raises(ValueError, match="low must be below high"):
        ticks(1, 1)


def test_an_axis_puts_values_in_proportion_and_a_logarithmic_one_their_ratios() -> None:
    assert Axis(0, 4, 100, 300).at(1) == 150
    assert Axis(1, 100, 0, 200, log=True).at(10) == pytest.approx(100)
    assert Axis(0, 4, 100, 300).at(9) == 300  # beyond the end: on it
    assert Axis(0.01, 100, 0, 1, log=True).ticks() == pytest.approx([0.01, 0.1, 1, 10, 100])
