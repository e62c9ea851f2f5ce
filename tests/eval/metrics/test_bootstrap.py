"""The paired bootstrap against one written out, and against scipy's."""

import numpy as np
import pytest
from scipy import stats

from lowrank.eval.metrics.bootstrap import SEED, paired_interval
from lowrank.eval.metrics.metric import Measure, f1

MEAN = Measure("a", "a")


def means(values):
    return np.stack([np.asarray(values, float), np.ones(len(values))], axis=1)


def test_every_resample_is_scored_on_the_same_items_of_both_sides() -> None:
    rng = np.random.default_rng(0)
    before, after = rng.integers(0, 4, (12, 3)).astype(float), rng.integers(0, 4, (12, 3)).astype(float)
    measure = Measure("f", "f", form=f1)
    draws = np.random.default_rng(SEED).multinomial(12, np.full(12, 1 / 12), size=500)
    moved = [f1((draw[:, None] * after).sum(0)) - f1((draw[:, None] * before).sum(0)) for draw in draws]
    interval = paired_interval(measure, before, after, resamples=500)
    assert (interval.low, interval.high) == pytest.approx(tuple(np.quantile(moved, [0.025, 0.975])), abs=1e-12)
    assert interval.difference == pytest.approx(measure.value(after) - measure.value(before))


def test_the_interval_is_that_of_scipy_up_to_its_draws() -> None:
    rng = np.random.default_rng(1)
    before, change = rng.normal(size=60), rng.normal(0.3, 0.5, size=60)
    ours = paired_interval(MEAN, means(before), means(before + change))
    theirs = stats.bootstrap((change,), np.mean, method="percentile", n_resamples=10_000, random_state=2)
    width = ours.high - ours.low
    assert abs(ours.low - theirs.confidence_interval.low) < 0.05 * width
    assert abs(ours.high - theirs.confidence_interval.high) < 0.05 * width


def test_what_is_hard_for_both_sides_cancels() -> None:
    hard = np.linspace(0, 1, 30)
    interval = paired_interval(MEAN, means(hard), means(hard + 0.25))
    assert (interval.low, interval.high) == pytest.approx((0.25, 0.25))
    assert interval.is_clear_of_zero


def test_a_score_against_itself_is_not_told_apart() -> None:
    values = means(np.arange(9.0))
    interval = paired_interval(MEAN, values, values)
    assert (interval.difference, interval.low, interval.high) == (0, 0, 0)
    assert not interval.is_clear_of_zero


def test_a_score_without_a_value_has_no_interval() -> None:
    nothing = np.zeros((5, 2))
    interval = paired_interval(MEAN, nothing, means([1, 1, 1, 1, 1]))
    assert np.isnan([interval.difference, interval.low, interval.high]).all()
    assert not interval.is_clear_of_zero


def test_resamples_without_a_value_do_not_count() -> None:
    rare = np.array([[0.0, 0.0]] * 3 + [[1.0, 1.0]] * 3)
    interval = paired_interval(MEAN, rare, rare)
    assert (interval.low, interval.high) == (0, 0)
