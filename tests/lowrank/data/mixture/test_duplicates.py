"""Rows that ask the same: told from rows that only look alike, and the first is kept whatever the order."""

from random import Random

import pytest

from lowrank.data.mixture.duplicates import (
    TWEET,
    NearIndex,
    conflicting,
    nearly_repeated,
    repeated,
    tweet_shingles,
    word_shingles,
)

LONG = " ".join(f"w{i}" for i in range(44))  # 40 shingles of five words


def changed(count: int) -> str:
    """LONG with its last `count` words replaced: 40 - count shingles in common, 40 + count in all."""
    return " ".join(LONG.split()[:-count] + [f"v{i}" for i in range(count)])


def test_shingles() -> None:
    assert word_shingles("A, b c-d e f!") == {"a b c d e", "b c d e f"}
    assert word_shingles("Only three words") == {"only three words"}
    assert tweet_shingles("$AB up 10% https://t.co/x") == {"ab up 10"}
    assert tweet_shingles("abcdefghij") == {"abcdefghi", "bcdefghij"}


def test_conflicts_are_dropped_whole_and_repeats_but_the_first(row) -> None:
    rows = [
        row(4, "fpb", "Sales rose ."),
        row(2, "fiqa_sa", "sales  ROSE ."),  # the same question of another part
        row(3, "nwgi", "Sales rose ."),  # another question
        row(5, "fpb", "Sales fell .", "negative"),
        row(1, "tfns", "Sales fell . https://t.co/a", "neutral"),
    ]
    assert conflicting(rows) == {"1", "5"}
    assert repeated(rows[:3]) == {"4"}


@pytest.mark.parametrize(("count", "near"), [(1, True), (4, True), (5, False), (10, False)])
def test_the_similarity_decides_at_eight_tenths(count: int, near: bool) -> None:
    index = NearIndex(word_shingles)
    index.add(LONG)
    assert index.has_near_duplicate(changed(count)) is near  # 36/44 = 0.82, 35/45 = 0.78


def test_hardly_a_pair_over_the_threshold_is_missed() -> None:
    index = NearIndex(word_shingles)
    texts = [[f"w{number}" for number in Random(seed).sample(range(10_000), 104)] for seed in range(200)]
    for words in texts:
        index.add(" ".join(words))
    found = sum(index.has_near_duplicate(" ".join([*words[:96], *(f"v{i}" for i in range(8))])) for words in texts)
    assert found >= 196  # 92 of 108 shingles: 0.85


def test_the_first_by_id_is_kept_in_any_order(row) -> None:
    rows = [row(id, "ner", text) for id, text in ((1, LONG), (2, changed(3)), (3, changed(40)))]
    for order in (rows, rows[::-1]):
        assert nearly_repeated(order) == {"2"}


def test_tasks_and_kinds_of_text_are_compared_among_themselves(row) -> None:
    rows = [row(1, "ner", LONG), row(2, "fiqa_qa", LONG), row(3, "fpb", LONG), row(4, "fiqa_sa", LONG, "x", TWEET)]
    assert nearly_repeated(rows) == set()


def test_a_row_near_only_a_dropped_one_is_kept(row) -> None:
    second = changed(4)
    third = " ".join(["u0", "u1", "u2", *second.split()[3:]])  # 37/43 = 0.86 of the second, 33/47 = 0.70 of the first
    assert nearly_repeated([row(1, "ner", LONG), row(2, "ner", second), row(3, "ner", third)]) == {"2"}
