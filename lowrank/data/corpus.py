"""The training text of the embedded base: endless, seeded, and all our own.

The tasks teach the words and forms of the documents and how to copy a figure, but never to write a document when
asked for one: that is left for a hat to add. Every label, notation, wording, style and range of every split occurs;
names do not, they are invented afresh for every sample.

A sample is a list of passages; a passage says how much its tokens count in the loss.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from random import Random

from .documents.draws import company, day, fund, period, person
from .documents.kind import STYLES, Kind
from .documents.kinds import KINDS
from .documents.names import NAMES, Names
from .documents.splits import SPLITS
from .encoding.template import render
from .facts.fact import NOTATIONS, UNITS, Fact, make_fact, render_input


@dataclass(frozen=True)
class Passage:
    """A stretch of text, tokenized on its own, and the weight of its tokens in the loss.

    Sentences are cut in front of a word, where SentencePiece has the same tokens for the rest as for the whole.
    """

    text: str
    weight: float


Sample = list[Passage]

CONTEXT = 0.1  # a record is given, not predictable: it is learned a little, as text


def restatement(rng: Random, lines: int, *, figures: float = 0.6, syllables: int = 1) -> Sample:
    """A record of unrelated facts in one notation, then each of them stated in a sentence, in another order.

    Only copying a value from behind its label predicts it: this is what teaches a small model to look back.
    figures    their share of the facts; the others are names, dates and periods
    syllables  how long the invented heads of the names are
    """
    labels = rng.sample(LABELS, lines)
    names, notation = _names(rng, syllables), rng.choice(list(NOTATIONS))
    facts = {}
    for label in labels:
        type, value = _figure(rng) if rng.random() < figures else _text(rng, names)
        facts[label] = make_fact(label, type, value, notation=notation)
    sample = [Passage(render_input(facts), CONTEXT)]
    rng.shuffle(labels)
    for label in labels:
        before, after = rng.choice(STATEMENTS)
        sample.append(Passage(before.format(label), CONTEXT))
        sample.append(Passage(facts[label].print + after[:1], 1.0))
        if after[1:]:
            sample.append(Passage(after[2:], CONTEXT))
    return sample


def document(rng: Random) -> Sample:
    """A document of any kind, without its record."""
    return [Passage(_write(*_record(rng), rng), 1.0)]


def record_then_document(rng: Random) -> Sample:
    """A record and the document that states it, with no word of instruction between them."""
    kind, facts = _record(rng)
    return [Passage(render_input(facts), CONTEXT), Passage(_write(kind, facts, rng), 1.0)]


def question(rng: Random) -> Sample:
    """One fact of a record asked for, in the form in which instructions are put to the model."""
    _, facts = _record(rng)
    fact = rng.choice(list(facts.values()))
    asked = rng.choice(("What is the {}?", "Give the {}.", "State the {} only.")).format(fact.label)
    return [Passage(render("alpaca", asked, render_input(facts)), CONTEXT), Passage(fact.print, 1.0)]


def listing(rng: Random) -> Sample:
    """A record restated line by line, in its own or another order."""
    record = render_input(_record(rng)[1])
    lines = record.split("\n")
    asked = rng.choice(("Copy the facts.", "List the facts in another order."))
    if asked.startswith("List"):
        rng.shuffle(lines)
    return [Passage(render("alpaca", asked, record), CONTEXT), Passage("\n".join(lines), 1.0)]


def sentiment(rng: Random) -> Sample:
    """A headline and its sentiment, asked for in FinGPT's words."""
    answer, events = rng.choice(list(EVENTS.items()))
    headline = f"{_names(rng).company(rng)} {rng.choice(events)}"
    asked = "What is the sentiment of this news? Please choose an answer from {negative/neutral/positive}."
    return [Passage(render("alpaca", asked, headline), CONTEXT), Passage(answer, 1.0)]


def any_restatement(rng: Random) -> Sample:
    """A restatement of two to ten figures."""
    return restatement(rng, rng.randint(2, 10))


def names_restated(rng: Random) -> Sample:
    """A restatement of one to six names, dates and periods.

    A name is several pieces of words, and harder to copy than a figure: the longer ones have parts that no other has.
    """
    return restatement(rng, rng.randint(1, 6), figures=0.0, syllables=rng.randint(1, 3))


Shares = Mapping[Callable[[Random], Sample], float]  # task -> share of the samples

# Once the curriculum of restatements is over.
MIXTURE: Shares = {
    any_restatement: 0.15,
    document: 0.10,
    record_then_document: 0.45,
    question: 0.12,
    listing: 0.13,
    sentiment: 0.05,
}
# Last: the same with names, which are learned when figures already are.
NAMES_TOO: Shares = {
    names_restated: 0.35,
    any_restatement: 0.05,
    document: 0.03,
    record_then_document: 0.40,
    question: 0.07,
    listing: 0.07,
    sentiment: 0.03,
}


def mixed(rng: Random, shares: Shares = MIXTURE) -> Sample:
    """One sample of any task, by its share."""
    task = rng.choices(list(shares), list(shares.values()))[0]
    return task(rng)


LABELS = sorted({label for kind in KINDS.values() for field in kind.fields.values() for label in field.labels})
STATEMENTS = (  # what stands before a value, and behind it
    ("The {} was", "."),
    ("The {} came to", "."),
    ("With {} of", ", the record goes on."),
    ("There is {} of", "."),
    ("{}:", "."),
    ("Note the {} at", "."),
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


def _text(rng: Random, names: Names) -> tuple[str, str]:
    """A name, a person, a date or a period, each as likely."""
    type, draw = rng.choice((("name", company), ("name", fund), ("person", person), ("date", day), ("period", period)))
    return type, str(draw(rng, names, {}))


def _figure(rng: Random) -> tuple[str, Decimal]:
    """A unit and a value of one to five digits before its decimals, every length as likely."""
    unit = rng.choice(list(UNITS))
    magnitude = rng.randint(1, 4)
    decimals = UNITS[unit].decimals
    return unit, Decimal(rng.randint(1, 10 ** (magnitude + decimals) - 1)).scaleb(-decimals)


def _record(rng: Random) -> tuple[Kind, dict[str, Fact]]:
    kind = rng.choice(list(KINDS.values()))
    return kind, kind.draw(rng, replace(SPLITS["corpus"], names=_names(rng)))


def _write(kind: Kind, facts: dict[str, Fact], rng: Random) -> str:
    return kind.write(facts, rng, style=rng.choice(STYLES), unseen=True)


def _names(rng: Random, syllables: int = 1) -> Names:
    """Names that occur in no split: a few invented heads and given names."""
    return Names(tuple(_invented(rng, syllables) for _ in range(3)), tuple(_invented(rng, syllables) for _ in range(3)))


def _invented(rng: Random, syllables: int) -> str:
    while True:
        word = "".join(rng.choice(part) for part in (_ONSETS, _VOWELS, _CODAS) * syllables)
        if word not in _TAKEN:
            return word.capitalize()
