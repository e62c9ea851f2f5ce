"""Texts that go in circles, against counts by hand."""

import math

import pytest

from lowrank.eval.metrics.repetition import distinct, longest_repeat, rep_n, words


def test_words_are_words_figures_and_signs() -> None:
    assert words("Revenue: $1,204.5 million.") == ["revenue", ":", "$", "1,204.5", "million", "."]


@pytest.mark.parametrize(
    ("text", "share"),
    [("", 0.0), ("a b c", 0.0), ("a b c d e", 0.0), ("a b c d a b c d", 1 - 4 / 5), ("a a a a a a", 1 - 1 / 3)],
)
def test_rep_4(text, share) -> None:
    assert rep_n(text) == pytest.approx(share)


@pytest.mark.parametrize(
    ("text", "share"),
    [("", 0.0), ("a b c", 0.0), ("a b a b", 0.5), ("a a a a", 0.5), ("a b x a b y a b", 2 / 8), ("a b c b c", 0.4)],
)
def test_the_longest_repeat_does_not_overlap_itself(text, share) -> None:
    assert longest_repeat(text) == pytest.approx(share)


def test_distinct_is_over_all_texts_together() -> None:
    assert distinct(["a b", "a c"], 1) == 3 / 4
    assert distinct(["a b", "a b"], 2) == 1 / 2
    assert math.isnan(distinct(["a"], 2))
