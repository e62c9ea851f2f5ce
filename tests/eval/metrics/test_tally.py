"""The end of a text says its figures, its unused facts, and what was not understood."""

from dataclasses import replace

from lowrank.data.documents.document import Entry, make_entry
from lowrank.data.documents.reading import read_facts
from lowrank.eval.metrics.faithfulness import check
from lowrank.eval.metrics.tally import faults, tally

FACTS = "company: Aldane Ltd\nclosing date: 31/03/2025\nrevenue: €5 million\nmargin: 41.2%\ndriver: new stores"
RIGHT = "Aldane Ltd closed on 31 March 2025. Revenue was €5 million, the margin 41.2%."


def entry() -> Entry:
    return replace(make_entry("credit_memo", 0, seed=0, split="train"), kind="own", facts=read_facts(FACTS, {}))


def told(text: str, unread: int = 0) -> list[str]:
    result = check(entry(), text)
    return [tally(entry(), text, result, unread), *faults(result)]


def test_a_text_with_every_fact() -> None:
    assert told(RIGHT) == [
        "2 figures: 2 in the facts, 2 under their own name; 0 facts not used; nothing that was not understood"
    ]


def test_a_figure_of_another_name_and_one_of_no_fact() -> None:
    assert told("Aldane Ltd closed on 31 March 2025. The margin was €5 million, costs $7.") == [
        "2 figures: 1 in the facts, 0 under their own name; 1 fact not used; nothing that was not understood",
        "not in the facts: $7",
        "not under their own name: €5 million",
    ]


def test_what_was_not_understood() -> None:
    assert told("Revenue was €5 million million.", unread=2) == [
        "1 figure: 0 in the facts, 0 under their own name; 3 facts not used; "
        "2 amounts of the facts and 1 figure of the text not understood",
        "not understood: €5 million million (a scale or unit too many)",
    ]


def test_a_text_without_a_figure() -> None:
    assert told("Nothing.") == ["no figure; 3 facts not used; nothing that was not understood"]
