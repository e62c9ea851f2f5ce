"""Sections of documents, and their sentences with the facts left open: `The fee is {fee}.`

Sentences that state the same facts are wordings of one. Where each wording goes with one side of a bound, or with one
value of a text, they become cases.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from .columns import Column

RARE = 0.25  # of the documents with a section: what fewer of them state is told, not kept
WORDINGS = 12  # of a sentence, the most frequent
EVIDENCE = 15  # documents in which a wording comes again, before it is said to depend on a fact
_HEADING = re.compile(r"^##[ \t]+(\S.*?)[ \t#:*]*$", re.MULTILINE)
_TITLE = re.compile(r"\A\s*#[ \t]+(\S.*?)[ \t#:*]*$", re.MULTILINE)
_ITEM = re.compile(r"[ \t]*(?:[-*•]|\d{1,2}[.)])[ \t]+|[ \t]*\|")
_END = re.compile(r"(?<=[.!?])[ \t]+(?=[\"'(A-Z{])")


@dataclass(frozen=True)
class Sentence:
    """A sentence in several wordings; with cases, (condition, wordings) of each, the last without a condition."""

    wordings: tuple[str, ...] = ()
    cases: tuple[tuple[str, tuple[str, ...]], ...] = ()


@dataclass
class Section:
    """A heading and its sentences in order."""

    heading: str
    sentences: list[Sentence] = field(default_factory=list)


@dataclass
class Slot:
    """A sentence as it was found: its facts, where in the section it stands, and the documents of each wording."""

    keys: frozenset[str]
    places: list[int] = field(default_factory=list)
    wordings: dict[str, list[int]] = field(default_factory=dict)

    @property
    def documents(self) -> set[int]:
        """The numbers of the documents that have it."""
        return {number for numbers in self.wordings.values() for number in numbers}


def title_of(texts: Sequence[str]) -> str | None:
    """The first heading, if it is the same in most documents."""
    titles = Counter(match[1].strip("*") for text in texts if (match := _TITLE.search(text)))
    title, count = titles.most_common(1)[0] if titles else ("", 0)
    return title if 2 * count > len(texts) else None


def sections_of(texts: Sequence[str], columns: Sequence[Column]) -> tuple[list[Section], list[str]]:
    """The sections that most documents have, and what was not understood of their text."""
    unclear: list[str] = []
    bodies: dict[str, dict[int, str]] = {}
    places: dict[str, list[int]] = {}
    for number, text in enumerate(texts):
        parts = _HEADING.split(text)
        for place, (heading, body) in enumerate(zip(parts[1::2], parts[2::2], strict=True)):
            bodies.setdefault(heading.strip("*"), {})[number] = body
            places.setdefault(heading.strip("*"), []).append(place)
    kept = [heading for heading in bodies if 2 * len(bodies[heading]) > len(texts)]
    unclear += [
        f"section {heading!r}: stands in {len(bodies[heading])} of {len(texts)} documents only, and is left out"
        for heading in bodies
        if heading not in kept
    ]
    unclear += [
        f"section {heading!r}: is required, but stands in {len(bodies[heading])} of {len(texts)} documents"
        for heading in kept
        if len(bodies[heading]) < len(texts)
    ]
    kept.sort(key=lambda heading: sum(places[heading]) / len(places[heading]))
    sections = []
    for heading in kept:
        slots = _slots(bodies[heading], columns)
        sections.append(Section(heading, list(_sentences(heading, slots, len(bodies[heading]), columns, unclear))))
    return sections, unclear


def opened(text: str, number: int, columns: Sequence[Column]) -> str:
    """A text of a record with the values of its facts replaced by their keys in braces, the longest first."""
    prints: dict[str, str] = {}
    for column in columns:
        if number in column.facts:
            prints.setdefault(column.facts[number].print, column.key)
    if not prints:
        return text
    longest = sorted(prints, key=len, reverse=True)
    found = re.compile(rf"(?<![\w$€£¥{{-])(?<!\d[.,])(?:{'|'.join(map(re.escape, longest))})(?![\w%}}]|[.,]\d)")
    return found.sub(lambda match: f"{{{prints[match[0]]}}}", text)


def _slots(bodies: Mapping[int, str], columns: Sequence[Column]) -> list[Slot]:
    """The sentences of one section in all documents, those with the same facts together."""
    slots: dict[tuple[frozenset[str], int], Slot] = {}
    for number, body in bodies.items():
        lines = [line for line in body.split("\n") if line.strip() and not _ITEM.match(line)]
        sentences = [
            part.strip() for line in lines for part in _END.split(opened(line, number, columns)) if part.strip()
        ]
        times: Counter[frozenset[str]] = Counter()
        for place, wording in enumerate(sentences):
            keys = frozenset(re.findall(r"\{(\w+)\}", wording))
            # What states no fact is told apart by its place alone.
            slot = slots.setdefault((keys, times[keys] if keys else place), Slot(keys))
            times[keys] += 1
            slot.places.append(place)
            slot.wordings.setdefault(wording, []).append(number)
    return sorted(slots.values(), key=lambda slot: sum(slot.places) / len(slot.places))


def _sentences(
    heading: str, slots: Sequence[Slot], documents: int, columns: Sequence[Column], unclear: list[str]
) -> Iterator[Sentence]:
    in_sentences = len(set().union(*(slot.documents for slot in slots))) if slots else 0
    if in_sentences < documents:
        unclear.append(
            f"section {heading!r}: is a list or empty in {documents - in_sentences} of {documents} documents"
        )
    for slot in slots:
        wordings = [
            text for text in sorted(slot.wordings, key=lambda text: -len(slot.wordings[text])) if _is_plain(text)
        ]
        strange = [text for text in slot.wordings if text not in wordings or re.search(r"\d", text)]
        if len(slot.documents) < RARE * in_sentences or not wordings:
            first = next(iter(slot.wordings))
            unclear.append(f"section {heading!r}: in {len(slot.documents)} documents only, and left out: {first!r}")
            continue
        if strange:
            unclear.append(f"section {heading!r}: a figure that is no fact, or a brace, in {strange[0]!r}")
            wordings = [text for text in wordings if text not in strange]
        if not wordings:
            continue
        if cases := _cases(slot, wordings, columns):
            yield Sentence(cases=cases)
            continue
        if len(wordings) > WORDINGS:
            unclear.append(
                f"section {heading!r}: {len(wordings)} wordings, of which {WORDINGS} are kept: {wordings[0]!r}"
            )
        yield Sentence(tuple(wordings[:WORDINGS]))


def _is_plain(text: str) -> bool:
    return not set("{}") & set(re.sub(r"\{\w+\}", "", text))


def _cases(slot: Slot, wordings: Sequence[str], columns: Sequence[Column]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """The condition by which the facts choose a wording, if there is one: a bound of a figure, or a text's value."""
    again = sum(len(slot.wordings[text]) - 1 for text in wordings)
    if len(wordings) < 2 or again < EVIDENCE:
        return ()
    for column in columns:
        if not all(number in column.facts for number in slot.documents):
            continue
        found = _by_bound(slot, wordings, column) if column.is_figure else _by_text(slot, wordings, column)
        if found:
            return found
    return ()


def _by_bound(slot: Slot, wordings: Sequence[str], column: Column) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Wordings of which each stands on one side of a bound, zero if that is one."""
    spans = []
    for text in wordings:
        numbers = [column.facts[number] for number in slot.wordings[text]]
        if any(fact.type != column.type for fact in numbers):
            return ()
        values = [fact.number for fact in numbers]
        spans.append((min(values), max(values), text))
    bounds = [Decimal(0), *sorted(low for low, _, _ in spans)[1:]]
    for bound in bounds:
        above = tuple(text for low, _, text in spans if low >= bound)
        below = tuple(text for _, high, text in spans if high < bound)
        if above and below and len(above) + len(below) == len(spans) and _is_plenty(slot, above, below):
            return ((f"{column.key} >= {bound:f}", above[:WORDINGS]), ("", below[:WORDINGS]))
    return ()


def _by_text(slot: Slot, wordings: Sequence[str], column: Column) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Wordings of which each goes with one value of a text."""
    groups: dict[str, list[str]] = {}
    for text in wordings:
        values = {column.facts[number].value for number in slot.wordings[text]}
        if len(values) > 1:
            return ()
        groups.setdefault(values.pop(), []).append(text)
    if not 2 <= len(groups) <= 4 or any("'" in value for value in groups) or not _is_plenty(slot, *groups.values()):
        return ()
    *conditional, last = groups.items()
    return (
        *((f"{column.key} == '{value}'", tuple(texts[:WORDINGS])) for value, texts in conditional),
        ("", tuple(last[1][:WORDINGS])),
    )


def _is_plenty(slot: Slot, *groups: Sequence[str]) -> bool:
    """True if wordings come again in each group often enough that no chance keeps them apart."""
    again = [sum(len(slot.wordings[text]) - 1 for text in texts) for texts in groups]
    return min(again) >= 2 and sum(again) >= EVIDENCE
