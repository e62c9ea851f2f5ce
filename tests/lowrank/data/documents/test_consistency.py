"""An entry that does not agree with itself is told so, one line a finding."""

from dataclasses import replace

import pytest

from lowrank.data.documents.consistency import findings
from lowrank.data.documents.document import Entry, make_documents, make_entry
from lowrank.data.documents.names import NAMES

ENTRY = make_entry("covenant_certificate", 0, seed=7, split="train")
LEVERAGE = ENTRY.facts["leverage"]


def with_leverage(**changes: str) -> Entry:
    return replace(ENTRY, facts={**ENTRY.facts, "leverage": replace(LEVERAGE, **changes)})


@pytest.mark.slow
@pytest.mark.parametrize("split", NAMES)
def test_our_entries_agree_with_themselves(split: str) -> None:
    assert [note for entry in make_documents(100, seed=9, split=split) for note in findings(entry)] == []


def test_a_print_that_is_not_its_value() -> None:
    assert list(findings(with_leverage(print="9.99x"))) == [
        f"facts.leverage: print '9.99x' does not state {LEVERAGE.value} (ratio)",
        "facts.leverage: the input has no line 'leverage: 9.99x'",
    ]


def test_an_identity_that_does_not_hold() -> None:
    wrong = replace(ENTRY, identities=("leverage == round(total_debt / ebitda, 0)",))
    (note,) = findings(wrong)
    assert note.startswith("identities: leverage == round(total_debt / ebitda, 0): the formula gives ")
    assert note.endswith(f", the record says {LEVERAGE.value}")


def test_a_derived_figure_is_held_to_its_formula_though_no_identity_is_listed() -> None:
    notes = list(findings(replace(with_leverage(value="9.99", print="9.99x"), identities=())))
    assert any(note.startswith("identities: leverage == round(total_debt / ebitda, 2): ") for note in notes)
    assert any(note.startswith("identities: headroom == round(max_leverage - leverage, 2): ") for note in notes)


@pytest.mark.parametrize(
    ("rule", "note"),
    [
        ("leverage > 3", "must be `key == round(formula, decimals)` of a figure of the record"),
        ("profit == round(ebitda, 0)", "must be `key == round(formula, decimals)` of a figure of the record"),
        ("leverage == round(profit, 2)", "formula 'profit': 'profit' is neither arithmetic nor a figure of the record"),
    ],
)
def test_an_identity_that_says_nothing(rule: str, note: str) -> None:
    assert list(findings(replace(ENTRY, identities=(rule,)))) == [f"identities: {rule}: {note}"]


def test_a_record_may_be_a_bulleted_list() -> None:
    assert list(findings(replace(ENTRY, input="\n".join(f"- {line}" for line in ENTRY.input.split("\n"))))) == []
