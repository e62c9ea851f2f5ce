"""Rows that are in a test, found in every way they can be, and a build that does not go on with one left."""

import pytest

from lowrank.data.documents.document import make_documents
from lowrank.data.mixture.layouts import TWEET
from lowrank.data.mixture.leakage import Guard, HeldOutTexts, LeakageError

TEST = " ".join(f"w{i}" for i in range(40))
TWEETED = "shares of Alder jump nine percent after the report"


@pytest.fixture
def guard() -> Guard:
    return Guard(HeldOutTexts([TWEETED], [TEST]))


def test_the_same_text_leaks_whatever_is_asked_of_it(row, guard: Guard) -> None:
    rows = [row(1, "tfns", TWEETED.upper() + " https://t.co/a"), row(2, "nwgi", TWEETED), row(3, "fiqa_qa", TEST)]
    assert guard.same([*rows, row(4, "tfns", TWEETED + "?")]) == {"1", "2", "3"}


def test_nearly_the_same_text_leaks(row, guard: Guard) -> None:
    rows = [
        row(1, "tfns", TWEETED + "!!"),
        row(2, "ner", TEST + " more"),
        row(3, "tfns", TWEETED[:20]),
        row(4, "ner", "w1"),
    ]
    assert guard.nearly_same(rows) == {"1", "2"}


def test_a_passage_of_thirteen_words_leaks(row, guard: Guard) -> None:
    passage = TEST.split()[5:18]
    rows = [
        row(1, "ner", f"before {', '.join(passage)} after"),
        row(2, "ner", f"before {' '.join(passage[:12])} after"),
        row(3, "fiqa_qa", "why?", f"because {' '.join(passage)}"),
        row(4, "ner", "names", " ".join(passage)),  # an answer made by a grammar is no text
    ]
    assert guard.same_passage(rows) == {"1", "3"}


def test_tweets_have_no_passages(row) -> None:
    long = " ".join(f"w{i}" for i in range(30))
    assert Guard(HeldOutTexts([long], [])).same_passage([row(1, "ner", long)]) == set()
    assert Guard(HeldOutTexts([], [long])).same_passage([row(1, "fiqa_sa", long, "neutral", TWEET)]) == set()


@pytest.mark.slow
def test_our_own_test_documents_are_held_out_with_their_records(row) -> None:
    guard = Guard(HeldOutTexts.of([]))
    first, last = (make_documents(200, seed=7, split="test")[i] for i in (0, 199))
    rows = [row(1, "fiqa_qa", first.input), row(2, "fiqa_qa", "?", last.output), row(3, "fiqa_qa", "?", "other")]
    assert guard.same(rows) == {"1"}
    assert guard.same_passage(rows) >= {"2"}


def test_a_row_that_is_left_is_named(row, guard: Guard) -> None:
    guard.check([row(1, "ner", "nothing of a test")])
    with pytest.raises(LeakageError, match="1 rows to learn from are in a test set: 7; nothing was written"):
        guard.check([row(1, "ner", "nothing of a test"), row(7, "ner", TEST)])
