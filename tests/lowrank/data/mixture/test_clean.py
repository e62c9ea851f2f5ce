"""Rows unfit to learn from, each rule on rows that it is and is not about."""

import pytest

from lowrank.data.mixture import clean


def test_texts_are_compared_without_case_links_and_white_space() -> None:
    assert clean.comparable("Apple\n\tUP  5% https://t.co/Ab1 NOW") == "apple up 5% now"
    assert clean.comparable("see https://example.org/Ab1") == "see https://example.org/ab1"


@pytest.mark.parametrize("output", ["", "nan", "NaN", "."])
def test_an_answer_that_says_nothing(row, output: str) -> None:
    assert clean.without_output([row(1, "fiqa_qa", "a?", output), row(2, "fiqa_qa", "a?", "no. nan.")]) == {"1"}


def test_a_text_that_is_only_a_link(row) -> None:
    rows = [row(1, "tfns", "https://t.co/a http://t.co/b"), row(2, "tfns", ""), row(3, "tfns", "up https://t.co/a")]
    assert clean.without_input(rows) == {"1", "2"}


def test_entities_with_commas_and_articles_in_them_are_read_whole() -> None:
    output = "Cedar Trust , N.A. is an organization, Borrower is a person, York, Maine is a location."
    assert clean.entities(output) == ["Cedar Trust , N.A.", "Borrower", "York, Maine"]
    assert clean.entities(".") == []


def test_a_sentence_that_ends_in_a_name_has_lost_an_entity(row) -> None:
    answer = "Borrower is a person."
    rows = [
        row(1, "ner", "Borrower and Alder Bank pay .", "Borrower is a person, Alder Bank is an organization."),
        row(2, "ner", "Borrower pays Alder Bank", answer),
        row(3, "ner", "Borrower pays the Borrower", answer),  # named before as well
        row(4, "ner", "Borrower pays the SubBorrower", answer),  # no token of its own
        row(5, "ner", "Borrower pays Lender", answer),  # a name that no answer holds escapes
        row(6, "fiqa_qa", "Is it the Borrower", "yes"),
    ]
    assert clean.last_token_lost(rows) == {"2", "3"}


def test_rows_of_tfns_inside_sentiment_train(row) -> None:
    rows = [
        row(1, "tfns", "up https://t.co/a"),
        row(2, "fiqa_sa", "Up", "positive"),
        row(3, "fiqa_sa", "down"),
        row(4, "nwgi", "up"),  # asks for one of seven
    ]
    assert clean.copies_of_tfns(rows) == {"2"}


def test_a_question_keeps_the_longest_answer_under_the_cap(row) -> None:
    cap = clean.ANSWER_CHARACTERS
    answers = {1: "x" * (cap + 1), 2: "x" * 5, 3: "y" * cap, 4: "z" * cap}
    rows = [row(id, "fiqa_qa", "Why?", answer) for id, answer in answers.items()]
    rows.append(row(5, "fiqa_qa", "why? ", "short"))
    assert (long := clean.too_long(rows)) == {"1"}
    assert clean.other_answers([row for row in rows if row.id not in long]) == {"2", "4", "5"}


def test_other_tasks_may_answer_at_any_length(row) -> None:
    assert clean.too_long([row(1, "ner", "a", "x" * 5000)]) == set()
    assert clean.other_answers([row(1, "ner", "a", "x"), row(2, "ner", "a", "xx")]) == set()
