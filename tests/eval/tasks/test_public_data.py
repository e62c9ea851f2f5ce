"""The public sets out of local files, and what is never asked."""

from pathlib import Path

import pytest

from lowrank.data.mixture.build import build_mixture
from lowrank.data.mixture.fetch import local_files
from lowrank.data.mixture.rows import read_rows
from lowrank.eval.tasks.public_data import ner_rows, question_rows, sentiment_rows, some


def test_they_are_read_from_the_sets_as_they_are_upstream(raw) -> None:
    assert {row.label for row in sentiment_rows(raw)} == {"negative", "neutral", "positive"}
    assert all(row.source == "ner" for row in ner_rows(raw))
    assert len({row.input for row in question_rows(raw, [])}) == len(question_rows(raw, []))


@pytest.mark.slow
def test_a_folder_that_data_mixture_wrote_has_the_same_rows(raw, tmp_path: Path) -> None:
    build_mixture(tmp_path / "mixture", local_files(raw), total=60)
    assert sentiment_rows(tmp_path / "mixture") == sentiment_rows(raw)
    assert ner_rows(tmp_path / "mixture") == ner_rows(raw)


@pytest.mark.slow
def test_a_question_that_was_trained_on_is_not_asked(raw, tmp_path: Path) -> None:
    build_mixture(tmp_path / "mixture", local_files(raw), total=60)
    trained = [row for row in read_rows(tmp_path / "mixture/train.jsonl") if row.source == "fiqa_qa"]
    asked = question_rows(raw, [row.input for row in trained])
    assert trained and asked
    assert not {row.id for row in asked} & {row.id for row in trained}
    assert len(asked) < len(question_rows(raw, []))


def test_the_reference_is_the_longest_answer(raw) -> None:
    row = next(row for row in question_rows(raw, []) if row.input == question_rows(raw, [])[0].input)
    assert len(row.output.split()) == 22  # of 20, 21 and 22 words


def test_the_same_few_are_taken_every_time_in_their_order(raw) -> None:
    rows = sentiment_rows(raw)
    few = some(rows, 5)
    assert few == some(list(reversed(rows)), 5)[::-1]
    assert [row.id for row in few] == sorted(row.id for row in few)
    assert some(rows, None) == some(rows, 1000) == rows


def test_what_is_missing_is_told(tmp_path: Path, raw) -> None:
    with pytest.raises(
        ValueError, match=r"missing tfns-validation.jsonl or twitter-financial-news-sentiment/sent_valid"
    ):
        sentiment_rows(tmp_path)
    with pytest.raises(ValueError, match=r"missing fingpt-fiqa_qa/data/train-\*.parquet"):
        question_rows(tmp_path, [])
    with pytest.raises(ValueError, match="no such folder"):
        ner_rows(tmp_path / "nowhere")
    everything = [row.input for row in question_rows(raw, [])]
    with pytest.raises(ValueError, match="every question was trained on"):
        question_rows(raw, everything)
