"""Kinds of document as files: what is read, and what is refused with its place."""

import random
import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest

from lowrank.data.documents.derived import with_formulas
from lowrank.data.documents.kind import Kind
from lowrank.data.documents.kind_file import kind_of_text, read_kind
from lowrank.data.documents.kinds import KINDS, NAMES
from lowrank.data.documents.reading import read_facts
from lowrank.data.documents.splits import SPLITS
from lowrank.data.facts.fact import UNITS, make_fact, render_input

ROOT = next(folder for folder in Path(__file__).resolve().parents if (folder / "pyproject.toml").exists())
FOLDER = ROOT / "lowrank/data/documents/kinds"
PAGE = (ROOT / "docs/documents.md").read_text(encoding="utf-8")
EXAMPLE = PAGE.split("```toml\n")[1].split("```")[0]

FILE = """
name = "note"
title = "Note"
noun = "a note"

[fields.firm]
label = "firm"
type = "name"
draw = "company"

[fields.debt]
label = "debt"
type = "usd_m"
range = { from = 1.0, to = 9.9, step = 0.1 }
synonyms = ["borrowings"]

[fields.due]
label = "due"
type = "date"
draw = "day"

[fields.paid]
label = "paid"
type = "date"
days_after = { date = "due", from = 1, to = 9 }

[fields.account]
label = "account"
type = "text"
range = { template = "no. {number}", from = 10, to = 99, step = 1 }

[fields.cash]
label = "cash"
type = "usd_m"
share = { of = "debt", from = 0.5, to = 1.5 }
phrases = ["ready money"]

[fields.gap]
label = "gap"
type = "usd_m"
formula = "cash - debt"

[fields.mood]
label = "mood"
type = "text"
choices = ["calm", "tense"]

[[sections]]
heading = "All"
[[sections.sentences]]
wordings = ["{firm} owes {debt}.", "Debt of {debt} at {firm}."]
unseen = ["{firm} is {debt} down."]
[[sections.sentences]]
wordings = ["Due {due}, paid {paid}, {account}, cash {cash}, gap {gap}."]
[[sections.sentences]]
[[sections.sentences.cases]]
when = "gap >= -0.05 and mood == 'calm'"
wordings = ["All is well."]
[[sections.sentences.cases]]
wordings = ["All is not well."]
"""


def read(tmp_path: Path, text: str) -> Kind:
    path = tmp_path / "note.toml"
    path.write_text(text, encoding="utf-8")
    return read_kind(path)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.toml")), ids=lambda path: path.stem)
def test_the_file_of_each_kind_is_read_and_is_one_of_the_ten(path: Path) -> None:
    kind = read_kind(path)
    assert kind == KINDS[path.stem]
    assert kind.name == path.stem


def test_every_kind_has_a_file_and_every_file_is_a_kind() -> None:
    assert sorted(NAMES) == sorted(path.stem for path in FOLDER.glob("*.toml"))
    assert tuple(KINDS) == NAMES


def test_a_file_gives_fields_sources_and_sentences(tmp_path: Path) -> None:
    kind = read(tmp_path, FILE)
    assert (kind.name, kind.title, kind.required_sections) == ("note", "Note", ("All",))
    assert kind.instruction("lists") == "Write a note in Markdown lists using only the facts given."
    assert list(kind.fields) == ["firm", "debt", "due", "paid", "account", "cash", "gap", "mood"]
    assert kind.fields["debt"].labels == ("debt", "borrowings")
    assert kind.fields["cash"].phrases == ("cash", "ready money")
    assert kind.fields["gap"].source == "cash - debt"


def test_a_record_of_a_file_is_in_its_ranges(tmp_path: Path) -> None:
    kind = read(tmp_path, FILE)
    for seed in range(200):
        facts = kind.draw(random.Random(seed), SPLITS["train"])
        debt, cash = facts["debt"].number, facts["cash"].number
        assert Decimal("1.0") <= debt <= Decimal("9.9")
        assert Decimal("0.5") * debt - Decimal("0.05") <= cash <= Decimal("1.5") * debt + Decimal("0.05")
        assert facts["gap"].number == cash - debt != 0
        assert facts["due"].value < facts["paid"].value
        assert re.fullmatch(r"no\. [1-9]\d", facts["account"].value)
        document = kind.write(facts, random.Random(seed), style="paragraphs", unseen=False)
        well = cash - debt >= Decimal("-0.05") and facts["mood"].value == "calm"
        assert document.endswith("All is well.\n" if well else "All is not well.\n")


def test_the_first_case_that_is_met_is_written_and_the_last_for_all_others(tmp_path: Path) -> None:
    kind = read(tmp_path, EXAMPLE)
    words = {"1260": "may object", "1259": "is 4.9%.\n", "1201": "is 0.1%.\n", "1200": "favour", "1100": "favour"}
    for new_rent, ending in words.items():
        facts = {
            "tenant": make_fact("tenant", "person", "Bo"),
            "rent": make_fact("present rent", "usd", "1200"),
            "new_rent": make_fact("new rent", "usd", new_rent),
        }
        document = kind.write(with_formulas(facts, kind.fields), random.Random(0), style="lists", unseen=False)
        assert ending in document, document


def test_the_example_of_the_page_gives_the_document_of_the_page(tmp_path: Path) -> None:
    kind = read(tmp_path, EXAMPLE)
    record, document = (PAGE.split(f"```{language}\n")[1].split("```")[0] for language in ("text", "markdown"))
    *given, derived = record.splitlines()
    facts = with_formulas(read_facts("\n".join(given), kind.fields), kind.fields)
    assert render_input(facts) == record.rstrip("\n")
    assert derived == "change: 6.3%"
    written = {kind.write(facts, random.Random(seed), style="paragraphs", unseen=False) for seed in range(20)}
    assert document in written
    assert len(written) == 2


def test_the_faults_of_the_page_are_told_as_the_page_says(tmp_path: Path) -> None:
    shown = [line.strip() for line in PAGE.splitlines() if line.startswith("    rent_notice.toml: ")]
    broken = [EXAMPLE.replace('type = "usd"', 'type = "euro"', 1), EXAMPLE.replace("change >=", "chnge >=")]
    for text, line in zip(broken, shown, strict=True):
        with pytest.raises(ValueError) as error:
            read(tmp_path, text)
        assert str(error.value).replace(str(tmp_path / "note"), "rent_notice") == line


def test_the_table_of_the_page_has_every_type_with_its_decimals() -> None:
    row = next(line for line in PAGE.splitlines() if line.startswith("| `type`"))
    found = dict(re.findall(r"`(\w+)` \([^)]*?(\d)\)", row.split("decimals:")[1]))
    assert found == {type: str(unit.decimals) for type, unit in UNITS.items()}


def test_a_kind_with_a_field_without_a_rule_reads_records_and_refuses_to_draw_one(tmp_path: Path) -> None:
    kind = read(tmp_path, FILE.replace('choices = ["calm", "tense"]\n', ""))
    assert read_facts("mood: calm\nborrowings: $3.0 million", kind.fields).keys() == {"mood", "debt"}
    with pytest.raises(ValueError, match="mood: the kind has no rule that draws this field"):
        kind.draw(random.Random(0), SPLITS["train"])


def swap(old: str, new: str) -> Callable[[], str]:
    """The file with one text in place of another that it has."""
    assert FILE.count(old), old
    return lambda: FILE.replace(old, new, 1)


FAULTS: dict[str, tuple[Callable[[], str], str]] = {
    "no TOML": (lambda: "name =", r"must be TOML: Invalid value \(at end of document\)"),
    "key twice": (swap('noun = "a note"', 'title = "Note"'), r"must be TOML: .* \(at line \d+, column \d+\)"),
    "name missing": (swap('name = "note"', ""), "name: must be there"),
    "name in capitals": (swap('"note"', '"Note"'), "name: must be lower-case letters, .*, got 'Note'"),
    "title of two lines": (swap('"Note"', '"No\\nte"'), r"title: must be one line of text, got 'No\\nte'"),
    "title a number": (swap('"Note"', "7"), "title: must be one line of text, got 7"),
    "unknown key": (swap('noun = "a note"', 'noun = "a note"\nnuon = "x"'), "nuon: unknown key: did you mean 'noun'?"),
    "instruction reaches into an object": (
        swap('noun = "a note"', 'noun = "a note"\ninstruction = "{noun.__class__} {style}"'),
        r"instruction: braces must be around a key",
    ),
    "fields no table": (lambda: FILE.split("[fields")[0] + "fields = 3", "fields: must be a table, got 3"),
    "no fields": (lambda: FILE.split("[fields")[0] + "[fields]", "fields: must have at least one field"),
    "key in capitals": (swap("[fields.debt]", "[fields.Debt]"), "fields.Debt: a key must be lower-case letters"),
    "key is a word of conditions": (
        swap("[fields.debt]", "[fields.and]"),
        "fields.and: a key must be .* not and or or",
    ),
    "field no table": (swap("[fields.firm]", "[fields]\nx = 1\n[fields.firm]"), "fields.x: must be a table, got 1"),
    "label missing": (swap('label = "debt"', ""), "fields.debt.label: must be there"),
    "label with a colon": (swap('label = "debt"', 'label = "debt:"'), "fields.debt.label: must be a text .*'debt:'"),
    "label too long": (swap('"debt"', f'"{"d" * 61}"'), "fields.debt.label: must be a text of at most 60 characters"),
    "type unknown": (swap('"usd_m"', '"euro"'), "fields.debt.type: must be one of name, .*, eur_m, got 'euro'"),
    "type a list": (swap('"usd_m"', '["usd"]'), r"fields.debt.type: must be one of name, .*, got \['usd'\]"),
    "synonyms a text": (
        swap('["borrowings"]', '"loans"'),
        "fields.debt.synonyms: must be a list of texts, got 'loans'",
    ),
    "synonym a number": (swap('["borrowings"]', '["a", 2]'), r"fields.debt.synonyms\[2\]: must be a text .*, got 2"),
    "synonym of another field": (
        swap('"borrowings"', '"Firm"'),
        "fields.debt: a phrase must stand for one field.*'Firm'",
    ),
    "synonym twice": (swap('"borrowings"', '"Debt"'), "fields.debt: a phrase must stand for one field, once: 'debt'"),
    "two sources": (
        swap("range = {", 'formula = "1"\nrange = {'),
        "fields.debt: must have one of draw, .*, formula, got range and formula",
    ),
    "unknown source": (swap("range = {", "rnage = {"), "fields.debt.rnage: unknown key: did you mean 'range'?"),
    "draw unknown": (swap('"company"', '"planet"'), "fields.firm.draw: must be one of company, .*, got 'planet'"),
    "draw of another type": (
        swap('"company"', '"day"'),
        "fields.firm.draw: must be in a field of type date, got 'name'",
    ),
    "choices of a figure": (
        swap("range = { from = 1.0, to = 9.9, step = 0.1 }", 'choices = ["1"]'),
        "fields.debt.choices: must be in a field of type name or person or text or period, got 'usd_m'",
    ),
    "choices empty": (swap('["calm", "tense"]', "[]"), r"fields.mood.choices: must be a list of texts, got \[\]"),
    "range the wrong way": (swap("to = 9.9", "to = 0.9"), "fields.debt.range.to: must be at least 1.0, got 0.9"),
    "range without a step": (swap(", step = 0.1", ""), "fields.debt.range.step: must be there"),
    "range with step 0": (swap("step = 0.1", "step = 0.0"), "fields.debt.range.step: must be above 0, got 0.0"),
    "range of texts": (swap("from = 1.0", 'from = "1"'), "fields.debt.range.from: must be a number, got '1'"),
    "range of infinity": (swap("to = 9.9", "to = inf"), "fields.debt.range.to: must be a number, got Decimal"),
    "range of nan": (swap("from = 1.0", "from = nan"), "fields.debt.range.from: must be a number, got Decimal"),
    "range unknown key": (swap("step = 0.1", "step = 0.1, tpo = 1"), "fields.debt.range.tpo: unknown key"),
    "range of a text without template": (
        swap('template = "no. {number}", ', ""),
        "fields.account.range: must be in a field of type usd or .*, got 'text'",
    ),
    "template without number": (swap("no. {number}", "no."), "fields.account.range.template: must have {number} once"),
    "days after no date": (
        swap('date = "due"', 'date = "debt"'),
        "paid.days_after.date: must be a date above it, one of due",
    ),
    "days a fraction": (
        swap("to = 9 }", "to = 9.5 }"),
        "fields.paid.days_after.to: must be a whole number, got Decimal",
    ),
    "share of a later field": (
        swap('of = "debt"', 'of = "gap"'),
        "cash.share.of: must be a figure above it, one of debt, got 'gap'",
    ),
    "formula unfinished": (
        swap('"cash - debt"', '"cash -"'),
        "fields.gap.formula: formula 'cash -': must be arithmetic",
    ),
    "formula of Python": (
        swap('"cash - debt"', '"cash.real"'),
        r"fields.gap.formula: formula 'cash.real': '.' is neither",
    ),
    "formula of itself": (
        swap('"cash - debt"', '"gap - 1"'),
        "formula 'gap - 1': unknown key 'gap'; known: debt, cash",
    ),
    "formula of a text": (swap('"cash - debt"', '"cash - firm"'), "fields.gap.formula: .*unknown key 'firm'"),
    "formula compares": (swap('"cash - debt"', '"cash > debt"'), "fields.gap.formula: .*'>' is neither"),
    "formula of a date field": (
        swap('days_after = { date = "due", from = 1, to = 9 }', 'formula = "debt"'),
        "fields.paid.formula: must be in a field of type usd or .*, got 'date'",
    ),
    "section no array": (lambda: FILE.split("[[sections]]")[0] + "[sections]", r"sections: must be an array of tables"),
    "heading missing": (swap('heading = "All"', ""), r"sections\[1\].heading: must be there"),
    "heading twice": (
        lambda: FILE + '[[sections]]\nheading = "All"\n[[sections.sentences]]\nwordings = ["x"]',
        r"sections\[2\].heading: must differ from those above, got 'All'",
    ),
    "wordings empty": (
        swap('["Due {due}, paid {paid}, {account}, cash {cash}, gap {gap}."]', "[]"),
        r"sections\[All\].sentences\[2\].wordings: must be a list of texts, got \[\]",
    ),
    "wording of an unknown key": (
        swap("Debt of {debt}", "Debt of {dept}"),
        r"sections\[All\].sentences\[1\].wordings\[2\]: {dept} must be a key of a field, got 'Debt of {dept}",
    ),
    "wording lacks a key": (
        swap("{firm} is {debt} down", "{firm} is down"),
        r"sections\[All\].sentences\[1\].unseen\[1\]: must have the keys of the first wording, {debt}, {firm}, got",
    ),
    "wording reaches into an object": (
        swap("Debt of {debt}", "Debt of {debt.real}"),
        r"sections\[All\].sentences\[1\].wordings\[2\]: braces must be around a key, {key}, got",
    ),
    "wording of two lines": (swap("Debt of", "Debt\\nof"), r"sentences\[1\].wordings\[2\]: must be one line of text"),
    "unknown key of a sentence": (
        swap("unseen =", "unsene ="),
        r"sentences\[1\].unsene: unknown key: did you mean 'unseen'",
    ),
    "condition of an unknown key": (
        swap("gap >=", "gapp >="),
        r"cases\[1\].when: condition .* unknown key 'gapp'; known: firm,",
    ),
    "condition compares nothing": (
        swap("gap >= -0.05 and mood == 'calm'", "gap"),
        r"cases\[1\].when: must compare, as in \"leverage <= 4.00\", got 'gap'",
    ),
    "condition of a text as a figure": (
        swap("gap >= -0.05 and mood == 'calm'", "mood >= 1"),
        r"cases\[1\].when: condition 'mood >= 1': '>=' cannot take a text and a number",
    ),
    "first case without condition": (
        swap("when = \"gap >= -0.05 and mood == 'calm'\"", ""),
        r"sections\[All\].sentences\[3\].cases\[1\].when: must be there",
    ),
    "last case with a condition": (
        lambda: FILE + 'when = "gap < 0"',
        r"cases\[2\].when: the last case must have none: it is for all other records",
    ),
    "one case": (
        lambda: FILE.rpartition("[[sections.sentences.cases]]")[0],
        r"sections\[All\].sentences\[3\].cases: must be at least two cases, got one",
    ),
    "cases beside wordings": (
        swap("[[sections.sentences.cases]]\nwhen", 'wordings = ["x"]\n[[sections.sentences.cases]]\nwhen'),
        r"sentences\[3\].wordings: unknown key",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize(("text", "message"), FAULTS.values(), ids=FAULTS)
def test_a_fault_of_a_file_is_refused_in_one_line_with_its_place(
    tmp_path: Path, text: Callable[[], str], message: str
) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(str(tmp_path / 'note.toml'))}: (?:.*)?{message}") as error:
        read(tmp_path, text())
    assert "\n" not in str(error.value)


def test_a_file_that_is_missing_or_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"absent\.toml: no such file"):
        read_kind(tmp_path / "absent.toml")
    (tmp_path / "note.toml").write_bytes(b'name = "caf\xe9"')
    with pytest.raises(ValueError, match=r"note\.toml:1: must be UTF-8, byte 12 of the line, 0xe9, is not"):
        read_kind(tmp_path / "note.toml")


def test_a_kind_may_ask_in_plain_words_and_have_no_sections_or_no_sentences_in_them() -> None:
    bare = FILE.split("[[sections]]")[0].replace('noun = "a note"', 'noun = "a note"\ninstruction = "Write to all."')
    kind = kind_of_text(bare, "note.toml")
    assert (kind.instruction(), kind.required_sections) == ("Write to all.", ())
    kind = kind_of_text(bare + '[[sections]]\nheading = "Results"', "note.toml")
    assert kind.required_sections == ("Results",)
    with pytest.raises(ValueError, match=r"^note: a section must have sentences to be written, 'Results' has none$"):
        kind.write({}, random.Random(0), style="paragraphs", unseen=False)
