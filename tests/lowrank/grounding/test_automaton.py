"""The automaton lets through what is right under its own name, and nothing else."""

from dataclasses import replace

import pytest
from second_reader import read

from lowrank.data.documents import kinds
from lowrank.data.documents.document import make_documents
from lowrank.data.documents.kinds import KINDS
from lowrank.data.documents.names import NAMES
from lowrank.data.documents.reading import read_facts
from lowrank.data.facts.fact import Facts, make_fact
from lowrank.data.facts.figure_matching import Record
from lowrank.grounding.automaton import Rules
from lowrank.grounding.names import Names, phrases_of
from lowrank.grounding.states import START, State

FACTS = {
    "company": make_fact("company", "name", "Tarvane Foods Inc."),
    "period": make_fact("period", "period", "Q3 2024"),
    "test_date": make_fact("test date", "date", "2025-03-31"),
    "total_debt": make_fact("total debt", "usd_m", "812.4"),
    "ebitda": make_fact("EBITDA", "usd_m", "238.2"),
    "leverage": make_fact("leverage", "ratio", "3.41", "total_debt / ebitda"),
    "limit": make_fact("limit", "ratio", "3.25"),
    "headroom": make_fact("headroom", "ratio", "-0.16", "limit - leverage"),
    "rate": make_fact("interest rate", "pct", "7.5"),
    "spread": make_fact("spread", "bps", "150"),
    "stores": make_fact("stores", "count", "1204"),
    "term": make_fact("term in months", "count", "58"),
}


def after(rules: Rules, text: str) -> State | None:
    state: State | None = START
    for letter in text:
        state = rules.step(state, letter) if state is not None else None
    return state


def passes(facts: Facts, text: str, kind: str = "") -> bool:
    rules = Rules(facts, phrases_of(kind))
    state = after(rules, text)
    return state is not None and rules.can_end(state)


@pytest.mark.long
@pytest.mark.parametrize("split", NAMES)
def test_every_document_may_be_written(split: str) -> None:
    for entry in make_documents(30, seed=13, split=split):
        assert passes(entry.facts, entry.output, entry.kind), entry.id


RIGHT = [
    "Total debt was $812.4 million.",
    "Total debt was $812,400,000.",
    "Total debt was $812.4m.",
    "Total debt was $0.8124 billion.",
    "Total debt was $812 million.",
    "Total debt was $812.40 million.",
    "Total debt was 812.4 million dollars.",
    "Total debt was USD 812.4 million.",
    "| Total debt | **$812.4 million** |",
    "The interest rate was 7.5 percent.",
    "The interest rate was 7.5 per cent.",
    "The interest rate was 750 basis points.",
    "The spread was 150 bps.",
    "Leverage was 3.41 times.",
    "Leverage was 3.411x.",
    "Headroom was (0.16x).",
    "Headroom was −0.16x.",
    "Headroom was short by 0.16x.",
    "Headroom was a negative 0.16x.",
    "Two days ago, one of two new plans was at zero risk.",
    "There were stores in 1 place".replace("in 1 place", "of our own, 1,204 in all."),
    "The term in months is 58 months.",
    "1. First\n2) Second\n## 3. Third\n",
    "On 31 March 2025, the end of Q3 2024, at TARVANE FOODS INC. all was well.",
    "One of two five-year plans was met three times, by one kind of three big ones.",
    "Total debt was $812.4 million and EBITDA $238.2 million, so leverage was 3.41x.",
]
WRONG = {
    "another's figure": ["EBITDA was $812.4 million.", "Leverage was 3.25x.", "The limit and leverage were 3.41x."],
    "no name": [
        "It came to $812.4 million.",
        "Total debt was $812.4 million, or $238.2 million.",
        "Headroom. It is 3.41x.",
    ],
    "another name": [
        "Total debt growth was $812.4 million.",
        "Net leverage was 3.41x.",
        "Total debt rose as costs hit $812.4 million.",
    ],
    "another number": ["Total debt was $813 million.", "Leverage was 3.42x.", "Total debt was $0.8 billion."],
    "a scale": [
        "Total debt was $812.4 trillion.",
        "Total debt was $812.4 million million.",
        "There were stores, 1,204 crore.",
    ],
    "a scale that nobody knows": [
        "Total debt was $812.4 gazillion.",
        "Leverage was 3.41x k.",
        "There were stores, 1,204 zl.",
    ],
    "a currency": [
        "Total debt was €812.4 million.",
        "There were stores worth €1,204.",
        "There were stores, EUR 1,204.",
        "Stores: 1,204 CHF.",
    ],
    "a unit": [
        "There were stores, 1,204%.",
        "There were stores, 1,204°.",
        "The term in months is 58 years.",
        "Stores: 1,204 percent.",
        "Stores: 1,204 per cent.",
        "The group owns over five per cent.",
        "Some five per mille of it.",
    ],
    "a sign": [
        "Stores: -1,204.",
        "Headroom was 0.16x.",
        "Total debt was -$812.4 million.",
        "Stores: minus 1,204.",
        "EBITDA was a deficit of $238.2 million.",
        "EBITDA was a negative $238.2 million.",
        "Total debt, a loss of about $812.4 million.",
    ],
    "a digit more": ["Stores: 1,204.5", "Stores: 1,204,000.", "Stores: 1,204²", "Stores: 1,204e6", "Stores: 1,2041"],
    "a number in words": [
        "A million was lost.",
        "There were twelve million stores.",
        "Total debt doubled.",
        "Three percent was paid.",
        "It took three b of it.",
        "One k.",
        "Two shares were sold.",
        "It has two new employees.",
        "There are zero bp of it.",
    ],
    "a numeral of another script": ["Stores: ４１２.", "Stores: ½.", "Stores: ٣."],
    "a date": ["On 30 March 2025 all was well.", "As of 2025.", "In Q2 2024."],
    "a direction": [
        "Headroom rose to -0.16x.",
        "Headroom is -0.16x below the limit of 3.25x.",
        "A positive headroom of -0.16x.",
    ],
}  # fmt: skip


@pytest.mark.parametrize("text", RIGHT)
def test_what_is_right_passes(text: str) -> None:
    assert passes(FACTS, text)


@pytest.mark.slow
@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_does_not(what: str) -> None:
    assert [text for text in WRONG[what] if passes(FACTS, text)] == []


def test_a_direction_that_fits_passes() -> None:
    for text in (
        "Headroom fell to -0.16x.",
        "Headroom is -0.16x above the limit of 3.25x.",
        "A negative headroom of -0.16x.",
        "Leverage is above the limit of 3.25x.",
    ):
        assert passes(FACTS, text), text


def test_a_particle_that_states_no_direction_is_none() -> None:
    kept = dict(FACTS, headroom=make_fact("headroom", "ratio", "0.16", "limit - leverage"))
    for text in ("The agreement lays down the limit.", "It is what we set down.", "They noted the headroom down."):
        assert passes(kept, text), text
    assert not passes(kept, "Headroom went down.") and not passes(kept, "It was written down by us.")
    # and behind one a negative figure keeps its sign
    assert not passes(FACTS, "The agreement lays down headroom of 0.16x.")
    assert passes(FACTS, "Headroom is down to 0.16x.")


def test_of_a_change_over_time_another_thing_may_be_ahead() -> None:
    over_time = {
        "revenue": make_fact("revenue", "usd_m", "90"),
        "prior": make_fact("prior revenue", "usd_m", "100"),
        "change": make_fact("change", "pct", "-10.0", "100 * (revenue / prior - 1)"),
    }
    at_once = {
        "price": make_fact("share price", "usd", "100"),
        "target": make_fact("price target", "usd", "90"),
        "expected": make_fact("expected return", "pct", "-10.0", "100 * (target / price - 1)"),
    }
    assert passes(over_time, "It is in front of its plan.") and not passes(at_once, "It is in front.")
    assert passes(at_once, "It is behind.")
    assert not passes(over_time, "It rose.") and not passes(at_once, "It rose.")


def test_a_figure_that_is_cut_off_may_not_end_there() -> None:
    rules = Rules(FACTS)
    for begun in (
        "Total debt was $8",
        "Total debt was $812.4",
        "Total debt was $812.4 mi",
        "on 31 Mar",
        "Headroom was (0.16x",
    ):
        state = after(rules, begun)
        assert state is not None and not rules.can_end(state), begun


# Records made to mislead.
def record(text: str, kind: str = "earnings_summary") -> Facts:
    return read_facts(text, KINDS[kind].fields)


MISLEADING = [
    (
        "revenue: $12.5 million\nprior revenue: $9.0 million\ncost of revenue: $3.0 million",
        "Cost of revenue was $3.0 million.",
        True,
    ),
    ("revenue: $12.5 million\nprior revenue: $9.0 million", "Prior revenue was $12.5 million.", False),
    ("revenue: $12.5 million\nprior revenue: $9.0 million", "Revenue was $12.5 million.", True),
    ("net income: $38.9 million\ncash: $38.9 million", "Cash was $38.9 million.", True),
    ("net income: $38.9 million\ncash: $38.9 million", "Debt was $38.9 million.", False),
    (
        "revenue 2024: $12.5 million\nrevenue 2023: $9.0 million\nperiods: 2024 and 2023",
        "Revenue was $9.0 million.",
        False,
    ),
    ("revenue 2024: $12.5 million\nrevenue 2023: $9.0 million", "Revenue 2024 was $12.5 million.", True),
    ("revenue 2024: $12.5 million\nrevenue 2023: $9.0 million", "In 2023, revenue was $9.0 million.", True),
    ("revenue 2024: $12.5 million\nrevenue 2023: $9.0 million", "In 2023, revenue was $12.5 million.", False),
    ("revenue 2024: $12.5 million\nrevenue 2023: $9.0 million", "Revenue was $12.5 million.", False),
    ("revenue 2024: $12.5 million\nrevenue 2023: $9.0 million", "In 2022, revenue was", False),
    ("S&P 500 level: 4,000", "The S&P 500 level was 4,000.", True),
    ("Bilanzgröße: €4 million", "Die Bilanzgröße war €4 million.", True),
    ("ısı: 4", "ISI: 4.", True),
    ("S&P 500 level: 4,000", "The S&P 500 level was 500.", False),
    (
        "revenue in euros: €9.0 million\nrevenue in dollars: $12.5 million",
        "Revenue in dollars was €9.0 million.",
        False,
    ),
    ("revenue in euros: €9.0 million\nrevenue in dollars: $12.5 million", "Revenue in euros was €9.0 million.", True),
    ("branches: 0\nlenders: 1\nstaff: 10", "Lenders: 1.", True),
    ("branches: 0\nlenders: 1\nstaff: 10", "Lenders: 10.", False),
    ("branches: 0\nlenders: 1\nstaff: 10", "Branches: 0.", True),
    ("branches: 0\nlenders: 1\nstaff: 10", "Branches: 1.", False),
    ("revenue 2024: $12.5 million\nrevenue: $9.0 million", "Revenue was $9.0 million (2024", False),
    ("revenue 2024: $12.5 million\nrevenue: $9.0 million", "Revenue was $9.0 million, and in 2024", True),
    ("revenue 2024: $12.5 million\nrevenue 2023: $9.0 million", "In 2023, revenue was $9.0 million in 2024", False),
    ("revenue 2024: $12.5 million\nrevenue 2023: $9.0 million", "In 2024, revenue was $12.5 million (2024).", True),
    ("headcount: 2,024\nyear: 2024", "In 2024, headcount was 2,024.", True),
    ("headcount: 2,024\nyear: 2024", "Headcount was 2,024 in 2024.", True),
    ("headcount: 2,024\ncash: 7\nyear: 2024", "Cash was 2024.", False),
    ("cash: $642.90", "Cash was $0.64 thousand.", True),
    ("cash: $642.90", "Cash was $0.00000000064290 trillion.", False),
    ("yield a day: 0.0042%", "The yield a day was 0.0042%.", True),
    ("net loss: $4.0 million", "The company lost $4.0 million.", False),
    ("net loss: $4.0 million", "It had a net loss of $4.0 million.", True),
    ("net income: -$4.0 million", "Net income was a negative $4.0 million.", True),
    ("net income: $4.0 million", "Net income was a loss of $4.0 million.", False),
    ("owner: Million Partners\ncount: 412", "The count was 412 Million.", False),
    ("owner: Million Partners\ncount: 412", "The owner is Million Partners.", True),
]  # fmt: skip


@pytest.mark.parametrize(("facts", "text", "right"), MISLEADING)
def test_records_made_to_mislead(facts: str, text: str, right: bool) -> None:
    assert passes(record(facts), text) is right


def test_what_passes_is_right_by_the_checker() -> None:
    checker = Record(FACTS)
    assert [text for text in RIGHT if checker.wrong(text)] == []


def test_what_passes_is_right_by_the_second_reader() -> None:
    lines = "\n".join(f"{fact.label}: {fact.print}" for fact in FACTS.values())
    for text in (text for text in RIGHT if "months" not in text):  # of months, the reader knows a credit memo's
        assert not read("covenant_certificate", lines, text)[0].strip("r"), text


def test_without_facts_no_digit_may_be_written_but_a_lists() -> None:
    assert not passes({}, "There are 3 of them.")
    assert passes({}, "1. There are three of them.")


def test_a_kind_of_ones_own_gives_its_names_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinds, "_OWN", {})
    kinds.add_kind(replace(KINDS["credit_memo"], name="own_memo"))
    assert phrases_of("own_memo") == phrases_of("credit_memo") != {}
    assert phrases_of("nobodys") == {}


@pytest.mark.parametrize("written", ["net debt", "net\u00a0debt"])
@pytest.mark.parametrize("phrase", ["net debt", "net\u00a0debt"])
def test_a_name_may_have_a_no_break_space(phrase: str, written: str) -> None:
    names = Names({"debt": make_fact("total borrowings", "usd_m", "12")}, {"debt": [phrase]})
    assert [name.keys for name in names.find(f"the {written} of")] == [("debt",)]
