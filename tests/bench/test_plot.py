"""The charts of made-up rows."""

from dataclasses import asdict
from xml.etree import ElementTree

import pytest

from lowrank.bench import plot
from lowrank.bench.kernels.plan import H200, plan, work
from lowrank.bench.rows import append


def made_up(ratio):
    """Rows of a full plan: ours at half of the limits, bitsandbytes `ratio` times as long."""
    rows = []
    for case in plan("cuda", "full"):
        needed = work(case, case.n * case.k * 33 // 64, 2)
        least = needed.bound(case.op, H200)[1]
        shape = {
            "op": case.op,
            "M": case.m,
            "N": case.n,
            "K": case.k,
            "dtype": "bfloat16",
            "machine": "made <up>",
            "commit": "c0ffee",
        }
        shape |= {"bytes": needed.bytes, "flops": needed.flops, "limits": asdict(H200)}
        versus = {"ratio": ratio, "low": ratio * 0.9, "high": ratio * 1.1}
        rows.append(shape | {"provider": "ours", "ms": 2 * least, "share": 0.5, "versus_ours": None})
        rows.append(shape | {"provider": "bitsandbytes", "ms": 2 * ratio * least, "share": 0.4, "versus_ours": versus})
    return rows


def circles(svg):
    return [mark for mark in ElementTree.fromstring(svg).findall(".//{*}circle") if mark.find("{*}title") is not None]


def test_every_product_is_a_mark_under_the_roof():
    svg = plot.roofline(made_up(1.3))
    assert len(circles(svg)) == 2 * 6 * 13
    roof = next(path for path in ElementTree.fromstring(svg).findall(".//{*}path") if path.get("class") == "roof")
    peak = float(roof.get("d").split("L")[1].split("H")[0].split()[1])
    assert all(peak < float(mark.get("cy")) < 380 for mark in circles(svg))


@pytest.mark.parametrize("ratio", [0.5, 1.0, 1.3, 9.0])
def test_a_ratio_above_one_is_above_the_line(ratio):
    svg = ElementTree.fromstring(plot.ratios(made_up(ratio)))
    marks = [mark for mark in svg.findall(".//{*}circle") if mark.find("{*}title") is not None]
    lines = [path for path in svg.findall(".//{*}path") if path.get("class") == "one"]
    assert len(marks) == 6 * 13 and len(lines) == 6
    line, mark = float(lines[0].get("d").split()[1].split("H")[0]), float(marks[0].get("cy"))
    assert (mark < line) == (ratio > 1) and (mark > line) == (ratio < 1)


def test_a_file_of_rows_becomes_files_of_charts(tmp_path, capsys):
    append(tmp_path / "made-up.jsonl", made_up(1.3))
    assert plot.main([str(tmp_path / "made-up.jsonl"), str(tmp_path / "charts")]) == 0
    written = sorted(path.name for path in (tmp_path / "charts").iterdir())
    assert written == ["made-up-ratio-dX.svg", "made-up-ratio-forward.svg", "made-up-roofline.svg"]
    assert "made &lt;up&gt;" in (tmp_path / "charts" / written[0]).read_text()
    append(tmp_path / "none.jsonl", [])
    assert plot.main([str(tmp_path / "none.jsonl"), str(tmp_path)]) == 2
    assert "no products to draw" in capsys.readouterr().err
