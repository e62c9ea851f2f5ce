"""The bench of exact numerics, on the CPU at a tiny size: a row, a wrong loss. No time is looked at."""

import json
from pathlib import Path

import pytest

from lowrank.bench.models import exact_step
from lowrank.bench.models.exact_step import main
from lowrank.kernels.cpu import library

pytestmark = [
    pytest.mark.skipif(bool(library.unavailable_reason()), reason=library.unavailable_reason()),
    pytest.mark.usefixtures("cores"),
]


def test_a_row(tmp_path: Path) -> None:
    assert main(["--steps", "2", "--out", str(tmp_path)]) == 0
    (row,) = (json.loads(line) for line in (tmp_path / "exact.jsonl").read_text().splitlines())
    assert (row["bench"], row["shape"], row["batch"], row["length"], row["rank"]) == ("exact", "tiny", 2, 32, 8)
    assert row["exact"]["repetitions"] == row["fast"]["repetitions"] == 2 and row["exact_over_fast"]["ratio"] > 0


def test_a_loss_that_is_not_finite_has_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(exact_step, "measure", lambda *given: ({"exact": [1.0], "fast": [1.0]}, [float("nan")]))
    assert main(["--out", str(tmp_path)]) == 1
    assert "not finite" in capsys.readouterr().err and not list(tmp_path.iterdir())
