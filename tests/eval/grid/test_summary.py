"""The sentences of a grid follow its printed numbers, whatever the order of its rows."""

import pytest

from lowrank.eval.grid.summary import findings

GRID = [
    {"adapter": adapter, "weights": weights, "n": 20, "loss": loss, "sections": sections}
    | {"figure_precision": precision, "figure_recall": 0.5, "binding": 0.5}
    for adapter, weights, loss, sections, precision in [
        (None, "nf4-dq", 2.0, 0.1, 0.04),
        ("finance", "nf4-dq", 0.5, 1.0, 0.91),
        (None, "fp32", 1.9, 0.1, 0.05),
        ("finance", "fp32", 0.4, 1.0, 0.92),
    ]
]


def test_they_say_what_the_hat_gains_and_what_4_bit_costs() -> None:
    assert findings(GRID) == [
        "With the hat finance on nf4-dq weights, the loss falls from 2.000 to 0.500 nats per token (-75.0 %), "
        "sections rise from 10.0% to 100.0%, figure precision rises from 4.0% to 91.0% "
        "and figure recall stays at 50.0%.",
        "With the base in nf4-dq instead of fp32, the loss of base + finance rises from 0.400 to 0.500 nats per token "
        "(+25.0 %), sections stay at 100.0%, figure precision falls from 92.0% to 91.0% "
        "and figure recall stays at 50.0%.",
    ]


def test_they_follow_the_grid_and_not_its_order() -> None:
    assert findings(GRID[::-1]) == findings(GRID)
    worse = [row | {"loss": 9.0} if row["adapter"] and row["weights"] == "nf4-dq" else row for row in GRID]
    assert all("rises from" in sentence.split(" nats")[0] for sentence in findings(worse))


def test_every_hat_is_told() -> None:
    other = [row | {"adapter": "other"} for row in GRID if row["adapter"]]
    assert [sentence.count("other") for sentence in findings([*GRID, *other])] == [0, 1, 0, 1]


def test_without_a_hat_without_a_number_and_without_a_pair() -> None:
    (cost,) = findings([row for row in GRID if row["adapter"] is None])
    assert "the loss of the base alone rises from 1.900 to 2.000" in cost
    lost, *_ = findings([row | {"loss": float("nan")} for row in GRID])
    assert "the loss: from – to –" in lost
    assert findings(GRID[:1]) == ["The grid holds no two cells that differ in the hat alone or in 4 bit alone."]
    assert findings([]) == ["No cell of the grid was evaluated."]


@pytest.mark.parametrize("four_bit", ["fp4", "int8", "dequant:nf4-dq"])
def test_any_format_is_held_against_full_precision(four_bit) -> None:
    rows = [row | {"weights": four_bit if row["weights"] == "nf4-dq" else row["weights"]} for row in GRID]
    assert f"With the base in {four_bit} instead of fp32" in findings(rows)[1]
