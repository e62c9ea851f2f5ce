"""Names and dates of a record, in whatever case and notation."""

from dataclasses import replace

import pytest

from lowrank.data.documents.document import make_documents, make_entry
from lowrank.data.facts.fact import make_fact
from lowrank.eval.metrics.mentions import Mentions, check_mentions

FACTS = {
    "company": make_fact("company", "name", "Tarvane Foods Ltd"),
    "officer": make_fact("officer", "person", "Ada Lorne"),
    "tested": make_fact("test date", "date", "2025-03-31"),
    "period": make_fact("period", "period", "Q3 2024"),
    "revenue": make_fact("revenue", "usd_m", "1.0"),
}
ENTRY = replace(make_entry("covenant_certificate", 0, seed=3, split="test"), facts=FACTS)


@pytest.mark.parametrize("entry", make_documents(20, seed=5, split="test"), ids=lambda entry: entry.id)
def test_our_own_documents_name_everything_and_nothing_else(entry) -> None:
    found = check_mentions(entry, entry.output)
    assert (found.names_found, found.dates_found, found.dates_right) == (found.names, found.dates, found.dates_written)


def test_names_count_whole_and_in_any_case() -> None:
    assert check_mentions(ENTRY, "TARVANE FOODS LTD, signed Ada Lorne").names_found == 2
    assert check_mentions(ENTRY, "Tarvane Foods Ltda and Ada").names_found == 0


@pytest.mark.parametrize("date", ["31 March 2025", "March 31, 2025", "2025-03-31"])
def test_a_date_counts_in_every_notation(date) -> None:
    assert check_mentions(ENTRY, f"As of {date}, in Q3 2024.") == Mentions(2, 0, 2, 2, 1, 1)


def test_an_invented_date_is_written_and_not_right() -> None:
    assert check_mentions(ENTRY, "As of 30 March 2025.") == Mentions(2, 0, 2, 0, 1, 0)
