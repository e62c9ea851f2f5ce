"""The task `ner`: the people, organizations and locations of a sentence, on fingpt-ner's test split.

An answer is read by the whole grammar of the set, `X is an organization, Y is a person.`, where a name may hold commas;
one that does not fit it as a whole is unparsable and names nothing. Then, in order:

    tags         each named entity marks the first place where it stands in the sentence, case and all, and is unmarked
    precision    entities that the reference marks there too, of the same type / entities that were named
    recall       the same / entities of the reference                      F1 = 2 tp / (2 tp + fp + fn), over all

An entity that is not in the sentence counts as a false positive: it stands behind the sentence, as a token of its own.
The tags are strict IOB2 and the scores seqeval's. Most "people" of this set are role words (Borrower, Lender), so F1 is
mostly the spotting of those.
"""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from lowrank.data.mixture.rows import MixtureRow
from lowrank.extras import need

from ..metrics.fingpt import TYPES, lenient_tags
from ..metrics.metric import Measure, f1
from .generate import Output
from .task import ENDED, Item, Task

MEASURES = (
    Measure("entity_f1", "entity F1", form=f1, primary=True),
    Measure("entity_precision", "entity precision", primary=True),
    Measure("entity_recall", "entity recall", primary=True),
    Measure("unparsable", "unparsable", "lower", primary=True),
    ENDED,
    Measure("fingpt_entity_f1", "entity F1, FinGPT's lenient scoring", form=f1),
)
_ENTITY = re.compile(r"(.+?) is an? (person|organization|location)(?:, |\.?$)")


class Entity(NamedTuple):
    """A name and its type: person, organization or location."""

    name: str
    type: str


class Entities(Task):
    """Sentences with the entities that their answers name.  Raises ValueError if the extra `eval` is not installed."""

    name = "ner"
    measures = MEASURES
    notes = (
        "An answer that does not fit the grammar as a whole is unparsable and names nothing; an entity that is not in "
        "the sentence is a false positive. FinGPT's lenient scoring passes over both: for published tables only.",
    )

    def __init__(self, rows: Sequence[MixtureRow]) -> None:
        need("seqeval", "the task ner")
        self.items = [Item(row.id, row.instruction, row.input, row.output) for row in rows]

    def per_item_counts(self, outputs: Sequence[Output]) -> list[Mapping[str, tuple[float, ...]]]:
        """See `Task.per_item_counts`. F1, precision and recall are held to seqeval's."""
        rows: list[Mapping[str, tuple[float, ...]]] = []
        strict: list[tuple[list[str], list[str]]] = []
        lenient: list[tuple[list[str], list[str]]] = []
        for item, output in zip(self.items, outputs, strict=True):
            named = read_entities(output.text)
            strict.append(tag_pair(item.input, read_entities(item.reference) or [], named or []))
            lenient.append((lenient_tags(item.input, item.reference), lenient_tags(item.input, output.text)))
            tp, fp, fn = _counts(*strict[-1])
            rows.append(
                {
                    "entity_f1": (tp, fp, fn),
                    "entity_precision": (tp, tp + fp),
                    "entity_recall": (tp, tp + fn),
                    "unparsable": (named is None, 1),
                    "ended": (output.ended, 1),
                    "fingpt_entity_f1": _counts(*lenient[-1]),
                }
            )
        _hold_to_seqeval(strict, rows, "entity_f1")
        _hold_to_seqeval(lenient, rows, "fingpt_entity_f1")
        return rows


def read_entities(answer: str) -> list[Entity] | None:
    """The entities of an answer in the order of the text; None if it does not fit the grammar from end to end.

    "X, Y is an organization, Z is a person." -> [("X, Y", "organization"), ("Z", "person")]
    """
    text, found, place = answer.strip(), [], 0
    while place < len(text):
        match = _ENTITY.match(text, place)
        if match is None:
            return None
        found.append(Entity(match[1], match[2]))
        place = match.end()
    return found or None


def tag_pair(sentence: str, reference: Sequence[Entity], named: Sequence[Entity]) -> tuple[list[str], list[str]]:
    """IOB2 tags of the reference and of what was named, over the tokens of the sentence and one more for each that
    is not in it.
    """
    right, missing = _tags(sentence, reference)
    predicted, invented = _tags(sentence, named)
    right += ["O"] * len(invented) + [f"B-{TYPES[entity.type]}" for entity in missing]
    predicted += [f"B-{TYPES[entity.type]}" for entity in invented] + ["O"] * len(missing)
    return right, predicted


def _tags(sentence: str, entities: Sequence[Entity]) -> tuple[list[str], list[Entity]]:
    """The tags of the sentence's tokens, and the entities that found no free place in it."""
    tokens = sentence.split()
    tags, without = ["O"] * len(tokens), []
    for entity in entities:
        name, type = entity.name.split(), TYPES[entity.type]
        spans = (slice(place, place + len(name)) for place in range(len(tokens) - len(name) + 1))
        free = next((span for span in spans if tokens[span] == name and set(tags[span]) == {"O"}), None)
        if free is None:
            without.append(entity)
        else:
            tags[free] = [f"B-{type}", *[f"I-{type}"] * (len(name) - 1)]
    return tags, without


def _counts(right: Sequence[str], predicted: Sequence[str]) -> tuple[float, float, float]:
    """True positives, false positives, false negatives: spans with their types."""
    gold, found = _spans(right), _spans(predicted)
    return len(gold & found), len(found - gold), len(gold - found)


def _spans(tags: Sequence[str]) -> set[tuple[int, int, str]]:
    """(first token, behind the last one, type) of every B- with the I- of its type behind it."""
    spans = set()
    for start, tag in enumerate(tags):
        if tag.startswith("B-"):
            end = start + 1
            while end < len(tags) and tags[end] == f"I-{tag[2:]}":
                end += 1
            spans.add((start, end, tag[2:]))
    return spans


def _hold_to_seqeval(
    pairs: Sequence[tuple[list[str], list[str]]], rows: Sequence[Mapping[str, tuple[float, ...]]], key: str
) -> None:
    metrics = need("seqeval.metrics", "the task ner")
    scheme = need("seqeval.scheme", "the task ner").IOB2
    gold, predicted = ([list(side) for side in sides] for sides in zip(*pairs, strict=True))
    theirs = metrics.f1_score(gold, predicted, mode="strict", scheme=scheme, zero_division=0)
    ours = float(f1(np.array([row[key] for row in rows], float).sum(0)))
    assert abs(ours - theirs) < 1e-9, (key, ours, theirs)
