"""A run that is stopped, resumed, lengthened, ended early, or begun from a hat; and the hat of any checkpoint."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lowrank.atomic_io import sha256_of
from lowrank.data.encoding.batching import Example
from lowrank.model.llama import Llama
from lowrank.train import trainer
from lowrank.train.checkpoint import FOLDER, Checkpoints
from lowrank.train.config import TrainConfig
from lowrank.train.monitor import HeldOut
from lowrank.train.resume.checkpoint_adapter import save_checkpoint_adapter
from lowrank.train.resume.folder import STOP
from lowrank.train.resume.signals import RunStopped

Base = Callable[[], Llama]
Configure = Callable[..., TrainConfig]
WEIGHTS, RECORD = "adapter_model.safetensors", "lowrank.json"


def train(base: Base, examples: list[Example], config: TrainConfig, **options: object) -> list[dict[str, object]]:
    rows = trainer.train(base(), examples, config, progress=False, **options)
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def record(hat: Path) -> dict[str, object]:
    return json.loads((hat / RECORD).read_text())


def send(number: int, monkeypatch: pytest.MonkeyPatch, function: str, at: int) -> None:
    """Sends this process a signal in the `at`-th call of a function of the trainer."""
    calls, original = [], getattr(trainer, function)

    def sending(*arguments: object) -> object:
        calls.append(None)
        if len(calls) == at:
            os.kill(os.getpid(), number)
        return original(*arguments)

    monkeypatch.setattr(trainer, function, sending)


@pytest.fixture
def is_heard(number: signal.Signals) -> Iterator[None]:
    """Under nohup a run ignores SIGHUP, as it was told to; here it must hear it."""
    before = signal.getsignal(number)
    if before == signal.SIG_IGN:
        signal.signal(number, signal.SIG_DFL)
    yield
    signal.signal(number, before)


@pytest.mark.slow
@pytest.mark.usefixtures("is_heard")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize(("function", "at", "cursor"), [("finish", 4, (4, 0)), ("accumulate", 6, (3, 1))])
def test_a_signal_writes_a_checkpoint_from_which_the_run_comes_to_the_same_bits(
    base: Base,
    examples: list[Example],
    config: Configure,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
    function: str,
    at: int,
    cursor: tuple[int, int],
) -> None:
    whole = train(base, examples, config(tmp_path / "whole"))
    before = signal.getsignal(number)
    with monkeypatch.context() as patched:
        send(number, patched, function, at)
        with pytest.raises(RunStopped, match=rf"stopped by {number.name} after {cursor[0]} of 9 steps.*, with a check"):
            train(base, examples, config(tmp_path / "cut"))
    assert signal.getsignal(number) == before
    assert Checkpoints(tmp_path / "cut", 1).cursors() == [cursor]
    assert not (tmp_path / "cut" / "hat").exists()
    assert train(base, examples, config(tmp_path / "cut"), resume="auto") == whole
    assert sha256_of(tmp_path / "cut" / "hat" / WEIGHTS) == sha256_of(tmp_path / "whole" / "hat" / WEIGHTS)


def test_a_second_signal_ends_at_once(
    base: Base, examples: list[Example], config: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = trainer.finish

    def twice(*arguments: object) -> object:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        return original(*arguments)

    monkeypatch.setattr(trainer, "finish", twice)
    with pytest.raises(KeyboardInterrupt) as stop:
        train(base, examples, config(tmp_path))
    assert not isinstance(stop.value, RunStopped) and not (tmp_path / FOLDER).exists()


@pytest.mark.slow
def test_a_signal_in_the_last_step_lets_the_run_end(
    base: Base, examples: list[Example], config: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(signal.SIGTERM, monkeypatch, "finish", 9)
    assert len(train(base, examples, config(tmp_path))) == 9
    assert (tmp_path / "hat" / WEIGHTS).is_file()


@pytest.mark.slow
def test_a_run_that_is_asked_to_stop_ends_with_its_hat_and_may_go_on(
    base: Base, examples: list[Example], config: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = trainer.finish

    def asking(*arguments: object) -> object:
        (tmp_path / STOP).touch()
        return original(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(trainer, "finish", asking)
        assert len(train(base, examples, config(tmp_path))) == 1
    assert record(tmp_path / "hat")["ended_early"] == {"of_steps": 9, "reason": "asked to stop"}
    assert not (tmp_path / STOP).exists()
    assert len(train(base, examples, config(tmp_path), resume=True)) == 9
    assert "ended_early" not in record(tmp_path / "hat")


@pytest.mark.slow
def test_added_epochs_are_a_phase_of_their_own_that_the_hat_records(
    base: Base, examples: list[Example], config: Configure, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    three = train(base, examples, config(tmp_path / "a"))
    capsys.readouterr()
    five = train(
        base, examples, config(tmp_path / "a", run={"epochs": 5}, optimizer={"lr": 5e-4, "warmup": 1}), resume=True
    )
    assert "steps 10 to 15 have a schedule of their own, cosine from 0.0005" in capsys.readouterr().out
    assert five[:9] == three and len(five) == 15
    assert [row["lr"] for row in five[9:11]] == [5e-4, 5e-4] and five[-1]["lr"] == pytest.approx(0, abs=1e-12)
    phases = record(tmp_path / "a" / "hat")["phases"]
    assert [(phase["start"], phase["end"], phase["settings"]["optimizer.lr"]) for phase in phases] == [
        (0, 9, 1e-3),
        (9, 15, 5e-4),
    ]
    longer = train(base, examples, config(tmp_path / "b", run={"epochs": 5}))
    assert longer[:9] != five[:9]  # a run that had five epochs from its beginning is another


@pytest.mark.slow
def test_epochs_added_at_a_constant_rate_see_the_data_of_a_longer_run(
    base: Base, examples: list[Example], config: Configure, tmp_path: Path
) -> None:
    constant = {"optimizer": {"schedule": "constant"}}
    train(base, examples, config(tmp_path / "a", run={"epochs": 1.5}, **constant))
    added = train(base, examples, config(tmp_path / "a", **constant), resume=True)
    assert added == train(base, examples, config(tmp_path / "b", **constant))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tables", "refused"),
    [
        ({"optimizer": {"max_skipped": 9}}, ""),
        ({"watch": {"samples": 0, "held_out": "documents"}}, ""),
        ({"base": {"device": "cpu:0", "dtype": "fp32", "weights": "nf4-dq"}}, ""),
        ({"adapter": {"targets": ["wq", "wk", "wv", "wo", "w1", "w2", "w3"], "name": "other"}}, ""),
        ({"data": {"train": "elsewhere.jsonl", "entries": 10}, "run": {"keep": 5, "checkpoint_every": 1}}, ""),
        ({"optimizer": {"lr": 5e-4}}, r"optimizer\.lr = 0\.001, not 0\.0005"),
        ({"optimizer": {"clip": 1.0}}, r"optimizer\.clip = 0\.3, not 1\.0"),
        ({"adapter": {"targets": "attention"}}, r"adapter\.targets = "),
        ({"base": {"weights": "nf4"}}, r"base\.weights = 'nf4-dq', not 'nf4'"),
        ({"run": {"seed": 5}}, r"run\.seed = 0, not 5"),
    ],
    ids=str,
)
def test_what_may_change_and_what_is_refused_by_name(
    base: Base,
    examples: list[Example],
    config: Configure,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tables: dict[str, dict[str, object]],
    refused: str,
) -> None:
    train(base, examples, config(tmp_path, run={"epochs": 0.5}))
    tables = {**tables, "run": {"epochs": 0.5, **tables.get("run", {})}}
    if refused:
        with pytest.raises(ValueError, match=refused):
            train(base, examples, config(tmp_path, **tables), resume=True)
    else:
        assert len(train(base, examples, config(tmp_path, **tables), resume=True)) == 2


@pytest.mark.slow
def test_a_run_starts_from_a_hat_and_says_which(
    base: Base, examples: list[Example], config: Configure, tmp_path: Path
) -> None:
    train(base, examples, config(tmp_path / "first"))
    start = {"adapter": {"from": str(tmp_path / "first" / "hat"), "dropout": 0.1}}
    made = TrainConfig.from_dict({**start, "run": {"out": str(tmp_path / "second"), "epochs": 1, "batch": 2}})
    assert (made.adapter.rank, made.adapter.alpha, made.adapter.dropout) == (4, 16.0, 0.1)
    assert TrainConfig.from_dict(made.to_dict()) == made and made.to_dict()["adapter"]["from"]
    run = trainer.Trainer(base(), examples, made)
    stored = load_file(tmp_path / "first" / "hat" / WEIGHTS)
    assert sum(float(matrix.detach().square().sum()) for matrix in run.parameters.values()) == pytest.approx(
        sum(float(tensor.square().sum()) for tensor in stored.values()), rel=1e-6
    )
    one = train(base, examples, made)
    assert train(base, examples, made, resume=True) == one
    other = tmp_path / "first" / "moved"
    (tmp_path / "first" / "hat").rename(other)
    moved = TrainConfig.from_dict({**made.to_dict(), "adapter": {"from": str(other), "dropout": 0.1}})
    assert train(base, examples, moved, resume=True) == one  # the same hat in another place
    train(base, examples, config(tmp_path / "third", run={"seed": 1}))
    another = {"from": str(tmp_path / "third" / "hat"), "dropout": 0.1}
    with pytest.raises(ValueError, match=r"belongs to a run with adapter\.from = "):
        train(base, examples, TrainConfig.from_dict({**made.to_dict(), "adapter": another}), resume=True)


def test_a_shape_that_is_not_that_of_the_hat_is_refused(
    base: Base, examples: list[Example], config: Configure, tmp_path: Path
) -> None:
    train(base, examples, config(tmp_path / "first", run={"epochs": 0.1}))
    hat = str(tmp_path / "first" / "hat")
    with pytest.raises(ValueError, match=r"adapter\.rank must be left out or 4, that of adapter\.from, got 8"):
        TrainConfig.from_dict({"adapter": {"from": hat, "rank": 8}})
    TrainConfig.from_dict({"adapter": {"from": hat, "rank": 4, "targets": "all", "alpha": 16}})
    with pytest.raises(ValueError, match=r"adapter\.from: .*nowhere: "):
        TrainConfig.from_dict({"adapter": {"from": str(tmp_path / "nowhere")}})


@pytest.mark.slow
def test_any_checkpoint_gives_its_hat(base: Base, examples: list[Example], config: Configure, tmp_path: Path) -> None:
    train(base, examples, config(tmp_path / "run", run={"checkpoint_every": 4, "keep": 9}))
    assert save_checkpoint_adapter(tmp_path / "run", tmp_path / "newest") == 9
    end = load_file(tmp_path / "run" / "hat" / WEIGHTS)
    newest = load_file(tmp_path / "newest" / WEIGHTS)
    assert end.keys() == newest.keys() and all(torch.equal(end[key], newest[key]) for key in end)
    assert record(tmp_path / "newest") == record(tmp_path / "run" / "hat")
    assert save_checkpoint_adapter(tmp_path / "run" / FOLDER / "step-00000004.pt", tmp_path / "fourth") == 4
    fourth = load_file(tmp_path / "fourth" / WEIGHTS)
    assert any(not torch.equal(end[key], fourth[key]) for key in end)
    assert record(tmp_path / "fourth")["steps"] == 4
    with pytest.raises(ValueError, match="neither a checkpoint nor a run with one"):
        save_checkpoint_adapter(tmp_path, tmp_path / "x")


class Losses(HeldOut):
    """Held-out losses as they are given."""

    def measure(self, model: object, step: int, team: object, objective: object) -> dict[str, object]:
        return {"step": step, "loss": next(LOSSES), "samples": []}


LOSSES: Iterator[float] = iter(())


@pytest.mark.slow
def test_a_run_ends_when_the_held_out_loss_gets_no_better(
    base: Base, examples: list[Example], config: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "LOSSES", iter([3.0, 2.0, 2.5, 2.0, 1.0]))
    watch = {"watch": {"held_out": "documents", "every": 1, "patience": 2}}
    held_out = Losses(examples, None, 1, 0)
    rows = train(base, examples, config(tmp_path, **watch), held_out=held_out)
    assert [row["held_out_loss"] for row in rows] == [3.0, 2.0, 2.5, 2.0]
    assert record(tmp_path / "hat-best")["steps"] == 2 and record(tmp_path / "hat")["steps"] == 4
    assert record(tmp_path / "hat")["ended_early"]["reason"].startswith("no better held-out loss than after step 2")
    again = train(base, examples, config(tmp_path, **watch), held_out=held_out, resume=True)
    assert len(again) == 4  # it is at its end, until more patience is asked for
    watch["watch"]["patience"] = 3
    more = train(base, examples, config(tmp_path, run={"max_steps": 5}, **watch), held_out=held_out, resume=True)
    assert more[4]["held_out_loss"] == 1.0 and record(tmp_path / "hat-best")["steps"] == 5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "is empty"), (b"garbage", "not a whole checkpoint"), (None, "not a checkpoint of a run")],
    ids=["empty", "garbage", "foreign"],
)
def test_a_checkpoint_that_is_damaged_is_told_and_passed_over_only_when_asked(
    base: Base, examples: list[Example], config: Configure, tmp_path: Path, content: bytes | None, reason: str
) -> None:
    settings = config(tmp_path, run={"checkpoint_every": 4})
    whole = train(base, examples, settings)
    newest = tmp_path / FOLDER / "step-00000009.pt"
    if content is None:
        torch.save([1, 2], newest)
    else:
        newest.write_bytes(content)
    with pytest.raises(
        ValueError, match=rf"step-00000009\.pt: .*{reason}.*; remove it to go on from step-00000008\.pt"
    ):
        train(base, examples, settings, resume=True)
    with pytest.warns(UserWarning, match=r"goes on from the one before it"):
        assert train(base, examples, settings, resume="auto") == whole
    assert (tmp_path / FOLDER / "damaged-step-00000009.pt").exists()
    assert Checkpoints(tmp_path, 1).cursors()[-1] == (9, 0)
