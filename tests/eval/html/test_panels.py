"""Panels: bars are as long as their values, and each says them in words."""

import re

import pytest

from lowrank.eval.html.panels import Bar, bar_panel


def test_bars_are_as_long_as_their_values_and_stay_in_the_panel() -> None:
    bars = [Bar("base", "nf4-dq", 0.25, "25.0%", False), Bar("hat", "nf4-dq", 1.0, "100.0%", True)]
    widths = [float(width) for width in re.findall(r'<rect[^>]* width="([\d.]+)"', bar_panel(bars, "recall", True))]
    assert widths[0] == pytest.approx(widths[1] / 4, abs=0.1)
    assert 150 < widths[1] < 320


def test_a_bar_that_was_not_measured_is_empty_and_says_so() -> None:
    drawn = bar_panel([Bar("base", "fp32", None, "–", False)], "loss", percent=False)
    assert 'width="0.0"' in drawn
    assert "<desc>base, fp32: –</desc>" in drawn
