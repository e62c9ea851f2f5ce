"""The charts: what is drawn is where the numbers say, and every chart also says it in words."""

import re
from collections.abc import Mapping
from typing import Any

import pytest

from lowrank.eval.html.charts import (
    Bar,
    bar_panel,
    escape,
    grid_section,
    loss_curve,
    parts_section,
    running_mean,
    ticks,
    training_section,
)


def test_running_mean_is_centred_and_shorter_at_the_ends() -> None:
    assert running_mean([1.0, 2.0, 6.0, 4.0], reach=1) == [1.5, 3.0, 4.0, 5.0]


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


def test_a_curve_puts_a_point_where_its_loss_is() -> None:
    drawn = loss_curve([(1, 4.0), (2, 0.0), (3, 2.0)], reach=1, title="loss", description="d")
    path = re.search(r'class="dots" d="([^"]+)"', drawn)
    assert path is not None
    points = [tuple(map(float, point)) for point in re.findall(r"M([\d.]+) ([\d.]+)h0", path[1])]
    (left, top), (middle, bottom), (right, half) = points
    assert middle - left == pytest.approx(right - middle, abs=0.2)
    assert half == pytest.approx((top + bottom) / 2, abs=0.2)
    rules = [tuple(map(float, rule)) for rule in re.findall(r'd="M([\d.]+) ([\d.]+)H([\d.]+)"', drawn)]
    assert rules[0] == (left, bottom, right) and rules[-1] == (left, top, right)  # the axes for 0 and for 4


def test_a_curve_of_one_step_and_of_zeros_can_be_drawn() -> None:
    assert "nan" not in loss_curve([(7, 0.0)], reach=1, title="loss", description="d")


def test_bars_are_as_long_as_their_values_and_stay_in_the_panel() -> None:
    bars = [Bar("base", "nf4-dq", 0.25, "25.0%", False), Bar("hat", "nf4-dq", 1.0, "100.0%", True)]
    widths = [float(width) for width in re.findall(r'<rect[^>]* width="([\d.]+)"', bar_panel(bars, "recall", True))]
    assert widths[0] == pytest.approx(widths[1] / 4, abs=0.1)
    assert 150 < widths[1] < 320


def test_a_bar_that_was_not_measured_is_empty_and_says_so() -> None:
    drawn = bar_panel([Bar("base", "fp32", None, "–", False)], "loss", percent=False)
    assert 'width="0.0"' in drawn
    assert "<desc>base, fp32: –</desc>" in drawn


def test_training_leaves_out_what_is_not_finite_and_says_how_many() -> None:
    rows = [{"step": step, "loss": loss} for step, loss in enumerate([3.0, float("nan"), 1.0, float("inf")], start=1)]
    page = "".join(training_section(rows))
    assert "2 of 4 steps had no finite loss" in page
    dots = re.search(r'class="dots" d="([^"]+)"', page)
    assert dots is not None and dots[1].count("M") == 2


def test_training_without_one_finite_loss_has_no_chart() -> None:
    page = "".join(training_section([{"step": 1, "loss": float("nan")}]))
    assert "1 of 1 steps had no finite loss" in page
    assert "<svg" not in page


def test_parts_show_exact_bytes_megabytes_and_their_scale() -> None:
    page = "".join(parts_section([("base", 30_412_288), ("hat", 7_603_072)]))
    assert "30,412,288" in page and "30.412" in page
    assert "linear scale" in page
    assert [float(width) for width in re.findall(r'class="strong" width="([\d.]+)"', page)] == [100.0, 25.0]


def test_parts_of_no_bytes_have_no_bar() -> None:
    assert 'class="strong" width="0.00"' in "".join(parts_section([("empty", 0)]))


def test_the_grid_keeps_the_rows_of_a_hat_together_and_dashes_what_is_missing() -> None:
    rows: list[Mapping[str, Any]] = [
        {"adapter": None, "weights": "nf4", "n": 2, "loss": 2.0},
        {"adapter": "a", "weights": "nf4", "n": 2, "loss": 1.0, "binding": 0.5},
        {"adapter": None, "weights": "fp32", "n": 2, "loss": float("nan")},
    ]
    page = "".join(grid_section(rows))
    body = page[page.index("<tbody>") :]
    cells = [re.findall(r"<t[hd][^>]*>([^<]*)<", row) for row in body.split("</tr>")[:3]]
    assert [row[:4] for row in cells] == [
        ["none", "nf4", "2", "2.000"],
        ["none", "fp32", "2", "–"],
        ["a", "nf4", "2", "1.000"],
    ]
    assert cells[2][-1] == "50.0%"
    assert page.count("<svg") == 5


def test_escape_shows_what_cannot_be_seen() -> None:
    assert escape("<a b=\"c\" d='e'>&") == "&lt;a b=&quot;c&quot; d=&#x27;e&#x27;&gt;&amp;"
    assert escape("\x00\x1b\x7f\x85\ud800\t\n") == "␀␛␡��\t\n"
