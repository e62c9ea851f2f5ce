"""Labels strictly read; F1 held to scikit-learn's; the unparsable share; FinGPT's scoring beside it."""

from dataclasses import replace

import pytest
from peers import Peer

from lowrank.data.mixture.layouts import THREE, TWEET
from lowrank.data.mixture.rows import MixtureRow
from lowrank.eval.metrics.metric import stack
from lowrank.eval.tasks.generate import Output
from lowrank.eval.tasks.sentiment import UNPARSABLE, Sentiment, read_label

scikit_learn = Peer("sklearn.metrics")
GOLD = ["negative", "neutral", "neutral", "positive", "neutral", "positive"]
SAID = ["negative", " Neutral.", "I cannot say", "the tweet is positive", "positive", "positive"]


def rows_of(labels):
    return [MixtureRow(f"t-{i}", "tfns", TWEET, f"text {i}", label, label) for i, label in enumerate(labels)]


@pytest.fixture(scope="module")
def scores():
    task = Sentiment(rows_of(GOLD))
    parts = stack(task.per_item_counts([Output(text, 3, True) for text in SAID]), [m.key for m in task.measures])
    return {measure.key: measure.value(parts[measure.key]) for measure in task.measures}


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("positive", "positive"),
        (" Negative.\n", "negative"),
        ("it is neutral", UNPARSABLE),
        ("", UNPARSABLE),
        ("positive negative", UNPARSABLE),
        ("positive..", UNPARSABLE),
        ("strong positive", UNPARSABLE),
    ],
)
def test_an_answer_is_one_of_the_words_and_nothing_else(text, label) -> None:
    assert read_label(text) == label


def test_the_unparsable_count_as_wrong_and_by_themselves(scores) -> None:
    said = [read_label(text) for text in SAID]
    assert scores["accuracy"] == pytest.approx(scikit_learn.accuracy_score(GOLD, said)) == pytest.approx(3 / 6)
    assert scores["weighted_f1"] == pytest.approx(scikit_learn.f1_score(GOLD, said, labels=THREE, average="weighted"))
    assert scores["macro_f1"] == pytest.approx(scikit_learn.f1_score(GOLD, said, labels=THREE, average="macro"))
    assert scores["unparsable"] == pytest.approx(2 / 6)


def test_fingpts_scoring_takes_whatever_it_cannot_read_for_neutral(scores) -> None:
    lenient = ["negative", "neutral", "neutral", "positive", "positive", "positive"]
    assert scores["fingpt_accuracy"] == pytest.approx(scikit_learn.accuracy_score(GOLD, lenient))
    assert scores["fingpt_weighted_f1"] == pytest.approx(scikit_learn.f1_score(GOLD, lenient, average="weighted"))
    assert scores["fingpt_accuracy"] > scores["accuracy"]


def test_saying_nothing_is_worth_nothing_here_and_all_the_neutral_ones_at_fingpt() -> None:
    task = Sentiment(rows_of(GOLD))
    parts = stack(task.per_item_counts([Output("", 0, True)] * 6), [m.key for m in task.measures])
    found = {measure.key: measure.value(parts[measure.key]) for measure in task.measures}
    assert (found["accuracy"], found["unparsable"], found["fingpt_accuracy"]) == (0, 1, 0.5)


def test_another_label_is_refused() -> None:
    with pytest.raises(ValueError, match="row t-0: label must be one of negative, neutral, positive, got 'mixed'"):
        Sentiment([replace(rows_of(GOLD)[0], label="mixed")])
