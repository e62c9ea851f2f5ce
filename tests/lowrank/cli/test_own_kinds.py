"""A kind of one's own from training to a text: a hat stores it, and generate and eval take it from there or a file."""

import json
from pathlib import Path

import pytest

from lowrank.cli import main
from lowrank.cli.kinds import chosen_kind
from lowrank.data.documents.facts_record import FactsRecord, known_kind
from lowrank.data.documents.kinds import add_kind, find_kind
from lowrank.train.config import TrainConfig
from lowrank.train.from_config import train_from_config

LETTERS = [
    {
        "instruction": "Write a quarterly letter to investors.",
        "input": f"fund: Harrow {n} Fund\ncash: {n + 2}.5%\nnet asset value: $8{n}.0 million",
        "output": f"## Results\n\nHarrow {n} Fund has ${80 + n}.0 million and {n + 2}.5% in cash.",
    }
    for n in range(4)
]
FACTS = "fund: Tidewell Fund\ncash: 9.5%\nliquidity: 3.5%\nnet asset value: $91.0 million\n"


def trained(folder: Path, name: str, **data: object) -> Path:
    """A hat of one step on letters, imported as a kind of this name."""
    folder.mkdir(exist_ok=True)
    (folder / "gpt.jsonl").write_text("".join(json.dumps(row) + "\n" for row in LETTERS))
    assert main(["data", "import", str(folder / "gpt.jsonl"), str(folder / "mine.jsonl"), "--kind", name]) == 0
    tables = {
        "adapter": {"rank": 1},
        "data": {"train": str(folder / "mine.jsonl"), **data},
        "run": {"out": str(folder / "run"), "epochs": 1},
    }
    return train_from_config(TrainConfig.from_dict(tables), progress=False).adapter


@pytest.fixture(scope="module")
def hat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hat whose kind, "custom", is defined by no file."""
    return trained(tmp_path_factory.mktemp("own"), "custom")


@pytest.mark.slow
def test_a_hat_of_an_imported_kind_can_be_generated_from(
    hat: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = json.loads((hat / "lowrank.json").read_text())["kinds"]["custom"]
    assert "Harrow" not in stored and 'heading = "Results"' in stored  # its form, and nothing of its documents
    (tmp_path / "facts.txt").write_text(FACTS)
    words = [
        "generate",
        "embedded",
        "--dtype",
        "fp32",
        "--adapter",
        f"mine={hat}",
        "--facts",
        str(tmp_path / "facts.txt"),
    ]
    assert main([*words, "--max-new-tokens", "4", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["use"] == "mine"
    record = FactsRecord.read(tmp_path / "facts.txt", chosen_kind(None, [hat]))
    assert (record.kind, record.entry().instruction) == ("custom", LETTERS[0]["instruction"])
    assert record.entry().required_sections == ("Results",)
    assert record.facts["fund"].type == "name"
    assert main([*words, "--kind", "poem"]) == 2
    assert "--kind must be FILE.toml, or one of custom, earnings_summary, " in capsys.readouterr().err


@pytest.mark.slow
def test_a_kind_of_a_file_gives_its_names_and_is_stored_as_it_is(hat: Path, tmp_path: Path) -> None:
    file = tmp_path / "letter.toml"
    assert main(["data", "kind", "new", str(hat.parent.parent / "gpt.jsonl"), str(file)]) == 0
    file.write_text(
        file.read_text().replace('label = "cash"', 'label = "cash"\nphrases = ["in hand"]\nsynonyms = ["liquidity"]')
    )
    own = trained(tmp_path / "own", str(file), kinds=[str(file)])
    assert json.loads((own / "lowrank.json").read_text())["kinds"] == {"letter": file.read_text()}
    assert chosen_kind("letter", [own]) == chosen_kind(str(file), []) == chosen_kind(None, [own]) == "letter"
    assert known_kind("letter").fields["cash"].phrases == ("cash", "liquidity", "in hand")
    with pytest.raises(ValueError, match=r"^--kind must be FILE\.toml, or one of custom, letter, .*, got None$"):
        chosen_kind(None, [hat, own])


def test_hats_with_different_kinds_of_one_name_are_refused_together(hat: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "lowrank.json").write_text(json.dumps({"kinds": {"custom": "other"}}))
    with pytest.raises(ValueError, match="were trained on different kinds of this name"):
        chosen_kind(None, [hat, other])


def test_one_of_our_kinds_cannot_be_replaced() -> None:
    memo = find_kind("credit_memo")
    assert memo is not None
    with pytest.raises(ValueError, match="another name than one of lowrank's, got 'credit_memo'"):
        add_kind(memo)
    assert find_kind("no_such_kind") is None


def test_foreign_files_are_evaluated_like_entries(hat: Path, tmp_path: Path) -> None:
    import argparse

    from lowrank.cli.eval.tasks import build_tasks

    args = argparse.Namespace(
        tasks="documents",
        kind=None,
        n=None,
        trained_on=[],
        data=hat.parent.parent / "gpt.jsonl",
        overlap=False,
        public=None,
    )
    (task,) = build_tasks(args, {"mine": hat})
    assert [item.id for item in task.items] == [f"custom-000{n}" for n in range(4)]
    args.data = tmp_path / "no-facts.jsonl"
    args.data.write_text(json.dumps({"prompt": "Why?", "completion": "So."}) + "\n")
    with pytest.raises(ValueError, match=r"^--data .*no-facts\.jsonl:1: the input must hold facts, .*: a document is"):
        build_tasks(args, {})


def test_eval_and_check_take_the_file_of_a_kind(hat: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import argparse

    from lowrank.cli.eval.tasks import build_tasks

    file, rows = tmp_path / "note.toml", hat.parent.parent / "gpt.jsonl"
    assert main(["data", "kind", "new", str(rows), str(file)]) == 0
    file.write_text(file.read_text().replace('label = "cash"', 'label = "cash"\nphrases = ["in cash"]'))
    args = argparse.Namespace(
        tasks="documents", kind=str(file), n=None, trained_on=[], data=rows, overlap=False, public=None
    )
    (task,) = build_tasks(args, {})
    assert [item.id for item in task.items] == [f"note-000{n}" for n in range(4)]
    with pytest.raises(ValueError, match=r"--kind must be FILE\.toml, or one of .*, got 'poem'"):
        build_tasks(argparse.Namespace(**{**vars(args), "kind": "poem"}), {})
    assert main(["data", "import", str(rows), str(tmp_path / "note.jsonl"), "--kind", str(file)]) == 0
    assert main(["data", "check", str(tmp_path / "note.jsonl"), "--kind", str(file)]) == 0
    assert main(["data", "check", str(tmp_path / "note.jsonl"), "--kind", str(tmp_path / "none.toml")]) == 2
    assert "none.toml" in capsys.readouterr().err


@pytest.mark.slow
def test_a_hat_of_another_kind_is_refused_by_its_name(
    hat: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "facts.txt").write_text("company: Aldane\nrevenue: $5 million\n")
    words = [
        "generate",
        "embedded",
        "--dtype",
        "fp32",
        "--adapter",
        f"mine={hat}",
        "--facts",
        str(tmp_path / "facts.txt"),
    ]
    words += ["--kind", "earnings_summary", "--max-new-tokens", "2"]
    assert main(words) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert (
        told == f"lowrank: {hat}: was trained on custom, and not on 'earnings_summary': --force takes it all the same"
    )
    assert main([*words, "--out", str(tmp_path / "out")]) == 2 and not (tmp_path / "out").exists()
    assert main([*words, "--force"]) == 0
    assert main([*words, "--use", "none"]) == 0
