"""Fields of a kind out of many records of it: a label's values in all of them are one column.

A label that stands in no record beside another, in its place and with its type, is another name of the same field.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ..facts.fact import TEXT_TYPES, Fact

_FORMS = """ltd limited plc inc incorporated corp corporation llc llp lp co company group holding holdings partners
capital bank trust fund ag se sa sas nv bv ab as oy gmbh kg kgaa spa srl pty bhd kk foundation association"""
FORMS = frozenset(_FORMS.split())  # words that a company's name may end in
_WORD = re.compile(r"[^\W\d_][\w'’.-]*")
NEAR = 0.75  # lines between the mean places of two names of one field, at most


@dataclass
class Column:
    """A field: its key, its names, the most frequent first, its type, and its fact in each record that has it."""

    key: str
    labels: list[str]
    type: str = "text"
    facts: dict[int, Fact] = field(default_factory=dict)
    place: float = 0.0

    @property
    def is_figure(self) -> bool:
        """True if its values are figures."""
        return self.type not in TEXT_TYPES


def columns_of(records: Sequence[Mapping[str, Fact]]) -> tuple[list[Column], list[str]]:
    """The fields of records, in the order of their lines, and what was not understood of them."""
    unclear: list[str] = []
    seen: dict[str, Column] = {}
    places: dict[str, list[int]] = {}
    for number, record in enumerate(records):
        for place, fact in enumerate(record.values()):
            name = fact.label.casefold()
            column = seen.setdefault(name, Column("", [fact.label]))
            if number in column.facts:
                unclear.append(f"record {number + 1}: {fact.label!r} stands there twice, the first is taken")
                continue
            column.facts[number] = fact
            places.setdefault(name, []).append(place)
    for name, column in seen.items():
        column.place = sum(places[name]) / len(places[name])
        column.type = _type(column)
    columns = _merged(sorted(seen.values(), key=lambda column: (-len(column.facts), column.place)), unclear)
    _name(columns)
    for column in columns:
        unclear += _doubts(column, len(records))
    return columns, unclear


def _merged(columns: Sequence[Column], unclear: list[str]) -> list[Column]:
    """One column of those that are names of one field, in the order of their places."""
    fields: list[Column] = []
    for column in columns:
        same = [known for known in fields if _is_same(known, column)]
        if not same:
            fields.append(column)
            continue
        known = min(same, key=lambda known: abs(known.place - column.place))
        unclear.append(f"field {known.labels[0]!r}: {column.labels[0]!r} is taken as another name of it")
        known.labels += column.labels
        known.facts |= column.facts
    return sorted(fields, key=lambda column: column.place)


def _is_same(known: Column, column: Column) -> bool:
    kinds = {"name": "text", "person": "text"}
    return (
        kinds.get(known.type, known.type) == kinds.get(column.type, column.type)
        and known.facts.keys().isdisjoint(column.facts)
        and abs(known.place - column.place) <= NEAR
    )


def _name(columns: Iterable[Column]) -> None:
    """A key for each column, of its first label, that a formula can use."""
    taken = {"and", "or"}
    for column in columns:
        stem = re.sub(r"[^a-z0-9]+", "_", column.labels[0].casefold()).strip("_") or "field"
        stem = stem if stem[0].isalpha() else f"field_{stem}"
        key, number = stem, 1
        while key in taken:
            number += 1
            key = f"{stem}_{number}"
        taken.add(key)
        column.key = key


def _type(column: Column) -> str:
    """The type that most of its values have; of texts, a name or a person by how they are written."""
    types = Counter(fact.type for fact in column.facts.values())
    figures = {type: count for type, count in types.items() if type not in TEXT_TYPES}
    # A count of 2012 or 0042 reads as a year or an account: a column of counts is one all the same.
    most = max(figures or types, key=lambda type: types[type])
    if 2 * types[most] < len(column.facts):
        most = types.most_common(1)[0][0]
    return most if most != "text" else _text_type([fact.print for fact in column.facts.values()])


def _text_type(values: Sequence[str]) -> str:
    """ "name" where most end as companies do, "person" where most are two or three words that begin in capitals."""
    words = [_WORD.findall(value) for value in values]
    if 2 * sum(bool(FORMS & {word.casefold().strip(".") for word in one[1:]}) for one in words) > len(values):
        return "name"
    is_person = [
        2 <= len(one) <= 3 and all(word[0].isupper() for word in one) and not re.search(r"\d", value)
        for one, value in zip(words, values, strict=True)
    ]
    is_various = 2 * len(set(values)) > len(values)
    return "person" if is_various and 10 * sum(is_person) > 8 * len(values) else "text"


def _doubts(column: Column, records: int) -> Iterable[str]:
    name = f"field {column.labels[0]!r}"
    if len(column.facts) < records:
        yield f"{name}: stands in {len(column.facts)} of {records} records"
    others = [
        (number, fact)
        for number, fact in column.facts.items()
        if fact.type != column.type and not (column.type in ("name", "person") and fact.type == "text")
    ]
    if others:
        number, fact = others[0]
        more = f", and {len(others) - 1} more" if len(others) > 1 else ""
        yield f"{name}: is of type {column.type}, but {fact.print!r} in record {number + 1} reads as {fact.type}{more}"
