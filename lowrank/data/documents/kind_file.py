"""A kind of document as a TOML file: reads it, checks it, and names the place of a fault. See docs/documents.md.

    read_kind("memo.toml")  ->  Kind, or ValueError "memo.toml: fields.debt.type: must be one of name, ..., got 'eur'"

A place is the path of a key; a section is named by its heading, sentences, cases and wordings count from 1:
`sections[Recommendation].sentences[2].cases[1].when`.
"""

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from ...text_file import read_text
from ..facts.fact import TEXT_TYPES, TYPES_IN_WORDS, UNITS, unit_of
from ..facts.formula import WORDS, Formula, parse, parse_condition
from .draws import NAMED_DRAWS, Choice, DaysAfter, Draw, NumberedText, Range, Share
from .kind import INSTRUCTION, PLACEHOLDER, Cases, Field, Kind, Sentence

SOURCES = ("draw", "choices", "days_after", "range", "share", "formula")
SHARE_STEP = Decimal("0.0001")
LABEL = re.compile(r"[^\s:*](?:[^\n:*]{0,58}[^\s:*])?")  # what `reading` takes for the label of a line
NAME = re.compile(r"[a-z][a-z0-9_]*")
NAME_RULE = "lower-case letters, digits and _, a letter first"
LINE = re.compile(r"\S(?:[^\n]*\S)?")

Fields = Mapping[str, Field]


def read_kind(path: Path | str) -> Kind:
    """The kind of a TOML file.

    Raises ValueError, one line with file, place, rule and value, for a file that is missing or breaks a rule.
    """
    return kind_of_text(read_text(path), str(path))


def kind_of_text(text: str, place: str) -> Kind:
    """The kind of the text of a file.  Raises ValueError, one line that begins with its place, as `read_kind` does."""
    try:
        values = tomllib.loads(text, parse_float=Decimal)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{place}: must be TOML: {error}") from None
    try:
        return kind_of(values)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None


def kind_of(values: Mapping[str, Any]) -> Kind:
    """The kind of a file's tables, floats as `Decimal`.

    Raises ValueError with place, rule and value for a table that breaks a rule.
    """
    table = _Table(values, "")
    name = table.text("name", NAME, NAME_RULE)
    title = table.text("title")
    noun = table.text("noun")
    request = table.text("instruction", default=INSTRUCTION)
    if not set(_placeholders(request, "instruction")) <= {"style", "noun"}:
        raise ValueError(f"instruction: may have {{style}} and {{noun}}, and no other braces, got {request!r}")
    fields = _fields(table.table("fields"))
    sections: dict[str, tuple[Sentence | Cases, ...]] = {}
    table.known.append("sections")
    for index, section in enumerate(table.tables("sections") if "sections" in table.values else (), start=1):
        heading = section.text("heading")
        if heading in sections:
            raise ValueError(f"sections[{index}].heading: must differ from those above, got {heading!r}")
        section.place = f"sections[{heading}]"
        section.known.append("sentences")
        sentences = section.tables("sentences") if "sentences" in section.values else ()
        sections[heading] = tuple(_part(sentence, fields) for sentence in sentences)
        section.close()
    table.close()
    return Kind(name, title, noun, fields, sections, request)


class _Table:
    """A table of the file. A key is removed when it is read, so that what is left at the end is unknown.

    place  its path in the file, "" for the file itself
    """

    def __init__(self, values: Any, place: str) -> None:
        if not isinstance(values, Mapping):
            raise ValueError(f"{place}: must be a table, got {values!r}")
        self.values = dict(values)
        self.place = place
        self.known: list[str] = []

    def path(self, key: str) -> str:
        """The place of a key of this table."""
        return f"{self.place}.{key}" if self.place else key

    def take(self, key: str, default: Any = None) -> Any:
        """The value of a key, removed; an absent one is refused unless it has a default."""
        self.known.append(key)
        if key not in self.values and default is None:
            raise ValueError(f"{self.path(key)}: must be there")
        return self.values.pop(key, default)

    def text(self, key: str, form: re.Pattern[str] = LINE, rule: str = "one line of text", default: str = "") -> str:
        """A text of some form."""
        return _text(self.take(key, default or None), self.path(key), form, rule)

    def texts(
        self,
        key: str,
        form: re.Pattern[str] = LINE,
        rule: str = "one line of text",
        default: tuple[str, ...] | None = None,
    ) -> tuple[str, ...]:
        """A list of texts of some form; it may be empty only by default."""
        if default is not None and key not in self.values:
            self.known.append(key)
            return default
        values, place = self.take(key), self.path(key)
        if not isinstance(values, list) or not values:
            raise ValueError(f"{place}: must be a list of texts, got {values!r}")
        return tuple(_text(value, f"{place}[{number}]", form, rule) for number, value in enumerate(values, start=1))

    def number(self, key: str, default: Decimal | None = None) -> Decimal:
        """A finite number."""
        value = self.take(key, default)
        if type(value) is int:
            return Decimal(value)
        if not isinstance(value, Decimal) or not value.is_finite():
            raise ValueError(f"{self.path(key)}: must be a number, got {value!r}")
        return value

    def whole(self, key: str) -> int:
        """A whole number."""
        value = self.take(key)
        if type(value) is not int:
            raise ValueError(f"{self.path(key)}: must be a whole number, got {value!r}")
        return value

    def table(self, key: str) -> "_Table":
        """A table inside this one."""
        return _Table(self.take(key), self.path(key))

    def tables(self, key: str) -> Iterator["_Table"]:
        """The tables of an array, at least one."""
        values, place = self.take(key), self.path(key)
        if not isinstance(values, list) or not values:
            raise ValueError(f"{place}: must be an array of tables, [[{key}]], got {values!r}")
        return (_Table(value, f"{place}[{number}]") for number, value in enumerate(values, start=1))

    def close(self) -> None:
        """Raises ValueError for a key that was not read, with the nearest that could have been."""
        for key in self.values:
            near = difflib.get_close_matches(key, self.known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(self.known)}"
            raise ValueError(f"{self.path(key)}: unknown key: {hint}")


def _text(value: Any, place: str, form: re.Pattern[str], rule: str) -> str:
    if not isinstance(value, str) or not form.fullmatch(value):
        raise ValueError(f"{place}: must be {rule}, got {value!r}")
    return value


def _fields(table: _Table) -> dict[str, Field]:
    """The fields, each checked against those above it."""
    fields: dict[str, Field] = {}
    owners: dict[str, str] = {}
    if not table.values:
        raise ValueError("fields: must have at least one field")
    for key in table.values:
        if not NAME.fullmatch(key) or key in WORDS:
            raise ValueError(f"fields.{key}: a key must be {NAME_RULE}, and not {' or '.join(WORDS)}")
        fields[key] = _field(_Table(table.values[key], f"fields.{key}"), fields)
        for phrase in fields[key].phrases:
            owner = owners.setdefault(phrase.casefold(), key)
            if owner != key or [text.casefold() for text in fields[key].phrases].count(phrase.casefold()) > 1:
                raise ValueError(f"fields.{key}: a phrase must stand for one field, once: {phrase!r}, also of {owner}")
    return fields


def _field(table: _Table, above: Fields) -> Field:
    rule = "a text of at most 60 characters without colon, asterisk and line break"
    label = table.text("label", LABEL, rule)
    type = table.take("type")
    if not isinstance(type, str) or (type not in TEXT_TYPES and unit_of(type) is None):
        raise ValueError(f"{table.path('type')}: must be one of {', '.join(TYPES_IN_WORDS)}, got {type!r}")
    synonyms = table.texts("synonyms", LABEL, rule, default=())
    phrases = table.texts("phrases", LABEL, rule, default=())
    source = _source(table, type, above)
    table.close()
    return Field(label, type, source, synonyms, phrases)


def _source(table: _Table, type: str, above: Fields) -> Draw | str | None:
    """The rule of a field's value: at most one of SOURCES."""
    named = [key for key in SOURCES if key in table.values]
    if len(named) > 1:
        raise ValueError(f"{table.place}: must have one of {', '.join(SOURCES)}, got {' and '.join(named)}")
    table.known += SOURCES
    if not named:
        return None
    key = named[0]
    place = table.path(key)
    if key == "draw":
        name = table.take(key)
        if name not in NAMED_DRAWS:
            raise ValueError(f"{place}: must be one of {', '.join(NAMED_DRAWS)}, got {name!r}")
        fills, draw = NAMED_DRAWS[name]
        _check_type(type, (fills,), place)
        return draw
    if key == "choices":
        _check_type(type, ("name", "person", "text", "period"), place)
        return Choice(table.texts(key))
    if key == "formula":
        _check_figure(type, place)
        text = table.text(key)
        _result(text, parse, {name: Decimal for name, field in above.items() if field.is_figure}, place)
        return text
    return {"days_after": _days_after, "range": _range, "share": _share}[key](table.table(key), type, above)


def _days_after(table: _Table, type: str, above: Fields) -> DaysAfter:
    _check_type(type, ("date",), table.place)
    key = table.text("date")
    _check_key(key, "date", above, table.path("date"))
    low, high = table.whole("from"), table.whole("to")
    _check_order(Decimal(low), Decimal(high), table)
    table.close()
    return DaysAfter(key, low, high)


def _range(table: _Table, type: str, above: Fields) -> Range | NumberedText:
    template = table.text("template") if "template" in table.values else None
    if template is None:
        _check_figure(type, table.place)
    else:
        _check_type(type, ("text",), table.place)
    if template is not None and _placeholders(template, table.path("template")) != ["number"]:
        raise ValueError(f"{table.path('template')}: must have {{number}} once, and no other braces, got {template!r}")
    numbers = Range(table.number("from"), table.number("to"), table.number("step"))
    _check_order(numbers.low, numbers.high, table)
    if numbers.step <= 0:
        raise ValueError(f"{table.path('step')}: must be above 0, got {numbers.step}")
    table.known.append("template")
    table.close()
    return numbers if template is None else NumberedText(template, numbers)


def _share(table: _Table, type: str, above: Fields) -> Share:
    _check_figure(type, table.place)
    key = table.text("of")
    _check_key(key, "figure", above, table.path("of"))
    factors = Range(table.number("from"), table.number("to"), SHARE_STEP)
    _check_order(factors.low, factors.high, table)
    table.close()
    return Share(key, factors)


def _check_type(type: str, fitting: tuple[str, ...], place: str) -> None:
    if type not in fitting:
        raise ValueError(f"{place}: must be in a field of type {' or '.join(fitting)}, got {type!r}")


def _check_figure(type: str, place: str) -> None:
    if unit_of(type) is None:
        raise ValueError(f"{place}: must be in a field of type {' or '.join(UNITS)}, or of money, got {type!r}")


def _check_key(key: str, what: str, above: Fields, place: str) -> None:
    """A key above of a figure, or of a date."""
    known = [name for name, field in above.items() if (field.is_figure if what == "figure" else field.type == what)]
    if key not in known:
        raise ValueError(f"{place}: must be a {what} above it, one of {', '.join(known) or 'none'}, got {key!r}")


def _check_order(low: Decimal, high: Decimal, table: _Table) -> None:
    if low > high:
        raise ValueError(f"{table.path('to')}: must be at least {low}, got {high}")


def _result(text: str, parser: Any, types: Mapping[str, type], place: str) -> Formula:
    """A parsed formula or condition of known keys."""
    try:
        formula: Formula = parser(text)
        result = formula.type(types)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None
    if parser is parse_condition and result is not bool:
        raise ValueError(f'{place}: must compare, as in "leverage <= 4.00", got {text!r}')
    return formula


def _part(table: _Table, fields: Fields) -> Sentence | Cases:
    """A sentence of a section: one for all records, or cases."""
    if "cases" not in table.values:
        table.known.append("cases")
        return _sentence(table, fields)
    types: dict[str, type] = {key: Decimal if field.is_figure else str for key, field in fields.items()}
    *conditional, last = table.tables("cases")
    table.close()
    if not conditional:
        raise ValueError(f"{table.path('cases')}: must be at least two cases, got one")
    if "when" in last.values:
        raise ValueError(f"{last.path('when')}: the last case must have none: it is for all other records")
    chosen = [
        (_result(case.text("when"), parse_condition, types, case.path("when")), _sentence(case, fields))
        for case in conditional
    ]
    return Cases(tuple(chosen), _sentence(last, fields))


def _sentence(table: _Table, fields: Fields) -> Sentence:
    """A sentence of which every wording has the same keys."""
    sentence = Sentence(table.texts("wordings"), table.texts("unseen", default=()))
    expected: frozenset[str] | None = None
    for name, wordings in (("wordings", sentence.seen), ("unseen", sentence.unseen)):
        for number, wording in enumerate(wordings, start=1):
            place = f"{table.path(name)}[{number}]"
            keys = frozenset(_placeholders(wording, place))
            if unknown := sorted(keys - fields.keys()):
                raise ValueError(f"{place}: {{{unknown[0]}}} must be a key of a field, got {wording!r}")
            expected = keys if expected is None else expected
            if keys != expected:
                listed = ", ".join(f"{{{key}}}" for key in sorted(expected)) or "none"
                raise ValueError(f"{place}: must have the keys of the first wording, {listed}, got {wording!r}")
    table.close()
    return sentence


def _placeholders(template: str, place: str) -> list[str]:
    """The keys in braces of a template, which has no other braces."""
    if set("{}") & set(PLACEHOLDER.sub("", template)):
        raise ValueError(f"{place}: braces must be around a key, {{key}}, got {template!r}")
    return PLACEHOLDER.findall(template)
