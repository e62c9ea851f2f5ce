"""Invented documents of a kind, beside a table of their facts: to see what its file says, or to practise with."""

import csv
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from ..facts.fact import Facts
from .kind import STYLES, Kind
from .splits import SPLITS

ATTEMPTS = 100  # per document, to draw a record that no other is called like


@dataclass(frozen=True)
class Sample:
    """A record with its document; `name` is of the names and periods in it, and of no other."""

    name: str
    facts: Facts
    text: str


def sample_documents(kind: Kind, n: int, *, seed: int) -> list[Sample]:
    """n documents, the same for the same arguments; names, ranges and wordings are those of training.

    Raises ValueError for n below 1, a kind that has a field without a rule or a section without sentences, and one
    whose records have fewer different names than n.
    """
    if n < 1:
        raise ValueError(f"{kind.name}: at least one document must be made, got {n}")
    found: dict[str, Sample] = {}
    for attempt in range(n * ATTEMPTS):
        digest = hashlib.sha256(f"{seed}|{kind.name}|{attempt}".encode()).digest()
        rng = Random(int.from_bytes(digest, "big"))
        facts = kind.draw(rng, SPLITS["train"])
        name = " ".join(fact.print for fact in facts.values() if fact.type in ("name", "person", "period", "date"))
        if name not in found:
            found[name] = Sample(name, facts, kind.write(facts, rng, style=STYLES[0], unseen=False))
        if len(found) == n:
            return list(found.values())
    raise ValueError(f"{kind.name}: {n} records must be told apart by names, periods and dates, got {len(found)}")


def as_csv(kind: Kind, samples: Sequence[Sample]) -> str:
    """The facts of samples, a row each under the labels of the kind."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([field.label for field in kind.fields.values()])
    writer.writerows([sample.facts[key].print for key in kind.fields] for sample in samples)
    return buffer.getvalue()
