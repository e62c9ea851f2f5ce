"""Records that others wrote: what a printed value is taken for, and that a print says its value."""

import pytest

from lowrank.data.documents.document import make_documents
from lowrank.data.documents.kinds import KINDS
from lowrank.data.documents.reading import is_print_right, read_fact, read_facts
from lowrank.data.facts.fact import Fact


@pytest.mark.parametrize(
    ("text", "type", "value"),
    [
        ("$812.4 million", "usd_m", "812.4"),
        ("USD 812.45 million", "usd_m", "812.45"),
        ("-$0.5M", "usd_m", "-0.5"),
        ("$1.25 billion", "usd_m", "1250"),
        ("($2.1 million)", "usd_m", "-2.1"),
        ("$4,812.50", "usd", "4812.50"),
        ("US$5k", "usd", "5000"),
        ("12 dollars", "usd", "12"),
        ("12.5%", "pct", "12.5"),
        ("-12.5 per cent", "pct", "-12.5"),
        ("7.25 percent", "rate", "7.25"),
        ("150 bps", "bps", "150"),
        ("-25 basis points", "bps", "-25"),
        ("3.41x", "ratio", "3.41"),
        ("3.41 times", "ratio", "3.41"),
        ("1,204", "count", "1204"),
        ("36", "count", "36"),
        ("2024", "period", "2024"),
        ("Q3 2024", "period", "Q3 2024"),
        ("FY2024", "period", "FY2024"),
        ("2025-03-31", "date", "2025-03-31"),
        ("31 March 2025", "date", "2025-03-31"),
        ("March 3, 2025", "date", "2025-03-03"),
        ("31 February 2025", "text", "31 February 2025"),
        ("12 Smarch 2025", "text", "12 Smarch 2025"),
        ("00471", "text", "00471"),
        ("BBB-", "text", "BBB-"),
        ("36 months", "count", "36"),
        ("$5 to $6 million", "text", "$5 to $6 million"),
    ],
)
def test_a_value_is_typed_by_its_printed_form(text: str, type: str, value: str) -> None:
    fact = read_fact("label", text)
    assert fact == Fact(value, type, text, "label")
    assert is_print_right(fact)


@pytest.mark.slow
@pytest.mark.parametrize("split", ["train", "test"])
def test_our_own_records_are_read_back(split: str) -> None:
    for entry in make_documents(100, seed=3, split=split):
        facts = read_facts(entry.input, KINDS[entry.kind].fields)
        assert list(facts) == list(entry.facts)
        for key, fact in entry.facts.items():
            assert facts[key].print == fact.print and facts[key].label == fact.label
            if fact.is_figure or fact.type == "date":
                assert is_print_right(Fact(facts[key].value, facts[key].type, fact.print, fact.label))
                assert facts[key].is_figure == fact.is_figure
            else:
                assert facts[key].value == fact.value


def test_lines_are_found_among_others() -> None:
    text = "The facts:\n- **Net revenue**: $5 million\n* EBITDA : $2 million\nsee https://a.b/c\n\n# Head\nEBITDA: 3x"
    facts = read_facts(text, {})
    assert {key: (fact.label, fact.print) for key, fact in facts.items()} == {
        "net_revenue": ("Net revenue", "$5 million"),
        "ebitda": ("EBITDA", "$2 million"),
        "ebitda_2": ("EBITDA", "3x"),
    }


def test_a_key_can_stand_in_a_formula() -> None:
    assert list(read_facts("2024 revenue (net): $5", {})) == ["fact_2024_revenue_net"]


def test_a_label_of_a_kind_gives_key_and_type() -> None:
    facts = read_facts("Applicant: Acme Ltd\nfacility amount: $5 million\nSponsor: Bo", KINDS["credit_memo"].fields)
    assert {key: fact.type for key, fact in facts.items()} == {"borrower": "name", "amount": "usd_m", "sponsor": "text"}


@pytest.mark.parametrize(
    "fact",
    [
        Fact("812.4", "usd_m", "$812.5 million", "debt"),
        Fact("812.4", "usd_m", "$812.4", "debt"),
        Fact("-812.4", "usd_m", "$812.4 million", "debt"),
        Fact("7.5", "pct", "7.5x", "rate"),
        Fact("7.5", "pct", "about 7.5%", "rate"),
        Fact("2025-03-31", "date", "30 March 2025", "day"),
        Fact("Acme", "name", "ACME", "company"),
    ],
    ids=lambda fact: fact.print,
)
def test_a_print_that_does_not_say_its_value(fact: Fact) -> None:
    assert not is_print_right(fact)
