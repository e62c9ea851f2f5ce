"""DPO: loss, rewards and gradients of TRL's trainer; pairs in batches; a run that goes on to the same bits."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import lowrank
from lowrank.adapters import adapter_names, adapter_parameters
from lowrank.adapters.files import tensor_key
from lowrank.cli import main
from lowrank.data.encoding.batching import Example, PreferencePair, collate
from lowrank.data.encoding.packing import Row, rows_of_one
from lowrank.model.llama import Llama
from lowrank.train import trainer
from lowrank.train.config import TrainConfig
from lowrank.train.data import read_run_data
from lowrank.train.plan.plan import make_plan
from lowrank.train.preference import DPOLoss, dpo_loss
from lowrank.train.report import write_report
from lowrank.train.step import StepState, accumulate, batch_loss

STEPS, BETA, LR = 4, 0.3, 5e-3  # of tests/golden/make_dpo.py
LOSS, GRADIENT = 1e-4, 3e-4  # of themselves, as for the curve of QLoRA: tests/golden/README.md

Base = Callable[[], Llama]


def pair(chosen: Example, rejected: Example) -> PreferencePair:
    both = (chosen.tokens + rejected.tokens, chosen.labels + rejected.labels)
    return PreferencePair(chosen.id, *both, cut=len(chosen))


@pytest.fixture(scope="module")
def pairs() -> list[PreferencePair]:
    generator = torch.Generator().manual_seed(0)
    found = []
    for number in range(10):
        prompt, chosen, rejected = (
            torch.randint(3, 512, (length,), generator=generator).tolist() for length in (4, 6 + number, 14 - number)
        )
        examples = [
            Example(str(number), tuple(prompt + answer), (*[-100] * 4, *answer)) for answer in (chosen, rejected)
        ]
        found.append(pair(*examples))
    return found


@pytest.fixture
def base(golden: Path) -> Base:
    return lambda: lowrank.load(golden / "meta-tiny-mha", "nf4-dq")


def config(golden: Path, out: Path, **tables: dict[str, Any]) -> TrainConfig:
    run = {"out": str(out), "epochs": 2, "batch": 2, "accumulate": 2, "checkpoint_every": 1}
    return TrainConfig.from_dict(
        {
            "base": {"path": str(golden / "meta-tiny-mha")},
            "adapter": tables.get("adapter", {"rank": 4}),
            "preference": {"loss": "dpo", **tables.get("preference", {})},
            "optimizer": {"lr": 5e-3, "schedule": "cosine"},
            "run": {**run, **tables.get("run", {})},
            "watch": tables.get("watch", {}),
        }
    )


@pytest.mark.slow
@pytest.mark.parametrize("start", ["base", "hat"])
def test_loss_rewards_and_gradients_are_those_of_trl(golden: Path, start: str) -> None:
    stored = load_file(golden / "dpo.safetensors")
    with safe_open(golden / "dpo.safetensors", "pt") as file:
        assert (float(file.metadata()["beta"]), float(file.metadata()["lr"])) == (BETA, LR)
    model = lowrank.load(golden / "hf-tiny-qlora" / "base", "fp32")
    folder = golden / "hf-tiny-qlora" / {"base": "adapter-start", "hat": "adapter-end"}[start]
    lowrank.load_adapter(model, "hat", folder, trainable=True)
    lowrank.load_adapter(model, "before", folder)
    lowrank.use_adapter(model, "hat")
    parameters = adapter_parameters(model, "hat")
    optimizer = torch.optim.AdamW(parameters.values(), lr=LR, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    loss = DPOLoss(BETA, "before" if start == "hat" else None)
    for step in range(STEPS):
        rows = stored_rows(stored["tokens"][step], stored["labels"][step])
        found = loss(model, rows)
        (found.nats / len(rows)).backward()
        margin, accuracy, chosen, _ = (total / len(rows) for total in found.measured)
        assert found.nats.item() / len(rows) == pytest.approx(stored[f"{start}.loss"][step].item(), rel=LOSS)
        assert margin == pytest.approx(stored[f"{start}.margin"][step].item(), rel=LOSS, abs=LOSS)
        assert chosen == pytest.approx(stored[f"{start}.chosen"][step].item(), rel=LOSS, abs=LOSS)
        if step or start == "base":  # a hat's rewards begin at zero, to rounding in one program, exactly in the other
            assert accuracy == pytest.approx(stored[f"{start}.accuracy"][step].item())
        if step == 1:
            for name, parameter in parameters.items():
                path, _, matrix = name.rpartition(".")
                theirs = stored[f"{start}.grad.{tensor_key(path, matrix)}"]
                assert parameter.grad is not None and theirs.norm() > 0
                assert (parameter.grad - theirs).norm() <= GRADIENT * theirs.norm(), name
        optimizer.step()
        optimizer.zero_grad()


def stored_rows(tokens: torch.Tensor, labels: torch.Tensor) -> list[Row]:
    """The pairs of a batch whose first half is chosen; what is filling has no token."""
    examples = []
    for number, (ids, marks) in enumerate(zip(tokens, labels, strict=True)):
        length = int((ids != 0).sum())
        examples.append(Example(str(number), tuple(ids[:length].tolist()), tuple(marks[:length].tolist())))
    half = len(examples) // 2
    return rows_of_one([pair(*both) for both in zip(examples[:half], examples[half:], strict=True)])


def test_the_gradient_by_finite_differences_and_as_it_is_derived() -> None:
    chosen = torch.tensor([0.3, -2.0, 40.0], dtype=torch.float64, requires_grad=True)
    rejected = torch.tensor([0.1, 1.5, -40.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(dpo_loss, (chosen, rejected))
    dpo_loss(chosen, rejected).sum().backward()
    weight = torch.sigmoid(rejected.detach() - chosen.detach())
    torch.testing.assert_close(chosen.grad, -weight)
    torch.testing.assert_close(rejected.grad, weight)


def test_the_chosen_answer_s_own_loss_is_added_in_nats_a_token(base: Base, pairs: list[PreferencePair]) -> None:
    model, rows = base(), rows_of_one(pairs[:3])
    plain, weighted = (DPOLoss(BETA, None, answers)(model, rows) for answers in (0.0, 0.5))
    own = [batch_loss(model, rows_of_one([one.chosen]))[0].item() / one.chosen.supervised for one in pairs[:3]]
    assert (weighted.nats - plain.nats).item() == pytest.approx(0.5 * sum(own), rel=1e-5)
    assert weighted.measured == plain.measured


@pytest.mark.slow
def test_a_run_begins_at_log_2_and_prefers_what_is_chosen(
    base: Base, pairs: list[PreferencePair], golden: Path, tmp_path: Path
) -> None:
    settings = config(golden, tmp_path, run={"epochs": 8, "accumulate": 5}, preference={"beta": 0.5})
    model = base()
    rows = trainer.train(model, pairs, settings, progress=False)
    first, last = rows[0], rows[-1]
    assert first["loss"] == pytest.approx(math.log(2), rel=1e-6)
    assert (first["reward_margin"], first["reward_accuracy"]) == (0.0, 0.0)
    assert last["loss"] < 0.4 and last["reward_margin"] > 0.5 and last["reward_accuracy"] == 1.0
    assert last["reward_margin"] == pytest.approx(last["reward_chosen"] - last["reward_rejected"], rel=1e-5)
    assert adapter_names(model) == ["hat"]
    page = write_report(tmp_path).read_text()
    assert "pairs with a margin above 0" in page and f"{last['reward_margin']:.3f}" in page


@pytest.mark.slow
def test_a_hat_that_a_run_starts_from_is_its_reference_and_stays_what_it_was(
    base: Base, pairs: list[PreferencePair], golden: Path, tmp_path: Path
) -> None:
    trainer.train(base(), pairs, config(golden, tmp_path / "first", preference={"beta": 0.5}), progress=False)
    hat = tmp_path / "first" / "hat"
    settings = config(golden, tmp_path / "second", adapter={"from": str(hat), "dropout": 0.1})
    model = base()
    run = trainer.Trainer(model, pairs, settings)
    assert isinstance(run.objective, DPOLoss) and run.objective.reference in adapter_names(model)
    started = {name: value.clone() for name, value in adapter_parameters(model, run.objective.reference).items()}
    rows = trainer.train(base(), pairs, settings, progress=False)
    assert rows[0]["loss"] == pytest.approx(math.log(2), rel=0.1)  # the hat drops x, and its reference does not
    assert rows[0]["loss"] != math.log(2)
    learned = load_file(tmp_path / "second" / "hat" / "adapter_model.safetensors")
    assert learned.keys() == load_file(hat / "adapter_model.safetensors").keys()
    for path, value in started.items():
        layer, _, matrix = path.rpartition(".")
        assert value.shape == learned[tensor_key(layer, matrix)].shape


@pytest.mark.slow
@pytest.mark.parametrize("from_hat", [False, True], ids=["base", "hat"])
@pytest.mark.parametrize("stopped_in", [2, 5])
def test_a_run_that_was_stopped_inside_a_step_resumes_to_the_same_bits(
    base: Base,
    pairs: list[PreferencePair],
    golden: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stopped_in: int,
    from_hat: bool,
) -> None:
    adapter: dict[str, Any] = {"rank": 4, "dropout": 0.1}
    if from_hat:
        trainer.train(base(), pairs, config(golden, tmp_path / "start"), progress=False)
        adapter = {"from": str(tmp_path / "start" / "hat"), "dropout": 0.1}
    watch = {"held_out": "documents", "every": 2, "samples": 0}
    tables: dict[str, Any] = {"adapter": adapter, "watch": watch, "run": {"checkpoint_minutes": 1e-9}}
    held_out = trainer.HeldOut(pairs[:3], None, 2, 0)  # type: ignore[arg-type]  # nothing is written out
    whole = trainer.train(
        base(), pairs, config(golden, tmp_path / "whole", **tables), held_out=held_out, progress=False
    )
    settings = config(golden, tmp_path / "cut", **tables)
    calls, original = [], trainer.accumulate

    def interrupted(*arguments: Any) -> None:
        calls.append(None)
        if len(calls) == stopped_in:
            raise KeyboardInterrupt
        original(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(trainer, "accumulate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            trainer.train(base(), pairs, settings, held_out=held_out, progress=False)
    resumed = trainer.train(base(), pairs, settings, held_out=held_out, resume=True, progress=False)
    assert without_seconds(resumed) == without_seconds(whole)
    one, other = (load_file(tmp_path / run / "hat" / "adapter_model.safetensors") for run in ("whole", "cut"))
    assert all(torch.equal(one[key], other[key]) for key in one)
    measured = [json.loads(line) for line in (tmp_path / "cut" / "held_out.jsonl").read_text().splitlines()]
    assert measured and all({"loss", "reward_margin", "reward_accuracy"} <= row.keys() for row in measured)


def without_seconds(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


@pytest.mark.slow
def test_batches_of_a_step_give_the_loss_and_gradient_of_one_large_batch(
    base: Base, pairs: list[PreferencePair], golden: Path, tmp_path: Path
) -> None:
    results = []
    for batch, count in ((4, 1), (1, 4)):
        settings = config(golden, tmp_path / str(batch), run={"batch": batch, "accumulate": count, "epochs": 1})
        results.append(trainer.train(base(), pairs, settings, progress=False))
    for ours, theirs in zip(*results, strict=True):
        for key in ("loss", "reward_margin", "grad_norm"):
            assert ours[key] == pytest.approx(theirs[key], rel=1e-4, abs=1e-6)


def test_a_process_without_a_row_adds_nothing(base: Base, golden: Path, tmp_path: Path) -> None:
    run = trainer.Trainer(base(), [], config(golden, tmp_path, run={"epochs": 1}))
    state = StepState()
    accumulate(run.model, [], 4, state, run.team, run.objective)
    assert (state.nats, state.positions, state.measured) == (0.0, 0, (0.0,) * 4)
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in run.parameters.values())


def test_the_plan_counts_both_answers_and_the_reference(
    pairs: list[PreferencePair], golden: Path, tmp_path: Path
) -> None:
    settings = config(golden, tmp_path, run={"epochs": 1, "batch": 10})
    plan = make_plan(settings, pairs)
    sequences = [one for both in pairs for one in (both.chosen, both.rejected)]
    assert plan.positions == 20 * max(map(len, sequences))
    answers = replace(settings, preference=replace(settings.preference, loss=""))
    separate = make_plan(replace(answers, run=replace(answers.run, batch=20)), sequences)
    assert separate.positions == plan.positions
    assert 1.2 < plan.flops / separate.flops < 1.5  # forward, backward and the reference, of which the hat is no part
    assert plan.peak_bytes == separate.peak_bytes


@pytest.mark.slow
def test_documents_are_preferred_to_their_spoiled_ones(tokenizer: Any, golden: Path, tmp_path: Path) -> None:
    data = read_run_data(TrainConfig.from_dict({"preference": {"loss": "dpo"}, "data": {"max_tokens": 512}}), tokenizer)
    assert len(data.examples) == 370 and data.origin["rejected"] == "spoiled figures"
    tokens, labels = collate([data.examples[0].chosen, data.examples[0].rejected])  # type: ignore[attr-defined]
    asked = int((labels[0] == -100).nonzero()[-1]) if (labels[0, -1] == -100) else int((labels[0] == -100).sum())
    assert torch.equal(tokens[0, : asked // 2], tokens[1, : asked // 2]) and not torch.equal(tokens[0], tokens[1])


@pytest.mark.slow
def test_the_recipe_goes_on_from_a_hat(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = lowrank.load("embedded", "nf4-dq")
    lowrank.add_adapter(model, "hat", rank=2)
    lowrank.save_adapter(model, "hat", tmp_path / "hat")
    words = [
        f"adapter.from={tmp_path / 'hat'}",
        f"run.out={tmp_path / 'run'}",
        "run.max_steps=2",
        "run.batch=2",
        "optimizer.warmup=0",
    ]
    assert main(["train", "right-figures", *words]) == 0
    assert "nats a pair, " in capsys.readouterr().out
    record = json.loads((tmp_path / "run" / "hat" / "lowrank.json").read_text())
    assert record["started_from"]["folder"] == str(tmp_path / "hat")
    assert record["data"]["rejected"] == "spoiled figures"


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"preference": {"loss": "ipo"}}, r"preference\.loss must be one of , dpo, got 'ipo'"),
        ({"preference": {"answers": -1}}, r"preference\.answers must be at least 0, got -1"),
        ({"preference": {"beta": 0}}, r"preference\.beta must be above 0, got 0"),
        (
            {"preference": {"loss": "dpo"}, "data": {"pack": 2048}},
            r"data\.pack must be 0 with preference\.loss = 'dpo'",
        ),
        ({"preference": {"loss": "dpo"}, "run": {"parallel": "shards"}}, r"run\.parallel must be 'replicas' with"),
    ],
)
def test_what_has_no_place_beside_it_is_refused(tables: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainConfig.from_dict(tables)
