"""FinGPT's own scoring, kind by kind of answer, as its code gives them."""

import pytest

from lowrank.eval.metrics.fingpt import lenient_label, lenient_tags


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("positive", "positive"),
        ("Negative", "negative"),
        ("not negative but positive", "positive"),
        ("POSITIVE", "neutral"),
        ("", "neutral"),
        ("banana", "neutral"),
        ("neutral, not negative", "negative"),
    ],
)
def test_labels(text, label) -> None:
    assert lenient_label(text) == label


SENTENCE = "Borrower owes Alder Bank , N.A. and Borrower"


@pytest.mark.parametrize(
    ("answer", "tags"),
    [
        ("Borrower is a person.", "B-PER O O O O O O O"),
        ("Borrower is a person, Borrower is a person.", "B-PER O O O O O O B-PER"),
        ("Alder Bank is an organization, borrower is an person", "B-PER O B-ORG I-ORG O O O O"),
        ("Alder Bank , N.A. is an organization.", "O O O O O O O O"),  # cut at the comma, "N.A." has another case
        ("Lender is a person.", "O O O O O O O O"),  # invented: costs nothing
        ("Bank is a building.", "O O O B-O O O O O"),
        (" is a person.", "O O O O O O O O"),
        ("no idea", "O O O O O O O O"),
    ],
)
def test_tags(answer, tags) -> None:
    expected = tags.split()
    if answer.startswith("Alder Bank ,"):
        expected = ["O", "O", "O", "O", "O", "B-ORG", "O", "O"]  # the piece behind the comma is read by itself
    assert lenient_tags(SENTENCE, answer) == expected
