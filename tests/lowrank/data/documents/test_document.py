"""The document set: deterministic, disjoint, short, arithmetically right, and whole on the way to a file and back."""

import hashlib
import itertools
import json
import random
import re
from collections import Counter
from collections.abc import Callable
from decimal import ROUND_HALF_UP, Decimal, localcontext
from pathlib import Path
from typing import Any

import pytest

from lowrank.data.documents.document import Entry, make_documents, make_entry, read_jsonl, write_jsonl
from lowrank.data.documents.draws import Range
from lowrank.data.documents.kind import STYLES, Field, Sentence
from lowrank.data.documents.kinds import KINDS
from lowrank.data.documents.names import NAMES
from lowrank.data.documents.splits import SPLITS, second_digit
from lowrank.data.facts.fact import print_value

# sha256 of the 100 entries of seed 7, train, as a file. A change of a field, a sentence or a name changes it.
GOLDEN = "d68405eb791fac7707618644e2e6c0175200878271c23eb76d8f4aaff2bda83e"

SAMPLE = [entry for split in NAMES for entry in make_documents(200, seed=5, split=split)]

Figures = dict[str, Decimal]

# Every derived figure once more, by hand.
RULES: dict[str, dict[str, Callable[[Figures], Decimal]]] = {
    "earnings_summary": {"change": lambda f: (f["revenue"] - f["prior_revenue"]) / f["prior_revenue"] * 100},
    "mdna_section": {
        "gross_profit": lambda f: f["revenue"] - f["cogs"],
        "operating_income": lambda f: f["revenue"] - f["cogs"] - f["opex"],
    },
    "risk_disclosure": {"exposure": lambda f: f["debt"] * f["floating_share"] * f["rate_shock"] / 1_000_000},
    "credit_memo": {
        "leverage": lambda f: f["debt"] / f["ebitda"],
        "coverage": lambda f: f["ebitda"] / f["interest"],
    },
    "covenant_certificate": {
        "leverage": lambda f: f["total_debt"] / f["ebitda"],
        "headroom": lambda f: f["max_leverage"] - f["leverage"],
    },
    "invoice_statement": {
        "subtotal": lambda f: f["quantity"] * f["price"],
        "tax": lambda f: f["tax_rate"] * f["subtotal"] / 100,
        "total": lambda f: f["tax"] + f["quantity"] * f["price"],
    },
    "aml_sar_narrative": {"total": lambda f: f["third"] + f["second"] + f["first"]},
    "investment_thesis": {
        "upside": lambda f: (f["target"] - f["price"]) / f["price"] * 100,
        "multiple": lambda f: f["price"] / f["eps"],
    },
    "fund_fact_sheet": {"excess": lambda f: f["fund_return"] - f["benchmark"]},
    "audit_letter": {"materiality": lambda f: f["rate"] * f["pretax"] / 100},
}


def sentences_of(kind: str) -> list[Sentence]:
    """Every sentence that the sampled records of a kind lead to."""
    records = [entry.facts for entry in SAMPLE if entry.kind == kind]
    return list({s: None for facts in records for part in KINDS[kind].sentences(facts).values() for s in part})


def printed(text: str) -> Decimal:
    """The number in a printed figure, in the unit it is printed in."""
    return Decimal("".join(character for character in text if character in "-.0123456789"))


@pytest.mark.parametrize("kind", KINDS)
def test_derived_figures_follow_from_the_printed_ones(kind: str) -> None:
    for entry in (entry for entry in SAMPLE if entry.kind == kind):
        figures = {key: printed(fact.print) for key, fact in entry.facts.items() if fact.is_figure}
        assert {key for key, fact in entry.facts.items() if fact.source} == set(RULES[kind])
        for key, rule in RULES[kind].items():
            assert figures[key] == rule(figures).quantize(figures[key], ROUND_HALF_UP), f"{entry.id} {key}"
        assert [identity.split(" == ")[0] for identity in entry.identities] == list(RULES[kind])


def test_same_bytes_on_every_run(tmp_path: Path) -> None:
    with localcontext() as context:
        context.prec = 3
        write_jsonl(tmp_path / "documents.jsonl", make_documents(100, seed=7, split="train"))
    assert hashlib.sha256((tmp_path / "documents.jsonl").read_bytes()).hexdigest() == GOLDEN


def test_kinds_take_turns() -> None:
    entries = make_documents(100, seed=7, split="train")
    assert Counter(entry.kind for entry in entries) == dict.fromkeys(KINDS, 10)
    assert len({entry.id for entry in entries}) == 100
    assert make_documents(3, seed=7, split="train") == entries[:3]
    assert [entry.kind for entry in make_documents(3, seed=7, split="train", kinds=["credit_memo"])] == [
        "credit_memo"
    ] * 3


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations(NAMES, 2)))
def test_splits_share_no_name(one: str, other: str) -> None:
    words = [{*NAMES[split].stems, *NAMES[split].families, *NAMES[split].given} for split in (one, other)]
    assert words[0].isdisjoint(words[1])
    inputs = [{entry.input for entry in SAMPLE if entry.split == split} for split in (one, other)]
    assert len(inputs[0]) == len(inputs[1]) == 200
    assert inputs[0].isdisjoint(inputs[1])


def test_sizes() -> None:
    for entry in SAMPLE:
        assert len(entry.prompt) <= 430, entry.id
        assert 150 <= len(entry.output) <= 600, entry.id
        assert 7 <= len(entry.facts) <= 9
        assert 3 <= len(entry.required_sections) <= 4


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations(("train", "validation", "test"), 2)))
def test_splits_share_no_given_figure(one: str, other: str) -> None:
    given: dict[str, set[tuple[str, str, Decimal]]] = {split: set() for split in NAMES}
    for entry in SAMPLE:
        for key, fact in entry.facts.items():
            if fact.is_figure and fact.source is None:
                assert second_digit(fact.number) in SPLITS[entry.split].second_digits, f"{entry.id} {key}"
                given[entry.split].add((entry.kind, key, fact.number))
    assert given[one].isdisjoint(given[other])
    assert min(len(given[one]), len(given[other])) > 300


@pytest.mark.parametrize(
    ("figure", "digit"), [("812.4", 1), ("-0.38", 8), ("5.00", 0), ("0.05", 0), ("7", 0), ("0", 0)]
)
def test_second_digit(figure: str, digit: int) -> None:
    assert second_digit(Decimal(figure)) == digit


def test_no_derived_figure_is_zero() -> None:
    assert all(fact.number for entry in SAMPLE for fact in entry.facts.values() if fact.source is not None)


def test_a_field_without_a_figure_in_the_ranges_of_a_split_is_refused() -> None:
    field = Field("limit", "ratio", Range(Decimal("2.00"), Decimal("2.50"), Decimal("0.10")), ())
    with pytest.raises(ValueError, match=r"^Field\.fact: limit: no figure with a second digit in range\(8, 10\)"):
        field.fact(random.Random(0), SPLITS["test"], "symbols", {})


@pytest.mark.parametrize("split", ["validation", "test"])
def test_held_out_splits_use_labels_notations_and_wordings_that_training_never_shows(split: str) -> None:
    train = [entry for entry in SAMPLE if entry.split == "train"]
    held = [entry for entry in SAMPLE if entry.split == split]
    seen = {(entry.kind, fact.label) for entry in train for fact in entry.facts.values()}
    labels = {(entry.kind, fact.label) for entry in held for fact in entry.facts.values()}
    assert len(labels - seen) > 90 and len(labels & seen) > 70
    unseen_notation = ("M", " dollars", " percent", " per cent", " x", " times", " bp", " basis points", " %")
    prints = [fact.print for entry in train for fact in entry.facts.values() if fact.is_figure]
    assert not [text for text in prints if text.endswith(unseen_notation) or text.startswith("US")]
    prints = [fact.print for entry in held for fact in entry.facts.values() if fact.is_figure]
    assert all(any(text.endswith(ending) for text in prints) for ending in unseen_notation)
    assert any(text.startswith("US$") for text in prints) and any(text.startswith("USD ") for text in prints)
    for kind in KINDS:
        unseen = [fixed_part(wording) for sentence in sentences_of(kind) for wording in sentence.unseen]
        assert not [part for part in unseen for entry in train if entry.kind == kind and part in entry.output]
        assert any(part in entry.output for part in unseen for entry in held if entry.kind == kind), kind


def fixed_part(wording: str) -> str:
    """The longest stretch of a wording without a fact in it."""
    return max(wording.replace("}", "{").split("{")[::2], key=len)


def test_a_record_keeps_to_one_notation() -> None:
    for entry in SAMPLE:
        figures = [fact for fact in entry.facts.values() if fact.is_figure]
        assert any(
            all(fact.print == print_value(fact.type, fact.value, notation) for fact in figures)
            for notation in SPLITS[entry.split].notations
        ), entry.id


def test_every_figure_of_the_record_is_in_the_document_as_printed() -> None:
    for entry in SAMPLE:
        for key, fact in entry.facts.items():
            assert f"{fact.label}: {fact.print}" in entry.input.split("\n")
            if fact.is_figure or fact.type in ("name", "person", "date", "period"):
                assert fact.print in entry.output, f"{entry.id} {key}"


def test_layout() -> None:
    for entry in SAMPLE:
        lines = entry.output.split("\n")
        assert lines[0] == f"# {KINDS[entry.kind].title}"
        assert tuple(line[3:] for line in lines if line.startswith("## ")) == entry.required_sections
        assert entry.output.endswith("\n") and not entry.output.endswith("\n\n")
        assert not set("[]{}|") & set(entry.output)


def test_the_instruction_says_the_style_and_the_styles_take_turns() -> None:
    for entry in SAMPLE:
        style = STYLES[int(entry.id[-4:]) % 2]
        assert entry.instruction == KINDS[entry.kind].instruction(style)
        assert f"in Markdown {style} using" in entry.instruction
        bodies = [line for line in entry.output.split("\n") if line and not line.startswith("#")]
        assert {line.startswith("- ") for line in bodies} == {style == "lists"}, entry.id
    assert len({kind.instruction(style) for kind in KINDS.values() for style in STYLES}) == 20


@pytest.mark.parametrize("kind", KINDS)
def test_every_sentence_has_five_wordings_and_two_unseen_ones(kind: str) -> None:
    for sentence in sentences_of(kind):
        wordings = sentence.seen + sentence.unseen
        assert len(sentence.seen) >= 5 and len(sentence.unseen) >= 2, sentence
        assert len({fixed_part(wording) for wording in wordings}) == len(wordings), sentence
        assert {frozenset(re.findall(r"{(\w+)}", wording)) for wording in wordings} == {sentence.keys}, sentence


@pytest.mark.parametrize("kind", KINDS)
def test_labels_of_a_record_are_told_apart(kind: str) -> None:
    phrases = Counter(phrase.casefold() for field in KINDS[kind].fields.values() for phrase in field.phrases)
    assert set(phrases.values()) == {1}
    assert all(field.unseen for field in KINDS[kind].fields.values())


def test_jsonl_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "documents.jsonl"
    write_jsonl(path, SAMPLE)
    assert read_jsonl(path) == SAMPLE


def test_json_form() -> None:
    data = make_entry("covenant_certificate", 7, seed=7, split="train").to_json()
    assert list(data) == [
        "id", "kind", "split", "seed", "format", "instruction", "facts", "required_sections", "identities", "input",
        "output", "license", "sha256",
    ]  # fmt: skip
    assert data["id"] == "covenant_certificate-0007"
    assert set(data["facts"]["company"]) == {"v", "t"}
    assert set(data["facts"]["total_debt"]) == {"v", "t", "print"}
    assert data["facts"]["leverage"]["from"] == "total_debt / ebitda"
    content = {key: value for key, value in data.items() if key != "sha256"}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert data["sha256"] == hashlib.sha256(text.encode()).hexdigest()


def changed(**changes: Any) -> str:
    """A line of JSON with some keys changed, and those that are None left out."""
    data = make_entry("covenant_certificate", 0, seed=7, split="train").to_json() | {"sha256": None} | changes
    return json.dumps({key: value for key, value in data.items() if value is not None})


DEBT = {"v": "812.4", "t": "usd_m", "print": "$812.4 million"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "must be JSON, got none"),
        ("[1]", "expected a JSON object, got list"),
        (changed(seed="7"), "seed: expected a whole number, got str '7'"),
        (changed(seed=True), "seed: expected a whole number, got bool True"),
        (changed(output=None), "output: expected a string, got nothing"),
        (changed(required_sections=["Opinion", 1]), "required_sections: expected a list of strings"),
        (changed(messages=[]), "messages: expected no such key"),
        (changed(sha256="00"), r"sha256: expected [0-9a-f]{64}, the hash of the content, got '00'"),
        (changed(facts={"debt": "812.4"}), r"facts\.debt: expected a JSON object, got str"),
        (changed(facts={"debt": {"v": "812.4"}}), r"facts\.debt: t: expected a string, got nothing"),
        (changed(facts={"debt": DEBT | {"v": 812.4}}), r"facts\.debt: v: expected a string, got float 812\.4"),
        (changed(facts={"debt": DEBT | {"v": "much"}}), r"facts\.debt: v: expected a decimal number, got 'much'"),
        (changed(facts={"debt": DEBT | {"t": "euro"}}), r"facts\.debt: t: expected one of name, .*, got 'euro'"),
        (changed(facts={"debt": DEBT | {"form": "a"}}), r"facts\.debt: form: expected no such key"),
        (changed(facts={"debt": DEBT | {"from": "a + b"}}), r"facts\.debt: from: formula 'a \+ b': 'a' is neither"),
    ],
)
def test_bad_lines(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(changed() + "\n\n" + line + "\n")
    with pytest.raises(ValueError, match=rf"bad\.jsonl:3: {message}") as error:
        read_jsonl(path)
    assert "\n" not in str(error.value)


def test_a_changed_document_no_longer_matches_its_hash() -> None:
    data = make_entry("audit_letter", 0, seed=7, split="test").to_json()
    assert Entry.from_json(data).to_json() == data
    with pytest.raises(ValueError, match=r"^entry: sha256: expected"):
        Entry.from_json(data | {"output": "# Audit Letter\n"})


def test_errors_of_make_documents() -> None:
    with pytest.raises(ValueError, match="split must be one of train, validation, test, corpus, got 'dev'"):
        make_documents(1, seed=0, split="dev")
    with pytest.raises(ValueError, match=r"kind must be one of earnings_summary, .*, got 'poem'"):
        make_documents(1, seed=0, split="train", kinds=["poem"])
    with pytest.raises(ValueError, match="needs n >= 0 and at least one kind, got n=-1"):
        make_documents(-1, seed=0, split="train")
    with pytest.raises(ValueError, match="audit_letter: the record needs every field, lacks entity"):
        KINDS["audit_letter"].write({}, random.Random(0), style="lists", unseen=False)
    with pytest.raises(ValueError, match="audit_letter: style must be one of paragraphs, lists, got 'table'"):
        KINDS["audit_letter"].instruction("table")
