"""The document set on disk: which entries its files hold, and that its manifest tells them."""

import json
from pathlib import Path

import pytest

from lowrank.atomic_io import sha256_of
from lowrank.cli import main
from lowrank.data.documents.document import read_jsonl
from lowrank.data.documents.document_set import document_splits, write_document_set
from lowrank.data.documents.kinds import KINDS


@pytest.mark.parametrize("hold_out", [None, "audit_letter"], ids=str)
def test_a_kind_can_be_held_out(hold_out: str | None) -> None:
    splits = document_splits(30, seed=7, hold_out=hold_out)
    assert {split: len(entries) for split, entries in splits.items()} == {"train": 30, "validation": 50, "test": 200}
    kinds = {split: {entry.kind for entry in entries} for split, entries in splits.items()}
    assert kinds["train"] == kinds["validation"] == set(KINDS) - {hold_out}
    assert kinds["test"] == ({hold_out} if hold_out else set(KINDS))


def test_a_kind_that_is_none_cannot_be_held_out() -> None:
    with pytest.raises(ValueError, match=r"hold_out must be one of earnings_summary, .*, got 'poem'"):
        document_splits(1, seed=0, hold_out="poem")


@pytest.mark.slow
def test_a_run_without_arguments_has_the_bytes_that_it_had_when_it_was_stored(
    tmp_path: Path, golden: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["data", "documents"]) == 0
    stored = (golden / "documents" / "manifest.json").read_text()
    assert (tmp_path / "data" / "documents" / "manifest.json").read_text() == stored


def test_the_manifest_counts_and_hashes_what_is_on_disk(tmp_path: Path) -> None:
    splits = document_splits(3, seed=1, hold_out="audit_letter")
    manifest = write_document_set(tmp_path, splits, seed=1, hold_out="audit_letter")
    assert manifest == json.loads((tmp_path / "manifest.json").read_text())
    assert (manifest["seed"], manifest["hold_out"]) == (1, "audit_letter")
    for name, about in manifest["output"].items():
        entries = read_jsonl(tmp_path / name)
        assert about["entries"] == len(entries) == sum(about["kinds"].values())
        assert about["sha256"] == sha256_of(tmp_path / name)
        assert about["bytes"] == (tmp_path / name).stat().st_size
    assert manifest["output"]["train.jsonl"]["figures"] == sum(
        fact.is_figure for entry in splits["train"] for fact in entry.facts.values()
    )
