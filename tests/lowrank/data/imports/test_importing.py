"""Foreign examples as entries: their facts, kind and sections, and the way to a file and back."""

from pathlib import Path
from typing import Any

import pytest

from lowrank.data.documents.document import read_jsonl, write_jsonl
from lowrank.data.documents.kind import STYLES
from lowrank.data.documents.kinds import KINDS
from lowrank.data.imports.importing import (
    REQUEST,
    Document,
    Documents,
    document_of,
    import_documents,
    import_entry,
    kind_of,
)
from lowrank.eval.metrics.faithfulness import check

LETTER = {
    "instruction": "Write a letter to the shareholders.",
    "input": "company: Acme Ltd\nnet debt: $5.25 million\nrate: 7.25 per cent\nsigned: March 3, 2025",
    "output": (
        "# Letter\n\n## Debt\nAcme Ltd has net debt of $5.25 million at a rate of 7.25%.\n\n## **Date** ##\nIn March."
    ),
}


def entry_of(
    format: str, row: Any, index: int, *, license: str, kind: str | None = None, instruction: str | None = None
):
    """The entry of a row."""
    return import_entry(document_of(format, row, "1", instruction), index, kind=kind, license=license)


def test_an_example_becomes_an_entry_and_comes_back(tmp_path: Path) -> None:
    entry = entry_of("alpaca", LETTER, 3, kind=None, license="CC0-1.0")
    assert (entry.id, entry.kind, entry.split, entry.license) == ("custom-0003", "custom", "train", "CC0-1.0")
    assert {key: (fact.type, fact.value) for key, fact in entry.facts.items()} == {
        "company": ("text", "Acme Ltd"),
        "net_debt": ("usd_m", "5.25"),
        "rate": ("rate", "7.25"),
        "signed": ("date", "2025-03-03"),
    }
    assert entry.required_sections == ("Debt", "Date")
    write_jsonl(tmp_path / "mine.jsonl", [entry])
    assert read_jsonl(tmp_path / "mine.jsonl") == [entry]


def test_a_custom_entry_is_checked_by_its_own_labels_and_headings() -> None:
    entry = entry_of("alpaca", LETTER, 0, kind=None, license="")
    marks = check(entry, entry.output)
    assert (marks.sections, marks.precision, marks.recall, marks.binding) == (1.0, 1.0, 1.0, 1.0)
    wrong = check(entry, entry.output.replace("$5.25 million", "$6.25 million"))
    assert (wrong.precision, wrong.recall) == (0.5, 0.5)


@pytest.mark.parametrize(
    ("instruction", "kind"),
    [
        *((kind.instruction(style), name) for name, kind in KINDS.items() for style in STYLES),
        ("Draft a Credit Memo for the board.", "credit_memo"),
        ("Write a poem.", None),
    ],
)
def test_a_kind_is_told_by_the_instruction(instruction: str, kind: str | None) -> None:
    assert kind_of(instruction) == kind


def test_the_instruction_goes_before_the_kind_that_is_given() -> None:
    memo = LETTER | {"instruction": "Write a credit memo.", "input": "applicant: Acme Ltd\ntenor in months: 24"}
    entry = entry_of("alpaca", memo, 0, kind="audit_letter", license="")
    assert entry.kind == "credit_memo"
    assert {key: fact.type for key, fact in entry.facts.items()} == {"borrower": "name", "term": "count"}
    assert entry_of("alpaca", LETTER, 0, kind="letter", license="").id == "letter-0000"


def test_an_example_without_facts_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^the input must hold facts, one `label: value` a line, got none$"):
        entry_of("alpaca", LETTER | {"input": "all we know"}, 0, license="")


RECORD = {"facts": {"fund": "Harrow Lane", "net asset value": "$287.0 million", "cash": None, "rank": 3}}


def test_a_record_and_its_letter_become_an_entry() -> None:
    row = RECORD | {"letter": "Harrow Lane, rank 3, has a net asset value of $287.0 million."}
    entry = entry_of("facts", row, 0, instruction="Write to the investors.", license="")
    assert (entry.instruction, entry.output) == ("Write to the investors.", row["letter"])
    assert entry.input == "fund: Harrow Lane\nnet asset value: $287.0 million\nrank: 3"
    assert {key: fact.type for key, fact in entry.facts.items()} == {
        "fund": "text",
        "net_asset_value": "usd_m",
        "rank": "count",
    }
    assert entry_of("facts", row | {"instruction": "Say it."}, 0, license="").instruction == "Say it."
    assert entry_of("facts", row, 0, license="").instruction == REQUEST


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (RECORD, "the document must be under one of letter, document, output, text, got nothing"),
        (RECORD | {"letter": "a", "text": "b"}, "the document must be under one of .*, got letter, text"),
        (RECORD | {"letter": " "}, "letter: must not be empty, got ' '"),
        ({"facts": [1], "letter": "a"}, "facts: must be an object of labels and values, got a list of 1"),
        ({"facts": {}, "letter": "a"}, "the input must hold facts"),
    ],
)
def test_a_record_that_cannot_be_imported_is_told_by_its_key(row: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        entry_of("facts", row, 0, license="")


def test_what_a_record_says_twice_or_against_itself_is_noted() -> None:
    record = "revenue: $5.0 million\nrevenue: $6.0 million\nsome prose"
    imported = import_documents(Documents(1, "alpaca", [Document("7", "Write.", record, "It was.")]), license="")
    told = [(note.place, note.rule) for note in imported.notes]
    assert told == [("7", "record: not read"), ("7", "record: contradiction")]
    assert "$6.0 million" in imported.notes[1].value
