"""Runs from a start that follows from the base: they resume to the same bits, and leave an ordinary hat of it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import lowrank
from lowrank.data.encoding.batching import Example
from lowrank.model.llama import Llama
from lowrank.train import trainer
from lowrank.train.assemble import check_originals
from lowrank.train.config import TrainConfig
from lowrank.train.plan.memory import BatchShape, parts
from lowrank.train.resume.checkpoint_adapter import save_checkpoint_adapter

Base = Callable[[], Llama]
STARTS = pytest.mark.parametrize("start", ["loftq", "pissa", "olora"])


@pytest.fixture
def base(golden: Path) -> Base:
    return lambda: lowrank.load(golden / "meta-tiny-mha", "nf4-dq")


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randint(3, 512, (6 + number,), generator=generator).tolist() for number in range(10)]
    return [Example(str(number), tuple(row), (-100, *row[1:])) for number, row in enumerate(rows)]


def config(golden: Path, out: Path, start: str, **tables: dict[str, Any]) -> TrainConfig:
    run = {"out": str(out), "epochs": 2, "batch": 2, "accumulate": 2, "checkpoint_every": 1}
    return TrainConfig.from_dict(
        {
            "base": {"path": str(golden / "meta-tiny-mha")},
            "adapter": {"rank": 4, "start": start, "dropout": 0.1, **tables.get("adapter", {})},
            "optimizer": {"lr": 1e-3, "schedule": "cosine"},
            "run": {**run, **tables.get("run", {})},
        }
    )


def hat(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


@pytest.mark.slow
@STARTS
def test_a_run_that_was_stopped_resumes_to_the_same_bits_and_any_checkpoint_is_a_hat(
    start: str, base: Base, examples: list[Example], golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = trainer.train(base(), examples, config(golden, tmp_path / "whole", start), progress=False)
    calls, original = [], trainer.accumulate

    def interrupted(*arguments: Any) -> None:
        calls.append(None)
        if len(calls) == 6:
            raise KeyboardInterrupt
        original(*arguments)

    settings = config(golden, tmp_path / "cut", start)
    with monkeypatch.context() as patched:
        patched.setattr(trainer, "accumulate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            trainer.train(base(), examples, settings, progress=False)
    resumed = trainer.train(base(), examples, settings, resume=True, progress=False)
    assert [row["loss"] for row in resumed] == [row["loss"] for row in whole]
    one, other = hat(tmp_path / "whole" / "hat"), hat(tmp_path / "cut" / "hat")
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert save_checkpoint_adapter(tmp_path / "cut", tmp_path / "newest") == len(whole)
    newest = hat(tmp_path / "newest")
    assert newest.keys() == one.keys() and all(torch.equal(one[key], newest[key]) for key in one)


@pytest.mark.slow
@STARTS
def test_the_hat_that_is_saved_is_the_model_that_was_trained(
    start: str, base: Base, examples: list[Example], golden: Path, tmp_path: Path
) -> None:
    model = base()
    tokens = torch.tensor([examples[5].tokens])
    before = model(tokens)
    rows = trainer.train(model, examples, config(golden, tmp_path, start, adapter={"dropout": 0.0}), progress=False)
    trained = model(tokens)
    assert (trained - before).abs().max() > 1e-3
    worn = base()
    lowrank.load_adapter(worn, "hat", tmp_path / "hat")
    lowrank.use_adapter(worn, "hat")
    torch.testing.assert_close(worn(tokens), trained, rtol=0, atol=2e-5 * max(1.0, trained.abs().max().item() / 6))
    saved = json.loads((tmp_path / "hat" / "adapter_config.json").read_text())
    assert saved["r"] == (4 if start == "loftq" else 8) and saved["init_lora_weights"] is True
    assert json.loads((tmp_path / "hat" / "lowrank.json").read_text())["training"]["adapter"]["start"] == start
    if start != "loftq":  # the model begins as the base, so the first loss is that of the default start
        default = trainer.train(
            base(), examples, config(golden, tmp_path / "d", "default", adapter={"dropout": 0.0}), progress=False
        )
        assert rows[0]["loss"] == pytest.approx(default[0]["loss"], rel=1e-5)


def test_a_plan_counts_the_start(golden: Path, tmp_path: Path) -> None:
    model = lowrank.load(golden / "meta-tiny-mha", "nf4-dq").config
    items = {
        start: {item.what: item.bytes for item in parts(model, config(golden, tmp_path, start), BatchShape(2, 10, 8))}
        for start in ("default", "loftq", "pissa")
    }
    assert items["default"] == items["loftq"]
    assert items["pissa"]["its start, fp32"] == items["default"]["hat, fp32"]


def test_loftq_needs_the_weights_before_they_were_quantized(golden: Path, tmp_path: Path) -> None:
    settings = config(golden, tmp_path, "loftq")
    check_originals(settings)
    stored = TrainConfig.from_dict(
        {**settings.to_dict(), "base": {"path": str(golden / "hf-tiny-qlora" / "base-bnb-nf4-dq")}}
    )
    with pytest.raises(ValueError, match=r"base\.path: .* is stored in 4 or 8 bits; adapter\.start = 'loftq' needs"):
        check_originals(stored)


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"adapter": {"start": "eva"}}, r"adapter\.start must be one of default, loftq, pissa, olora, got 'eva'"),
        (
            {"adapter": {"start": "pissa", "dora": True}},
            r"adapter\.dora must be left at its default with",
        ),
        (
            {"adapter": {"start": "olora"}, "run": {"parallel": "shards"}},
            r"run\.parallel must be left at its default with adapter\.start = 'olora', got 'shards'",
        ),
        ({"adapter": {"start": "pissa", "alpha": 0}}, r"adapter\.alpha must be above 0 with adapter\.start"),
        ({"adapter": {"start": "loftq"}, "base": {"weights": "bf16"}}, r"base\.weights must be of 4 or 8 bits with"),
        ({"adapter": {"start": "loftq"}, "preference": {"loss": "dpo"}}, r"preference\.loss must be empty with"),
    ],
)
def test_what_has_no_place_beside_a_start_is_refused(tables: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainConfig.from_dict(tables)
