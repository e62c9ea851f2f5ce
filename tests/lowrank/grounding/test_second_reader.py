"""The second reader says of 200 sentences what a person said of them."""

from pathlib import Path

import pytest
from second_reader import NAMES, read

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
