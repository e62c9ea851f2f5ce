"""Spoiled documents: whatever way they are spoiled in, a check of figures finds it; and a seed gives them again."""

import json
from pathlib import Path

import pytest

from lowrank.data.documents.document import Entry, make_documents
from lowrank.data.documents.spoiled import WAYS, preference_row, spoil, spoiled_preferences
from lowrank.data.imports.examples import read_conversations
from lowrank.eval.metrics.faithfulness import check
from lowrank.eval.metrics.mentions import check_mentions


@pytest.fixture(scope="module", params=["train", "test"])
def entries(request: pytest.FixtureRequest) -> list[Entry]:
    return make_documents(40, seed=7, split=request.param)


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_a_check_finds_what_is_spoiled(entries: list[Entry], way: str) -> None:
    texts = [(entry, spoil(entry, way, seed=0)) for entry in entries]
    spoiled = [(entry, text) for entry, text in texts if text is not None]
    assert len(spoiled) == (len(entries) if way != "period" else 28)  # the others have no date and no period
    for entry, text in spoiled:
        marks, mentions = check(entry, text), check_mentions(entry, text)
        assert marks.sections == 1.0
        if way == "period":
            assert mentions.dates_right < mentions.dates_written or marks.precision != 1.0, (entry.id, text)
        else:
            assert marks.binding is not None and marks.binding < 1.0, (entry.id, text)
        if way == "label":  # each figure is in the record, but for a sign that a sentence gives it
            assert marks.precision is not None and marks.precision > 0.8, (entry.id, text)


def test_a_seed_gives_the_same_and_another_gives_others() -> None:
    entries = make_documents(10, seed=7, split="train")
    one, again, other = (list(spoiled_preferences(entries, seed)) for seed in (0, 0, 1))
    assert one == again and one != other
    assert len({preference.id for preference in one}) == len(one) == 37
    assert all(preference.rejected != preference.turns[0].output for preference in one)


def test_a_document_without_figures_has_none_spoiled() -> None:
    entry = make_documents(1, seed=7, split="train")[0]
    bare = Entry(**{**vars(entry), "output": "# Nothing\n"})
    assert all(spoil(bare, way, seed=0) is None for way in WAYS)
    with pytest.raises(ValueError, match=r"^spoil: way must be one of label, digit, scale, period, got 'colour'$"):
        spoil(entry, "colour", seed=0)


def test_a_row_of_a_file_is_read_as_it_was(tmp_path: Path) -> None:
    preferences = list(spoiled_preferences(make_documents(3, seed=7, split="train"), seed=0))
    path = tmp_path / "spoiled.jsonl"
    path.write_text("".join(json.dumps(preference_row(one)) + "\n" for one in preferences))
    assert read_conversations(path) == preferences
