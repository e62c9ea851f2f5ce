"""`lowrank eval` as its users meet it: the public sets, what was trained on, and what one line says of a mistake."""

import importlib.util
import json
from functools import partial
from pathlib import Path

import pytest
from peers import Peer

import lowrank as package
from lowrank.atomic_io import sha256_of
from lowrank.cli import main
from lowrank.data.documents.document import make_documents, write_jsonl
from lowrank.eval.tasks.documents import Documents

_PATH = Path(__file__).parent.parent / "data" / "mixture" / "conftest.py"
_SPEC = importlib.util.spec_from_file_location("mixture_fixtures", _PATH)
assert _SPEC is not None and _SPEC.loader is not None
_FIXTURES = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_FIXTURES)
raw = _FIXTURES.raw


@pytest.fixture(autouse=True)
def short_texts(monkeypatch: pytest.MonkeyPatch):
    """Documents are cut after 60 tokens."""
    monkeypatch.setattr(Documents, "most_tokens", lambda *_: 60)


@pytest.fixture
def lowrank(capsys: pytest.CaptureFixture[str]):
    """Runs a command in this process: (status, standard output, the lines of standard error that are ours)."""

    def run(*arguments):
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as stop:
            status = stop.code
        out, err = capsys.readouterr()
        return status, out, "\n".join(line for line in err.splitlines() if line.startswith("lowrank"))

    return run


@pytest.fixture(scope="module")
def mixture(raw, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("mixture") / "out"
    assert main(["data", "mixture", str(folder), "--from", str(raw), "--total", "60"]) == 0
    return folder


@pytest.fixture(scope="module")
def hat(embedded: Path, mixture, tmp_path_factory: pytest.TempPathFactory):
    """A new hat that says it was trained on the mixture."""
    folder = tmp_path_factory.mktemp("hat") / "hat"
    model = package.load(embedded)
    package.add_adapter(model, "new", rank=2)
    data = {"file": "train.jsonl", "sha256": sha256_of(mixture / "train.jsonl")}
    package.save_adapter(model, "new", folder, notes={"data": data})
    return folder


@pytest.mark.long
def test_all_four_tasks_in_one_command_and_again_at_once(lowrank, raw, mixture, hat, tmp_path: Path) -> None:
    command = ["eval", "embedded", "--adapter", f"new={hat}", "--weights", "fp32,nf4-dq", "--n", 3, "--json"]
    command += ["--tasks", "documents,sentiment,ner,qa", "--from", raw, "--trained-on", mixture / "train.jsonl"]
    command += ["--overlap", "--out", tmp_path / "out"]
    status, out, _ = lowrank(*command)
    assert status == 0
    figures = json.loads(out)
    assert figures == json.loads((tmp_path / "out/grid.json").read_text())
    cells = {(row["task"], row["adapter"], row["weights"]): row for row in figures["cells"]}
    assert len(cells) == 4 * 2 * 2
    for task, keys in {
        "documents": {"figure_precision", "copied", "rouge1", "self_bleu", "ended"},
        "sentiment": {"accuracy", "weighted_f1", "macro_f1", "unparsable", "fingpt_weighted_f1"},
        "ner": {"entity_f1", "unparsable", "fingpt_entity_f1"},
        "qa": {"chrf", "rougeLsum", "ended"},
    }.items():
        row = cells[task, None, "fp32"]
        assert row.keys() >= keys | {"loss", "bits_per_byte"}
        assert {key: row[key] for key in keys} == {key: cells[task, "new", "fp32"][key] for key in keys}  # B is zero
    gains = [one for one in figures["comparisons"] if one["question"] == "gain"]
    assert gains and all(one["difference"] in (0, None) for one in gains)
    assert {one["question"] for one in figures["comparisons"]} == {"gain", "cost"}
    assert lowrank(*command)[1] == out
    for name in ("grid.md", "grid.html", "texts/qa.new.nf4-dq.jsonl"):
        assert (tmp_path / "out" / name).stat().st_size > 0


@pytest.mark.slow
def test_the_scores_and_both_answers_are_printed(lowrank, hat, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("Revenue was $12.5 million.")
    more = ["--perplexity", tmp_path / "text.txt", "--window", 16, "--out", tmp_path / "out"]
    status, out, _ = lowrank("eval", "embedded", "--adapter", f"new={hat}", "--weights", "nf4-dq,fp32", "--n", 2, *more)
    assert status == 0
    for line in ("What the hat gains:", "What 4 bit costs:", "perplexity a token", "every score  the same"):
        assert line in out
    assert "Perplexity of" in (tmp_path / "out/grid.md").read_text()


@pytest.mark.slow
def test_the_public_sets_have_to_be_named_and_training_files_too(lowrank, raw, mixture, hat) -> None:
    assert "--tasks ner needs --from DIR" in lowrank("eval", "embedded", "--tasks", "ner")[2]
    use = ("eval", "embedded", "--adapter", f"new={hat}", "--tasks", "qa", "--from", raw)
    status, _, told = lowrank(*use)
    assert status == 2
    assert "new was trained on train.jsonl: name it by --trained-on" in told
    status, _, told = lowrank(*use, "--trained-on", mixture / "ner-test.jsonl")
    assert (status, "name it by --trained-on" in told) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--tasks", "poems"], "--tasks must be of documents, sentiment, ner, qa, got 'poems'"),
        (["--tasks", "documents,documents"], "--tasks: documents is named twice"),
        (["--weights", "fp32,fp32"], "--weights: fp32 is named twice"),
        (["--n", "0"], "--n must leave at least one document"),
        (["--batch", "0"], "--batch must be at least 1, got 0"),
        (["--adapter", "a=x", "--adapter", "a=y"], "--adapter a=...: the name is given twice"),
        (["--adapter", "../a=x"], "a name must be letters, digits, _ and -, got '../a'"),
        (["--adapter", "a=nowhere"], "nowhere: no such folder"),
        (["--window", "8"], "--window and --stride are of --perplexity"),
        (["--limit", "8"], "--include-path and --limit are of --lm-eval"),
        (["--perplexity", "nowhere.txt"], "--perplexity: nowhere.txt: no such file"),
        (["--trained-on", "nowhere.jsonl"], "nowhere.jsonl: no such file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_told_in_one_line(lowrank, tmp_path: Path, arguments, expected) -> None:
    status, _, told = lowrank("eval", "embedded", "--out", tmp_path / "out", *arguments)
    assert status == 2
    assert expected in told
    assert len(told.splitlines()) == 1


@pytest.mark.slow
def test_documents_of_a_file_are_taken_as_they_stand(lowrank, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "mine.jsonl", make_documents(3, seed=11, split="test"))
    command = ("eval", "embedded", "--data", tmp_path / "mine.jsonl", "--n", 2, "--weights", "nf4-dq", "--json")
    status, out, _ = lowrank(*command, "--out", tmp_path / "out")
    assert (status, json.loads(out)["cells"][0]["n"]) == (0, 2)
    (tmp_path / "empty.jsonl").write_text("")
    status, _, told = lowrank("eval", "embedded", "--data", tmp_path / "empty.jsonl", "--out", tmp_path / "out")
    assert (status, "empty.jsonl: must hold at least one entry, got none" in told) == (2, True)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the harness's own libraries
def test_tasks_of_the_harness_run_on_every_column(
    lowrank, hat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = partial(Peer("lm_eval.tasks").TaskManager, include_defaults=False)  # which are thousands of files
    monkeypatch.setattr("lm_eval.tasks.TaskManager", alone)
    rows = [{"q": "cash: $3.1 million\nCash was", "choices": [" $8.8 million.", " $3.1 million."], "gold": 1}] * 2
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = {"data_files": {"test": str(tmp_path / "rows.jsonl")}, "cache_dir": str(tmp_path / "cache")}
    task = {"task": "toy", "dataset_path": "json", "dataset_kwargs": files, "test_split": "test"}
    task |= {"output_type": "multiple_choice", "doc_to_text": "{{q}}", "doc_to_choice": "{{choices}}"}
    (tmp_path / "toy.yaml").write_text(json.dumps({**task, "doc_to_target": "gold", "target_delimiter": ""}))
    command = ["eval", "embedded", "--adapter", f"new={hat}", "--weights", "nf4-dq", "--n", 1, "--json"]
    command += ["--lm-eval", "toy", "--include-path", tmp_path, "--limit", 1, "--out", tmp_path / "out"]
    status, out, _ = lowrank(*command)
    assert status == 0
    found = json.loads(out)["lm_eval"]
    assert [(row["adapter"], row["task"]) for row in found if row["metric"] == "acc"] == [(None, "toy"), ("new", "toy")]
    assert all(row["value"] == 1.0 for row in found if row["metric"] == "acc")
    assert "Tasks of lm-evaluation-harness" in (tmp_path / "out/grid.html").read_text()
    status, _, told = lowrank("eval", "embedded", "--lm-eval", "no-such-task", "--out", tmp_path / "out")
    assert (status, "--lm-eval: the harness knows no task 'no-such-task'" in told) == (2, True)
