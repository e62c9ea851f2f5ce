"""Every hat of a sweep is the one that its config trains alone; a sweep that is stopped goes on to the same bits."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lowrank.checkpoints.load import load_tokenizer
from lowrank.train.data import RunData, read_run_data
from lowrank.train.from_config import train_from_config
from lowrank.train.monitor import read_rows
from lowrank.train.resume.signals import RunStopped
from lowrank.train.sweep import run
from lowrank.train.sweep.axes import Sweep
from lowrank.train.sweep.plan import groups, make_plan
from lowrank.train.sweep.write import write_results

WORDS = ["the", "cash", "flow", "of", "this", "quarter", "was", "higher", "than", "that", "margin", "fell"]
HAT = "hat/adapter_model.safetensors"


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A run on the embedded base, with eight short entries of different lengths, and ten that are held out."""
    generator = torch.Generator().manual_seed(0)
    for name, count in (("train", 8), ("held", 10)):
        rows = []
        for number in range(count):
            length = 3 + number % 5
            picked = torch.randint(len(WORDS), (length + 4,), generator=generator).tolist()
            rows.append({"instruction": WORDS[number], "output": " ".join(WORDS[place] for place in picked)})
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = tmp_path / "recipe.toml"
    path.write_text(f"""
[adapter]
rank = 4
[data]
train = "{tmp_path / "train.jsonl"}"
[optimizer]
lr = 2e-3
schedule = "cosine"
clip = 0.5
[run]
out = "{tmp_path / "out"}"
epochs = 2
batch = 3
checkpoint_every = 2
[watch]
held_out = "{tmp_path / "held.jsonl"}"
every = 3
samples = 0
""")
    return path


def read(recipe: Path, *words: str) -> tuple[Sweep, RunData]:
    sweep = Sweep.read(recipe, words)
    return sweep, read_run_data(sweep.config, load_tokenizer("embedded"))


def without_seconds(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


@pytest.mark.long
@pytest.mark.parametrize(
    "words",
    [
        ("adapter.rank=2,4", "optimizer.lr=1e-3,3e-3", "seed=0,1"),
        ("adapter.dropout=0.0,0.3", "adapter.targets=all,attention", "run.accumulate=1,2", "run.recompute=selective"),
        ("run.epochs=1,2", "data.pack=0,64", "data.max_tokens=64", "run.recompute=full", "adapter.dropout=0.2"),
        ("optimizer.states=fp32,8bit", "run.batch=2,3", "data.group_by_length=true,false"),
    ],
    ids=["rank-lr-seed", "dropout-targets-accumulate", "epochs-pack", "states-batch-grouped"],
)
def test_each_hat_is_that_of_its_own_run(recipe: Path, tmp_path: Path, words: tuple[str, ...]) -> None:
    """The bounds of one batch in parts (`test_trainer`): 1e-5 of a loss, 1e-4 of a gradient's norm."""
    sweep, data = read(recipe, *words)
    run.train_together(sweep, data, progress=False, at_once=150)
    for point in sweep.points:
        alone = tmp_path / "alone" / point.name
        tables = {**point.config.to_dict()}
        tables["run"]["out"] = str(alone)
        train_from_config(type(point.config).from_dict(tables), data=data, progress=False)
        ours, theirs = read_rows(point.out / "train.jsonl"), read_rows(alone / "train.jsonl")
        assert len(ours) == len(theirs) > 1
        for one, other in zip(ours, theirs, strict=True):
            assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)
            assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-4)
            for key in ("step", "lr", "supervised_tokens", "tokens", "positions", "pairs"):
                assert one[key] == other[key], key
            assert one.get("held_out_loss", 0) == pytest.approx(other.get("held_out_loss", 0), rel=1e-5)
        hat, expected = load_file(point.out / HAT), load_file(alone / HAT)
        assert hat.keys() == expected.keys()
        apart = sum((hat[key] - expected[key]).norm() ** 2 for key in hat) ** 0.5
        moved = sum(expected[key].norm() ** 2 for key in hat if "lora_B" in key) ** 0.5
        assert apart <= 1e-3 * moved


@pytest.mark.long
def test_a_sweep_that_is_stopped_goes_on_to_the_same_bits(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("adapter.rank=2,4", "run.accumulate=1,2", "adapter.dropout=0.2")
    whole, data = read(recipe, *words, f"run.out={tmp_path / 'whole'}")
    run.train_together(whole, data, progress=False)
    cut, data = read(recipe, *words)
    calls, original = [], run.train_pass

    def sending(*arguments: object) -> None:
        calls.append(None)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        original(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(run, "train_pass", sending)
        with pytest.raises(RunStopped, match="4 of 4 hats have a checkpoint"):
            run.train_together(cut, data, progress=False)
    with pytest.raises(ValueError, match="holds a sweep already"):
        run.train_together(cut, data, progress=False)
    other, _ = read(recipe, "adapter.rank=2,8", "run.accumulate=1,2", "adapter.dropout=0.2")
    with pytest.raises(ValueError, match="is a sweep of"):
        run.train_together(other, data, progress=False, resume=True)
    trained = run.train_together(cut, data, progress=False, resume=True)
    for mine, theirs in zip(cut.points, whole.points, strict=True):
        rows = [read_rows(point.out / "train.jsonl") for point in (mine, theirs)]
        assert without_seconds(rows[0]) == without_seconds(rows[1])
        ours, expected = load_file(mine.out / HAT), load_file(theirs.out / HAT)
        assert all(torch.equal(ours[key], expected[key]) for key in expected)
    results = write_results(cut, data, trained, 0.01)
    assert [point["steps"] for point in results["points"]] == [
        len(read_rows(p.out / "train.jsonl")) for p in cut.points
    ]
    assert (tmp_path / "out" / "sweep.html").is_file()


@pytest.mark.slow
def test_a_hat_that_diverges_ends_alone(recipe: Path) -> None:
    sweep, data = read(recipe, "optimizer.lr=1e-3,1e30", "optimizer.max_skipped=0", "optimizer.clip=0")
    trained = run.train_together(sweep, data, progress=False)
    kept, lost = trained[0]
    assert not kept.failed and "is not finite" in lost.failed
    results = write_results(sweep, data, trained, 0.01)
    assert [point["held_out_loss"] is None for point in results["points"]] == [False, True]
    assert not results["differences"]


def test_batches_go_together_up_to_so_many_positions() -> None:
    assert groups([3, 3, 3], 6) == [[0, 1], [2]]
    assert groups([9, 2, 2, 9], 4) == [[0], [1, 2], [3]]


def test_the_plan_counts_the_base_once_and_every_hat(recipe: Path) -> None:
    from lowrank.checkpoints.embedded import base_folder
    from lowrank.checkpoints.open_base import open_base

    model = open_base(base_folder("embedded")).config
    one, data = read(recipe, "adapter.rank=4,8")
    three, _ = read(recipe, "adapter.rank=4,8,16")
    plans = [make_plan(model, sweep.points, data.examples, 100, 0) for sweep in (one, three)]
    more = plans[1].parameters - plans[0].parameters
    assert plans[1].peak_bytes - plans[0].peak_bytes == pytest.approx(16 * more, rel=0.2)
    wider = make_plan(model, one.points, data.examples, 1000, 0)
    assert wider.positions > plans[0].positions
    assert wider.peak_bytes > plans[0].peak_bytes


@pytest.mark.slow
def test_the_command_line_plans_refuses_what_does_not_fit_and_tells(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from lowrank.cli import main
    from lowrank.train.sweep import plan

    words = ["sweep", str(recipe), "adapter.rank=2,4", "seed=0,1", "run.max_steps=1"]
    assert main([*words, "--plan"]) == 0
    assert "4 hats, fp32" in capsys.readouterr().out
    with monkeypatch.context() as patched:
        patched.setattr(plan, "available_bytes", lambda device: 1000)
        assert main(words) == 2
    assert "0.00 GB are free" in capsys.readouterr().err
    assert not (recipe.parent / "out" / "sweep.json").exists()
    assert main([*words, "--resume"]) == 2
    assert main([*words, "--json"]) == 0
    results = json.loads(capsys.readouterr().out)
    assert len(results["points"]) == 4 and results["held_out"]["entries"] == 10
    assert results["smallest_rank"]["best"] in (2, 4)
    assert main([*words, "--overwrite"]) == 0
    assert "held-out loss" in capsys.readouterr().out
