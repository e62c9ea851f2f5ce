"""What a kind of document is: a table of fields, and sections of sentences in several wordings.

    draw   fields -> record      every field draws a value, or derives it by its formula from the fields above it
    write  record -> Markdown    "paragraphs": every sentence in one of its wordings
                                 "lists": a line `- Label: print` a fact, and what the facts decide in a sentence

A kind is data; the loops that read it are all in this file.
"""

import datetime
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal, localcontext
from random import Random

from lowrank.data.documents.names import Names
from lowrank.data.documents.splits import Split
from lowrank.data.facts.fact import ARITHMETIC, Fact, Facts, evaluate, identity, make_fact

Draw = Callable[[Random, Names, Facts], Decimal | str]

STYLES = ("paragraphs", "lists")
YEARS = (2009, 2025)
MAX_DRAWS = 10_000
_PLACE = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Field:
    """One row of a kind's table.

    label   what the record calls it in training, and the first of its key phrases
    type    see `Fact`
    source  how its value is drawn, or the formula that derives it from the fields above
    unseen  what other splits call it as well; key phrases too
    also    further key phrases: in a document, the last key phrase before a figure is one of its own
    """

    label: str
    type: str
    source: Draw | str
    unseen: tuple[str, ...]
    also: tuple[str, ...] = ()

    @property
    def labels(self) -> tuple[str, ...]:
        """What a record may call it."""
        return (self.label, *self.unseen)

    @property
    def phrases(self) -> tuple[str, ...]:
        """The key phrases of the figure."""
        return (*self.labels, *self.also)

    def fact(self, rng: Random, split: Split, notation: str, above: Facts) -> Fact:
        """The field's fact, given the ones above it; a given figure is drawn until it is in the split's ranges.

        Raises ValueError if the field has no figure in them.
        """
        label = rng.choice(self.labels) if split.unseen else self.label
        if isinstance(self.source, str):
            return make_fact(label, self.type, evaluate(self.source, above), self.source, notation)
        for _ in range(MAX_DRAWS):
            fact = make_fact(label, self.type, self.source(rng, split.names, above), None, notation)
            if not fact.is_figure or split.owns(fact.number):
                return fact
        raise ValueError(f"Field.fact: {self.label}: no figure with a second digit in {split.second_digits}")


@dataclass(frozen=True)
class Sentence:
    """One statement in several wordings, templates that all have the same `{keys}`.

    seen    the wordings that training shows
    unseen  the ones it never does
    """

    seen: tuple[str, ...]
    unseen: tuple[str, ...]

    @property
    def keys(self) -> frozenset[str]:
        """The facts it states."""
        return frozenset(_PLACE.findall(self.seen[0]))

    def put(self, facts: Facts, rng: Random, *, unseen: bool) -> str:
        """The sentence in one wording, its facts as the record prints them."""
        wordings = self.seen + self.unseen if unseen else self.seen
        return rng.choice(wordings).format_map({key: fact.print for key, fact in facts.items()})


Clause = Callable[[Facts], Sentence]


@dataclass(frozen=True)
class Kind:
    """One kind of document.

    name      "covenant_certificate"
    title     its first heading
    noun      what the instruction asks for: "a covenant compliance certificate"
    fields    key -> Field, in the order of the record
    sections  heading -> sentences, in the order of the document; a clause picks its sentence by the facts
    """

    name: str
    title: str
    noun: str
    fields: Mapping[str, Field]
    sections: Mapping[str, tuple[Sentence | Clause, ...]]

    @property
    def required_sections(self) -> tuple[str, ...]:
        """The headings, in order."""
        return tuple(self.sections)

    def instruction(self, style: str = STYLES[0]) -> str:
        """The one sentence that asks for the document in a style. Raises ValueError for an unknown style."""
        if style not in STYLES:
            raise ValueError(f"{self.name}: style must be one of {', '.join(STYLES)}, got {style!r}")
        return f"Write {self.noun} in Markdown {style} using only the facts given."

    def draw(self, rng: Random, split: Split) -> dict[str, Fact]:
        """A record in one notation. No derived figure in it is zero: each is a gain or a loss, never neither."""
        notation = rng.choice(split.notations)
        while True:
            facts: dict[str, Fact] = {}
            with localcontext(ARITHMETIC):
                for key, field in self.fields.items():
                    facts[key] = field.fact(rng, split, notation, facts)
            if all(fact.number for fact in facts.values() if fact.source is not None):
                return facts

    def identities(self, facts: Facts) -> tuple[str, ...]:
        """The rules that the derived figures of a record obey."""
        return tuple(identity(key, fact) for key, fact in facts.items() if fact.source is not None)

    def sentences(self, facts: Facts) -> dict[str, tuple[Sentence, ...]]:
        """The sentences of each section, every clause decided."""
        return {
            heading: tuple(part(facts) if callable(part) else part for part in parts)
            for heading, parts in self.sections.items()
        }

    def write(self, facts: Facts, rng: Random, *, style: str, unseen: bool) -> str:
        """The document of a record, in one of its many wordings.

        style   one of STYLES
        unseen  whether the wordings that training never shows may occur
        Raises ValueError if the record lacks a field.
        """
        if missing := [key for key in self.fields if key not in facts]:
            raise ValueError(f"{self.name}: the record needs every field, lacks {', '.join(missing)}")
        form = _lists if style == "lists" else _paragraph
        blocks = [f"# {self.title}"]
        for heading, parts in self.sections.items():
            blocks.append(f"## {heading}\n{form(parts, facts, rng, unseen)}")
        return "\n\n".join(blocks) + "\n"


def _paragraph(parts: tuple[Sentence | Clause, ...], facts: Facts, rng: Random, unseen: bool) -> str:
    """One sentence behind another."""
    sentences = (part(facts) if callable(part) else part for part in parts)
    return " ".join(sentence.put(facts, rng, unseen=unseen) for sentence in sentences)


def _lists(parts: tuple[Sentence | Clause, ...], facts: Facts, rng: Random, unseen: bool) -> str:
    """A line a fact for a sentence that only states facts, the sentence itself for one that the facts decide."""
    lines: list[str] = []
    for part in parts:
        if isinstance(part, Sentence) and part.keys:
            lines += [f"- {_title(fact.label)}: {fact.print}" for key, fact in facts.items() if key in part.keys]
        else:
            sentence = part if isinstance(part, Sentence) else part(facts)
            lines.append(f"- {sentence.put(facts, rng, unseen=unseen)}")
    return "\n".join(lines)


def _title(label: str) -> str:
    return label[0].upper() + label[1:]


# Ways to draw a value.


def company(rng: Random, names: Names, above: Facts) -> str:
    """An invented company of the split."""
    return names.company(rng)


def fund(rng: Random, names: Names, above: Facts) -> str:
    """An invented fund of the split."""
    return names.fund(rng)


def person(rng: Random, names: Names, above: Facts) -> str:
    """An invented person of the split."""
    return names.person(rng)


def day(rng: Random, names: Names, above: Facts) -> str:
    """Any day of YEARS, as an ISO date."""
    first, last = datetime.date(YEARS[0], 1, 1), datetime.date(YEARS[1], 12, 31)
    return datetime.date.fromordinal(rng.randint(first.toordinal(), last.toordinal())).isoformat()


def quarter_end(rng: Random, names: Names, above: Facts) -> str:
    """The last day of a quarter, as an ISO date."""
    return f"{rng.randint(*YEARS)}-{rng.choice(('03-31', '06-30', '09-30', '12-31'))}"


def period(rng: Random, names: Names, above: Facts) -> str:
    """A quarter or a year: `Q3 2024`, `fiscal 2024`."""
    return f"{rng.choice(('Q1', 'Q2', 'Q3', 'Q4', 'fiscal'))} {rng.randint(*YEARS)}"


def choice(texts: str) -> Draw:
    """One of `this|that|another`."""
    return lambda rng, names, above: rng.choice(texts.split("|"))


def days_after(key: str, low: int, high: int) -> Draw:
    """A day, `low` to `high` days after the date of an earlier field."""

    def draw(rng: Random, names: Names, above: Facts) -> str:
        start = datetime.date.fromisoformat(above[key].value)
        return (start + datetime.timedelta(days=rng.randint(low, high))).isoformat()

    return draw


def between(low: str, high: str, step: str) -> Draw:
    """low + k * step, every k up to `high` equally likely."""
    start, width = Decimal(low), Decimal(step)
    steps = int((Decimal(high) - start) / width)
    return lambda rng, names, above: start + rng.randint(0, steps) * width


def share(key: str, low: str, high: str) -> Draw:
    """`low` to `high` times an earlier figure, in steps of a ten-thousandth of it."""
    part = between(low, high, "0.0001")

    def draw(rng: Random, names: Names, above: Facts) -> Decimal:
        return above[key].number * Decimal(part(rng, names, above))

    return draw


def by_sign(formula: str, positive: Sentence, negative: Sentence) -> Clause:
    """`positive` if the formula ("headroom", "cash - capex") is zero or more, else `negative`."""
    return lambda facts: positive if evaluate(formula, facts) >= 0 else negative
