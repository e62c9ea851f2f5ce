"""Records to write documents of: facts of a file, typed, each with the cell that it stands in.

`FactsRecord.read` takes one record of a file; `read_records` takes a table, a record a row.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..facts.fact import Facts, render_input
from ..facts.numerals import Convention
from .derived import derive, disagreements, with_formulas
from .document import Entry
from .fact_files import FactFile, RawRecord, read_fact_file
from .kind import Kind
from .kinds import find_kind
from .reading import read_raw

_IN_SHEET = re.compile(r"(?P<sheet>.+)!(?P<column>[A-Z]+)(?P<row>\d+)")
_IN_LINE = re.compile(r"(?:line|row) (?P<row>\d+)(?:, (?P<column>.+))?", re.DOTALL)


@dataclass(frozen=True)
class Cell:
    """Where a fact stands.

    place   as a reader of the file would say it: "line 4, revenue", "Sheet1!B7", "revenue"
    sheet   of a workbook
    row     the line of a text, the row of a sheet; None in JSON
    column  the head above it, the letter of a sheet's column, or the key of JSON
    """

    file: str
    place: str
    sheet: str | None = None
    row: int | None = None
    column: str | None = None

    @classmethod
    def of(cls, file: str, place: str) -> "Cell":
        """The cell of a place as the readers of files say it."""
        if match := _IN_SHEET.fullmatch(place):
            return cls(file, place, match["sheet"], int(match["row"]), match["column"])
        if match := _IN_LINE.fullmatch(place):
            return cls(file, place, None, int(match["row"]), match["column"])
        return cls(file, place, None, None, place)

    def __str__(self) -> str:
        return f"{self.file}: {self.place}"

    def to_json(self) -> dict[str, Any]:
        """The five fields."""
        return {"file": self.file, "place": self.place, "sheet": self.sheet, "row": self.row, "column": self.column}


@dataclass(frozen=True)
class FactsRecord:
    """A record to write a document of: its facts, with those that declared rules give, and the text that says them.

    summary  "8 facts, 5 figures; line 7 not read"
    notes    what has to be known of it, a line each
    unread   the number of amounts that were not understood
    number   its place among the records of its file, from 1
    cells    key of a fact -> where it stands; a fact that a rule gives stands nowhere
    unclear  (place, words) of what was not read, or not understood
    """

    name: str
    kind: str
    text: str
    facts: Facts
    summary: str = ""
    notes: tuple[str, ...] = ()
    unread: int = 0
    number: int = 1
    cells: Mapping[str, Cell] = field(default_factory=dict)
    unclear: tuple[tuple[str, str], ...] = ()

    @classmethod
    def read(
        cls,
        path: Path,
        kind: str,
        rules: Sequence[str] = (),
        *,
        record: str | None = None,
        locale: str | None = None,
    ) -> "FactsRecord":
        """The facts of a file: lines, a table, CSV, XLSX or JSON (`fact_files`).

        kind    the name of one that is known
        record  the name of one of several in the file, or its number from 1
        locale  how its numbers and dates are written; None: as they tell themselves
        Raises ValueError for a file that is not there or without a fact, and a rule that does not fit.
        """
        try:
            file = read_fact_file(path, known_kind(kind).fields)
            raw = file.choose(record)
        except ValueError as error:
            raise ValueError(f"--facts: {error}") from None
        return cls.of(file, raw, kind, rules, None if locale is None else Convention.of_locale(locale))

    @classmethod
    def of(
        cls, file: FactFile, raw: RawRecord, kind: str, rules: Sequence[str], convention: Convention | None
    ) -> "FactsRecord":
        """The facts of one record of a file; errors as in `read`."""
        path, fields = file.path, known_kind(kind).fields
        reading = read_raw(raw, fields, convention)
        if not reading.facts:
            raise ValueError(f"--facts: {path}: must hold facts such as `revenue: $5 million`, got {reading.summary()}")
        facts = with_formulas(reading.facts, fields)
        told = [f"{path}: {line}" for line in (*file.told, *map(str, reading.notes), *disagreements(facts, fields))]
        unclear = [note for note in reading.notes if note.fault in ("not read", "not understood")]
        return cls(
            name=raw.name or path.stem,
            kind=kind,
            text=file.text.strip() if reading.is_as_written and file.text else render_input(reading.facts),
            facts=derive(facts, rules),
            summary=f"{path}: {reading.summary()}",
            notes=tuple(told),
            unread=sum(note.fault == "not understood" for note in reading.notes),
            number=file.records.index(raw) + 1,
            cells={key: Cell.of(path.name, place) for key, place in reading.places.items()},
            unclear=tuple((note.place, note.text) for note in unclear),
        )

    def entry(self) -> Entry:
        """The record as an entry without a document, to check one against."""
        kind = known_kind(self.kind)
        return Entry(
            id=self.name,
            kind=self.kind,
            split="test",
            seed=0,
            instruction=kind.instruction(),
            facts=self.facts,
            required_sections=kind.required_sections,
            identities=(),
            input=self.text,
            output="",
        )


def known_kind(name: str) -> Kind:
    """The kind of a name that was found to be known when it was asked for."""
    kind = find_kind(name)
    assert kind is not None, name
    return kind
