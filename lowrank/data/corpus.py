"""What the embedded base is trained on: endless, seeded, and all our own text.

The tasks teach the words and forms of the documents and how to copy a figure, but never to write a document when
asked for one: that is left for a hat to add. Records are about invented names, drawn afresh for every sample.

A sample is a list of passages; a passage says how much its tokens count in the loss, those with a digit apart.
"""

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from random import Random

from .facts import UNITS, Fact, make_fact, render_input
from .kinds import KINDS
from .kinds.kind import Kind
from .names import NAMES, Names
from .template import render


@dataclass(frozen=True)
class Passage:
    """A stretch of text and its weight in the loss: of tokens in general, and of tokens that hold a digit."""

    text: str
    weight: float
    digit_weight: float


Sample = list[Passage]

CONTEXT = 0.1  # a record is given, not predictable: it is learned a little, as text


def _context(text: str) -> Passage:
    return Passage(text, CONTEXT, CONTEXT)


def _learned(text: str) -> Passage:
    return Passage(text, 1.0, 1.0)


def restatement(rng: Random, lines: int) -> Sample:
    """A record of unrelated figures, then each of them stated in a sentence, in another order.

    Only copying the figure from under its label predicts it: this is what teaches a small model to look back.
    """
    labels = rng.sample(LABELS, lines)
    facts = {label: make_fact(label, *_figure(rng)) for label in labels}
    rng.shuffle(labels)
    stated = [rng.choice(STATEMENTS).format(label=label, figure=facts[label].print) for label in labels]
    return [_context(render_input(facts)), Passage(" ".join(stated), CONTEXT, 1.0)]


def document(rng: Random) -> Sample:
    """A document of any kind, by itself."""
    kind, facts = _record(rng)
    return [_learned(kind.write(facts, rng))]


def record_then_document(rng: Random) -> Sample:
    """A record and the document that states it, with no word of instruction between them."""
    kind, facts = _record(rng)
    return [_context(render_input(facts)), _learned(kind.write(facts, rng))]


def question(rng: Random) -> Sample:
    """One fact of a record asked for, in the form in which instructions are put to the model."""
    _, facts = _record(rng)
    fact = rng.choice(list(facts.values()))
    asked = rng.choice(("What is the {}?", "Give the {}.", "State the {} only.")).format(fact.label)
    return [_context(render("alpaca", asked, render_input(facts))), _learned(fact.print)]


def listing(rng: Random) -> Sample:
    """A record restated line by line, in its own or another order."""
    record = render_input(_record(rng)[1])
    lines = record.split("\n")
    asked = rng.choice(("Copy the facts.", "List the facts in another order."))
    if asked.startswith("List"):
        rng.shuffle(lines)
    return [_context(render("alpaca", asked, record)), _learned("\n".join(lines))]


def sentiment(rng: Random) -> Sample:
    """A headline and its sentiment, asked for in FinGPT's words."""
    answer, events = rng.choice(list(EVENTS.items()))
    headline = f"{_names(rng).company(rng)} {rng.choice(events)}"
    asked = "What is the sentiment of this news? Please choose an answer from {negative/neutral/positive}."
    return [_context(render("alpaca", asked, headline)), _learned(answer)]


def any_restatement(rng: Random) -> Sample:
    """A restatement of two to ten figures."""
    return restatement(rng, rng.randint(2, 10))


# Task -> share of the samples, once the curriculum of restatements is over.
TASKS: dict[Callable[[Random], Sample], float] = {
    any_restatement: 0.15,
    document: 0.10,
    record_then_document: 0.45,
    question: 0.12,
    listing: 0.13,
    sentiment: 0.05,
}


def mixed(rng: Random) -> Sample:
    """One sample of any task, by the shares of TASKS."""
    task = rng.choices(list(TASKS), list(TASKS.values()))[0]
    return task(rng)


LABELS = sorted({field.label for kind in KINDS.values() for field in kind.fields.values()})
STATEMENTS = (
    "The {label} was {figure}.",
    "The {label} came to {figure}.",
    "With {label} of {figure}, the record goes on.",
    "There is {label} of {figure}.",
    "{label}: {figure}.",
    "Note the {label} at {figure}.",
)
EVENTS = {
    "positive": ("posts higher revenue", "raises its outlook", "wins a large order", "beats its target"),
    "neutral": ("names a new auditor", "will report on Monday", "moves its head office", "keeps its outlook"),
    "negative": ("posts a loss", "cuts its outlook", "loses a large order", "misses its target"),
}
_ONSETS = (*"bcdfghklmnprstvw", "br", "dr", "fr", "gr", "kr", "pr", "tr", "st", "sk", "th", "sh")
_VOWELS = (*"aeiou", "ae", "ei", "ia")
_CODAS = (*"lmnrstx", "rd", "ld", "nt", "st", "sk")
_TAKEN = {word.lower() for names in NAMES.values() for word in (*names.heads, *names.given)}


def _figure(rng: Random) -> tuple[str, Decimal]:
    """A unit and a value of one to five digits before its decimals, every length as likely."""
    unit = rng.choice(list(UNITS))
    magnitude = rng.randint(1, 4)
    decimals = UNITS[unit].decimals
    return unit, Decimal(rng.randint(1, 10 ** (magnitude + decimals) - 1)).scaleb(-decimals)


def _record(rng: Random) -> tuple[Kind, dict[str, Fact]]:
    kind = rng.choice(list(KINDS.values()))
    return kind, kind.draw(rng, _names(rng))


def _names(rng: Random) -> Names:
    """Names that occur in no split: a few invented heads and given names."""
    return Names(tuple(_invented(rng) for _ in range(3)), tuple(_invented(rng) for _ in range(3)))


def _invented(rng: Random) -> str:
    while True:
        word = "".join(rng.choice(part) for part in (_ONSETS, _VOWELS, _CODAS))
        if word not in _TAKEN:
            return word.capitalize()
