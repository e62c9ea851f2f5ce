"""The second reader says of 200 sentences what a person said of them."""

from pathlib import Path

import pytest
from second_reader import NAMES, read

from lowrank.data.documents.reading import read_facts
from lowrank.data.facts.figure_matching import Record

SENTENCES = Path(__file__).with_name("labelled_sentences.txt")


def labelled() -> list[tuple[str, str, str, str, str]]:
    """(kind, record, verdicts of figures, of directions, sentence)"""
    cases = []
    for part in SENTENCES.read_text(encoding="utf-8").split("\n== ")[1:]:
        kind, *lines = part.strip().splitlines()
        record = lines[: next(place for place, line in enumerate(lines) if "|" in line[:7])]
        for line in lines[len(record) :]:
            label, _, sentence = line.partition("|")
            figures = "".join(mark for mark in label if mark in "rlw")
            directions = "".join(mark for mark in label if mark in "+-")
            cases.append((kind, "\n".join(record), figures, directions, sentence.strip(" ")))
    return cases


def test_there_are_200_sentences_in_all_ten_kinds() -> None:
    cases = labelled()
    assert len(cases) >= 200, len(cases)
    assert {kind for kind, *_ in cases} == set(NAMES)


@pytest.mark.parametrize("kind", NAMES)
def test_the_reader_says_what_a_person_said(kind: str) -> None:
    wrong = [
        f"{sentence!r}: a person says {figures}{directions}, the reader {''.join(read(kind, record, sentence))}"
        for of, record, figures, directions, sentence in labelled()
        if of == kind and read(kind, record, sentence) != (figures, directions)
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("record", "text", "verdicts"),
    [
        ("share: ½", "The share is ½.", "r"),
        ("share: ½", "The share is 0.5.", "r"),
        ("share: ½", "The share is 1½.", "w"),
        ("share: ½", "It is ½.", "l"),
        ("rate: 2½%", "The rate is 2.5%, 2½%.", "rl"),
        ("rate: 2½%", "The rate is ½%.", "w"),
    ],
)
def test_both_readers_know_a_half(record: str, text: str, verdicts: str) -> None:
    facts = read_facts(record, {})
    assert [fact.is_figure for fact in facts.values()] == [True]
    assert read("", record, text)[0] == verdicts
    assert [bool(claim.keys) for claim in Record(facts).claims(text)] == [verdict != "w" for verdict in verdicts]
