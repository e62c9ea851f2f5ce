"""Differences by hand, and the smallest rank that is not worse."""

import pytest

from lowrank.train.sweep.page import render
from lowrank.train.sweep.results import AdapterLoss, differences, loss, smallest_rank

TOKENS = [10, 20] * 6


def hat(rank: int, seed: int, extra: float, lr: float = 1e-3) -> AdapterLoss:
    """A loss of 1 + extra nats a token, with a seed's own part of it."""
    nats = [count * (1 + extra + 0.001 * seed + 0.0005 * (-1) ** place) for place, count in enumerate(TOKENS)]
    return AdapterLoss(f"{rank}-{lr}-{seed}", {"adapter.rank": rank, "optimizer.lr": lr, "run.seed": seed}, nats)


AXES = {"adapter.rank": [4, 8, 16], "optimizer.lr": [1e-3, 1e-2], "run.seed": [0, 1]}


def hats(extras: dict[int, float]) -> list[AdapterLoss]:
    return [
        hat(rank, seed, extra + (0.2 if lr == 1e-2 else 0), lr)
        for rank, extra in extras.items()
        for lr in (1e-3, 1e-2)
        for seed in (0, 1)
    ]


def test_a_difference_is_that_of_matched_hats() -> None:
    found = differences(hats({4: 0.3, 8: 0.0, 16: 0.0}), TOKENS, AXES)
    assert [(one.axis, one.reference, one.value) for one in found] == [
        ("adapter.rank", 4, 8),
        ("adapter.rank", 4, 16),
        ("optimizer.lr", 1e-3, 1e-2),
    ]
    assert found[0].interval.difference == pytest.approx(-0.3)
    assert found[0].each == pytest.approx([-0.3] * 4)
    assert found[0].verdict == "better"
    assert found[2].verdict == "worse" and len(found[2].each) == 6
    assert loss([hat(4, 0, 0.0)], [10, 20] * 6) == pytest.approx(1 - 0.0005 / 3)


@pytest.mark.parametrize(
    ("extras", "rank"),
    [({4: 0.3, 8: 0.005, 16: 0.0}, 8), ({4: 0.005, 8: 0.3, 16: 0.0}, 4), ({4: 0.02, 8: 0.02, 16: 0.0}, 16)],
)
def test_the_smallest_rank_within_the_margin_of_the_best(extras: dict[int, float], rank: int) -> None:
    answer = smallest_rank(hats(extras), TOKENS, AXES)
    assert answer is not None and (answer.rank, answer.best) == (rank, 16)
    assert answer.settings[4] == {"optimizer.lr": 1e-3}


def test_no_verdict_of_few_entries_and_no_answer_without_ranks() -> None:
    few = [AdapterLoss(one.name, one.values, one.nats[:4]) for one in hats({4: 0.3, 8: 0.0, 16: 0.0})]
    answer = smallest_rank(few, TOKENS[:4], AXES)
    assert answer is not None and answer.rank is None and "needs 10" in answer.reason
    assert differences(few, TOKENS[:4], AXES)[0].verdict.startswith("none")
    assert smallest_rank(few, TOKENS[:4], {"run.seed": [0, 1]}) is None


def test_a_rank_whose_hats_failed_is_left_out() -> None:
    left = [one for one in hats({4: 0.3, 8: 0.0, 16: 0.0}) if one.values["adapter.rank"] != 16]
    answer = smallest_rank(left, TOKENS, AXES)
    assert answer is not None and answer.best == 8 and 16 not in answer.settings


def test_the_page_shows_hats_differences_and_the_answer() -> None:
    every = hats({4: 0.3, 8: 0.005, 16: 0.0})
    answer = smallest_rank(every, TOKENS, AXES)
    assert answer is not None
    points = [
        {
            "name": one.name,
            "parameters": 7,
            "steps": 3,
            "train_loss": 1.0,
            "held_out_loss": loss([one], TOKENS),
            "failed": "",
        }
        for one in every
    ]
    points.append({**points[0], "name": "gone", "held_out_loss": None, "train_loss": None, "failed": "not <finite>"})
    results = {
        "points": points,
        "held_out": {"entries": 12},
        "differences": [one.to_json() for one in differences(every, TOKENS, AXES)],
        "smallest_rank": answer.to_json(),
    }
    logs = {one.name: [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}] for one in every}
    page = render(results, logs, logs)
    assert "The smallest rank that is not worse is 8" in page and "not &lt;finite&gt;" in page
    assert page.count("<svg") == 4
