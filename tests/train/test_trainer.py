"""A run: the same seed gives the same bits, resuming gives the same bits, and accumulating gives the same loss."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import lowrank
from lowrank.adapters import adapter_parameters
from lowrank.data.encoding.batching import Example
from lowrank.model.loss import IGNORED
from lowrank.train import assemble, trainer
from lowrank.train.checkpoint import FOLDER
from lowrank.train.config import TrainConfig
from lowrank.train.monitor import Watch


@pytest.fixture
def base(golden: Path):
    return lambda: lowrank.load(golden / "meta-tiny-mha", "nf4-dq")


@pytest.fixture(scope="module")
def examples():
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(6, 20, (10,), generator=generator).tolist()
    rows = [torch.randint(3, 512, (length,), generator=generator).tolist() for length in lengths]
    return [Example(str(i), tuple(row), (*[IGNORED] * (1 + i % 4), *row[1 + i % 4 :])) for i, row in enumerate(rows)]


TORCH_OPS, GROUPED, PACKED = {}, {"group_by_length": True}, {"max_tokens": 24, "pack": 24}
BATCHING = pytest.mark.parametrize("data", [TORCH_OPS, GROUPED, PACKED], ids=["plain", "grouped", "packed"])


def config(out, data=TORCH_OPS, **run):
    table = {"out": str(out), "epochs": 3, "batch": 2, "accumulate": 2, "checkpoint_every": 2, **run}
    return TrainConfig.from_dict(
        {
            "adapter": {"rank": 4, "dropout": 0.1},
            "data": data,
            "optimizer": {"lr": 1e-3, "schedule": "cosine"},
            "run": table,
        }
    )


def without_seconds(rows):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def hat(folder):
    return load_file(folder / "hat" / "adapter_model.safetensors")


def assert_same_hat(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)


def newest(run):
    return max((run / FOLDER).iterdir())


def stop_at(monkeypatch: pytest.MonkeyPatch, step):
    """Makes the training loop meet Ctrl-C at the update of its `step`-th step."""
    calls, original = [], trainer.finish

    def interrupted(*args):
        calls.append(None)
        if len(calls) == step:
            raise KeyboardInterrupt
        return original(*args)

    monkeypatch.setattr(trainer, "finish", interrupted)


@pytest.mark.slow
@BATCHING
def test_the_same_seed_gives_the_same_bits(base, examples, tmp_path: Path, data) -> None:
    first = trainer.train(base(), examples, config(tmp_path / "a", data), progress=False)
    again = trainer.train(base(), examples, config(tmp_path / "b", data), progress=False)
    other = trainer.train(base(), examples, config(tmp_path / "c", data, seed=1), progress=False)
    assert without_seconds(first) == without_seconds(again)
    assert without_seconds(first) != without_seconds(other)
    assert_same_hat(hat(tmp_path / "a"), hat(tmp_path / "b"))


@pytest.mark.long
@BATCHING
@pytest.mark.parametrize("stopped_in", [2, 5, 6])
def test_a_run_that_was_stopped_resumes_to_the_same_bits(
    base, examples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopped_in, data
) -> None:
    whole = trainer.train(base(), examples, config(tmp_path / "whole", data), progress=False)
    assert len(whole) >= 6
    with monkeypatch.context() as patched:
        stop_at(patched, stopped_in)
        with pytest.raises(KeyboardInterrupt):
            trainer.train(base(), examples, config(tmp_path / "cut", data), progress=False)
    assert (tmp_path / "cut" / FOLDER).exists() == (stopped_in > 2)
    resume = stopped_in > 2  # before the first checkpoint there is nothing to go on from
    torch.manual_seed(99)  # the run's own generator state must come from the checkpoint
    resumed = trainer.train(base(), examples, config(tmp_path / "cut", data), resume=resume, progress=False)
    assert without_seconds(resumed) == without_seconds(whole)
    assert_same_hat(hat(tmp_path / "cut"), hat(tmp_path / "whole"))
    lines = (tmp_path / "cut" / "train.jsonl").read_text().splitlines()
    assert without_seconds(map(json.loads, lines)) == without_seconds(whole)


@pytest.mark.slow
def test_accumulating_gives_the_loss_and_gradient_of_one_large_batch(base, examples, tmp_path: Path) -> None:
    settings = {"adapter": {"rank": 4}, "optimizer": {"lr": 1e-3}}
    rows = []
    for batch, accumulate in ((4, 1), (2, 2), (1, 4)):
        run = {"out": str(tmp_path / str(batch)), "epochs": 1, "batch": batch, "accumulate": accumulate}
        rows.append(trainer.train(base(), examples, TrainConfig.from_dict({**settings, "run": run}), progress=False))
    for other in rows[1:]:
        for ours, theirs in zip(rows[0], other, strict=True):
            assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
            assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-4)
            assert ours["supervised_tokens"] == theirs["supervised_tokens"]


@pytest.mark.slow
def test_packing_gives_the_loss_and_gradient_of_rows_of_their_own(base, examples, tmp_path: Path) -> None:
    """One step an epoch holds every example either way; without dropout the whole runs agree to rounding."""
    runs = []
    for name, data in (("own", TORCH_OPS), ("packed", PACKED)):
        run = {"out": str(tmp_path / name), "epochs": 4, "batch": 16}
        settings = {"adapter": {"rank": 4}, "data": data, "optimizer": {"lr": 1e-3}, "run": run}
        runs.append(trainer.train(base(), examples, TrainConfig.from_dict(settings), progress=False))
    for own, packed in zip(*runs, strict=True):
        assert packed["loss"] == pytest.approx(own["loss"], rel=1e-5)
        assert packed["grad_norm"] == pytest.approx(own["grad_norm"], rel=1e-4)
        assert packed["supervised_tokens"] == own["supervised_tokens"]
        assert packed["tokens"] == own["tokens"]
        assert packed["positions"] < own["positions"]


@pytest.mark.slow
@BATCHING
def test_the_log_counts_tokens_and_computed_positions(base, examples, tmp_path: Path, data) -> None:
    rows = trainer.train(base(), examples, config(tmp_path, data), progress=False)
    assert sum(row["tokens"] for row in rows) == 3 * sum(map(len, examples))
    assert all(row["positions"] >= row["tokens"] > row["supervised_tokens"] > 0 for row in rows)


@pytest.mark.slow
def test_gradient_checkpointing_changes_nothing(base, examples, tmp_path: Path) -> None:
    plain = trainer.train(base(), examples, config(tmp_path / "a"), progress=False)
    lean = trainer.train(base(), examples, config(tmp_path / "b", recompute="full"), progress=False)
    assert [row["loss"] for row in lean] == pytest.approx([row["loss"] for row in plain], rel=1e-6)


def test_every_layer_has_learned_after_one_step(base, examples, tmp_path: Path) -> None:
    model = base()
    trainer.train(model, examples[:4], config(tmp_path, epochs=1, recompute="full"), progress=False)
    assert all(
        parameter.abs().sum() > 0 for name, parameter in adapter_parameters(model, "hat").items() if "lora_B" in name
    )


@pytest.mark.slow
def test_the_base_is_not_written_to(base, examples, tmp_path: Path) -> None:
    model = base()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trainer.train(model, examples, config(tmp_path), progress=False)
    lowrank.drop_adapter(model, "hat")
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.slow
def test_a_run_that_is_there_is_not_overwritten_unasked(base, examples, tmp_path: Path) -> None:
    trainer.train(base(), examples, config(tmp_path), progress=False)
    kept = newest(tmp_path).read_bytes()
    with pytest.raises(ValueError, match="holds a run already"):
        trainer.train(base(), examples, config(tmp_path, seed=1), progress=False)
    assert newest(tmp_path).read_bytes() == kept
    trainer.train(base(), examples, config(tmp_path, seed=1), overwrite=True, progress=False)
    assert newest(tmp_path).read_bytes() != kept


def test_nothing_to_resume_is_told(base, examples, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"checkpoints: no such checkpoint"):
        trainer.train(base(), examples, config(tmp_path), resume=True, progress=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"seed": 5}, r"run\.seed = 0, not 5"),
        ({"batch": 3}, r"run\.batch = 2, not 3"),
        ({"data": GROUPED}, r"data\.group_by_length = False, not True"),
        ({"data": {"max_tokens": 24}}, r"data\.max_tokens = 1024, not 24"),
    ],
    ids=["seed", "batch", "grouping", "max_tokens"],
)
def test_a_checkpoint_of_another_run_is_refused(base, examples, tmp_path: Path, changed, message) -> None:
    trainer.train(base(), examples, config(tmp_path), progress=False)
    with pytest.raises(ValueError, match=message):
        trainer.train(base(), examples, config(tmp_path, **changed), resume=True, progress=False)


@pytest.mark.slow
def test_a_checkpoint_of_other_data_or_another_base_is_refused(base, examples, golden: Path, tmp_path: Path) -> None:
    trainer.train(base(), examples, config(tmp_path), progress=False)
    with pytest.raises(ValueError, match=r"data\.sha256"):
        trainer.train(base(), examples[1:], config(tmp_path), resume=True, progress=False)
    other = lowrank.load(golden / "meta-tiny-gqa-mp2", "nf4-dq")
    with pytest.raises(ValueError, match=r"base\.fingerprint"):
        trainer.train(other, examples, config(tmp_path), resume=True, progress=False)


@pytest.mark.slow
def test_a_damaged_checkpoint_is_told_with_the_one_before_it(base, examples, tmp_path: Path) -> None:
    trainer.train(base(), examples, config(tmp_path), progress=False)
    path = newest(tmp_path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"step-00000009\.pt: not a whole checkpoint: .*from step-00000008\.pt"):
        trainer.train(base(), examples, config(tmp_path), resume=True, progress=False)
    path.unlink()
    assert len(trainer.train(base(), examples, config(tmp_path), resume=True, progress=False)) == 9


@pytest.mark.slow
def test_a_run_that_goes_on_by_other_paths_says_so_in_a_line(
    base, examples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer.train(base(), examples, config(tmp_path), progress=False)
    newest(tmp_path).unlink()
    trainer.train(base(), examples, config(tmp_path), resume=True, progress=False)
    assert "paths" not in capsys.readouterr().out
    newest(tmp_path).unlink()
    here = assemble.products_of(base())
    assert any(name.startswith("linear dX") for name in here)
    monkeypatch.setattr(assemble, "products_of", lambda model: {**here, "cpu": "another processor, avx9"})
    trainer.train(base(), examples, config(tmp_path), resume=True, progress=False)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("resume: ")]
    assert line.endswith("another processor, avx9") and "was computed on other paths, so bits will differ: cpu:" in line


def damage(model, call):
    """Makes the output of a layer not a number in one of its calls, or from the first of several on."""
    calls, layer = [], model.layers[1].feed_forward.w2

    def hook(_module, _inputs, output):
        calls.append(None)
        return output * float("nan") if len(calls) - 1 in call else output

    layer.register_forward_hook(hook)
    return model


def test_a_step_that_is_not_finite_is_skipped_and_changes_nothing(base, examples, tmp_path: Path) -> None:
    one = trainer.train(damage(base(), {3}), examples, config(tmp_path / "a", epochs=1), progress=False)
    assert [row.get("skipped") for row in one] == [None, True, None]
    assert one[1]["loss"] is None and one[1]["grad_norm"] is None
    state = torch.load(newest(tmp_path / "a"), weights_only=True)
    assert state["optimizer_steps"] == 2
    json.loads((tmp_path / "a" / "train.jsonl").read_text().splitlines()[1], parse_constant=pytest.fail)


def test_too_many_steps_that_are_not_finite_stop_the_run_with_the_layer(base, examples, tmp_path: Path) -> None:
    settings = config(tmp_path).to_dict()
    settings["optimizer"]["max_skipped"] = 2
    with pytest.raises(
        FloatingPointError, match=r"step 5: the output of layers\.1\.feed_forward\.w2 is not finite, 3 st"
    ):
        trainer.train(damage(base(), range(4, 99)), examples, TrainConfig.from_dict(settings), progress=False)


def test_a_gradient_that_is_not_finite_names_its_layer(base, examples, tmp_path: Path) -> None:
    model = base()
    settings = config(tmp_path).to_dict()
    settings["optimizer"]["max_skipped"] = 0
    run = trainer.Trainer(model, examples, TrainConfig.from_dict(settings))
    run.parameters["layers.0.attention.wo.lora_B"].register_hook(lambda gradient: gradient * float("inf"))
    with (
        pytest.raises(FloatingPointError, match=r"step 1: the gradient of layers\.0\.attention\.wo\.lora_B is not"),
        run.prepared(),
        Watch(tmp_path, run.config, run.steps, model.config, [], False, None) as watch,
    ):
        run.step(*next(run.schedule.from_step(0)), watch)


@pytest.mark.slow
def test_a_dora_is_trained_resumed_and_saved_as_peft_has_it(
    base, examples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losses and files bit for bit, its magnitudes among them, which have learned."""

    def dora(out):
        table = {"adapter": {"rank": 4, "dropout": 0.1, "dora": True}, "optimizer": {"lr": 1e-2}}
        run = {"out": str(out), "epochs": 1, "batch": 2, "accumulate": 2, "checkpoint_every": 1}
        return TrainConfig.from_dict({**table, "run": run})

    whole = trainer.train(base(), examples, dora(tmp_path / "whole"), progress=False)
    with monkeypatch.context() as stopped, pytest.raises(KeyboardInterrupt):
        stop_at(stopped, 2)
        trainer.train(base(), examples, dora(tmp_path / "stopped"), progress=False)
    resumed = trainer.train(base(), examples, dora(tmp_path / "stopped"), resume=True, progress=False)
    assert without_seconds(resumed) == without_seconds(whole)
    assert_same_hat(hat(tmp_path / "whole"), hat(tmp_path / "stopped"))
    model = base()
    lowrank.add_adapter(model, "start", rank=4, dora=True)
    start = adapter_parameters(model, "start")
    lowrank.load_adapter(model, "end", tmp_path / "whole" / "hat")
    for path, parameter in adapter_parameters(model, "end").items():
        assert not torch.equal(parameter, start[path])
    assert sum(path.endswith("magnitude_vector") for path in start) * 3 == len(start)


def test_a_dora_is_not_cut_over_processes() -> None:
    with pytest.raises(ValueError, match=r"adapter\.dora must be false with run\.parallel = 'shards'"):
        TrainConfig.from_dict({"adapter": {"dora": True}, "run": {"parallel": "shards"}})
