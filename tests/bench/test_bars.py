"""The bars, on made-up rows."""

import math

import pytest

from lowrank.bench.bars import Bar, bars


def row(op, provider, m=None, share=0.5, ratio=None):
    return {"op": op, "provider": provider, "M": m, "share": share, "versus_ours": ratio and {"ratio": ratio}}


def test_each_bar_is_read_off_the_rows_that_it_speaks_of():
    rows = [
        row("dequantize", "ours", share=0.9),
        row("dequantize", "ours", share=0.86),
        row("dequantize", "bitsandbytes", share=0.1, ratio=9.0),
        row("forward", "bitsandbytes", 1, ratio=2.0),
        row("forward", "bitsandbytes", 64, ratio=0.98),
        row("forward", "bitsandbytes", 128, ratio=0.5),  # between the bars
        row("dX", "bitsandbytes", 1, ratio=0.5),
        row("forward", "marlin", 1, ratio=0.96),
        row("forward", "marlin", 2, ratio=0.5),  # a bar at one row alone
        row("forward", "bitsandbytes", 512, ratio=1.2),
        row("dX", "bitsandbytes", 8192, ratio=1.06),
        row("dX", "dense", 8192, ratio=0.9),
    ]
    found = [(bar.value, bar.held) for bar in bars(rows)]
    assert found == [
        (0.86, True),
        (pytest.approx(math.sqrt(2.0 * 0.98)), True),
        (0.98, False),
        (0.96, True),
        (1.06, True),
        (0.9, False),
    ]


def test_a_bar_of_which_nothing_is_known_is_not_there():
    assert list(bars([row("forward", "ours", 1)])) == []


def test_a_missed_bar_cannot_be_overlooked():
    assert str(Bar("speed", 0.5, 1.0)) == "MISSED  speed: 0.500, at least 1"
    assert not Bar("speed", float("nan"), 1.0).held
