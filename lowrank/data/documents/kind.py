"""A kind of document: a table of fields, and sections of sentences in several wordings.

    draw   fields -> record      every field draws a value, or derives it by its formula from the fields above it
    write  record -> Markdown    "paragraphs": every sentence in one of its wordings
                                 "lists": a line `- Label: print` a fact, and what the facts decide in a sentence

A kind is data: a TOML file (`kind_file` reads and checks it), and these classes.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import localcontext
from random import Random

from ..facts.fact import Fact, Facts, evaluate, identity, make_fact, unit_of
from ..facts.formula import ARITHMETIC, Formula
from .draws import Draw
from .splits import Split

STYLES = ("paragraphs", "lists")
INSTRUCTION = "Write {noun} in Markdown {style} using only the facts given."
MAX_DRAWS = 10_000
PLACEHOLDER = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Field:
    """One row of a kind's table.

    label   its name in the records of training, and the first of its key phrases
    type    see `Fact`
    source  the rule that draws its value, the formula that derives it from the fields above, or None: never generated
    unseen  its further names in the records of other splits; key phrases too
    also    further key phrases: in a document, the last key phrase before a figure is one of its own
    """

    label: str
    type: str
    source: Draw | str | None
    unseen: tuple[str, ...] = ()
    also: tuple[str, ...] = ()

    @property
    def is_figure(self) -> bool:
        """True if its facts are figures."""
        return unit_of(self.type) is not None

    @property
    def labels(self) -> tuple[str, ...]:
        """The names that a record may give it."""
        return (self.label, *self.unseen)

    @property
    def phrases(self) -> tuple[str, ...]:
        """The key phrases of the figure."""
        return (*self.labels, *self.also)

    def fact(self, rng: Random, split: Split, notation: str, above: Facts) -> Fact:
        """The field's fact, given the ones above it; a given figure is drawn until it is in the split's ranges.

        Raises ValueError if the field has no figure in them, and if it has no rule to draw by.
        """
        label = rng.choice(self.labels) if split.unseen else self.label
        if self.source is None:
            raise ValueError(f"Field.fact: {self.label}: the kind has no rule that draws this field")
        if isinstance(self.source, str):
            return make_fact(label, self.type, evaluate(self.source, above), self.source, notation)
        for _ in range(MAX_DRAWS):
            fact = make_fact(label, self.type, self.source(rng, split.names, above), None, notation)
            if not fact.is_figure or split.has_figure(fact.number):
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
        return frozenset(PLACEHOLDER.findall(self.seen[0]))

    def choose(self, facts: Facts) -> "Sentence":
        """The sentence itself, whatever the facts."""
        return self

    def put(self, facts: Facts, rng: Random, *, unseen: bool) -> str:
        """The sentence in one wording, its facts as the record prints them."""
        wordings = self.seen + self.unseen if unseen else self.seen
        return rng.choice(wordings).format_map({key: fact.print for key, fact in facts.items()})


@dataclass(frozen=True)
class Cases:
    """Sentences of which the facts choose one: the first whose condition is met, else the last, which has none."""

    conditional: tuple[tuple[Formula, Sentence], ...]
    otherwise: Sentence

    def choose(self, facts: Facts) -> Sentence:
        """The sentence for these facts."""
        values = {key: fact.number if fact.is_figure else fact.value for key, fact in facts.items()}
        met = (sentence for condition, sentence in self.conditional if condition.evaluate(values))
        return next(met, self.otherwise)


@dataclass(frozen=True)
class Kind:
    """One kind of document.

    name      "covenant_certificate"
    title     its first heading
    noun      its name in the instruction: "a covenant compliance certificate"
    fields    key -> Field, in the order of the record
    sections  heading -> sentences, in the order of the document
    request   the template of the instruction, with {style} and, if wanted, {noun}
    """

    name: str
    title: str
    noun: str
    fields: Mapping[str, Field]
    sections: Mapping[str, tuple[Sentence | Cases, ...]]
    request: str = INSTRUCTION

    @property
    def required_sections(self) -> tuple[str, ...]:
        """The headings, in order."""
        return tuple(self.sections)

    def instruction(self, style: str = STYLES[0]) -> str:
        """The one sentence that asks for the document in a style. Raises ValueError for an unknown style."""
        if style not in STYLES:
            raise ValueError(f"{self.name}: style must be one of {', '.join(STYLES)}, got {style!r}")
        return self.request.format(noun=self.noun, style=style)

    def draw(self, rng: Random, split: Split) -> dict[str, Fact]:
        """A record in one notation. No derived figure in it is zero: each is a gain or a loss, never neither.

        Raises ValueError for a field that cannot be drawn (see `Field.fact`).
        """
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
        """The sentences of each section, the cases decided."""
        return {heading: tuple(part.choose(facts) for part in parts) for heading, parts in self.sections.items()}

    def write(self, facts: Facts, rng: Random, *, style: str, unseen: bool) -> str:
        """The document of a record, in one of its many wordings.

        style   one of STYLES
        unseen  True if the wordings that training never shows may occur
        Raises ValueError if the record lacks a field.
        """
        if bare := [heading for heading, parts in self.sections.items() if not parts]:
            raise ValueError(f"{self.name}: a section must have sentences to be written, {bare[0]!r} has none")
        if missing := [key for key in self.fields if key not in facts]:
            raise ValueError(f"{self.name}: the record needs every field, lacks {', '.join(missing)}")
        form = _lists if style == "lists" else _paragraph
        blocks = [f"# {self.title}"]
        for heading, parts in self.sections.items():
            blocks.append(f"## {heading}\n{form(parts, facts, rng, unseen)}")
        return "\n\n".join(blocks) + "\n"


def _paragraph(parts: tuple[Sentence | Cases, ...], facts: Facts, rng: Random, unseen: bool) -> str:
    """One sentence behind another."""
    return " ".join(part.choose(facts).put(facts, rng, unseen=unseen) for part in parts)


def _lists(parts: tuple[Sentence | Cases, ...], facts: Facts, rng: Random, unseen: bool) -> str:
    """A line a fact for a sentence that only states facts, the sentence itself for one that the facts decide."""
    lines: list[str] = []
    for part in parts:
        if isinstance(part, Sentence) and part.keys:
            lines += [f"- {_title(fact.label)}: {fact.print}" for key, fact in facts.items() if key in part.keys]
        else:
            lines.append(f"- {part.choose(facts).put(facts, rng, unseen=unseen)}")
    return "\n".join(lines)


def _title(label: str) -> str:
    return label[0].upper() + label[1:]
