"""A deterministic check that a document's figures are those of its record; no model judges.

    sections  = headings present, in order, with a body  / required headings
    precision = figures in the text that are right       / figures in the text
    recall    = required figures that the text states    / required figures
    binding   = required figures under their own label   / required figures

`lowrank.data.facts.figure_matching` defines a figure and when it is right. A share of nothing, 0 of 0, is None: a text
without a figure has no precision, and a record without one no recall and no binding.

**When it is bound.** In its sentence, the last key phrase before it is one of the fact's (with none before, the first
one after). Its key phrases are its label and, for one of our kinds, every label and phrase of the field; of two that
start together, the longer counts. Facts whose labels differ in their period alone share a phrase, and the period that
stands right behind the figure decides, else the one before it, else one in its sentence.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

from lowrank.data.documents.document import Entry
from lowrank.data.documents.kinds import find_kind
from lowrank.data.facts import figure as reader
from lowrank.data.facts.figure_matching import Record
from lowrank.data.facts.labels import name_key, named_periods, of_period, period_keys, without_period

_HEADING = re.compile(r"^#{1,6}[ \t]+(?:\d{1,2}[.)][ \t]+)?\**(.*?)[ \t#:*]*$", re.MULTILINE)


@dataclass(frozen=True)
class Figure:
    """A number of the text, from `start` to `end`.

    value  in dollars, per cent, multiples or units: "$812.4 million" is 812400000, "($3.10)" is -3.10
    fact   the key of the fact it states, None if it states none
    right  True if it states a fact
    bound  True if it stands under that fact's label
    label  the key of the fact under whose label it stands, right or not; None if it stands under none
    read   the figure as the reader has it: kind, currency, unit, and what is not understood of it
    """

    start: int
    end: int
    text: str
    value: Decimal
    fact: str | None
    right: bool
    bound: bool
    label: str | None
    read: reader.Figure

    @property
    def is_understood(self) -> bool:
        """False for an amount of which something is unknown: its scale, currency or unit, or its digits."""
        return self.read.kind != "unknown"


@dataclass(frozen=True)
class Check:
    """The four shares, 0 to 1, None where there is nothing to share, and the figures in the order of the text."""

    sections: float | None
    precision: float | None
    recall: float | None
    binding: float | None
    figures: tuple[Figure, ...]

    @property
    def not_understood(self) -> int:
        """The number of figures that were not understood; none of them counts as right."""
        return sum(not figure.is_understood for figure in self.figures)


def check(entry: Entry, text: str) -> Check:
    """The four shares of a text against an entry's record, as the module defines them.

    entry  of a kind that is known; any other is checked with its labels as key phrases
    text   Markdown
    A fact is bound if it is stated, and every figure that states it stands under its label.
    """
    figures = tuple(_figures(entry, text))
    required = [key for key, fact in entry.facts.items() if fact.required and fact.is_figure]
    stated = {figure.fact for figure in figures}
    unbound = {figure.fact for figure in figures if not figure.bound}
    sections = len(entry.required_sections)
    return Check(
        sections=_share(sections - len(missing_sections(entry.required_sections, text)), sections),
        precision=_share(sum(figure.right for figure in figures), len(figures)),
        recall=_share(sum(key in stated for key in required), len(required)),
        binding=_share(sum(key in stated and key not in unbound for key in required), len(required)),
        figures=figures,
    )


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def missing_sections(required: tuple[str, ...], text: str) -> tuple[str, ...]:
    """The headings that a text lacks: each is looked for behind the one found last, and needs words below it."""
    parts = _HEADING.split(text)
    written = [title.casefold() for title, body in zip(parts[1::2], parts[2::2], strict=True) if re.search(r"\w", body)]
    missing = []
    for title in required:
        if title.casefold() in written:
            written = written[written.index(title.casefold()) + 1 :]
        else:
            missing.append(title)
    return tuple(missing)


def _figures(entry: Entry, text: str) -> Iterator[Figure]:
    record = Record(entry.facts)
    phrases = _phrases(entry, record.without_texts(text))
    periods = {key: period_keys(fact.label) for key, fact in entry.facts.items()}
    bare = {key: name_key(without_period(fact.label)) for key, fact in entry.facts.items()}
    families = {key: [other for other in bare if bare[other] == bare[key]] for key in bare}
    end = 0
    for claim in record.claims(text):
        read, stating = claim.figure, claim.keys
        since, end = max(claim.first, end), read.end
        ahead = [keys for offset, keys in phrases if claim.first <= offset < read.start]
        behind = [keys for offset, keys in phrases if read.end <= offset < claim.last]
        under = ahead[-1] if ahead else behind[0] if behind else ()
        behind_it = _period_behind(text[read.end : claim.last])
        if behind_it:  # "revenue 2024 was $412.5 million, against $380.1 million in 2023"
            under = tuple(other for key in under for other in families[key]) or under
        under = of_period(under, periods, behind_it, text[since : read.start], text[claim.first : claim.last])
        label = next((key for key in under if key in stating), under[0] if under else None)
        bound = label in stating
        yield Figure(
            start=read.start,
            end=read.end,
            text=read.text,
            value=claim.signs[0] * read.magnitude,
            fact=label if bound else stating[0] if stating else None,
            right=bool(stating),
            bound=bound,
            label=label,
            read=read,
        )


def _period_behind(text: str) -> str:
    """The period that a text begins with: " in 2023, ..." """
    behind = re.match(r"\s*\(?(?:(?:in|for|at)\s+)?", text)
    assert behind is not None, "it matches nothing, too"
    return next((text[start:end] for start, end, _ in named_periods(text) if start == behind.end()), "")


def _phrases(entry: Entry, text: str) -> list[tuple[int, tuple[str, ...]]]:
    """(offset, keys) of every key phrase of a figure in the text, in order: of a label that is there twice, both."""
    kind = find_kind(entry.kind)
    fields = kind.fields if kind else {}
    figures = {key: " ".join(fact.label.split()) for key, fact in entry.facts.items() if fact.is_figure}
    owners: dict[str, tuple[str, ...]] = {}
    for key in figures:
        owners |= {name_key(phrase): (key,) for phrase in (fields[key].phrases if key in fields else ())}
    labels: dict[str, tuple[str, ...]] = {}
    for key, label in figures.items():
        labels[name_key(label)] = (*labels.get(name_key(label), ()), key)
    owners |= labels
    shared: dict[str, tuple[str, ...]] = {}
    for key, label in figures.items():
        for shorter in _shorter(label):
            owners.setdefault(name_key(shorter), (key,))
        if (bare := without_period(label)) and period_keys(label):
            shared[name_key(bare)] = (*shared.get(name_key(bare), ()), key)
    owners = shared | labels | {phrase: keys for phrase, keys in owners.items() if phrase not in shared}
    if not owners:
        return []
    written = {*figures.values(), *map(without_period, figures.values())}  # as they stand: no pattern has "ß" for "ss"
    written |= {phrase for key in figures for phrase in (fields[key].phrases if key in fields else ())}
    names = owners.keys() | {name for name in written if name_key(name) in owners}
    longest_first = "|".join(map(_spaced, sorted(names, key=len, reverse=True)))
    matches = re.finditer(rf"(?<!\w)(?:{longest_first})(?!\w)", text, re.IGNORECASE)
    return [(match.start(), owners[name_key(match[0])]) for match in matches]


def _shorter(label: str) -> Iterator[str]:
    """A label without what is set apart in it: "Net cash provided by (used in) operations, continuing"."""
    bare = " ".join(re.sub(r"\([^()]*\)", " ", label).split())
    for shorter in (bare, bare.partition(",")[0].strip()):
        if shorter and shorter != label:
            yield shorter


def _spaced(phrase: str) -> str:
    """A pattern of a phrase, of which any space may be a no-break one."""
    return re.escape(" ".join(phrase.split())).replace("\\ ", "\\s")
