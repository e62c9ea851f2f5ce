"""The grid: every cell there, measured as defined, a hat only with its own template, and nothing run twice."""

import json
import shutil
from pathlib import Path

import pytest

import lowrank
from lowrank.data.documents.document import make_documents
from lowrank.eval.grid import grid
from lowrank.eval.grid.columns import Column
from lowrank.eval.grid.comparison import compare
from lowrank.eval.grid.grid import evaluate_grid
from lowrank.eval.metrics.faithfulness import check
from lowrank.eval.metrics.perplexity import completion_loss
from lowrank.eval.tasks.documents import Documents
from lowrank.eval.tasks.generate import Output
from lowrank.eval.tasks.task import Item, Task

ENTRIES = make_documents(3, seed=5, split="test")
KEYS = {"task", "adapter", "weights", "n", "loss", "sections", "figure_precision", "figure_recall", "binding"}


@pytest.fixture(autouse=True)
def short_texts(monkeypatch: pytest.MonkeyPatch):
    """Documents are cut after 40 tokens: what is looked at here is who writes, not what."""
    monkeypatch.setattr(Documents, "most_tokens", lambda *_: 40)


def answers(texts):
    """A `write` that gives these texts, by prompt."""
    return lambda _model, _tokenizer, prompts, *_, **__: [Output(texts(prompt), 1, True) for prompt in prompts]


def run(base, adapters=None, weights=("nf4-dq",), entries=ENTRIES, **options):
    return evaluate_grid(base, adapters or {}, weights, [Documents(entries)], progress=False, **options)


def test_a_model_that_writes_the_reference_has_full_marks(embedded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by_input = {entry.input: entry.output for entry in ENTRIES}
    said = answers(lambda prompt: next(text for given, text in by_input.items() if given in prompt))
    monkeypatch.setattr(grid, "write", said)
    (cell,) = run(embedded)
    row = cell.to_json()
    full = ("sections", "figure_precision", "figure_recall", "binding", "identities_held", "names", "dates")
    assert [row[key] for key in full] == [1] * len(full)
    assert (row["n"], row["length"], row["ended"]) == (3, 1, 1)
    assert row.keys() >= KEYS


def test_a_model_that_writes_nothing_has_none_and_what_has_no_value_is_null(
    embedded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grid, "write", answers(lambda _: ""))
    row = run(embedded)[0].to_json()
    none = ("sections", "figure_recall", "binding", "names", "format_valid", "identities_printed")
    assert [row[key] for key in none] == [0] * len(none)
    assert row["figure_precision"] is row["identities_held"] is row["dates_right"] is row["distinct_1"] is None
    json.dumps(row, allow_nan=False)


def test_a_loss_that_is_not_finite_has_no_value_and_spoils_nothing_else(
    embedded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grid, "write", answers(lambda _: ""))
    monkeypatch.setattr(grid, "completion_losses", lambda _, examples: [float("inf")] + [1.0] * (len(examples) - 1))
    for _ in range(2):  # run, and read back
        row = run(embedded, state=tmp_path)[0].to_json()
        assert (row["loss"], row["bits_per_byte"], row["ended"]) == (None, None, 1)


@pytest.mark.slow
def test_the_loss_is_that_of_all_references_and_items_keep_their_order_whatever_the_batch(
    embedded: Path, tokenizer
) -> None:
    from lowrank.data.encoding.batching import encode_all

    examples, _ = encode_all([entry.conversation for entry in ENTRIES], tokenizer, "alpaca", 4096)
    expected = completion_loss(lowrank.load(embedded), examples)
    one, full_logits_loss = (run(embedded, batch=batch)[0] for batch in (1, 3))
    assert one.scores["loss"] == pytest.approx(expected, rel=1e-6)
    assert one.texts == full_logits_loss.texts
    assert one.nats == pytest.approx(full_logits_loss.nats, rel=1e-5)
    assert [item.id for item in one.task.items] == [entry.id for entry in ENTRIES]


@pytest.fixture(scope="module")
def hat(embedded: Path, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("hat") / "hat"
    model = lowrank.load(embedded)
    lowrank.add_adapter(model, "new", rank=2)
    lowrank.save_adapter(model, "new", folder, notes={"template": {"name": "fingpt", "version": 1}})
    return folder


@pytest.mark.slow
def test_every_hat_meets_every_precision_and_a_new_hat_changes_nothing(embedded: Path, hat) -> None:
    found = run(embedded, {"new": hat}, ["nf4-dq", "fp32"], ENTRIES[:2], template="fingpt")
    cells = {cell.column: cell for cell in found}
    assert list(cells) == [Column(a, w) for w in ("nf4-dq", "fp32") for a in (None, "new")]
    for weights in ("nf4-dq", "fp32"):  # B is zero
        bare, worn = cells[Column(None, weights)], cells[Column("new", weights)]
        assert worn.texts == bare.texts
        assert worn.scores["loss"] == bare.scores["loss"]
    assert cells[Column(None, "fp32")].scores["loss"] != cells[Column(None, "nf4-dq")].scores["loss"]


@pytest.mark.slow
def test_hats_are_measured_with_the_template_they_were_trained_with(
    embedded: Path, hat, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = []

    def record(_model, _tokenizer, asked, *_, **__):
        prompts.extend(asked)
        return [Output("", 0, True)] * len(asked)

    monkeypatch.setattr(grid, "write", record)
    run(embedded, {"new": hat}, entries=ENTRIES[:1])
    run(embedded, entries=ENTRIES[:1])
    assert [prompt.partition(":")[0] for prompt in prompts] == ["Instruction", "Instruction", "### Instruction"]


def test_a_hat_with_another_template_is_refused(embedded: Path, hat) -> None:
    with pytest.raises(ValueError, match="trained with the template 'fingpt', asked for 'alpaca'"):
        run(embedded, {"new": hat}, entries=ENTRIES[:1], template="alpaca")


@pytest.mark.slow
def test_an_interrupted_grid_goes_on_at_its_batch_and_a_finished_one_loads_nothing(
    embedded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(embedded, batch=1)[0]
    write, calls = grid.write, []

    def stop_at_the_third(*args, **options):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return write(*args, **options)

    monkeypatch.setattr(grid, "write", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        run(embedded, batch=1, state=tmp_path)
    assert len(list(tmp_path.rglob("batch-*.json"))) == 2
    assert run(embedded, batch=1, state=tmp_path)[0].texts == whole.texts
    assert len(calls) == 4
    monkeypatch.setattr(grid, "load_with_adapters", None)  # would fail if it were called
    again = run(embedded, batch=1, state=tmp_path)[0]
    assert again.scores == pytest.approx(whole.scores, nan_ok=True)


@pytest.mark.slow
def test_grounded_is_a_column_beside_the_free_one_and_its_figures_are_right(
    embedded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Documents, "most_tokens", lambda *_: 120)
    free, grounded = run(embedded, grounded=True, state=tmp_path)
    assert (free.column, grounded.column) == (Column(None, "nf4-dq"), Column(None, "nf4-dq", grounded=True))
    assert free.texts == run(embedded, state=tmp_path)[0].texts  # what is kept of one is not taken for the other
    figures = [
        figure for entry, text in zip(ENTRIES, grounded.texts, strict=True) for figure in check(entry, text).figures
    ]
    assert figures and all(figure.right for figure in figures)
    assert grounded.nats == free.nats
    assert {one.question for one in compare([free, grounded])} == {"grounding"}


def test_the_loss_of_the_references_is_measured_once_for_all_temperatures_grounded_or_not(
    embedded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grid, "write", answers(lambda _: ""))
    asked = []

    def losses(_, examples):
        asked.append(len(examples))
        return [2.0] * len(examples)

    monkeypatch.setattr(grid, "completion_losses", losses)
    options = {"grounded": True, "temperatures": (0.0, 1.0), "batch": 2}
    cells = run(embedded, weights=("nf4-dq", "nf4"), **options)
    assert asked == [2, 1] * 2 and len(cells) == 8
    assert {cell.nats for cell in cells} == {(2.0,) * 3}
    run(embedded, state=tmp_path, batch=2)
    asked.clear()
    run(embedded, state=tmp_path, **options)  # the first cell's are read back
    assert not asked


@pytest.mark.slow
@pytest.mark.parametrize("change", ["data", "template", "batch", "weights", "hat"])
def test_what_is_kept_is_taken_for_the_same_cell_only(
    embedded: Path, hat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change
) -> None:
    monkeypatch.setattr(grid, "write", answers(lambda _: "first"))
    run(embedded, entries=ENTRIES[:2], state=tmp_path)
    monkeypatch.setattr(grid, "write", answers(lambda _: "second"))
    assert run(embedded, entries=ENTRIES[:2], state=tmp_path)[0].texts == ["first"] * 2
    entries = ENTRIES[1:] if change == "data" else ENTRIES[:2]
    options = {"template": "plain"} if change == "template" else {"batch": 1} if change == "batch" else {}
    weights = ["fp32"] if change == "weights" else ["nf4-dq"]
    adapters = {"new": hat} if change == "hat" else {}
    found = run(embedded, adapters, weights, entries, state=tmp_path, **options)
    assert found[-1].texts == ["second"] * 2


def test_a_file_among_the_kept_that_is_none_of_ours_is_refused(
    embedded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grid, "write", answers(lambda _: ""))
    run(embedded, state=tmp_path)
    (kept,) = tmp_path.rglob("batch-*.json")
    for text, said in (("{", "is no batch"), ("{}", "must be a list"), ("[]", "not of these items")):
        kept.write_text(text)
        with pytest.raises(ValueError, match=said):
            run(embedded, state=tmp_path)


class Echo(Task):
    """A task with an item that is too long for any context."""

    name = "echo"
    measures = ()

    def __init__(self, lengths):
        self.items = [Item(f"i-{n}", "Say it.", "word " * n, "word") for n in lengths]

    def per_item_counts(self, outputs):
        return [{} for _ in outputs]


def test_what_does_not_fit_is_left_out_by_name_and_a_document_never_is(
    embedded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grid, "write", answers(lambda _: ""))
    (cell,) = evaluate_grid(embedded, {}, ["nf4-dq"], [Echo([3, 5000, 4])], progress=False)
    assert cell.left_out == ("i-5000",)
    assert [item.id for item in cell.task.items] == ["i-3", "i-4"]
    with pytest.raises(ValueError, match="task echo: no item of 1 fits into 4096 tokens"):
        evaluate_grid(embedded, {}, ["nf4-dq"], [Echo([5000])], progress=False)


@pytest.mark.parametrize(
    ("options", "expected"),
    [({"weights": ["fp32", "fp32"]}, "^weights: fp32 is named twice"), ({"batch": 0}, "^batch must be at least 1")],
)
def test_what_makes_no_sense_is_refused(embedded: Path, options, expected) -> None:
    with pytest.raises(ValueError, match=expected):
        run(embedded, **options)


@pytest.mark.slow
def test_a_hat_of_another_base_that_was_once_insisted_on_is_refused_again(
    embedded: Path, hat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grid, "write", answers(lambda _: ""))
    foreign = tmp_path / "hat"
    shutil.copytree(hat, foreign)
    record = json.loads((foreign / "lowrank.json").read_text())
    record["base"]["fingerprint"] = "0" * 64
    (foreign / "lowrank.json").write_text(json.dumps(record))
    run(embedded, {"new": foreign}, entries=ENTRIES[:1], state=tmp_path / "state", force=True)
    with pytest.raises(ValueError, match="made for the base 0000000000000000"):
        run(embedded, {"new": foreign}, entries=ENTRIES[:1], state=tmp_path / "state")
