"""The outside of a run: files, bar, held-out loss and samples, trackers, and the page."""

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from lowrank.cli import main
from lowrank.train.config import TrainConfig
from lowrank.train.from_config import train_from_config
from lowrank.train.monitor import Watch, read_rows
from lowrank.train.report import write_report
from lowrank.train.trackers import find_tracker

ROWS = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": None, "skipped": True}]


def config(out: Path, **watch: object) -> TrainConfig:
    return TrainConfig.from_dict(
        {
            "adapter": {"rank": 1},
            "data": {"max_tokens": 260},
            "run": {"out": str(out), "epochs": 1, "batch": 16, "keep": 1},
            "watch": {"held_out": "documents", "every": 2, **watch},
        }
    )


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a few documents of the embedded base, watched."""
    folder = tmp_path_factory.mktemp("run") / "watched"
    train_from_config(config(folder, samples=1), progress=False)
    return folder


@pytest.mark.long
def test_held_out_loss_and_samples_are_recorded(out: Path) -> None:
    rows, held_out = read_rows(out / "train.jsonl"), read_rows(out / "held_out.jsonl")
    steps = len(rows)
    assert [row["step"] for row in held_out] == [step for step in range(1, steps + 1) if step % 2 == 0 or step == steps]
    assert {row["step"]: row["loss"] for row in held_out} == {
        row["step"]: row["held_out_loss"] for row in rows if "held_out_loss" in row
    }
    (sample,) = held_out[-1]["samples"]
    assert sample["prompt"].startswith("### Instruction:") and sample["reference"] and "text" in sample


@pytest.mark.slow
def test_the_best_hat_and_its_checkpoint_are_kept(out: Path) -> None:
    best = min(read_rows(out / "held_out.jsonl"), key=lambda row: row["loss"])
    record = json.loads((out / "hat-best" / "lowrank.json").read_text())
    assert record["steps"] == best["step"]
    assert (out / "checkpoints" / f"step-{best['step']:08}.pt").is_file()


@pytest.mark.slow
def test_the_page_is_drawn_at_the_end_and_while_it_runs(out: Path, tmp_path: Path, capsys) -> None:
    assert main(["train", "--report", str(out)]) == 0
    page = (out / "report.html").read_text()
    assert capsys.readouterr().out.strip() == str(out / "report.html")
    assert page.count("<svg") == 2 and "Held out" in page and "adapter.rank" in page
    lines = (out / "train.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "config.json").write_text((out / "config.json").read_text())
    (tmp_path / "train.jsonl").write_text("".join(lines[:2]) + lines[2][:20])  # the third line is being written
    assert "2 steps" in write_report(tmp_path).read_text()


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no run: config\.json is missing"):
        write_report(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"train\.jsonl holds no step yet"):
        write_report(tmp_path)


@pytest.mark.slow
def test_rows_that_a_resumed_run_will_write_again_are_dropped(tmp_path: Path, out: Path) -> None:
    held = [{"step": step, "loss": 1.0, "samples": []} for step in (2, 4, 6)]
    (tmp_path / "held_out.jsonl").write_text("".join(json.dumps(row) + "\n" for row in held))

    log = [{**ROWS[0], "step": step} for step in range(1, 5)]
    with Watch(tmp_path, config(tmp_path), 9, None, log, False, None):
        pass
    assert [row["step"] for row in read_rows(tmp_path / "held_out.jsonl")] == [2, 4]
    assert len(read_rows(tmp_path / "train.jsonl")) == 4


class Recorder(ModuleType):
    """A module with the three functions of Weights & Biases."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.calls: list[tuple[str, object]] = []

    def init(self, **options: object) -> None:
        self.calls.append(("init", options["config"]))

    def log(self, figures: dict[str, float], step: int) -> None:
        self.calls.append((f"step {step}", figures))

    def finish(self) -> None:
        self.calls.append(("finish", None))


@pytest.mark.long
@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_tracker_gets_the_config_and_every_step(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = Recorder(name)
    monkeypatch.setitem(sys.modules, name, module)
    run = config(tmp_path, every=0, trackers=[name])
    rows = train_from_config(run, progress=False).rows
    assert module.calls[0] == ("init", run.to_dict()) and module.calls[-1] == ("finish", None)
    assert [call for call, _ in module.calls[1:-1]] == [f"step {row['step']}" for row in rows]
    assert module.calls[1][1]["loss"] == rows[0]["loss"]


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "trackio"])
def test_a_tracker_that_is_missing_is_named_with_how_to_get_it_before_any_work(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ValueError, match=f"^watch.trackers: {name} is missing: pip install {name}$"):
        train_from_config(config(tmp_path / "out", trackers=[name]), progress=False)
    assert not (tmp_path / "out").exists()


def test_tensorboard_takes_the_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []

    class Writer:
        def __init__(self, folder: str) -> None:
            written.append(folder)

        def add_text(self, name: str, text: str) -> None:
            written.append(name)

        def add_scalar(self, name: str, value: float, step: int) -> None:
            written.append((name, value, step))

        def close(self) -> None:
            written.append("closed")

    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    tracker = find_tracker("tensorboard")(config(tmp_path), tmp_path)
    tracker.log(3, {"loss": 1.5})
    tracker.close()
    assert written == [str(tmp_path / "tensorboard"), "config", ("loss", 1.5, 3), "closed"]


def test_what_stands_behind_the_bar(tmp_path: Path, embedded: Path) -> None:
    from lowrank.model.config_json import read_config

    row = {"loss": 1.25, "tokens": 500, "seconds": 0.5, "positions": 600, "pairs": 60_000, "supervised_tokens": 300}
    with Watch(tmp_path, config(tmp_path), 9, read_config(embedded), [], False, 1.0) as watch:
        shown = watch.shown({**row, "step": 1, "held_out_loss": 1.5})
        assert {key: shown[key] for key in ("loss", "tok/s", "held out")} == {
            "loss": "1.250",
            "tok/s": "1,000",
            "held out": "1.500",
        }
        assert shown["of limit"].endswith("%") and float(shown["GB"]) > 0
        assert watch.shown({**row, "loss": None})["loss"] == "skipped"
