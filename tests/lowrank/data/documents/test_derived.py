"""Figures derived from a record by declared rules."""

import pytest

from lowrank.data.documents.derived import derive, with_formulas
from lowrank.data.documents.document import make_documents
from lowrank.data.documents.kinds import KINDS
from lowrank.data.documents.reading import read_facts
from lowrank.data.facts.fact import evaluate, make_fact

FACTS = {
    "company": make_fact("company", "name", "Tarvane Foods Inc."),
    "revenue": make_fact("revenue", "usd_m", "120.0"),
    "prior": make_fact("prior revenue", "usd_m", "100.0"),
    "none": make_fact("nothing", "usd_m", "0"),
    "eps": make_fact("earnings per share", "usd", "1.25"),
    "rate": make_fact("rate", "pct", "7.5"),
}


@pytest.mark.parametrize(
    ("rule", "key", "shown"),
    [
        ("sum(revenue, prior)", "sum_revenue_prior", "$220.0 million"),
        ("sum(revenue,prior,prior)", "sum_revenue_prior_prior", "$320.0 million"),
        ("difference(prior, revenue)", "difference_prior_revenue", "-$20.0 million"),
        ("ratio(revenue, prior)", "ratio_revenue_prior", "1.20x"),
        ("share(prior, revenue)", "share_prior_revenue", "83.3%"),
        ("change(revenue, prior)", "change_revenue_prior", "20.0%"),
    ],
)
def test_a_declared_rule_adds_an_optional_fact(rule: str, key: str, shown: str) -> None:
    derived = derive(FACTS, [rule])
    assert list(derived) == [*FACTS, key]
    assert derived[key].print == shown
    assert not derived[key].required
    assert derived[key].source is not None
    assert evaluate(derived[key].source, FACTS)


def test_a_rule_alone_is_of_any_two_figures_of_one_type() -> None:
    assert {*derive(FACTS, ["ratio"])} - {*FACTS} == {
        "ratio_revenue_prior", "ratio_prior_revenue", "ratio_none_revenue", "ratio_none_prior",
    }  # fmt: skip
    assert len(derive(FACTS, ["sum", "difference"])) == len(FACTS) + 3 + 6


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ("product", "must be one of sum, difference"),
        ("ratio(revenue", "must be one of"),
        ("ratio(revenue)", "takes two keys"),
        ("ratio(revenue, prior, prior)", "takes two keys"),
        ("sum(revenue, company)", "'company' is no figure of the record; there are revenue"),
        ("sum(revenue, profit)", "'profit' is no figure"),
        ("sum(revenue, eps)", "of one type, got usd_m, usd"),
        ("ratio(revenue, none)", "divides by zero"),
    ],
)
def test_a_rule_that_does_not_fit_is_refused(rule: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        derive(FACTS, [rule])


def test_a_record_that_was_read_gets_the_formulas_of_its_kind() -> None:
    for entry in make_documents(20, seed=2, split="test"):
        fields = KINDS[entry.kind].fields
        read = with_formulas(read_facts(entry.input, fields), fields)
        assert {key: fact.source for key, fact in read.items()} == {
            key: fact.source for key, fact in entry.facts.items()
        }
        figures = {key: fact.number for key, fact in entry.facts.items() if fact.is_figure}
        assert {key: fact.number for key, fact in read.items() if fact.is_figure} == figures


def test_a_figure_that_a_record_lacks_follows_from_the_formula_of_its_kind() -> None:
    fields = KINDS["covenant_certificate"].fields
    read = with_formulas(
        read_facts("total debt: $812.4 million\nEBITDA: $238.2 million\nleverage: 9.99x", fields), fields
    )
    assert read["leverage"].source is None  # what the record says is not what the formula gives
    assert "headroom" not in read
    read = with_formulas(read_facts("total debt: $812.4 million\nEBITDA: $238.2 million", fields), fields)
    assert (read["leverage"].print, read["leverage"].required) == ("3.41x", False)
