"""What a kind of document is: a table of fields, and sections of sentences in several wordings.

    draw   fields -> record      every field draws a value, or derives it by its formula from the fields above it
    write  record -> Markdown    every sentence picks one of its templates, and in it one of `[each|such|list]`

A kind is data; the loops that read it are all in this file.
"""

import datetime
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal, localcontext
from random import Random

from lowrank.data.facts import ARITHMETIC, Fact, Facts, evaluate, identity, make_fact
from lowrank.data.names import Names

Draw = Callable[[Random, Names, Facts], Decimal | str]
Sentence = tuple[str, ...]
Clause = Callable[[Facts], Sentence]

YEARS = (2009, 2025)
_ALTERNATIVES = re.compile(r"\[([^\[\]]*)\]")


@dataclass(frozen=True)
class Field:
    """One row of a kind's table.

    label   what the record calls it, and the first of its key phrases
    type    see `Fact`
    source  how its value is drawn, or the formula that derives it from the fields above
    also    further key phrases: in a document, the last key phrase before a figure is one of its own
    """

    label: str
    type: str
    source: Draw | str
    also: tuple[str, ...] = ()

    @property
    def phrases(self) -> tuple[str, ...]:
        """The key phrases of the figure."""
        return (self.label, *self.also)

    def fact(self, rng: Random, names: Names, above: Facts) -> Fact:
        """The field's fact, given the ones above it."""
        if isinstance(self.source, str):
            return make_fact(self.label, self.type, evaluate(self.source, above), self.source)
        return make_fact(self.label, self.type, self.source(rng, names, above))


@dataclass(frozen=True)
class Kind:
    """One kind of document.

    name         "covenant_certificate"
    title        its first heading
    instruction  the one sentence that asks for it
    fields       key -> Field, in the order of the record
    sections     heading -> sentences, in the order of the document; a clause picks its sentence by the facts
    """

    name: str
    title: str
    instruction: str
    fields: Mapping[str, Field]
    sections: Mapping[str, tuple[Sentence | Clause, ...]]

    @property
    def required_sections(self) -> tuple[str, ...]:
        """The headings, in order."""
        return tuple(self.sections)

    def draw(self, rng: Random, names: Names) -> dict[str, Fact]:
        """A record: every field's fact, the derived ones included."""
        facts: dict[str, Fact] = {}
        with localcontext(ARITHMETIC):
            for key, field in self.fields.items():
                facts[key] = field.fact(rng, names, facts)
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

    def write(self, facts: Facts, rng: Random) -> str:
        """The document of a record, in one of its many wordings. Raises ValueError if the record lacks a field."""
        if missing := [key for key in self.fields if key not in facts]:
            raise ValueError(f"{self.name}: the record needs every field, lacks {', '.join(missing)}")
        prints = {key: fact.print for key, fact in facts.items()}
        blocks = [f"# {self.title}"]
        for heading, sentences in self.sentences(facts).items():
            body = " ".join(_word(rng.choice(sentence), rng).format_map(prints) for sentence in sentences)
            blocks.append(f"## {heading}\n{body}")
        return "\n\n".join(blocks) + "\n"


def _word(template: str, rng: Random) -> str:
    return _ALTERNATIVES.sub(lambda match: rng.choice(match[1].split("|")), template)


def wordings(sentence: Sentence) -> int:
    """In how many ways a sentence can be put: the sum over its templates of the product of their alternatives."""
    total = 0
    for template in sentence:
        product = 1
        for alternatives in _ALTERNATIVES.findall(template):
            product *= alternatives.count("|") + 1
        total += product
    return total


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
