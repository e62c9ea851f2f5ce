"""The file of a kind, drafted from records with their documents: to be read, edited and given to training."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ..documents.kind import STYLES
from ..documents.kind_file import LABEL, NAME
from ..documents.reading import read_facts
from .columns import Column, columns_of
from .formulas import find_formulas
from .wordings import Section, Sentence, sections_of, title_of

FEW = 20  # records, below which a draft is guesswork


@dataclass(frozen=True)
class Example:
    """The instruction that asked for a document, its record as `label: value` lines, and the document."""

    instruction: str
    record: str
    document: str


@dataclass(frozen=True)
class Draft:
    """The text of a kind's TOML file, its counts, and a line for each thing that was not understood."""

    text: str
    fields: int
    formulas: int
    sections: int
    sentences: int
    unclear: tuple[str, ...]


def draft_kind(examples: Sequence[Example], name: str, *, with_sentences: bool = True) -> Draft:
    """The draft of a kind.

    name            of the kind, lower-case letters, digits and _
    with_sentences  False for one that holds nothing of the documents but their headings
    Raises ValueError for no examples, for records without a fact, and for another name.
    """
    if not NAME.fullmatch(name):
        raise ValueError(f"name must be lower-case letters, digits and _, a letter first, got {name!r}")
    if not examples:
        raise ValueError("a kind is drafted from documents, got none")
    columns, unclear = columns_of([read_facts(example.record, {}) for example in examples])
    unclear += [f"field {column.labels[0]!r}: no label of a kind" for column in columns if not _is_label(column)]
    columns = [column for column in columns if _is_label(column)]
    if not columns:
        raise ValueError("records must have facts, one `label: value` a line, got none")
    formulas, doubts = find_formulas(columns)
    texts = [example.document for example in examples]
    sections, more = sections_of(texts, columns)
    if not with_sentences:
        sections = [Section(section.heading) for section in sections]
        more = []
    title = title_of(texts)
    instruction, variants = _instruction([example.instruction for example in examples])
    unclear += [*doubts, *more, *variants]
    if title is None:
        unclear.append("the documents have no common title: the kind's name stands for it")
    if not sections:
        unclear.append("the documents have no common headings (## ...): no section is required")
    if len(examples) < FEW:
        unclear.append(f"{len(examples)} documents are few: {FEW} or more tell a rule from chance")
    title = title or name.replace("_", " ").title()
    head = [
        f"# Drafted from {len(examples)} documents. docs/documents.md describes every key.",
        *(f"# not understood: {line}" for line in unclear if with_sentences),
        "",
        f"name = {_quoted(name)}",
        f"title = {_quoted(title)}",
        f"noun = {_quoted(_noun(title))}",
        f"instruction = {_quoted(instruction)}",
    ]
    blocks = [
        "\n".join(head),
        *(_field(column, formulas.get(column.key)) for column in columns),
        *map(_section, sections),
    ]
    return Draft(
        "\n\n".join(blocks) + "\n",
        len(columns),
        len(formulas),
        len(sections),
        sum(len(section.sentences) for section in sections),
        tuple(unclear),
    )


def _is_label(column: Column) -> bool:
    return all(LABEL.fullmatch(label) for label in column.labels)


def _noun(title: str) -> str:
    return f"{'an' if title[0].casefold() in 'aeiou' else 'a'} {title.lower()}"


def _instruction(instructions: Sequence[str]) -> tuple[str, list[str]]:
    """The most frequent one, with its style left open where several differ by that alone."""
    plain = [text.replace("{", "(").replace("}", ")") for text in instructions]
    opened = [text.replace(STYLES[0], "{style}").replace(STYLES[1], "{style}") for text in plain]
    has_styles = len(set(opened)) < len(set(plain)) and all(text.count("{style}") <= 1 for text in opened)
    counts = Counter(opened if has_styles else plain)
    first, count = counts.most_common(1)[0]
    others = len(instructions) - count
    return " ".join(first.split()), [f"instruction: {others} documents have another one"] if others else []


def _field(column: Column, formula: str | None) -> str:
    lines = [f"[fields.{column.key}]", f"label = {_quoted(column.labels[0])}", f"type = {_quoted(column.type)}"]
    if formula is not None:
        lines.append(f"formula = {_quoted(formula)}")
    if column.labels[1:]:
        lines.append(f"synonyms = {_list(column.labels[1:])}")
    return "\n".join(lines)


def _section(section: Section) -> str:
    parts = [f"[[sections]]\nheading = {_quoted(section.heading)}", *map(_sentence, section.sentences)]
    return "\n\n".join(parts)


def _sentence(sentence: Sentence) -> str:
    if not sentence.cases:
        return f"[[sections.sentences]]\nwordings = {_list(sentence.wordings)}"
    cases = []
    for condition, wordings in sentence.cases:
        when = f"when = {_quoted(condition)}\n" if condition else ""
        cases.append(f"[[sections.sentences.cases]]\n{when}wordings = {_list(wordings)}")
    return "[[sections.sentences]]\n" + "\n\n".join(cases)


def _list(texts: Sequence[str]) -> str:
    return "[" + "".join(f"\n  {_quoted(text)}," for text in texts) + "\n]"


def _quoted(text: str) -> str:
    """A TOML string: JSON's, in which TOML allows no DEL."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
