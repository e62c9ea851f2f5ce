"""Records that others wrote: labels with values -> typed facts, by the printed form of each value.

"$812.4 million" is usd_m    "€4.812,50" eur    "12.5%" pct    "7.25 per cent" rate    "150 bps" bps    "3.41x" ratio
"2.1 percentage points" points    "1,204" and "36 months" count    "31/03/2025" date    "Q3 2024", "2024" period
anything else text

A label may name the unit of its value: "Revenue (EUR million)" with 412.5 is "Revenue", EUR 412.5 million. What a
record leaves open is settled by its other values, and told in a note: which of two numbers 1.234 is, whose dollar "$"
is, whether 3/4/2025 is in March or April.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, localcontext

from ..facts.currencies import signs_of
from ..facts.dates import compact_date, is_no_day, is_period, read_date, settle_dates
from ..facts.fact import TEXT_TYPES, Fact, unit_of
from ..facts.figure import Figure
from ..facts.figure_matching import kinds_of
from ..facts.figures import read_figure, read_figures
from ..facts.formula import ARITHMETIC
from ..facts.numerals import Convention, convention_of
from .amounts import looks_like_amount
from .fact_lines import Line, lines_of
from .fact_tables import RawRecord
from .kind import Field
from .label_units import Fault, United, with_unit_of_label

_SHOWN: Mapping[Fault, str] = {"contradiction": "contradiction", "twice": "duplicate", "in doubt": "doubt"}

_OF_A_DATE = re.compile(r"\b(?:date|dated|day|on|datum|fecha|data|stichtag|jour)\b", re.IGNORECASE)
_SHORT_SCALE = re.compile(r"\d[ \u00a0]?(?:[mb]|cr\.?)$", re.IGNORECASE)  # 36M may be months, 412 m metres
_NAMES_SOMETHING = re.compile(r"(?:19|20)\d\d|0\d+")  # a bare year, an account with leading zeros: no amounts
_NOTHING = re.compile(r"(?:n/?a|n\.a\.|tbd|tbc|nil|none|null|unknown|-+|\?+|…|\.\.\.)", re.IGNORECASE)


@dataclass(frozen=True)
class Note:
    """Something that a reader of a record has to know: where it is, what kind of fault it is, and what it is."""

    place: str
    fault: Fault
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {self.text}"


@dataclass(frozen=True)
class Reading:
    """The facts of a record, and what could not be read without a doubt.

    places         key of a fact -> where it stands
    is_as_written  True if every fact has the label and print that stand in the text
    """

    facts: Mapping[str, Fact]
    notes: tuple[Note, ...]
    places: Mapping[str, str]
    is_as_written: bool = True

    @property
    def figures(self) -> int:
        """The number of facts that are figures."""
        return sum(fact.is_figure for fact in self.facts.values())

    def summary(self) -> str:
        """ "8 facts, 5 figures; line 7 not read; 2 amounts are not understood" """
        parts = [f"{count(len(self.facts), 'fact')}, {count(self.figures, 'figure')}"]
        places = [note.place for note in self.notes if note.fault == "not read"]
        if places:
            more = f" and {len(places) - 3} more" if len(places) > 3 else ""
            parts.append(f"{', '.join(places[:3])}{more} not read")
        faults = Counter(note.fault for note in self.notes)
        if number := faults["not understood"]:
            parts.append(f"{count(number, 'amount')} {'is' if number == 1 else 'are'} not understood")
        for fault, word in _SHOWN.items():
            if number := faults[fault]:
                parts.append(count(number, word))
        return "; ".join(parts)


def count(number: int, noun: str) -> str:
    """ "1 fact", "8 facts" """
    return f"{number} {noun}{'' if number == 1 else 's'}"


def read_facts(text: str, fields: Mapping[str, Field]) -> dict[str, Fact]:
    """The facts of a text (see `read_record`)."""
    return dict(read_record(text, fields).facts)


def read_record(text: str, fields: Mapping[str, Field], convention: Convention | None = None) -> Reading:
    """The facts of a text, keyed by the field of each label, else by the label itself.

    text        lines `label: value`, a Markdown table, CSV or JSON: see `fact_lines`
    fields      those of a kind, or none: only a field tells a name or a person from other text
    convention  how numbers and dates are written; None: as the values themselves tell
    """
    lines, not_read = lines_of(text)
    return read_lines(lines, fields, convention, _notes(not_read))


def read_lines(
    lines: Sequence[Line],
    fields: Mapping[str, Field],
    convention: Convention | None = None,
    notes: Iterable[Note] = (),
) -> Reading:
    """The facts of labels with values (see `read_record`); `notes` that there are already."""
    told = list(notes)
    reader = _Reader(lines, convention)
    owners = {_folded(label): key for key, field in fields.items() for label in field.labels}
    facts: dict[str, Fact] = {}
    places: dict[str, str] = {}
    first: dict[str, tuple[str, str]] = {}
    for line in lines:
        owner = owners.get(_folded(line.label)) or owners.get(_folded(reader.label(line)))
        fact, faults = reader.fact(line, fields[owner].type if owner else "")
        told += faults
        name = owner or _folded(fact.label)
        if name in first:
            place, value = first[name]
            if value == _value(fact):
                told.append(Note(line.place, "twice", f"{fact.label!r} is {fact.print!r} as in {place}"))
                continue
            known = facts[next(key for key in facts if places[key] == place)].print
            told.append(Note(line.place, "contradiction", f"{fact.label!r} is {fact.print!r}, in {place} {known!r}"))
        first.setdefault(name, (line.place, _value(fact)))
        key = next(key for key in _keys(owner or fact.label) if key not in facts)
        facts[key], places[key] = fact, line.place
    written = {(line.label, line.value) for line in lines}
    return Reading(facts, tuple(told), places, all((fact.label, fact.print) in written for fact in facts.values()))


def read_raw(raw: RawRecord, fields: Mapping[str, Field], convention: Convention | None = None) -> Reading:
    """The facts of a record of a file (see `read_record`)."""
    return read_lines(raw.lines, fields, convention, _notes(raw.not_read))


def _notes(not_read: Iterable[tuple[str, str]]) -> list[Note]:
    return [Note(place, "not read", f"{_short(line)!r} has no label with a value") for place, line in not_read]


def _value(fact: Fact) -> str:
    if not fact.is_figure:
        return fact.value
    with localcontext(ARITHMETIC):
        return f"{fact.unit.dimension} {(fact.number * fact.unit.scale).normalize()}"


def _folded(label: str) -> str:
    return " ".join(label.replace("\u00a0", " ").split()).casefold()


def _keys(label: str) -> Iterator[str]:
    """A name for the fact that a formula can use: "EBITDA 2024" is ebitda_2024, the next of that name ebitda_2024_2."""
    key = re.sub(r"\W+", "_", label.casefold()).strip("_")
    key = key if key.isidentifier() else f"fact_{key}"
    yield key
    number = 1
    while True:
        number += 1
        yield f"{key}_{number}"


def read_fact(label: str, text: str, expected: str = "text", convention: Convention | None = None) -> Fact:
    """The fact that a printed value states; `expected` is its type if the printed form tells none."""
    line = Line("", label, text)
    return _Reader([line], convention).fact(line, expected)[0]


class _Reader:
    """The reader of one record: each of its values is read by what the others tell."""

    def __init__(self, lines: Sequence[Line], convention: Convention | None) -> None:
        values = [line.value for line in lines]
        told = convention or convention_of(values)
        self.convention = replace(told, spaced=True)  # a value stands alone: spaces in it group its digits
        figures = [figure for value in values if (figure := read_figure(value, self.convention)) is not None]
        self.codes = {figure.currencies[0] for figure in figures if len(figure.currencies) == 1}
        signs = {figure.currencies[0] for figure in figures if len(figure.currencies) > 1}
        if convention is None:
            dollars = bool(signs or self.codes) and self.codes <= {"USD"} and signs <= {"USD"}
            self.convention = settle_dates(self.convention, values, dollars=dollars)

    def label(self, line: Line) -> str:
        """The label without the unit that it names."""
        return with_unit_of_label(line.label, line.value, self.convention).label

    def fact(self, line: Line, expected: str) -> tuple[Fact, list[Note]]:
        """The fact of a line, and what has to be told of it; `expected` as in `read_fact`, "" for an unknown label."""
        text = line.value
        united = with_unit_of_label(line.label, text, self.convention)
        figure = united.figure
        dated = read_date(text, self.convention) or (compact_date(text) if _OF_A_DATE.search(line.label) else None)
        if figure is not None and figure.kind != "unknown" and not dated and not _NAMES_SOMETHING.fullmatch(text):
            return self._figure(line, united)
        if dated is not None:
            notes = []
            if dated.in_doubt:
                order = "day first" if self.convention.day_first else "month first"
                notes.append(Note(line.place, "in doubt", f"{text!r} is read {order}, as {dated.date.isoformat()}"))
            return Fact(dated.date.isoformat(), "date", text, line.label), notes
        if is_period(text):
            return Fact(text, "period", text, line.label), []
        type = expected if expected in ("name", "person", "period") else "text"
        return Fact(text, type, text, line.label), self._not_understood(line, expected)

    def _figure(self, line: Line, united: United) -> tuple[Fact, list[Note]]:
        figure = united.figure
        assert figure is not None, "it has been asked for"
        notes = [] if not united.doubt else [Note(line.place, united.fault, f"{line.value!r} {united.doubt}")]
        code = self._code(figure)
        if compact_date(line.value) is not None or (figure.kind == "count" and _SHORT_SCALE.search(line.value)):
            notes.append(Note(line.place, "in doubt", f"{line.value!r} is read as the number {figure.magnitude:,f}"))
        if figure.in_doubt:
            number = f"{figure.magnitude:f}"
            notes.append(
                Note(
                    line.place,
                    "in doubt",
                    f"{line.value!r} is read as {number}: {self.convention.decimal!r} is the decimal sign",
                )
            )
        if len(figure.currencies) > 1 and code != figure.currencies[0]:
            notes.append(Note(line.place, "in doubt", f"{line.value!r} is read as {code}, the record's other currency"))
        elif (
            figure.currencies and figure.currencies[0] != "USD" and len(figure.currencies) > 1 and self._is_open(figure)
        ):
            others = ", ".join(figure.currencies[1:4])
            notes.append(Note(line.place, "in doubt", f"{line.value!r} is read as {code}; it may be {others}"))
        type = figure_type(figure, code)
        unit = unit_of(type)
        assert unit is not None, type
        with localcontext(ARITHMETIC):
            value = figure.value / unit.scale
        return Fact(f"{value:f}", type, united.printed, united.label), notes

    def _code(self, figure: Figure) -> str:
        """The currency of money: that of its sign, or the only one of its sign that the record names otherwise."""
        if not figure.currencies:
            return ""
        named = self.codes.intersection(figure.currencies)
        if figure.currencies[0] in named or len(named) != 1:
            return figure.currencies[0]
        return next(iter(named))

    def _is_open(self, figure: Figure) -> bool:
        """True if a sign is as much one currency's as another's, and the record names none of them."""
        first = signs_of(figure.currencies[0])
        return not self.codes.intersection(figure.currencies) and bool(first) and first[0].isalpha()

    def _not_understood(self, line: Line, expected: str) -> list[Note]:
        """A note for a text that has an amount in it, or should be one."""
        text = line.value
        if expected in ("name", "person"):
            return []
        unread = [
            figure
            for figure in read_figures(text, self.convention)
            if (figure.currencies or figure.reason not in ("a number in a word", "letters behind a number"))
            and (figure.kind != "count" or figure.exponent)
        ]
        should = unit_of(expected) is not None and not _NOTHING.fullmatch(text)
        looks = expected not in TEXT_TYPES and looks_like_amount(text)
        if not (unread or should or looks or is_no_day(text)):
            return []
        why = next((f": {figure.reason}" for figure in unread if figure.reason), "")
        why = ": no day of the calendar" if is_no_day(text) else why
        return [Note(line.place, "not understood", f"{_short(text)!r} ({line.label}) is kept as text{why}")]


def figure_type(figure: Figure, code: str = "") -> str:
    """The type of a figure: money by its currency and scale, per cent by its decimals."""
    if figure.kind == "money":
        return f"{code.lower()}_m" if figure.exponent >= 6 else code.lower()
    if figure.kind == "percent":
        return "pct" if figure.quantum >= Decimal("0.1") else "rate"
    return {"basis points": "bps", "points": "points", "multiple": "ratio", "count": "count"}[figure.kind]


def is_print_right(fact: Fact, convention: Convention | None = None) -> bool:
    """True if a fact's print says its value, in any notation.

    convention  that of its record; None: in either way of writing numbers
    """
    tried = (
        (convention,) if convention else tuple(Convention(sign, spaced=True, day_first=sign == ",") for sign in ".,")
    )
    return any(_is_print_right(fact, way) for way in tried)


def _is_print_right(fact: Fact, convention: Convention) -> bool:
    if fact.type == "date":
        ways = (convention, replace(convention, day_first=not convention.day_first))
        return any(
            (dated := read_date(fact.print, way)) is not None and dated.date.isoformat() == fact.value for way in ways
        )
    if not fact.is_figure:
        return fact.print == fact.value
    figure, unit = read_figure(fact.print, replace(convention, spaced=True)), fact.unit
    if figure is None or figure.kind not in kinds_of(fact):
        return False
    if figure.kind == "money" and unit.dimension.upper() not in figure.currencies:
        return False
    with localcontext(ARITHMETIC):
        return figure.value == fact.number * unit.scale


def _short(text: str) -> str:
    return text if len(text) <= 50 else f"{text[:47]}..."
