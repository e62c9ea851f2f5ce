"""The words that facts choose: a record is written in many ways, and none of them says the opposite."""

import random
import re

import pytest

from lowrank.data.documents.document import make_entry
from lowrank.data.documents.kind import STYLES
from lowrank.data.documents.kinds import KINDS
from lowrank.data.facts.fact import Fact, make_fact


def draws(kind: str, key: str, value: str) -> dict[str, Fact]:
    """A record of a kind in which one figure is set."""
    facts = dict(make_entry(kind, 0, seed=0, split="corpus").facts)
    return facts | {key: make_fact(facts[key].label, facts[key].type, value)}


@pytest.mark.parametrize("style", STYLES)
def test_one_record_can_be_written_many_times(style: str) -> None:
    entry = make_entry("credit_memo", 0, seed=1, split="corpus")
    memo = KINDS["credit_memo"]
    documents = {memo.write(entry.facts, random.Random(seed), style=style, unseen=True) for seed in range(50)}
    assert len(documents) > (45 if style == "paragraphs" else 5)
    assert all(entry.facts["leverage"].print in document for document in documents)


@pytest.mark.parametrize(
    ("kind", "key", "value", "words"),
    [
        ("earnings_summary", "change", "4.0", "stronger|grew|better than|rose|expanded|went up|advance"),
        ("earnings_summary", "change", "-4.0", "weaker|shrank|slower|fell|contracted|went down|decline"),
        ("mdna_section", "operating_income", "-4.0", "exceeded|fell|too high|negative|down|operating result"),
        ("mdna_section", "cash", "9999.0", "no new|sufficient|its own means|ample|are enough|No loan|can meet"),
        ("mdna_section", "cash", "0.1", "new borrowing|credit lines|to borrow|not enough|A loan|cannot meet"),
        ("risk_disclosure", "exposure", "99.0", "material"),
        ("risk_disclosure", "exposure", "0.1", "modest"),
        ("covenant_certificate", "headroom", "0.10", "in compliance"),
        ("covenant_certificate", "headroom", "-0.10", "in breach"),
        ("investment_thesis", "upside", "10.0", "buy"),
        ("investment_thesis", "upside", "9.9", "hold"),
        ("investment_thesis", "upside", "-5.0", "hold"),
        ("investment_thesis", "upside", "-5.1", "sell"),
        ("investment_thesis", "multiple", "15.00", "low|cheap|inexpensive|undemanding|little|is a bargain"),
        ("investment_thesis", "multiple", "15.01", "full|dear|are expensive|a demanding|much|a lot|no bargain"),
        ("fund_fact_sheet", "excess", "0.1", "led|favourable|ahead|beat|front|gain"),
        ("fund_fact_sheet", "excess", "-0.1", "lagged|negative|behind|trailed|cost"),
    ],
)
@pytest.mark.parametrize("style", STYLES)
def test_words_follow_from_the_facts(kind: str, key: str, value: str, words: str, style: str) -> None:
    facts = draws(kind, key, value)
    for seed in range(60):
        text = KINDS[kind].write(facts, random.Random(seed), style=style, unseen=True)
        assert re.search(rf"\b(?:{words})\b", text), text


@pytest.mark.parametrize(
    ("leverage", "coverage", "words"),
    [
        ("4.00", "2.50", "approval, since|recommend approval\\.|approved|to approve|so approval|supports|no obstacle"),
        ("4.01", "2.50", "condition|covenant"),
        ("4.00", "2.49", "condition|covenant"),
        ("4.01", "2.49", "decline|against|refusal|opposes"),
    ],
)  # fmt: skip
def test_the_recommendation_follows_from_the_ratios(leverage: str, coverage: str, words: str) -> None:
    facts = draws("credit_memo", "leverage", leverage) | {"coverage": make_fact("coverage", "ratio", coverage)}
    for seed in range(60):
        text = KINDS["credit_memo"].write(facts, random.Random(seed), style="lists", unseen=True)
        assert re.search(words, text.split("## Recommendation")[1]), text


@pytest.mark.parametrize("opinion", ["unqualified", "qualified", "adverse"])
def test_the_opinion_is_worded_by_its_type(opinion: str) -> None:
    letter = KINDS["audit_letter"]
    facts = make_entry("audit_letter", 0, seed=0, split="corpus").facts
    facts = {**facts, "opinion": make_fact("opinion", "text", opinion)}
    others = {"unqualified", "qualified", "adverse"} - {opinion}
    for seed in range(60):
        text = letter.write(facts, random.Random(seed), style="paragraphs", unseen=True).split("## Basis")[0]
        assert not re.search(rf"\b(?:{'|'.join(others)})\b", text), text
        assert bool(re.search("not |cannot|mislead|adverse", text)) == (opinion == "adverse"), text
        assert bool(re.search(r"\b(?:one|qualified)\b", text)) == (opinion == "qualified"), text
