"""Mixed precision: the plan is the best one, the budget is kept, sensitivities are what they say, folders are read."""

import itertools
import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch

from lowrank.checkpoints.load import load, load_tokenizer
from lowrank.checkpoints.quantize_folder import quantize_folder
from lowrank.cli import main
from lowrank.data.documents.document import make_documents
from lowrank.data.encoding.batching import Example, collate, encode_all
from lowrank.eval.formats import beside
from lowrank.eval.formats.beside import FormatCost, FormatStudy, block_linears, study_formats
from lowrank.eval.formats.mixed import Sensitivity, curve, sensitivities, solve
from lowrank.eval.formats.page import format_rows, render_formats
from lowrank.eval.formats.simulated import formats
from lowrank.eval.metrics.perplexity import completion_loss
from lowrank.kernels import ops
from lowrank.layers.quant_linear import QuantLinear
from lowrank.model.llama import Llama
from lowrank.model.loss import next_token_loss


@pytest.fixture(scope="module")
def examples(embedded: Path) -> list[Example]:
    conversations = [entry.conversation for entry in make_documents(12, seed=7, split="test")]
    return encode_all(conversations, load_tokenizer(embedded), "alpaca", 512)[0]


@pytest.fixture(scope="module")
def found(embedded: Path, examples: list[Example]) -> dict[str, Sensitivity]:
    return sensitivities(embedded, examples[:4])


def drawn(count: int) -> dict[str, Sensitivity]:
    random = Random(4)
    made = {}
    for index in range(count):
        weights = random.choice((1000, 3000, 8000))
        bits = {"four": 4.0 * weights, "six": 6.0 * weights, "eight": 8.0 * weights}
        four = random.random()
        made[f"linear {index}"] = Sensitivity(weights, bits, {"four": four, "six": four / 5, "eight": four / 50})
    return made


@pytest.mark.parametrize("budget", [4.0, 4.4, 5.0, 6.3, 8.0])
def test_the_plan_is_the_best_of_all_that_keep_the_budget(budget: float) -> None:
    sensitive = drawn(7)
    plan = solve(sensitive, budget)
    total = sum(one.weights for one in sensitive.values())
    best = min(
        sum(one.cost[name] for one, name in zip(sensitive.values(), names, strict=True))
        for names in itertools.product(("four", "six", "eight"), repeat=7)
        if sum(one.bits[name] for one, name in zip(sensitive.values(), names, strict=True)) <= budget * total
    )
    assert plan.bits <= budget + 1e-9
    assert plan.cost == pytest.approx(best)


def test_a_budget_below_the_smallest_plan_is_told() -> None:
    with pytest.raises(ValueError, match=r"budget must be at least 4 bits a weight, got 3\.9"):
        solve(drawn(3), 3.9)


@pytest.mark.slow
def test_the_curve_falls_from_the_fewest_bits_to_the_most(found: dict[str, Sensitivity]) -> None:
    points = curve(found)
    assert set(points[0].formats.values()) == {"nf4-dq"} and set(points[-1].formats.values()) == {"int8"}
    costs, bits = [point.cost for point in points], [point.bits for point in points]
    assert costs == sorted(costs, reverse=True) and bits == sorted(bits)
    gains = [before - after for before, after in itertools.pairwise(costs)]
    assert gains[0] > 2 * gains[-1]  # what helps most comes first


@pytest.mark.slow
def test_a_sensitivity_is_half_the_mean_square_gradient_times_the_square_of_the_error(
    embedded: Path, examples: list[Example], found: dict[str, Sensitivity]
) -> None:
    model, path = load(embedded, "fp32"), "layers.0.feed_forward.w2"
    linear = block_linears(model)[path]
    linear.weight.requires_grad_(True)
    square = torch.zeros_like(linear.weight)
    for example in examples[:4]:
        nats, count = next_token_loss(model, *collate([example]))
        (gradient,) = torch.autograd.grad(nats, linear.weight)
        square += gradient.square() / (4 * count)
    w = linear.weight.detach()
    error = w - ops.dequantize(ops.quantize(w, "nf4-dq"))
    assert found[path].cost["nf4-dq"] == pytest.approx(float((square * error.square()).sum()) / 2, rel=1e-4)
    assert found[path].bits["nf4-dq"] / w.numel() == pytest.approx(4.13, abs=0.02)
    assert all(one.cost["int8"] < one.cost["nf4-dq"] / 20 for one in found.values())


@pytest.mark.slow
def test_a_folder_of_a_plan_loads_with_each_format_where_it_belongs(
    embedded: Path, examples: list[Example], found: dict[str, Sensitivity], tmp_path: Path
) -> None:
    plan = solve(found, 5.0)
    assert set(plan.formats.values()) == {"nf4-dq", "int8"}
    folder = quantize_folder(embedded, tmp_path / "mixed", plan=plan.formats)
    model = load(folder)
    for path, format in plan.formats.items():
        module = model.get_submodule(path)
        assert isinstance(module, QuantLinear) and module.format == format
    assert json.loads((folder / "quantization.json").read_text())["plan"] == plan.formats
    losses = {name: completion_loss(load(*of), examples) for name, of in {
        "full": (embedded, "fp32"), "four": (embedded, "nf4-dq"), "mixed": (folder,)
    }.items()}  # fmt: skip
    assert abs(losses["mixed"] - losses["full"]) < abs(losses["four"] - losses["full"])


@pytest.mark.slow
def test_the_study_has_the_loss_of_stored_nf4_and_leaves_the_model_as_it_was(
    embedded: Path, examples: list[Example]
) -> None:
    known = formats()
    names = ("nf4 b64", "nf4 b4096", "nf4 b64")
    study = study_formats(embedded, {f"{n} {name}": known[name] for n, name in enumerate(names)}, examples)
    first, coarse, again = study.formats
    assert first.cost == again.cost and first.cost is not None and coarse.cost is not None
    assert study.loss == pytest.approx(completion_loss(load(embedded, "fp32"), examples), rel=1e-5)
    stored = completion_loss(load(embedded, "nf4"), examples)
    assert study.loss + first.cost.difference == pytest.approx(stored, abs=1e-3)
    assert coarse.snr_db < first.snr_db and coarse.bits < first.bits
    assert first.cost.low <= first.cost.difference <= first.cost.high
    assert len(study.to_json()["formats"]) == 3


def test_a_format_that_the_weights_went_through_before_loses_nothing(embedded: Path) -> None:
    """As int4 in blocks of 32 does of a Q4_1 file."""
    model = load(embedded, "fp32")
    snr_db, parts = beside.measure(model, lambda _, w: w, [])
    assert snr_db is None and parts.shape == (0, 2)
    cost = FormatCost("int4 b32", 5.0, None, None)
    study = FormatStudy("base", 0, None, (cost, FormatCost("nf4 b64", 4.5, 20.6, None)))
    assert json.loads(json.dumps(study.to_json()))["formats"][0]["snr_db"] is None
    assert ("int4 b32", "5.000", "infinite", "-") in format_rows(study)[1]
    assert "int4 b32 loses nothing" in render_formats(study)


def test_an_interrupted_study_goes_on_where_it_was(
    embedded: Path, examples: list[Example], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, measured = formats(), []

    def measure(model: Llama, *rest: Any) -> Any:
        measured.append(model)
        if len(measured) == 2:
            raise KeyboardInterrupt
        return true_measure(model, *rest)

    true_measure = beside.measure
    monkeypatch.setattr(beside, "measure", measure)
    chosen = {name: known[name] for name in ("mxfp4 b32", "int4 b64")}
    with pytest.raises(KeyboardInterrupt):
        study_formats(embedded, chosen, examples[:2], state=tmp_path)
    went_on = study_formats(embedded, chosen, examples[:2], state=tmp_path)
    assert len(measured) == 3  # the first format was read back
    assert went_on == study_formats(embedded, chosen, examples[:2])
    monkeypatch.setattr(beside, "load", None)  # all is there: no model is needed
    assert went_on == study_formats(embedded, chosen, examples[:2], state=tmp_path)
    with pytest.raises(TypeError):
        study_formats(embedded, chosen, examples[1:3], state=tmp_path)  # of other documents nothing is there


@pytest.mark.slow
def test_the_verbs_write_a_plan_and_quantize_by_it(embedded: Path, tmp_path: Path, capsys) -> None:
    plan = tmp_path / "plan.json"
    assert main(["inspect", "mixed", "embedded", "--bits", "5", "--n", "3", "--out", str(plan)]) == 0
    out = capsys.readouterr().out
    assert "in int8, " in out and "expected cost" in out and f"{plan}: the plan" in out
    assert main(["quantize", "embedded", str(tmp_path / "mixed"), "--plan", str(plan)]) == 0
    assert "nf4-dq and " in capsys.readouterr().out
    assert main(["inspect", "formats", "embedded", "--n", "0", "--only", "nf4 b64,mxfp4 b32"]) == 0
    assert "mxfp4 b32" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("inspect formats embedded --only nf3", "--only must name formats of nf4 b32"),
        ("inspect formats embedded --n -1", "--n must be at least 0, got -1"),
        ("inspect mixed embedded --bits 3 --n 1", "budget must be at least"),
        ("inspect mixed embedded --bits 5 --n 0", "sensitivities need one document or more"),
        ("inspect mixed embedded --bits 5 --n 1 --choices nf4,nf3", "a plan chooses among"),
        ("quantize embedded OUT --plan BAD", "must be a JSON object with `formats`"),
        ("quantize embedded OUT --plan OTHER", "is no linear of a block of this base"),
        ("quantize embedded OUT --plan FORM", "the format must be one of"),
    ],
    ids=str,
)
def test_a_mistake_is_told_in_one_line(words: str, said: str, tmp_path: Path, capsys) -> None:
    files = {"BAD": [], "OTHER": {"formats": {"layers.99.attention.wq": "nf4"}}}
    files["FORM"] = {"formats": {"layers.0.attention.wq": "nf3"}}
    for name, value in files.items():
        (tmp_path / name).write_text(json.dumps(value))
    places = {name: str(tmp_path / name) for name in ("OUT", *files)}
    status = main([places.get(word, word) for word in words.split()])
    line = capsys.readouterr().err.splitlines()[-1]
    assert status == 2 and said in line
    assert not (tmp_path / "OUT").exists()
