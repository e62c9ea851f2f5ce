"""Which cells are compared, and what is said of the difference."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from lowrank.eval.grid.columns import Column
from lowrank.eval.grid.comparison import compare
from lowrank.eval.metrics.metric import Measure

GAIN = Measure("share", "share", primary=True)
LOSS = Measure("loss", "loss", "lower", "nats per token", primary=True)
SIZE = Measure("size", "size", "")


@dataclass(frozen=True)
class FakeTask:
    name: str = "documents"
    all_measures: tuple[Measure, ...] = (GAIN, LOSS, SIZE)


@dataclass(frozen=True)
class FakeCell:
    column: Column
    value: float
    task: FakeTask = field(default_factory=FakeTask)

    @property
    def outputs(self):
        return [None] * 12

    @property
    def parts(self):
        noise = np.linspace(-0.01, 0.01, 12)
        return {key: np.stack([self.value + noise, np.ones(12)], axis=1) for key in ("share", "loss", "size")}


def cells(*columns):
    return [FakeCell(Column(adapter, weights), value) for adapter, weights, value in columns]


GRID = cells(
    (None, "bf16", 0.1),
    ("a", "bf16", 0.5),
    (None, "dequant:nf4-dq", 0.1),
    ("a", "dequant:nf4-dq", 0.4),
    (None, "nf4-dq", 0.1),
    ("a", "nf4-dq", 0.4),
)


def asked(question, measure="share"):
    return {
        (one.before.name, one.after.name): one
        for one in compare(GRID)
        if one.question == question and one.measure.key == measure
    }


def test_a_hat_is_compared_with_none_on_the_same_weights() -> None:
    found = asked("gain")
    assert list(found) == [(f"base, {w}", f"a, {w}") for w in ("bf16", "dequant:nf4-dq", "nf4-dq")]
    assert found["base, bf16", "a, bf16"].interval.difference == pytest.approx(0.4)


def test_a_precision_is_compared_with_full_under_the_same_hat() -> None:
    found = asked("cost")
    assert set(found) == {
        (f"{who}, bf16", f"{who}, {w}") for who in ("base", "a") for w in ("dequant:nf4-dq", "nf4-dq")
    }
    assert found["a, bf16", "a, nf4-dq"].interval.difference == pytest.approx(-0.1)


def test_multiplying_from_codes_is_compared_with_the_same_numbers() -> None:
    assert set(asked("arithmetic")) == {(f"{who}, dequant:nf4-dq", f"{who}, nf4-dq") for who in ("base", "a")}


def test_a_verdict_follows_the_direction_of_its_measure() -> None:
    gain, loss, size = (asked("cost", key)["a, bf16", "a, nf4-dq"] for key in ("share", "loss", "size"))
    assert (gain.verdict, loss.verdict, size.verdict) == ("worse", "better", "lower")
    assert asked("cost")["base, bf16", "base, nf4-dq"].verdict == "not told apart"


def test_without_full_precision_or_hats_nothing_is_compared() -> None:
    assert compare(cells((None, "nf4-dq", 0.1), (None, "int8", 0.2))) == []
    assert compare([]) == []


def test_a_row_of_json_holds_both_columns_and_null_for_what_is_no_number() -> None:
    row = asked("gain")["base, bf16", "a, bf16"].to_json()
    assert row["before"] == {"adapter": None, "weights": "bf16", "grounded": False, "temperature": 0.0}
    assert (row["low"], row["high"]) == pytest.approx((0.4, 0.4))
    assert (row["n"], row["verdict"], row["measure"]) == (12, "better", "share")


def test_fewer_items_than_ten_give_no_interval_and_no_verdict() -> None:
    few = [FewCell(cell.column, cell.value) for cell in GRID]
    for one in compare(few):
        assert np.isnan([one.interval.low, one.interval.high]).all()
        assert one.verdict == "none: 9 items, needs 10"
        assert one.to_json()["low"] is None


@dataclass(frozen=True)
class FewCell(FakeCell):
    @property
    def parts(self):
        return {key: parts[:9] for key, parts in super().parts.items()}


def test_an_item_without_a_value_is_not_counted() -> None:
    cells = [SilentCell(Column(adapter, "nf4-dq"), 0.5) for adapter in (None, "a")]
    assert {one.counted for one in compare(cells)} == {7}


@dataclass(frozen=True)
class SilentCell(FakeCell):
    @property
    def parts(self):
        shown = np.stack([np.linspace(0, 1, 12), np.ones(12)], axis=1)
        shown[:5] = 0
        return dict.fromkeys(("share", "loss", "size"), shown)
