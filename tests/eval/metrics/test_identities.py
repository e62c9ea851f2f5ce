"""A document's own arithmetic, right or wrong, by what it prints."""

from dataclasses import replace

import pytest

from lowrank.data.documents.document import make_documents, make_entry
from lowrank.data.facts.fact import make_fact, render_input
from lowrank.eval.metrics.faithfulness import check
from lowrank.eval.metrics.identities import Identities, check_identities

FACTS = {
    "revenue": make_fact("revenue", "usd_m", "100.0"),
    "cogs": make_fact("cost of sales", "usd_m", "60.0"),
    "gross_profit": make_fact("gross profit", "usd_m", "40.0", "revenue - cogs"),
}
ENTRY = replace(make_entry("mdna_section", 0, seed=3, split="test"), facts=FACTS, input=render_input(FACTS))


def counted(text, entry=ENTRY):
    return check_identities(entry, check(entry, text).figures)


@pytest.mark.parametrize("entry", make_documents(20, seed=5, split="test"), ids=lambda entry: entry.id)
def test_the_arithmetic_of_our_own_documents_holds(entry) -> None:
    found = counted(entry.output, entry)
    assert found.count == found.printed == found.held


@pytest.mark.parametrize(
    ("text", "printed", "held"),
    [
        ("Revenue was $100.0 million. Cost of sales was $60.0 million. Gross profit was $40.0 million.", 1, 1),
        ("Revenue was $90.0 million. Cost of sales was $60.0 million. Gross profit was $30.0 million.", 1, 1),
        ("Revenue was $100.0 million. Cost of sales was $60.0 million. Gross profit was $41.0 million.", 1, 0),
        ("Revenue was $100.0 million. Gross profit was $40.0 million.", 0, 0),
        ("Revenue was 100.0%. Cost of sales was $60.0 million. Gross profit was $40.0 million.", 0, 0),
        ("Revenue was $0.1 billion. Cost of sales was $60.0 million. Gross profit was $40.0 million.", 1, 1),
        ("Revenue was $0.3 billion. Cost of sales was $60.0 million. Gross profit was $40.0 million.", 1, 0),
        ("", 0, 0),
    ],
    ids=["right", "invented but whole", "wrong sum", "a term is missing", "of another unit", "coarse", "far", "empty"],
)
def test_what_holds_is_what_is_printed_not_what_is_true(text, printed, held) -> None:
    assert counted(text) == Identities(1, printed, held)


def test_a_loss_in_words_is_a_negative_figure() -> None:
    facts = {
        "now": make_fact("revenue", "usd_m", "90.0"),
        "then": make_fact("prior revenue", "usd_m", "100.0"),
        "growth": make_fact("growth", "pct", "-10.0", "100 * (now / then - 1)"),
    }
    entry = replace(ENTRY, facts=facts)
    text = "Revenue was $90.0 million. Prior revenue was $100.0 million. Growth fell by 10.0%."
    assert counted(text, entry) == Identities(1, 1, 1)
    assert counted(text.replace("10.0%", "12.0%"), entry) == Identities(1, 1, 0)


def test_a_division_by_a_printed_zero_does_not_hold() -> None:
    facts = {
        "debt": make_fact("debt", "usd_m", "8.0"),
        "ebitda": make_fact("EBITDA", "usd_m", "2.0"),
        "leverage": make_fact("leverage", "ratio", "4.00", "debt / ebitda"),
    }
    text = "Debt was $8.0 million. EBITDA was $0.0 million. Leverage was 4.00x."
    assert counted(text, replace(ENTRY, facts=facts)) == Identities(1, 1, 0)
