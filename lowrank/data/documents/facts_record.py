"""Records to write documents of: facts of a file, typed, each with the cell that it stands in.

`FactsRecord.read` takes one record of a file; `read_records` takes a table, a record a row.
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..facts.fact import Facts, render_input
from ..facts.numerals import Convention
from .derived import derive, disagreements, with_formulas
from .document import Entry
from .fact_files import FactFile, read_fact_file
from .fact_tables import RawRecord
from .kind import Field, Kind
from .kinds import find_kind
from .reading import read_raw

MOST = 5  # notes and records that are named
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
    cells: Mapping[str, Cell] = dataclasses.field(default_factory=dict)
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
        file = read_fact_file(path, known_kind(kind).fields)
        raw = file.choose(record)
        return cls.of(file, raw, kind, rules, None if locale is None else Convention.of_locale(locale))

    @classmethod
    def of(
        cls, file: FactFile, raw: RawRecord, kind: str, rules: Sequence[str], convention: Convention | None
    ) -> "FactsRecord":
        """The facts of one record of a file; errors as in `read`."""
        path, fields = file.path, known_kind(kind).fields
        reading = read_raw(raw, fields, convention)
        if not reading.facts:
            raise ValueError(f"{path}: must hold facts such as `revenue: $5 million`, got {reading.summary()}")
        facts = with_formulas(reading.facts, fields)
        notes = [f"{path}: {line}" for line in (*file.notes, *map(str, reading.notes), *disagreements(facts, fields))]
        unclear = [note for note in reading.notes if note.fault in ("not read", "not understood")]
        return cls(
            name=raw.name or path.stem,
            kind=kind,
            text=file.text.strip() if reading.is_as_written and file.text else render_input(reading.facts),
            facts=derive(facts, rules),
            summary=f"{path}: {reading.summary()}",
            notes=tuple(notes),
            unread=sum(note.fault == "not understood" for note in reading.notes),
            number=next(number for number, other in enumerate(file.records, start=1) if other is raw),
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


def read_records(
    path: Path, kind: str, rules: Sequence[str] = (), *, locale: str | None = None
) -> tuple[list[FactsRecord], list[str]]:
    """The records of a table, a row each, and what has to be known of the table, a line each.

    A file of one record is a table of one; arguments as of `FactsRecord.read`.
    Raises ValueError, one line with the place, for a table without a head, a record without a fact, a rule that does
    not fit, and a field of the kind that is in no record and has no formula.
    """
    fields = known_kind(kind).fields
    file = read_fact_file(path, fields, is_table=True)
    convention = None if locale is None else Convention.of_locale(locale)
    records = []
    for number, raw in enumerate(file.records, start=1):
        try:
            records.append(FactsRecord.of(file, raw, kind, rules, convention))
        except ValueError as error:
            place = raw.lines[0].place if raw.lines else f"record {number}"
            raise ValueError(f"{error} ({place})") from None
    for key, field in fields.items():
        if not isinstance(field.source, str) and not any(key in record.facts for record in records):
            raise ValueError(
                f"{path}: must have each field of the kind {kind!r}, has none called "
                f"{' or '.join(map(repr, field.labels))}: add it, or take [fields.{key}] out of the kind"
            )
    return records, list(_notes(path, records, fields))


def _notes(path: Path, records: Sequence[FactsRecord], fields: Mapping[str, Field]) -> Iterator[str]:
    """A line for the records that share a name, one for each field that some lack, and one for what was not read."""
    named: dict[str, list[FactsRecord]] = {}
    for record in records:
        named.setdefault(" ".join(record.name.split()).casefold(), []).append(record)
    for same in named.values():
        if len(same) > 1:
            yield f"{path}: {_places(same)} have one name, {same[0].name!r}"
    for key, field in fields.items():
        if lacking := [record for record in records if key not in record.facts and not isinstance(field.source, str)]:
            yield f"{path}: {_places(lacking)} {'has' if len(lacking) == 1 else 'have'} no {field.label!r}"
    notes = [note.removeprefix(f"{path}: ") for record in records for note in record.notes]
    for note in dict.fromkeys(notes[:MOST]):
        yield f"{path}: {note}"
    if len(notes) > MOST:
        yield f"{path}: {len(notes) - MOST} more notes are in the audits"


def _places(records: Sequence[FactsRecord]) -> str:
    """ "records 3 and 7", "records 1, 2, 3, 4, 5 and 12 more" """
    numbers = [str(record.number) for record in records]
    if len(numbers) == 1:
        return f"record {numbers[0]}"
    if len(numbers) > MOST:
        return f"records {', '.join(numbers[:MOST])} and {len(numbers) - MOST} more"
    return f"records {', '.join(numbers[:-1])} and {numbers[-1]}"


def known_kind(name: str) -> Kind:
    """The kind of a name that was found to be known when it was asked for."""
    kind = find_kind(name)
    assert kind is not None, name
    return kind
