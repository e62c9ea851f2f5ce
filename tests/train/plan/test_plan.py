"""The plan: counted where the data are, stated where they are not, and the same figures from shapes alone."""

import json
from pathlib import Path

import pytest
import torch

import lowrank
from lowrank.cli import main
from lowrank.data.encoding.batching import Example, encode_all
from lowrank.data.imports.examples import read_conversations
from lowrank.data.mixture.rows import MixtureRow, write_rows
from lowrank.model.config import ModelConfig
from lowrank.train.adam_state import state_bytes
from lowrank.train.config import TrainConfig
from lowrank.train.plan.flops import training_flops
from lowrank.train.plan.plan import make_plan, shape_of
from lowrank.train.trainer import train


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


@pytest.mark.slow
def test_shards_hold_a_part_each_and_pass_the_4_bit_weights() -> None:
    plan = make_plan(TrainConfig.read("qlora-paper-70b"), None)
    two = plan.ranks[0]
    assert (two.processes, [rank.processes for rank in plan.ranks]) == (2, [2, 8, 64, 512])
    assert two.bytes < 48e9 < 1.1 * plan.peak_bytes
    assert [rank.bytes for rank in plan.ranks] == sorted((rank.bytes for rank in plan.ranks), reverse=True)
    assert plan.host_bytes == sum(state_bytes(1, "paged") for _ in range(1)) * plan.trainable


def test_70b_on_8_64_and_512_processes_by_hand() -> None:
    """qlora-paper-70b: 80 layers of D 8192, F 28672, 8 of 64 heads keep keys; r 64; four batches of 512.

    a layer     2 D^2 + 2 D D/8 + 3 D F = 855,638,016 weights; hat 64 (4 D + 2 (D + D/8) + 3 (D + F)) = 10,354,688
    NF4-DQ      of n weights n/2 + n/64 + 4 n/64/256, and 4 bytes for each of 560 matrices
    around      embedding and head of 32,000 D, 161 norms of D, in bfloat16
    full recompute keeps the input of 80 layers; of one all: h, norm, q, k, v, attention, h, norm; gate, up, product;
    seven times 64 numbers, all in bfloat16; 2 + 64 statistics in float32. Then dX of 2 D + 3 F, and w1 dequantized
    """
    weights, hat = 80 * 855_638_016, 4 * 80 * 10_354_688
    layers = weights // 2 + weights // 64 + 4 * (weights // 64 // 256) + 4 * 560
    around = 2 * (2 * 32_000 * 8192 + 161 * 8192)
    assert (layers, around, hat) == (35_311_782_080, 1_051_213_824, 3_313_500_160)
    kept = 512 * (80 * 2 * 8192 + 2 * (8 * 8192 + 3 * 28_672 + 7 * 64) + 4 * 66)
    backward = 512 * 2 * (2 * 8192 + 3 * 28_672) + 2 * 8192 * 28_672
    passed = 4 * (2 * (layers + hat) + around + hat)
    ranks = {rank.processes: rank for rank in make_plan(TrainConfig.read("qlora-paper-70b"), None).ranks}
    for processes, traffic in ((8, 285_653_474_624), (64, 321_360_158_952), (512, 325_823_494_493)):
        assert traffic == passed * (processes - 1) // processes
        assert ranks[processes].traffic == traffic
        share = (layers + around + hat + hat) / processes  # the moments are in the host's memory
        gathered = 2 * (layers + hat) / 80 + around
        assert ranks[processes].bytes == pytest.approx(share + gathered + kept + backward, abs=10)  # rounded up
        assert ranks[processes].batch == processes
    assert [round(rank.bytes / 1e9, 1) for rank in ranks.values()] == [25.8, 8.8, 4.1, 3.5]


@pytest.mark.long
@pytest.mark.parametrize("name", ["documents-7b", "qlora-paper-70b"])
def test_a_plan_needs_no_weights(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", name, "--plan", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["trainable"] == (19_988_480 if name == "documents-7b" else 828_375_040)
    assert not figures["counted"] and len(figures["limits"]) == 2
    assert list(tmp_path.iterdir()) == []
    assert main(["train", name, "--plan"]) == 0
    shown = capsys.readouterr().out
    assert "predicted peak" in shown and "an H200, assumed: 790 TFLOP/s allow" in shown
    assert ("as the recipe states;" if name == "documents-7b" else "as the recipe estimates;") in shown


@pytest.mark.slow
def test_a_plan_counts_the_data_of_a_recipe_that_estimates_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], tokenizer
) -> None:
    data, asked = tmp_path / "train.jsonl", "What is the sentiment?"
    write_rows(data, [MixtureRow(f"tfns-{i}", "tfns", asked, f"up {i}%", "positive", "positive") for i in range(40)])
    changes = ["base.path=embedded", "base.shape=", "base.device=cpu", f"data.train={data}"]
    assert main(["train", "mixture-7b", *changes, "--plan", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    examples, _ = encode_all(read_conversations(data), tokenizer, "alpaca", 1024)
    assert figures["counted"] and figures["entries"] == 40 and figures["steps"] == 2
    assert figures["tokens"] == sum(map(len, examples))
    assert figures["supervised"] == sum(example.supervised for example in examples)


def test_a_plan_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"base\.path: nowhere: no such folder, and base\.shape says nothing"):
        make_plan(TrainConfig.from_dict({"base": {"path": "nowhere"}}), None)
    with pytest.raises(ValueError, match=r"data\.train: x\.jsonl: not there, and the recipe does not state data\.entr"):
        make_plan(TrainConfig.from_dict({"data": {"train": "x.jsonl"}}), None)
    with pytest.raises(ValueError, match=r"is not of base\.shape 7b: dim 192, not 4096"):
        make_plan(TrainConfig.from_dict({"base": {"shape": "7b"}}), EXAMPLES)
