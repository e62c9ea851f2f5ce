"""Names and dates of a record that a document mentions.

    names  = companies, funds and people of the record that the text holds, whole, whatever the case / all of them
    dates  = dates and periods of the record that the text holds, in any way of writing a date / all of them
    dates_right = dates in the text that are the record's / dates in the text

Only a whole date counts as one, in any of the orders of `lowrank.data.facts.dates`; a bare year is a figure, and the
figures' check finds it wrong.
"""

import datetime
import re
from dataclasses import dataclass

from lowrank.data.documents.document import Entry
from lowrank.data.facts.dates import find_dates
from lowrank.data.facts.fact import Fact
from lowrank.data.facts.figure_matching import record_convention


@dataclass(frozen=True)
class Mentions:
    """Counts: names and dates of the record, those in the text, and the dates of the text."""

    names: int
    names_found: int
    dates: int
    dates_found: int
    dates_written: int
    dates_right: int


def check_mentions(entry: Entry, text: str) -> Mentions:
    """The six counts."""
    names = [fact for fact in entry.facts.values() if fact.type in ("name", "person")]
    dates = [fact for fact in entry.facts.values() if fact.type in ("date", "period")]
    known = {datetime.date.fromisoformat(fact.value) for fact in dates if fact.type == "date"}
    written = [found.date for found in find_dates(text, record_convention(entry.facts))]
    return Mentions(
        names=len(names),
        names_found=sum(_is_in(text, fact.print) for fact in names),
        dates=len(dates),
        dates_found=sum(_is_in(text, fact.print) or _as_date(fact) in written for fact in dates),
        dates_written=len(written),
        dates_right=sum(date in known for date in written),
    )


def _as_date(fact: Fact) -> datetime.date | None:
    return datetime.date.fromisoformat(fact.value) if fact.type == "date" else None


def _is_in(text: str, phrase: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(phrase)}(?!\w)", text, re.IGNORECASE) is not None
