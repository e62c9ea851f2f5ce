"""The draw: counts that add up, caps that hold, and rows that only seed and id decide."""

from collections import Counter
from random import Random

import pytest

from lowrank.data.mixture.sample import allot, data_set_counts, draw, shares, wanted
from lowrank.data.mixture.sources import DATA_SETS, TOTAL

ENOUGH = {data.name: 10**6 for data in DATA_SETS}
POOL = {
    ("ner", "x"): 30, ("fiqa_qa", "x"): 400, ("fpb", "neutral"): 120, ("fpb", "positive"): 80,
    ("fiqa_sa", "neutral"): 60, ("nwgi", "strong negative"): 100,
    ("tfns", "negative"): 60, ("tfns", "positive"): 90, ("tfns", "neutral"): 400,
}  # fmt: skip


@pytest.fixture
def rows_of(row):
    """rows_of({("ner", "x"): 3}): that many rows of the part, with that output."""

    def make(counts):
        keys = [key for key, count in counts.items() for _ in range(count)]
        return [row(f"{i:04d}", source, f"text {i}", output) for i, (source, output) in enumerate(keys)]

    return make


@pytest.fixture
def pool(rows_of):
    """A few hundred clean rows of every part."""
    return rows_of(POOL)


def test_shares_are_rounded_by_largest_remainder() -> None:
    assert shares(10, {"a": 1, "b": 1, "c": 1}) == {"a": 4, "b": 3, "c": 3}
    assert shares(7, {"a": 5, "b": 3, "c": 2}) == {"a": 4, "b": 2, "c": 1}  # 3.5, 2.1, 1.4
    assert shares(0, {"a": 0}) == {"a": 0}


def test_what_one_cannot_give_the_others_give_in_proportion() -> None:
    assert allot("x", 100, {"a": 5, "b": 3, "c": 2}, {"a": 20, "b": 99, "c": 99}) == {"a": 20, "b": 48, "c": 32}
    assert allot("x", 100, {"a": 5, "b": 3, "c": 2}, {"a": 20, "b": 40, "c": 40}) == {"a": 20, "b": 40, "c": 40}


def test_the_counts_of_15000_are_those_of_the_plan() -> None:
    assert list(data_set_counts(TOTAL, ENOUGH).values()) == [488, 4500, 5012, 5000]
    assert TOTAL == 15000
    assert wanted(TOTAL) == {
        "ner": 488, "tfns": 4500, "fpb": 2500, "fiqa_sa": 900, "nwgi": 1612, "fiqa_qa": 5000
    }  # fmt: skip
    assert sum(wanted(1001).values()) == 1001


def test_ner_gives_what_it_has_and_the_others_the_rest() -> None:
    counts = data_set_counts(TOTAL, ENOUGH | {"fingpt-ner": 400})
    assert counts["fingpt-ner"] == 400 and sum(counts.values()) == TOTAL
    assert min(counts[name] - count for name, count in (("fingpt-fiqa_qa", 5000), ("fingpt-sentiment-train", 5012))) > 0


def test_a_draw_has_its_counts_and_half_of_tfns_at_most_is_neutral(pool) -> None:
    drawn = draw(pool, 600, seed=7)
    assert len({row.id for row in drawn}) == len(drawn) == 600
    counts = Counter((row.source, row.output) for row in drawn)
    assert {part: sum(n for (p, _), n in counts.items() if p == part) for part, _ in counts} == {
        "ner": 20, "tfns": 180, "fpb": 100, "fiqa_sa": 36, "nwgi": 64, "fiqa_qa": 200
    }  # fmt: skip
    assert [counts["tfns", label] for label in ("negative", "neutral", "positive")] == [36, 90, 54]
    assert [counts["fpb", label] for label in ("neutral", "positive")] == [60, 40]


def test_a_draw_depends_on_the_seed_and_not_on_the_order_of_rows(pool) -> None:
    shuffled = Random(1).sample(pool, len(pool))
    assert draw(pool, 300, seed=7) == draw(shuffled, 300, seed=7)
    assert {row.id for row in draw(pool, 300, seed=7)} != {row.id for row in draw(pool, 300, seed=8)}


@pytest.mark.parametrize(
    ("scarce", "message"),
    [
        ({("fiqa_qa", "x"): 10}, r"fingpt-fiqa_qa: 200 rows wanted, 10 can be had \(fiqa_qa 10\)"),
        (
            {("nwgi", "strong negative"): 10, ("fpb", "neutral"): 10},
            r"fingpt-sentiment-train: 200 rows wanted, 160 can be had \(fpb 90, fiqa_sa 60, nwgi 10\)",
        ),
        (
            {("tfns", "negative"): 5, ("tfns", "positive"): 5},  # plenty of neutral ones do not make up for them
            r"tfns: 180 rows wanted, 100 can be had \(negative 5, neutral 90, positive 5\)",
        ),
    ],
    ids=["fiqa_qa", "sentiment", "tfns"],
)
def test_too_few_rows_are_told_with_the_figures(scarce, message: str, rows_of) -> None:
    with pytest.raises(ValueError, match=message):
        draw(rows_of(POOL | scarce), 600, seed=7)
