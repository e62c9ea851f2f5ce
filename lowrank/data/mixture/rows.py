"""One entry of the instruction set, and the files of them: JSON lines, one row a line."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from ..jsonl import read_lines, write_lines


@dataclass(frozen=True)
class MixtureRow:
    """One instruction with its answer.

    id           "fingpt-ner-00017": the data set, and the row in its file, counted from 0
    source       the part it belongs to, one of `sources.PARTS`
    instruction  what is asked for
    input        the text it is asked about
    output       the answer
    label        the answer as a class, where it is one
    """

    id: str
    source: str
    instruction: str
    input: str
    output: str
    label: str | None = None

    def to_json(self) -> dict[str, str]:
        """The row as a JSON object, without a label where there is none; `from_json` is its inverse."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    @classmethod
    def from_json(cls, data: object, place: str = "row") -> "MixtureRow":
        """The row of a JSON object.

        Raises ValueError, one line that starts with `place`, for a key that is missing, unknown or not a string.
        """
        if not isinstance(data, dict):
            raise ValueError(f"{place}: expected a JSON object, got {type(data).__name__}")
        keys = [field.name for field in fields(cls)]
        for key in keys:
            if not isinstance(data.get(key, "" if key == "label" else None), str):
                raise ValueError(f"{place}: {key}: expected a string, got {data.get(key, 'nothing')!r}")
        for key in data:
            if key not in keys:
                raise ValueError(f"{place}: {key}: expected no such key; known: {', '.join(keys)}")
        return cls(**data)


def write_rows(path: Path, rows: Iterable[MixtureRow]) -> None:
    """One line of JSON a row, UTF-8."""
    write_lines(path, (row.to_json() for row in rows))


def read_rows(path: Path) -> list[MixtureRow]:
    """The rows of a file that `write_rows` wrote; blank lines are skipped.

    Raises ValueError naming file, line, key and what was expected there.
    """
    return [MixtureRow.from_json(data, place) for place, data in read_lines(path)]
