"""The bench of a training step, on the CPU at a tiny size: a row, a wrong loss, a plan. No time is looked at."""

import json
from pathlib import Path

import pytest

from lowrank.bench.models import train_step
from lowrank.bench.models.train_step import main


@pytest.mark.slow
def test_a_row_a_batch(tmp_path: Path) -> None:
    assert main(["--steps", "2", "--out", str(tmp_path)]) == 0
    (file,) = tmp_path.iterdir()
    (row,) = (json.loads(line) for line in file.read_text().splitlines())
    assert (row["op"], row["shape"], row["batch"], row["length"], row["rank"]) == ("training step", "tiny", 2, 64, 8)
    assert row["tokens_a_second"] > 0 and 0 < row["loss"] < 20 and row["repetitions"] == 2


def test_a_loss_that_is_not_finite_has_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(train_step, "measure", lambda *given: ([1.0], float("nan")))
    assert main(["--out", str(tmp_path)]) == 1
    assert "not finite" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_a_dry_run_makes_no_model(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(train_step, "random_model", lambda *given: pytest.fail("a dry run made a model"))
    assert main(["--shape", "7b", "--device", "cuda", "--dry-run"]) == 0
    assert "2 x 2048" in capsys.readouterr().out
