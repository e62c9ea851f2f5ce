"""The grid: every cell there, measured as defined, and a hat only with its own template."""

import pytest

import lowrank
from lowrank.data.batching import encode_all
from lowrank.data.documents import make_documents
from lowrank.eval.grid import evaluate, evaluate_grid
from lowrank.eval.perplexity import completion_loss

ENTRIES = make_documents(3, seed=5, split="test")


@pytest.fixture(scope="module")
def model(embedded):
    return lowrank.load(embedded)


def test_the_completion_loss_does_not_depend_on_the_batches(model, tokenizer):
    examples, _ = encode_all([entry.conversation for entry in ENTRIES], tokenizer, "alpaca", 512)
    one_by_one = completion_loss(model, examples, batch_size=1)
    assert completion_loss(model, examples, batch_size=3) == pytest.approx(one_by_one, rel=1e-6)


def test_a_model_that_writes_the_reference_has_full_marks(model, tokenizer, monkeypatch):
    monkeypatch.setattr("lowrank.eval.grid.generate", lambda *_, **__: [entry.output for entry in ENTRIES])
    cell = evaluate(model, tokenizer, ENTRIES, adapter=None, weights="nf4-dq", template="alpaca").cell
    assert (cell.sections, cell.figure_precision, cell.figure_recall, cell.binding, cell.n) == (1, 1, 1, 1, 3)


def test_a_model_that_writes_nothing_has_none(model, tokenizer, monkeypatch):
    monkeypatch.setattr("lowrank.eval.grid.generate", lambda *_, **__: [""] * 3)
    cell = evaluate(model, tokenizer, ENTRIES, adapter=None, weights="nf4-dq", template="alpaca").cell
    assert (cell.sections, cell.figure_precision, cell.figure_recall, cell.binding) == (0, 0, 0, 0)


@pytest.fixture(scope="module")
def hat(embedded, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hat") / "hat"
    model = lowrank.load(embedded)
    lowrank.add_adapter(model, "new", rank=2)
    lowrank.save_adapter(model, "new", folder, notes={"template": {"name": "fingpt", "version": 1}})
    return folder


def test_every_hat_meets_every_precision_and_a_new_hat_changes_nothing(embedded, hat):
    found = evaluate_grid(embedded, {"new": hat}, ["nf4-dq", "fp32"], ENTRIES[:2], template="fingpt", progress=False)
    cells = {(result.cell.adapter, result.cell.weights): result for result in found}
    assert list(cells) == [(None, "nf4-dq"), ("new", "nf4-dq"), (None, "fp32"), ("new", "fp32")]
    for weights in ("nf4-dq", "fp32"):  # B is zero
        assert cells["new", weights].texts == cells[None, weights].texts
        assert cells["new", weights].cell.loss == cells[None, weights].cell.loss
    assert cells[None, "fp32"].cell.loss != cells[None, "nf4-dq"].cell.loss
    assert found[0].to_json().keys() == {
        "adapter", "weights", "n", "loss", "sections", "figure_precision", "figure_recall", "binding"
    }  # fmt: skip


def test_hats_are_measured_with_the_template_they_were_trained_with(embedded, hat, monkeypatch):
    used = []
    monkeypatch.setattr("lowrank.eval.grid.evaluate", lambda *_, template, **__: used.append(template))
    evaluate_grid(embedded, {"new": hat}, ["nf4-dq"], ENTRIES[:1], progress=False)
    evaluate_grid(embedded, {}, ["nf4-dq"], ENTRIES[:1], progress=False)
    assert used == ["fingpt", "fingpt", "alpaca"]


def test_a_hat_with_another_template_is_refused(embedded, hat):
    with pytest.raises(ValueError, match="trained with the template 'fingpt', asked for 'alpaca'"):
        evaluate_grid(embedded, {"new": hat}, ["nf4-dq"], ENTRIES[:1], template="alpaca", progress=False)
