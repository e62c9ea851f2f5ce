"""The document set: deterministic, disjoint, short, arithmetically right, and whole on the way to a file and back."""

import hashlib
import itertools
import json
import random
from collections import Counter
from collections.abc import Callable
from decimal import ROUND_HALF_UP, Decimal, localcontext
from pathlib import Path
from typing import Any

import pytest

from lowrank.data.documents import Entry, make_documents, make_entry, read_jsonl, write_jsonl
from lowrank.data.kinds import KINDS
from lowrank.data.kinds.kind import wordings
from lowrank.data.names import NAMES

# sha256 of the 100 entries of seed 7, train, as a file. A change of a field, a sentence or a name changes it.
GOLDEN = "75869651bd39ba19be460055d9fbc17f1fa2f07a864d94d517df5c9fa7cc48ef"

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
        assert len(entry.prompt) <= 420, entry.id
        assert 250 <= len(entry.output) <= 800, entry.id
        assert 5 <= len(entry.facts) <= 9
        assert 3 <= len(entry.required_sections) <= 4


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
        assert entry.output.endswith(".\n")
        assert not set("[]{}|") & set(entry.output)


def test_every_sentence_has_five_wordings() -> None:
    for entry in SAMPLE:
        for sentences in KINDS[entry.kind].sentences(entry.facts).values():
            assert min(map(wordings, sentences)) >= 5, f"{entry.id} {sentences}"


def test_one_record_can_be_written_many_times() -> None:
    entry = make_entry("credit_memo", 0, seed=1, split="corpus")
    documents = {KINDS["credit_memo"].write(entry.facts, random.Random(seed)) for seed in range(50)}
    assert len(documents) > 45
    assert all(entry.facts["leverage"].print in document for document in documents)


def test_covenant_conclusion_follows_the_headroom() -> None:
    certificates = [entry for entry in SAMPLE if entry.kind == "covenant_certificate"]
    broken = [printed(entry.facts["headroom"].print) < 0 for entry in certificates]
    assert broken == ["not in compliance" in entry.output for entry in certificates]
    assert {True, False} == set(broken)


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
        ("{", "expected a JSON object, "),
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
        (changed(facts={"debt": DEBT | {"t": "eur"}}), r"facts\.debt: t: expected one of name, .*, got 'eur'"),
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
        KINDS["audit_letter"].write({}, random.Random(0))
