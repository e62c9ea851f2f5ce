"""Facts: what rounds how, what prints how, what a formula may say."""

from decimal import Decimal, localcontext

import pytest

from lowrank.data.facts.fact import evaluate, identity, make_fact, print_value, render_input, round_half_up

RECORD = {
    "debt": make_fact("total debt", "usd_m", "812.4"),
    "ebitda": make_fact("EBITDA", "usd_m", "238.2"),
    "date": make_fact("test date", "date", "2025-03-31"),
}


@pytest.mark.parametrize(
    ("value", "decimals", "rounded"),
    [("0.125", 2, "0.13"), ("-0.125", 2, "-0.13"), ("2.5", 0, "3"), ("0.0449", 1, "0.0"), ("-0.04", 1, "0.0")],
)
def test_round_half_up(value: str, decimals: int, rounded: str) -> None:
    assert str(round_half_up(Decimal(value), decimals)) == rounded


@pytest.mark.parametrize(
    ("type", "value", "printed"),
    [
        ("usd", "4812.50", "$4,812.50"),
        ("usd_m", "-12.4", "-$12.4 million"),
        ("usd_m", "1234.5", "$1,234.5 million"),
        ("pct", "-8.4", "-8.4%"),
        ("rate", "0.75", "0.75%"),
        ("bps", "150", "150 bps"),
        ("ratio", "3.41", "3.41x"),
        ("count", "1204", "1,204"),
        ("date", "2025-03-01", "1 March 2025"),
        ("period", "Q3 2024", "Q3 2024"),
    ],
)
def test_print_value(type: str, value: str, printed: str) -> None:
    assert print_value(type, value) == printed


def test_a_figure_is_rounded_to_what_its_type_prints() -> None:
    fact = make_fact("leverage", "ratio", Decimal("3.405"))
    assert (fact.value, fact.print) == ("3.41", "3.41x")


def test_formula() -> None:
    assert round_half_up(evaluate("debt / ebitda", RECORD), 2) == Decimal("3.41")
    assert evaluate("100 * (debt / 100 - 1) + ebitda", RECORD) == Decimal("950.6")


def test_the_thread_context_does_not_reach_a_figure() -> None:
    with localcontext() as context:
        context.prec = 2
        assert evaluate("debt - ebitda", RECORD) == Decimal("574.2")
        assert make_fact("debt", "usd_m", "812.4").print == "$812.4 million"


@pytest.mark.parametrize(
    ("formula", "message"),
    [
        ("debt / equity", "'equity' is neither arithmetic nor a figure"),
        ("debt / date", "'date' is neither"),
        ("debt ** 2", "is neither"),
        ("__import__('os')", "is neither"),
        ("1.5 * debt", "'1.5' is neither"),
        ("debt /", "must be arithmetic"),
        ("debt / (ebitda - ebitda)", "divides by zero"),
        ("(debt - debt) / (debt - debt)", "divides by zero"),
    ],
)
def test_formula_errors(formula: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        evaluate(formula, RECORD)
    assert "\n" not in str(error.value)


def test_identity_and_input() -> None:
    leverage = make_fact("leverage", "ratio", "3.41", "debt / ebitda")
    assert identity("leverage", leverage) == "leverage == round(debt / ebitda, 2)"
    assert render_input(RECORD) == "total debt: $812.4 million\nEBITDA: $238.2 million\ntest date: 31 March 2025"


def test_errors_of_facts() -> None:
    with pytest.raises(ValueError, match="type must be one of name, person"):
        make_fact("debt", "euros", "1")
    with pytest.raises(ValueError, match="the value of a usd_m must be a finite decimal, got 'much'"):
        make_fact("debt", "usd_m", "much")
    with pytest.raises(ValueError, match="a fact of type date is not a figure: '2025-03-31'"):
        _ = RECORD["date"].number
