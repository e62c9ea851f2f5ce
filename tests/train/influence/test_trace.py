"""`lowrank inspect data` on a run of three small documents: its figures, its page, and what it refuses in one line."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import lowrank
from lowrank.cli import main
from lowrank.train.config import TrainConfig
from lowrank.train.from_config import train_from_config

PAIRS = [("Name a colour.", "Red is one."), ("Name a metal.", "Tin is one."), ("Name a colour again.", "Red, again.")]
Run = tuple[int, str, str]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("influence")
    rows = [json.dumps({"instruction": asked, "output": told}) + "\n" for asked, told in PAIRS]
    (folder / "train.jsonl").write_text("".join(rows))
    (folder / "test.jsonl").write_text(rows[0])
    return folder


def config(files: Path, out: str, **tables: dict[str, Any]) -> TrainConfig:
    run = {"epochs": 2, "batch": 2, "checkpoint_every": 2, "out": str(files / out), **tables.pop("run", {})}
    data = {"train": str(files / "train.jsonl"), **tables.pop("data", {})}
    adapter = {"rank": 2, "targets": ["wq", "w2"], **tables.pop("adapter", {})}
    return TrainConfig.from_dict({"data": data, "run": run, "adapter": adapter, "optimizer": {"lr": 1e-2}, **tables})


@pytest.fixture(scope="module")
def run(files: Path) -> Path:
    """One of four steps that learns nothing of its second document."""
    train_from_config(config(files, "run", data={"exclude": ["train:2"]}), progress=False)
    return files / "run"


@pytest.fixture
def inspect(capsys: pytest.CaptureFixture[str]) -> Callable[..., Run]:
    def inspected(*arguments: object) -> Run:
        status = main(["inspect", "data", *map(str, arguments)])
        return status, *capsys.readouterr()

    return inspected


@pytest.mark.slow
def test_the_page_has_what_is_printed(inspect: Callable[..., Run], files: Path, run: Path) -> None:
    page = files / "page.html"
    status, out, _ = inspect(run, "--test", files / "test.jsonl", "--html", page)
    assert status == 0 and "test:1" in out and "after 2, 4 of 4 steps" in out
    text = page.read_text(encoding="utf-8")
    assert text.count("<svg") == 1 and "Red, again." in text and "pruthi2020tracin" in text and "nan" not in text


@pytest.mark.slow
def test_python_has_the_figures_of_the_command_line(inspect: Callable[..., Run], files: Path, run: Path) -> None:
    arguments = ("--test", files / "test.jsonl", "--json", "--top", 1, "--method", "sgd")
    xray = lowrank.inspect.data(run, files / "test.jsonl", top=1, method="sgd")
    assert json.loads(inspect(run, *arguments)[1]) == xray.to_json()
    assert [one["id"] for one in xray.to_json()["train"]] == ["train:1", "train:2", "train:3"]
    assert "train:1" in xray.table() and "train:1" in xray.plot().text
    found = xray.result
    assert found.effect[0, 0] > 0 and found.own[0] > 0
    assert found.effect[0, 1] == found.own[1] == 0.0, "the document of weight 0"


@pytest.fixture(scope="module")
def odd_runs(files: Path, run: Path) -> Path:
    """Folders of runs whose gradients cannot be had."""
    first_row = (files / "train.jsonl").read_text().splitlines(keepends=True)[0]
    (files / "short.jsonl").write_text(first_row)
    for name, tables in {
        "bare": {},
        "dpo": {"preference": {"loss": "dpo"}},
        "other": {"data": {"train": str(files / "short.jsonl")}},
    }.items():
        (files / name).mkdir()
        (files / name / "config.json").write_text(json.dumps(config(files, name, **tables).to_dict()))
    (files / "other" / "checkpoints").symlink_to(run / "checkpoints")
    return files


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([""], r"must be the folder of a run, with its config\.json"),
        (["run", "--n", "0"], "--n must be at least 1, got 0"),
        (["run", "--top", "0"], "--top must be at least 1, got 0"),
        (["run", "--test", "none.jsonl"], "none.jsonl: no such file"),
        (["bare"], r"kept no checkpoint.*: train with run\.checkpoint_every=1 run\.keep=4"),
        (["dpo"], r"preference\.loss must be empty where influence is asked for, got 'dpo'"),
        (["other"], r"its data must be what it was trained with"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line(
    inspect: Callable[..., Run], odd_runs: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(odd_runs)
    status, out, error = inspect(odd_runs / arguments[0], *arguments[1:])
    assert (status, out) == (2, "") and re.search(message, error) and len(error.splitlines()) == 1
