"""Scores as functions of sums: the same numbers as scikit-learn's, of any resample."""

import numpy as np
import pytest
from peers import Peer

from lowrank.eval.metrics.metric import Measure, f1, macro_f1, ratio, stack, weighted_f1

scikit_learn = Peer("sklearn.metrics")


def confusion(gold, said, classes=3):
    cells = np.zeros((len(gold), classes, classes + 1))
    cells[np.arange(len(gold)), gold, said] = 1
    return cells.reshape(len(gold), -1)


@pytest.mark.parametrize("seed", range(5))
def test_f1_over_classes_is_scikit_learns_also_with_answers_that_are_no_class(seed) -> None:
    rng = np.random.default_rng(seed)
    gold, said = rng.integers(0, 3, 40), rng.integers(0, 4, 40)  # 3 is no class
    sums = confusion(gold, said).sum(0)
    for form, average in ((macro_f1, "macro"), (weighted_f1, "weighted")):
        theirs = scikit_learn.f1_score(gold, said, labels=[0, 1, 2], average=average, zero_division=0)
        assert form(sums) == pytest.approx(theirs, abs=1e-12)


def test_a_class_that_never_occurs_has_the_f1_of_zero_in_the_macro_mean_and_no_weight() -> None:
    sums = confusion([0, 0, 1, 1], [0, 0, 1, 1]).sum(0)
    assert macro_f1(sums) == pytest.approx(2 / 3)
    assert weighted_f1(sums) == 1.0


def test_forms_take_many_resamples_at_once() -> None:
    parts = np.array([[1.0, 2.0], [3.0, 4.0]])
    draws = np.array([[2, 0], [1, 1]])
    assert ratio(draws @ parts).tolist() == [0.5, 4 / 6]
    assert f1(np.array([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])).tolist() == [2 / 3, 0.0]


def test_nothing_over_nothing_has_no_value_and_is_printed_as_a_dash() -> None:
    measure = Measure("a", "a")
    assert np.isnan(measure.value(np.zeros((3, 2))))
    assert measure.show(float("nan")) == measure.show(None) == "–"


def test_shares_are_printed_in_per_cent_and_their_differences_in_points() -> None:
    share, loss = Measure("a", "a"), Measure("b", "b", unit="nats per token")
    assert (share.show(0.914), share.show(-0.052, signed=True)) == ("91.4%", "-5.2")
    assert (loss.show(0.1304), loss.show(0.01, signed=True)) == ("0.130", "+0.010")


def test_parts_are_stacked_measure_by_measure() -> None:
    stacked = stack([{"a": (1, 2), "b": (True, 1)}, {"a": (3, 4), "b": (False, 1)}], ["a", "b"])
    assert stacked["a"].tolist() == [[1, 2], [3, 4]]
    assert stacked["b"].dtype == np.float64
