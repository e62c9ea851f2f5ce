"""The plan: counted where the data are, stated where they are not, and the same figures from shapes alone."""

import json
from pathlib import Path

import pytest
import torch

import lowrank
from lowrank.cli import main
from lowrank.data.batching import Example
from lowrank.model.config import ModelConfig
from lowrank.train.config import TrainConfig
from lowrank.train.costs import training_flops
from lowrank.train.loop import train
from lowrank.train.plan import make_plan, shape_of
from lowrank.train.states import state_bytes


def small(golden: Path, out: Path, **run: object) -> TrainConfig:
    return TrainConfig.from_dict(
        {
            "base": {"path": str(golden / "meta-tiny-mha")},
            "adapter": {"rank": 4},
            "optimizer": {"states": "8bit"},
            "run": {"out": str(out), "epochs": 2, "batch": 3, "accumulate": 2, **run},
        }
    )


EXAMPLES = [Example(str(n), tuple(range(3, 9 + n)), (-100, *range(4, 9 + n))) for n in range(8)]


def test_a_plan_counts_what_the_run_then_does(golden: Path, tmp_path: Path) -> None:
    config = small(golden, tmp_path)
    plan = make_plan(config, EXAMPLES)
    rows = train(lowrank.load(config.base.path), EXAMPLES, config, progress=False)
    assert plan.counted and plan.steps == len(rows)
    for key in ("tokens", "positions"):
        assert getattr(plan, key) == sum(row[key] for row in rows)
    assert plan.supervised == sum(row["supervised_tokens"] for row in rows)
    flops = [
        training_flops(shape_of(config), config, row["positions"], row["pairs"], row["supervised_tokens"])
        for row in rows
    ]
    assert plan.flops == sum(flops)


def test_the_bytes_of_hat_and_optimizer_are_those_that_are_held(golden: Path, tmp_path: Path) -> None:
    config = small(golden, tmp_path)
    train(lowrank.load(config.base.path), EXAMPLES, config, progress=False)
    state = torch.load(max((tmp_path / "checkpoints").iterdir()), weights_only=True)
    held = {part.what: part.bytes for part in make_plan(config, EXAMPLES).parts}
    tensors = {kind: [t for name, t in state["tensors"].items() if name[0] in kind] for kind in ("a", "mv")}
    assert held["hat, fp32"] == sum(tensor.nbytes for tensor in tensors["a"])
    assert held["optimizer, 8bit"] == sum(tensor.nbytes for tensor in tensors["mv"])


def test_multiplications_by_hand() -> None:
    """One layer of D 4, F 6, V 5; rank 1 on all: P = 4 D^2 + 3 D F, p = 4 (D + D) + 3 (D + F)."""
    model = ModelConfig(dim=4, n_layers=1, n_heads=2, n_kv_heads=2, hidden_dim=6, vocab_size=5)
    config = TrainConfig.from_dict({"adapter": {"rank": 1}})
    p, hat = 4 * 16 + 3 * 24, 4 * 8 + 3 * 10
    assert training_flops(model, config, 10, 0, 0) == 10 * (4 * p + 6 * hat)
    assert training_flops(model, config, 0, 100, 0) == 100 * 6 * 4
    assert training_flops(model, config, 0, 0, 7) == 7 * 4 * 5 * 4
    again = TrainConfig.from_dict({"adapter": {"rank": 1}, "run": {"recompute": "full"}})
    assert training_flops(model, again, 10, 100, 0) == 10 * (6 * p + 8 * hat) + 100 * 8 * 4


def test_shards_hold_a_part_each_and_pass_the_4_bit_weights() -> None:
    plan = make_plan(TrainConfig.read("qlora-paper-70b"), None)
    whole = {part.what: part.bytes for part in plan.parts}
    two = plan.ranks[0]
    assert (two.processes, [rank.processes for rank in plan.ranks]) == (2, [2, 8, 64, 512])
    assert two.bytes < 48e9 < 1.1 * plan.peak_bytes
    assert [rank.bytes for rank in plan.ranks] == sorted((rank.bytes for rank in plan.ranks), reverse=True)
    layers = sum(size for what, size in whole.items() if what.startswith("linears"))
    assert plan.ranks[-1].traffic > 2 * layers * 4  # four batches a step, forward and backward
    assert plan.host_bytes == sum(state_bytes(1, "paged") for _ in range(1)) * plan.trainable


@pytest.mark.parametrize("name", ["documents-7b", "qlora-paper-70b"])
def test_a_plan_needs_no_weights(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", name, "--plan", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["trainable"] == (19_988_480 if name == "documents-7b" else 828_375_040)
    assert not figures["counted"] and len(figures["limits"]) == 2
    assert list(tmp_path.iterdir()) == []
    assert main(["train", name, "--plan"]) == 0
    shown = capsys.readouterr().out
    assert "predicted peak" in shown and "an H200, assumed: 790 TFLOP/s allow" in shown


def test_a_plan_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"base\.path: nowhere: no such folder, and base\.shape says nothing"):
        make_plan(TrainConfig.from_dict({"base": {"path": "nowhere"}}), None)
    with pytest.raises(ValueError, match=r"data\.train: x\.jsonl: not there, and the recipe does not state data\.entr"):
        make_plan(TrainConfig.from_dict({"data": {"train": "x.jsonl"}}), None)
    with pytest.raises(ValueError, match=r"is not of base\.shape 7b: dim 192, not 4096"):
        make_plan(TrainConfig.from_dict({"base": {"shape": "7b"}}), EXAMPLES)
