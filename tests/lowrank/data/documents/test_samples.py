"""Invented documents of a kind: the same for the same seed, told apart by name, beside the table that they state."""

import csv
import io
from pathlib import Path

import pytest

from lowrank.cli import main
from lowrank.data.documents.fact_files import read_fact_file
from lowrank.data.documents.kinds import KINDS
from lowrank.data.documents.samples import as_csv, sample_documents
from lowrank.data.imports.letters import letters_in, matched


@pytest.mark.parametrize("name", KINDS)
def test_samples_of_every_kind_are_told_apart_and_state_their_table(name: str) -> None:
    kind = KINDS[name]
    samples = sample_documents(kind, 12, seed=4)
    assert len({sample.name for sample in samples}) == 12
    assert samples == sample_documents(kind, 12, seed=4) != sample_documents(kind, 12, seed=5)
    head, *rows = csv.reader(io.StringIO(as_csv(kind, samples)))
    assert head == [field.label for field in kind.fields.values()]
    for row, sample in zip(rows, samples, strict=True):
        assert row == [fact.print for fact in sample.facts.values()]
        assert sample.text.startswith(f"# {kind.title}\n")


@pytest.mark.slow
@pytest.mark.parametrize("format", ["md", "docx"])
def test_a_folder_of_samples_is_matched_to_its_table(format: str, tmp_path: Path) -> None:
    pytest.importorskip("docx")
    out = tmp_path / "out"
    assert main(["data", "kind", "sample", "fund_fact_sheet", str(out), "--n", "9", "--format", format]) == 0
    letters = letters_in(out / "letters")
    assert len(letters) == 9 and {letter.suffix for letter in letters} == {f".{format}"}
    found = dict(matched(letters, out / "facts.csv"))
    assert len(set(map(str, found.values()))) == 9 and all(isinstance(facts, str) for facts in found.values())
    assert len(read_fact_file(out / "facts.csv", {}, is_table=True).records) == 9


def test_what_cannot_be_made_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="at least one document must be made, got 0"):
        sample_documents(KINDS["credit_memo"], 0, seed=0)
    (tmp_path / "bare.toml").write_text(
        'name = "bare"\ntitle = "Bare"\nnoun = "a bare"\n\n[fields.cash]\nlabel = "cash"\ntype = "pct"\n'
    )
    assert main(["data", "kind", "sample", str(tmp_path / "bare.toml"), str(tmp_path / "out")]) == 2
    assert "cash: the kind has no rule that draws this field" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    assert main(["data", "kind", "sample", "credit_memo", str(tmp_path / "out")]) == 2
    assert "is there already" in capsys.readouterr().err
