"""Entities by the whole grammar; inventions cost; F1 held to seqeval's."""

import pytest

from lowrank.data.mixture.rows import MixtureRow
from lowrank.eval.metrics.metric import stack
from lowrank.eval.tasks.entities import Entities, Entity, read_entities, tag_pair
from lowrank.eval.tasks.generate import Output


def scores_of(*asked):
    """(sentence, reference, answer) ... -> the scores of the task."""
    task = Entities([MixtureRow(str(i), "ner", "?", s, r) for i, (s, r, _) in enumerate(asked)])
    parts = stack(task.per_item_counts([Output(a, 1, True) for _, _, a in asked]), [m.key for m in task.measures])
    return {measure.key: measure.value(parts[measure.key]) for measure in task.measures}


@pytest.mark.parametrize(
    ("answer", "entities"),
    [
        ("Borrower is a person.", [("Borrower", "person")]),
        ("Borrower is a person", [("Borrower", "person")]),
        ("A, B is an organization, C is a location.", [("A, B", "organization"), ("C", "location")]),
        ("X is a bank.", None),
        ("Borrower is a person. And more.", None),
        ("Borrower is a person, and", None),
        ("", None),
        (".", None),
    ],
)
def test_an_answer_is_read_as_a_whole_or_not_at_all(answer, entities) -> None:
    found = read_entities(answer)
    assert found == (None if entities is None else [Entity(*entity) for entity in entities])


def test_a_name_marks_its_first_free_place_case_and_all() -> None:
    right, said = tag_pair(
        "Bank lends to Bank and bank",
        [Entity("Bank", "organization"), Entity("Bank", "organization")],
        [Entity("Bank", "organization"), Entity("bank", "organization"), Entity("BANK", "person")],
    )
    assert right == ["B-ORG", "O", "O", "B-ORG", "O", "O", "O"]
    assert said == ["B-ORG", "O", "O", "O", "O", "B-ORG", "B-PER"]


def test_an_invention_is_a_false_positive_here_and_free_at_fingpt() -> None:
    sentence, reference = "Borrower owes Alder Bank .", "Borrower is a person, Alder Bank is an organization."
    clean = scores_of((sentence, reference, reference))
    invented = scores_of((sentence, reference, reference.replace(".", ", Elm Park is a location.")))
    assert (clean["entity_f1"], clean["fingpt_entity_f1"], clean["unparsable"]) == (1, 1, 0)
    assert invented["entity_f1"] == pytest.approx(4 / 5)
    assert (invented["entity_precision"], invented["entity_recall"]) == (pytest.approx(2 / 3), 1)
    assert invented["fingpt_entity_f1"] == 1


def test_a_wrong_type_is_neither_found_nor_right() -> None:
    scores = scores_of(("Borrower owes .", "Borrower is a person.", "Borrower is an organization."))
    assert (scores["entity_f1"], scores["entity_precision"], scores["entity_recall"]) == (0, 0, 0)


def test_what_does_not_fit_the_grammar_names_nothing_and_is_counted() -> None:
    scores = scores_of(
        ("Borrower owes .", "Borrower is a person.", "Borrower is a person, I think"),
        ("Lender lends .", "Lender is a person.", "Lender is a person."),
    )
    assert (scores["unparsable"], scores["entity_recall"]) == (0.5, 0.5)
    assert scores["fingpt_entity_f1"] == 1  # which read the first as well


def test_a_reference_that_is_not_in_its_sentence_is_missed() -> None:
    scores = scores_of(("Nothing here .", "Borrower is a person.", "Lender is a person."))
    assert (scores["entity_f1"], scores["entity_recall"]) == (0, 0)
