"""The automaton lets through the texts that are right by the checker's rule, and no others."""

import random

import pytest

from lowrank.data.documents.document import make_documents
from lowrank.data.documents.names import NAMES
from lowrank.data.documents.reading import read_facts
from lowrank.data.facts.fact import Fact, Facts, make_fact
from lowrank.grounding.automaton import START, Rules, State
from lowrank.grounding.old_figures import FIGURE
from lowrank.grounding.old_matching import Record

FACTS = {
    "company": make_fact("company", "name", "Tarvane Foods Inc."),
    "period": make_fact("period", "period", "Q3 2024"),
    "test_date": make_fact("test date", "date", "2025-03-31"),
    "total_debt": make_fact("total debt", "usd_m", "812.4"),
    "ebitda": make_fact("EBITDA", "usd_m", "238.2"),
    "leverage": make_fact("leverage", "ratio", "3.41", "total_debt / ebitda"),
    "headroom": make_fact("headroom", "ratio", "-0.16"),
    "rate": make_fact("interest rate", "pct", "7.5"),
    "spread": make_fact("spread", "bps", "150"),
    "fee": make_fact("fee", "usd", "12000000"),
    "stores": make_fact("stores", "count", "1204"),
}

# Fact files made to mislead: prefixes of one another, shared digits, texts that lie in figures, the odd and the huge.
ADVERSARIAL: dict[str, Facts] = {
    "prefixes": {f"n{value}": make_fact(value, "count", value) for value in ("1", "12", "120", "1204")},
    "shared digits": {
        "a": make_fact("a", "usd_m", "812.4"),
        "b": make_fact("b", "usd_m", "812.5"),
        "c": make_fact("c", "usd", "812.40"),
        "d": make_fact("d", "pct", "81.2"),
    },
    "dates": {
        "day": make_fact("day", "date", "2025-03-08"),
        "count": make_fact("count", "count", "8"),
        "year": make_fact("year", "period", "2024"),
        "million": make_fact("million", "usd_m", "2024.5"),
        "code": Fact("0.20", "text", "0.20", "code"),
        "rate": make_fact("rate", "rate", "0.20"),
    },
    "texts in figures": {
        "owner": make_fact("owner", "name", "Million Partners"),
        "letter": make_fact("letter", "name", "X"),
        "currency": make_fact("currency", "text", "USD"),
        "square": make_fact("square", "text", "Times Square 5"),
        "count": make_fact("count", "count", "5000000"),
        "ratio": make_fact("ratio", "ratio", "5"),
        "debt": make_fact("debt", "usd_m", "5"),
    },
    "negative zero": {"a": Fact("-0.0", "pct", "-0.0%", "a"), "b": make_fact("b", "usd", "0")},
    "huge": {"a": make_fact("a", "usd_m", "9" * 40), "b": make_fact("b", "count", "1" + "0" * 50)},
    "tiny": {"a": make_fact("a", "ratio", "0.01"), "b": make_fact("b", "bps", "1")},
    "negative": {
        "a": make_fact("a", "usd_m", "-3.1"),
        "b": make_fact("b", "pct", "-8.4"),
        "c": make_fact("c", "ratio", "-0.16"),
    },
    "no figures": {"company": FACTS["company"], "day": FACTS["test_date"]},
    "nothing": {},
}  # fmt: skip


def after(rules: Rules, text: str) -> State | None:
    state: State | None = START
    for letter in text:
        state = rules.step(state, letter) if state is not None else None
    return state


def passes(facts: Facts, text: str) -> bool:
    rules = Rules(Record(facts))
    state = after(rules, text)
    return state is not None and rules.may_end(state)


@pytest.mark.parametrize("split", NAMES)
def test_every_document_may_be_written(split: str) -> None:
    for entry in make_documents(30, seed=13, split=split):
        assert passes(entry.facts, entry.output), entry.id


RIGHT = [
    "Total debt was $812.4 million.",
    "Total debt was $812,400,000.",
    "Total debt was $812400000.",
    "Total debt was $812.4m.",
    "Total debt was $0.8124 billion.",
    "Total debt was $0.81 billion.",
    "Total debt was $812 million.",
    "Total debt was $812.40 million.",
    "Total debt was $812,400 thousand.",
    "Total debt was 812.4 million dollars.",
    "Total debt was US$812.4 million.",
    "Total debt was USD 812.4 million.",
    "| Total debt | **$812.4 million** |",
    "Eight hundred and twelve million dollars of debt.",
    "The fee was twelve million dollars.",
    "The fee was $12 million.",
    "The interest rate was 7.5 percent, or 7.50%.",
    "The interest rate was 750 basis points, 750 bps.",
    "The spread was one hundred and fifty basis points, or 1.5%.",
    "Leverage was 3.41 times, 3.4x or 3.411x.",
    "Headroom was (0.16x), (0.16)x, -0.16x and −0.16x.",
    "Headroom was short by 0.16x.",
    "There were 1,204 stores, or 1204 of them, or 1.2 thousand.",
    "1. First\n2) Second\n## 3. Third\n",
    "On 31 March 2025, the end of Q3 2024, at TARVANE FOODS INC. all was well.",
    "One of two five-year plans was met three times.",
    "Twelve months on, it was one of five.",
]
WRONG = [
    "Total debt was $812.4.",
    "Total debt was $812.4 billion",
    "Total debt was 812.4 million.",
    "Total debt was $812.43",
    "Total debt was $813",
    "Total debt was -$8",
    "Total debt was $0.8 billion",
    "Seven hundred million",
    "The fee was twelve million.",
    "The fee was thirteen percent",
    "The interest rate was 7.5x",
    "The interest rate was 8",
    "Leverage was 3.42",
    "Headroom was 0.16x.",
    "Headroom was (0.16x,",
    "As of 2025.",
    "As of Q3.",
    "On 1 March",
    "There were 4 lenders.",
    "There were 1,204 times",
    "1. First\n200. Second",
    "On 31 March 2026",
]


@pytest.mark.parametrize("text", RIGHT)
def test_what_is_right_passes(text: str) -> None:
    assert Record(FACTS).wrong(text) == []
    assert passes(FACTS, text)


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_does_not(text: str) -> None:
    assert Record(FACTS).wrong(text)
    assert not passes(FACTS, text)


def test_a_figure_that_is_cut_off_may_not_end_there_and_what_was_begun_may_go_on() -> None:
    rules = Rules(Record(FACTS))
    for begun in ("$8", "$812.4", "$812.4 mi", "Total debt was 812.4 million ", "on 31 Mar", "eight hundred", "(0.16x"):
        state = after(rules, begun)
        assert state is not None, begun
        assert not rules.may_end(state), begun


def test_a_word_that_begins_like_a_scale_may_follow_a_right_figure() -> None:
    assert passes(FACTS, "There were 1,204 members, 1,204 boats and 1,204 kinds.")
    assert passes(FACTS, "The fee of $12,000,000 made it, and $12,000,000 below.")
    assert not passes(FACTS, "There were 1,204 m.")


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_whatever_the_rules_let_through_is_right_and_leads_somewhere(name: str) -> None:
    facts, rng = ADVERSARIAL[name], random.Random(name)
    rules = Rules(Record(facts))
    letters = "0123456789" * 3 + " .,()$%-−\n" * 2 + "xkmbMSDt"
    words = [
        " million", "twelve", " hundred", " percent", " bps", " dollars", "USD ", "$", "(", ")", "fell ", " billion",
        "#", "\n2. ", " basis points", " thousand", " times", "five ", *rules.record.texts,
    ]  # fmt: skip
    figures = 0
    for _ in range(12):
        state, text = START, ""
        while len(text) < 150 or not rules.may_end(state):
            piece = rng.choice(words) if rng.random() < 0.25 else rng.choice(letters)
            kept = text
            for letter in piece:
                following = rules.step(state, letter)
                if following is None:
                    break
                state, text = following, text + letter
            if text == kept:  # at a loss: any character that may follow, of which there must be one
                open = [letter for letter in map(chr, range(10, 123)) if rules.step(state, letter) is not None]
                assert open, text
                text += rng.choice(open)
                following = rules.step(state, text[-1])
                assert following is not None
                state = following
        assert rules.record.wrong(text) == [], text
        figures += len(FIGURE.findall(rules.record.mask(text)))
    assert figures > 0 or name in ("no figures", "nothing")


def test_no_figure_begins_in_a_word() -> None:
    assert not passes(FACTS, "The rate7.5% and more.")
    assert passes(FACTS, "The debt of USD812.4 million and Q3 2024.")


def test_without_facts_no_digit_may_be_written_but_a_lists() -> None:
    assert not passes({}, "There are 3 of them.")
    assert passes({}, "1. There are three of them.")


def test_a_record_that_was_read_from_a_file_grounds_too() -> None:
    facts = read_facts("account: 0044\nyear: 2024\nrevenue: $12.5 million\ncost: ($3.1 million)", {})
    assert passes(facts, "In 2024, account 0044 made $12.5 million and lost -$3.1 million.")
    assert not passes(facts, "In 2023")
    assert not passes(facts, "account 44.")
