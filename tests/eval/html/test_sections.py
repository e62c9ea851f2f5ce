"""Sections: what is drawn is where the numbers say, and every chart also says it in words."""

import re
from collections.abc import Mapping
from typing import Any

from lowrank.eval.html.sections import grid_section, parts_section, training_section


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
