"""The table of merge-aware hats: its intervals on made-up rows, and the rows that are committed."""

from pathlib import Path

import pytest

from lowrank.bench.rows import read
from lowrank.workflows.merge_loss import AFTERWARDS, AWARE, EVERY_4, ORDINARY, intervals

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.slow
def test_an_interval_is_of_paired_differences_over_seeds_and_documents() -> None:
    rows = []
    for seed in range(4):
        worn = [10.0 + seed + number % 7 for number in range(20)]
        merged = {ORDINARY: [nats + 2 for nats in worn], AWARE: [nats + 1 + 0.1 * seed for nats in worn]}
        for way, nats in merged.items():
            rows.append({"seed": seed, "way": way, "tokens": [10] * 20, "unmerged": worn, "merged": nats})
    mean, low, high = intervals(rows, AWARE, "unmerged")
    assert mean == pytest.approx(0.115)
    assert 0.1 <= low < mean < high <= 0.13  # between the best seed and the worst
    assert intervals(rows, ORDINARY, "unmerged") == pytest.approx((0.2, 0.2, 0.2))
    assert intervals(rows, AWARE, "merged")[2] < 0


@pytest.mark.slow
def test_the_committed_rows_hold_the_bar() -> None:
    """Merged less unmerged below 0.01 nats with a half-width of 0.005, and better than ordinary merging."""
    rows = read(ROOT / "bench" / "results" / "merge_aware.jsonl")
    for way in (AWARE, AFTERWARDS, EVERY_4):
        _, low, high = intervals(rows, way, "unmerged")
        assert high < 0.01 and (high - low) / 2 <= 0.005, way
        assert (intervals(rows, way, "merged")[2] < 0) == (way != AWARE), way
