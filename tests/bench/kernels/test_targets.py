"""The bars, on made-up rows."""

import math

import pytest

from lowrank.bench.kernels.targets import Bar, bars


def row(op, provider, m=None, share=0.5, ratio=None, ms=1.0):
    versus = ratio and {"ratio": ratio}
    return {"op": op, "provider": provider, "M": m, "N": 4, "K": 8, "share": share, "ms": ms, "versus_ours": versus}


def test_each_bar_is_read_off_the_rows_that_it_speaks_of() -> None:
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
    found = [(bar.value, bar.is_met) for bar in bars(rows, "cuda")]
    assert found == [
        (0.86, True),
        (pytest.approx(math.sqrt(2.0 * 0.98)), True),
        (0.98, False),
        (0.96, True),
        (1.06, True),
        (0.9, False),
    ]


def test_the_bars_of_a_cpu_are_others() -> None:
    rows = [
        row("quantize", "bitsandbytes", ratio=42.0),
        row("dequantize", "bitsandbytes", ratio=2.9),
        row("forward", "ours", 1, share=0.7),
        row("forward", "bitsandbytes", 1, ratio=1.2),
        row("forward", "bitsandbytes", 2, ratio=2.0),
        row("forward", "bitsandbytes", 64, ratio=8.0),
        row("forward", "bitsandbytes", 512, ratio=1.5),
        row("forward", "ours", 512, ms=2.0),
        row("dX", "ours", 512, ms=3.0),
        row("forward", "bitsandbytes-dequantize", 512, ratio=2.0, ms=4.0),
        row("dX", "bitsandbytes", 512, ratio=2.0, ms=6.0),
        row("forward", "dense", 512, ratio=1.0, ms=2.0),
        row("dX", "dense", 512, ratio=0.8, ms=2.5),
    ]
    found = [(bar.value, bar.is_met) for bar in bars(rows, "cpu")]
    assert found == [
        (42.0, True),
        (2.9, False),
        (0.7, False),
        (1.2, True),
        (4.0, True),
        (1.5, True),
        (2.0, True),
        (0.9, False),
    ]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_bar_of_which_nothing_is_known_is_not_there(device) -> None:
    assert list(bars([row("dX", "ours", 1)], device)) == []


def test_a_missed_bar_cannot_be_overlooked() -> None:
    assert str(Bar("speed", 0.5, 1.0)) == "MISSED  speed: 0.500, at least 1"
    assert not Bar("speed", float("nan"), 1.0).is_met


def test_a_cpu_with_dot_products_of_bfloat16_has_bars_of_its_own() -> None:
    rows = [
        row("quantize", "bitsandbytes", ratio=21.0),
        row("forward", "bitsandbytes", 1, ratio=1.25),
        row("forward", "bitsandbytes", 2, ratio=1.3),
        row("forward", "bitsandbytes", 16, ratio=1.1),
        row("forward", "bitsandbytes", 512, ratio=1.4),
        row("forward", "dense", 512, ratio=0.96),
        row("dX", "dense", 64, ratio=0.1),  # between the bars
        row("dX", "bitsandbytes", 128, ratio=1.2),
    ]
    found = [(bar.name, bar.is_met) for bar in bars(rows, "cpu", "avx512bf16")]
    assert found == [
        ("quantize against bitsandbytes, slowest", True),
        ("forward at M 1 against bitsandbytes, slowest", True),
        ("forward at M 2..16 against bitsandbytes, slowest", False),
        ("forward at M 32..512 against bitsandbytes, slowest", True),
        ("forward at M 32..512 against dense, slowest", True),
        ("dX at M 128..512 against bitsandbytes, slowest", True),
    ]
    assert found != [(bar.name, bar.is_met) for bar in bars(rows, "cpu", "amx")]
