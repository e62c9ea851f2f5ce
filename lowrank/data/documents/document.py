"""The document set: a seeded record of facts, and the Markdown document that states them.

    entry = f(sha256(f"{seed}|{split}|{kind}|{index}"))

A pure function: the same arguments give the same bytes on every machine. A split has names and ranges of its own
(`splits`), so no record of one recurs in another. Files are JSON lines, one entry a line.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, TypeVar

from lowrank.data.documents.kind import STYLES
from lowrank.data.documents.kinds import KINDS
from lowrank.data.documents.splits import SPLITS
from lowrank.data.encoding.template import Conversation, Turn
from lowrank.data.facts.fact import TEXT_TYPES, TYPES_IN_WORDS, Fact, evaluate, is_decimal, render_input
from lowrank.data.jsonl import read_lines, write_lines

LICENSE = "Apache-2.0"

T = TypeVar("T")
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_JSON_NAMES = {str: "a string", int: "a whole number", bool: "true or false", dict: "an object", list: "a list"}


@dataclass(frozen=True)
class Entry:
    """One record with its document.

    id                 "covenant_certificate-0007"
    kind, split, seed  what it was made from
    instruction        the sentence that asks for the document
    facts              key -> Fact, in the order of the record
    required_sections  the headings the document needs, in order
    identities         the rules its derived figures obey: "leverage == round(total_debt / ebitda, 2)"
    input              the record as text, one line `label: print` a fact
    output             the document
    """

    id: str
    kind: str
    split: str
    seed: int
    instruction: str
    facts: Mapping[str, Fact]
    required_sections: tuple[str, ...]
    identities: tuple[str, ...]
    input: str
    output: str
    format: str = "markdown"
    license: str = LICENSE

    @property
    def prompt(self) -> str:
        """Instruction, blank line, record: what the user says."""
        return f"{self.instruction}\n\n{self.input}"

    @property
    def conversation(self) -> Conversation:
        """The conversation to train on: instruction and record, answered by the document."""
        return Conversation(self.id, (Turn(self.instruction, self.input, self.output),))

    @property
    def sha256(self) -> str:
        """The hash of the entry's content: of its JSON without this key, keys sorted, no spaces."""
        text = json.dumps(self._content(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """The entry as a JSON object; `Entry.from_json` is its inverse."""
        return {**self._content(), "sha256": self.sha256}

    def _content(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "kind": self.kind,
            "split": self.split,
            "seed": self.seed,
            "format": self.format,
            "instruction": self.instruction,
            "facts": {key: _fact_to_json(key, fact) for key, fact in self.facts.items()},
            "required_sections": list(self.required_sections),
            "identities": list(self.identities),
            "input": self.input,
            "output": self.output,
            "license": self.license,
        }

    @classmethod
    def from_json(cls, data: object, place: str = "entry") -> "Entry":
        """The entry of a JSON object. A `sha256` may be left out; one that is there has to match the content.

        Raises ValueError, one line that starts with `place`, for a key that is missing, unknown or of another type.
        """
        row = _object(data, place)
        entry = cls(
            id=_take(row, "id", str, place),
            kind=_take(row, "kind", str, place),
            split=_take(row, "split", str, place),
            seed=_take(row, "seed", int, place),
            instruction=_take(row, "instruction", str, place),
            facts=_facts_from_json(_take(row, "facts", dict, place), f"{place}: facts"),
            required_sections=_texts(row, "required_sections", place),
            identities=_texts(row, "identities", place),
            input=_take(row, "input", str, place),
            output=_take(row, "output", str, place),
            format=_take(row, "format", str, place),
            license=_take(row, "license", str, place),
        )
        for key in ("id", "kind", "instruction", "input", "output"):
            if not getattr(entry, key).strip():
                raise ValueError(f"{place}: {key}: expected a text, got an empty one")
        recorded = row.pop("sha256", entry.sha256)
        if row:
            raise ValueError(f"{place}: {min(row)}: expected no such key")
        if recorded != entry.sha256:
            raise ValueError(f"{place}: sha256: expected {entry.sha256}, the hash of the content, got {recorded!r}")
        return entry


def make_entry(kind: str, index: int, *, seed: int, split: str) -> Entry:
    """The index-th entry of a kind, the styles in turn. Raises ValueError for an unknown kind or split."""
    known("kind", kind, KINDS)
    known("split", split, SPLITS)
    digest = hashlib.sha256(f"{seed}|{split}|{kind}|{index}".encode()).digest()
    rng = Random(int.from_bytes(digest, "big"))
    definition, style = KINDS[kind], STYLES[index % len(STYLES)]
    facts = definition.draw(rng, SPLITS[split])
    return Entry(
        id=f"{kind}-{index:04d}",
        kind=kind,
        split=split,
        seed=seed,
        instruction=definition.instruction(style),
        facts=facts,
        required_sections=definition.required_sections,
        identities=definition.identities(facts),
        input=render_input(facts),
        output=definition.write(facts, rng, style=style, unseen=SPLITS[split].unseen),
    )


def make_documents(n: int, *, seed: int, split: str, kinds: Iterable[str] = KINDS) -> list[Entry]:
    """n entries, the kinds in turn: 100 gives ten of each.

    seed   any whole number
    split  "train", "validation", "test" or "corpus"; each has its own names and ranges
    kinds  names of KINDS
    Raises ValueError for a negative n, no kinds, an unknown kind or split.
    """
    names = tuple(kinds)
    if n < 0 or not names:
        raise ValueError(f"make_documents: needs n >= 0 and at least one kind, got n={n}, kinds={names}")
    return [make_entry(names[i % len(names)], i // len(names), seed=seed, split=split) for i in range(n)]


def write_jsonl(path: Path | str, entries: Iterable[Entry]) -> None:
    """One line of JSON an entry, UTF-8."""
    write_lines(Path(path), (entry.to_json() for entry in entries))


def read_jsonl(path: Path | str) -> list[Entry]:
    """The entries of a file that `write_jsonl` wrote; blank lines are skipped.

    Raises ValueError naming file, line, key and what was expected there.
    """
    return [Entry.from_json(data, place) for place, data in read_lines(Path(path))]


def known(what: str, name: str, names: Iterable[str]) -> None:
    """Raises ValueError, naming what is wrong, unless `name` is one of `names`."""
    if name not in (choices := tuple(names)):
        raise ValueError(f"documents: {what} must be one of {', '.join(choices)}, got {name!r}")


def _default_label(key: str) -> str:
    return key.replace("_", " ")


def _fact_to_json(key: str, fact: Fact) -> dict[str, Any]:
    """`v` and `t` always; the rest only where it is not what `_fact_from_json` takes it to be."""
    data: dict[str, Any] = {"v": fact.value, "t": fact.type}
    if fact.print != fact.value:
        data["print"] = fact.print
    if fact.label != _default_label(key):
        data["label"] = fact.label
    if fact.source is not None:
        data["from"] = fact.source
    if not fact.required:
        data["required"] = False
    return data


def _fact_from_json(key: str, data: object, place: str) -> Fact:
    row = _object(data, place)
    value = _take(row, "v", str, place)
    fact = Fact(
        value=value,
        type=_take(row, "t", str, place),
        print=_take(row, "print", str, place, value),
        label=_take(row, "label", str, place, _default_label(key)),
        source=_take(row, "from", str, place) if "from" in row else None,
        required=_take(row, "required", bool, place, True),
    )
    if row:
        raise ValueError(f"{place}: {min(row)}: expected no such key")
    if fact.type not in TEXT_TYPES and not fact.is_figure:
        raise ValueError(f"{place}: t: expected one of {', '.join(TYPES_IN_WORDS)}, got {fact.type!r}")
    if fact.type == "date" and not _DATE.fullmatch(value):
        raise ValueError(f"{place}: v: expected a date such as 2025-03-31, got {value!r}")
    if fact.is_figure and not is_decimal(value):
        raise ValueError(f"{place}: v: expected a decimal number, got {value!r}")
    return fact


def _facts_from_json(data: dict[str, Any], place: str) -> dict[str, Fact]:
    if not data:
        raise ValueError(f"{place}: expected at least one fact, got none")
    facts = {key: _fact_from_json(key, value, f"{place}.{key}") for key, value in data.items()}
    for key, fact in facts.items():
        if fact.source is not None:
            try:
                evaluate(fact.source, facts)
            except ValueError as error:
                raise ValueError(f"{place}.{key}: from: {error}") from None
    return facts


def _object(data: object, place: str) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise ValueError(f"{place}: expected a JSON object, got {type(data).__name__}")
    return dict(data)


def _take(row: dict[str, Any], key: str, kind: type[T], place: str, default: T | None = None) -> T:
    """Removes a key from the row and returns its value, so that what is left at the end is unknown."""
    value = row.pop(key, default)
    if type(value) is not kind:  # not isinstance: True is no seed
        got = "nothing" if value is None else type(value).__name__
        if isinstance(value, str | int | float):  # not what may be nested deeper than repr can follow
            got = f"{got} {value!r:.60}"
        raise ValueError(f"{place}: {key}: expected {_JSON_NAMES[kind]}, got {got}")
    return value


def _texts(row: dict[str, Any], key: str, place: str) -> tuple[str, ...]:
    texts = _take(row, key, list, place)
    if not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{place}: {key}: expected a list of strings")
    return tuple(texts)
