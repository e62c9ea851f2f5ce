"""A row and its file: what is written is read back, and what is broken is told with its place."""

from pathlib import Path

import pytest

from lowrank.data.mixture.rows import MixtureRow, read_rows, write_rows

ROW = MixtureRow("tfns-1", "tfns", "What is the sentiment?", "up \u2028 and up", "positive", "positive")
PLAIN = MixtureRow("ner-1", "ner", "Extract.", "Borrower pays .", "Borrower is a person.")


def test_rows_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", [ROW, PLAIN])
    assert read_rows(tmp_path / "a.jsonl") == [ROW, PLAIN]
    assert b'"label"' not in (tmp_path / "a.jsonl").read_bytes().splitlines()[-1]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": "1"', "2: must be JSON, got none: .* at column"),
        ("[1]", "2: expected a JSON object, got list"),
        ('{"id": 1}', "2: id: expected a string, got 1"),
        ('{"id": "1", "source": "ner"}', "2: instruction: expected a string, got 'nothing'"),
        ('{"id":"1","source":"s","instruction":"i","input":"i","output":"o","label":2}', "2: label: expected a string"),
        ('{"id":"1","source":"s","instruction":"i","input":"i","output":"o","labl":"x"}', "labl: expected no such key"),
    ],
)
def test_a_broken_line_is_told_with_its_place(line: str, message: str, tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", [PLAIN])
    with (tmp_path / "a.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(ValueError, match=message) as error:
        read_rows(tmp_path / "a.jsonl")
    assert str(error.value).startswith(f"{tmp_path / 'a.jsonl'}:2")
    assert "\n" not in str(error.value)
