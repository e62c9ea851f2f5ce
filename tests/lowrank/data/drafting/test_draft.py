"""Drafts of kinds: from sixty documents of each of ours comes its kind, and what is not understood is said."""

import random
from pathlib import Path

import pytest

from lowrank.cli import main
from lowrank.data.documents.document import make_documents, write_jsonl
from lowrank.data.documents.kind import Cases, Kind
from lowrank.data.documents.kind_file import kind_of_text
from lowrank.data.documents.kinds import KINDS
from lowrank.data.drafting.draft import Draft, Example, draft_kind


def drafted(name: str, split: str) -> tuple[Draft, Kind]:
    """The draft from sixty documents of one of our kinds, of which only the texts are seen."""
    entries = make_documents(60, seed=7, split=split, kinds=[name])
    draft = draft_kind([Example(entry.instruction, entry.input, entry.output) for entry in entries], name)
    return draft, kind_of_text(draft.text, name)


@pytest.mark.long
@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("name", KINDS)
def test_sixty_documents_give_back_their_kind(name: str, split: str) -> None:
    draft, kind = drafted(name, split)
    types = {label.casefold(): field.type for field in kind.fields.values() for label in field.labels}
    assert {field.label: types.get(field.label.casefold()) for field in KINDS[name].fields.values()} == {
        field.label: field.type for field in KINDS[name].fields.values()
    }
    assert len(kind.fields) == len(KINDS[name].fields)
    assert kind.required_sections == KINDS[name].required_sections
    assert kind.title == KINDS[name].title
    assert [kind.instruction(style) for style in ("paragraphs", "lists")] == [
        KINDS[name].instruction(style) for style in ("paragraphs", "lists")
    ]
    # A formula with four operands is searched for by no one.
    declared = [field.label for field in KINDS[name].fields.values() if isinstance(field.source, str)]
    assert draft.formulas == len(declared) - (name == "risk_disclosure")


def test_sentences_that_the_facts_choose_become_cases() -> None:
    _, kind = drafted("fund_fact_sheet", "train")
    (cases,) = [part for part in kind.sections["Performance"] if isinstance(part, Cases)]
    ((condition, led),) = cases.conditional
    assert condition.text == "excess >= 0"
    assert "The fund led its index, with an excess of {excess}." in led.seen
    assert all("led its" not in wording for wording in cases.otherwise.seen)


def letters(n: int, seed: int = 0) -> list[Example]:
    rng, made = random.Random(seed), []
    for number in range(n):
        cash, debt = rng.randint(100, 999), rng.randint(100, 999)
        record = f"fund: Harrow {number} Fund\ncash: ${cash}.0 million\ndebt: ${debt}.0 million\n"
        record += f"net: {'-' if cash < debt else ''}${abs(cash - debt)}.0 million"
        made.append(
            Example("Write a letter.", record, f"Dear investor,\n\nHarrow {number} Fund holds ${cash}.0 million.\n")
        )
    return made


def test_what_is_not_understood_is_listed() -> None:
    examples = letters(30)
    rest = examples[3].record.partition("net:")[0]
    examples[3] = Example("Write it.", f"{rest}net: $0.5 million", examples[3].document)
    examples[4] = Example(
        "Write a letter.", examples[4].record + "\nauditor: Ana Berg\nfund: B Fund", "No facts, but $5."
    )
    draft = draft_kind(examples, "letter")
    for words in (
        "record 5: 'fund' stands there twice",
        "field 'net': is cash - debt in 29 records, but not in 4",
        "field 'auditor': stands in 1 of 30 records",
        "instruction: 1 documents have another one",
        "the documents have no common title",
        "the documents have no common headings",
    ):
        assert any(line.startswith(words) for line in draft.unclear), (words, draft.unclear)
    assert all(f"# not understood: {line}" in draft.text.splitlines() for line in draft.unclear)


@pytest.mark.parametrize(
    ("examples", "name", "message"),
    [
        ([], "letter", "a kind is drafted from documents, got none"),
        (letters(1), "My Letter", "name must be lower-case letters, digits and _"),
        ([Example("Write.", "no facts", "Dear you.")], "letter", "records must have facts"),
    ],
)
def test_what_gives_no_kind_is_refused(examples: list[Example], name: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        draft_kind(examples, name)


def test_a_text_of_any_letters_comes_back_from_the_file() -> None:
    examples = [
        Example('Say "so" \\ now {it}.', f"näme: Zoë \x7f {n}\nsum: {n + 3} %", f'# A "title" \\\n\nIt was {n}.')
        for n in range(3)
    ]
    kind = kind_of_text(draft_kind(examples, "odd").text, "odd")
    assert kind.title == 'A "title" \\'
    assert kind.instruction() == 'Say "so" \\ now (it).'
    assert [field.label for field in kind.fields.values()] == ["näme", "sum"]


def test_the_verb_writes_a_file_that_can_be_read_and_never_over_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = tmp_path / "a.jsonl", tmp_path / "my-memo.toml"
    write_jsonl(data, make_documents(24, seed=7, split="train", kinds=["credit_memo"]))
    assert main(["data", "kind", "new", str(data), str(out)]) == 0
    *_, told = capsys.readouterr().out.splitlines()
    assert told.startswith(f"{out}: 9 fields, 2 of them by a formula, 3 sections with ")
    assert main(["data", "kind", "check", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}: my_memo, 9 fields, 2 of them by a formula, 3 sections\n"
    assert main(["data", "kind", "new", str(data), str(out)]) == 2
    assert "is there already" in capsys.readouterr().err
