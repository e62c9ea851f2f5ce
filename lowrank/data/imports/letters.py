"""A folder of letters, Markdown, text or DOCX, beside a table of their facts: each has the row that its name names.

    letters/harrow-lane-q1-2021.docx    companies.csv: fund,quarter,...  Harrow Lane,Q1 2021,...

A file belongs to the row most of whose values stand in its name, letters and digits alone; a column may also hold the
file's name itself.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from ...extras import need
from ...text_file import read_text
from ..documents.fact_files import read_fact_file
from ..documents.fact_tables import RawRecord

TEXTS = (".md", ".markdown", ".txt")
SUFFIXES = (*TEXTS, ".docx")
SHORTEST = 3  # letters and digits of a value that is looked for in a name
_NAMED = 10_000  # the score of a file that a row names itself


def letters_in(folder: Path) -> list[Path]:
    """The letters of a folder, by name.  Raises ValueError if there are none."""
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.name[0] not in ".~")
    if not found:
        raise ValueError(f"{folder}: must hold letters ({', '.join(SUFFIXES)}), got none")
    return found


def matched(letters: Sequence[Path], table: Path) -> Iterator[tuple[Path, str | ValueError]]:
    """Each letter with the facts of its row, a line `label: value` a fact; or with the reason why it has none."""
    records = read_fact_file(table, {}, is_table=True).records
    owners = [_row_of(letter, records) for letter in letters]
    for letter, owner in zip(letters, owners, strict=True):
        if isinstance(owner, int):
            others = [
                other.name for other, row in zip(letters, owners, strict=True) if row == owner and other != letter
            ]
            if others:
                yield (
                    letter,
                    ValueError(f"the row of {records[owner].name!r} must have one letter, got {others[0]} too"),
                )
                continue
            lines = [line for line in records[owner].lines if not _is_name_of(line.value, letter)]
            yield letter, "\n".join(f"{line.label}: {line.value}" for line in lines)
        else:
            yield letter, ValueError(owner)


def letter_text(path: Path) -> str:
    """The text of a letter; of DOCX as Markdown: headings, lists and tables.  Raises ValueError for what is none."""
    if path.suffix.lower() in TEXTS:
        return read_text(path).replace("\r\n", "\n").replace("\r", "\n").strip() + "\n"
    docx = need("docx", "reading a DOCX file")
    try:
        document = docx.Document(str(path))
    except (KeyError, ValueError, OSError, docx.opc.exceptions.PackageNotFoundError) as error:
        raise ValueError(f"{path}: must be a DOCX document: {error}") from None
    blocks = []
    for block in document.iter_inner_content():
        if hasattr(block, "rows"):
            rows = [[" ".join(cell.text.split()) for cell in row.cells] for row in block.rows]
            rows.insert(1, ["---"] * len(rows[0]) if rows else [])
            blocks.append("\n".join(f"| {' | '.join(row)} |" for row in rows if row))
        elif text := " ".join(block.text.split()):
            blocks.append(f"{_mark(block.style.name or '')}{text}")
    return "\n\n".join(blocks) + "\n"


def _mark(style: str) -> str:
    """The marks that Markdown puts before a paragraph of a style of Word."""
    if style == "Title":
        return "# "
    if heading := re.fullmatch(r"Heading (\d)", style):
        return "#" * min(6, int(heading[1]) + 1) + " "
    return "- " if style.startswith("List") else ""


def _row_of(letter: Path, records: Sequence[RawRecord]) -> int | str:
    """The number of the row that a letter's name names, or why there is none."""
    scores = [_score(letter, record) for record in records]
    best = max(scores, default=0)
    if best == 0:
        return f"a row must be named by the name of its letter, got none for {letter.name}"
    rows = [number for number, score in enumerate(scores) if score == best]
    if len(rows) > 1:
        names = " and ".join(repr(records[number].name) for number in rows[:2])
        return f"a letter's name must name one row, got {names} for {letter.name}"
    return rows[0]


def _score(letter: Path, record: RawRecord) -> int:
    if any(_is_name_of(line.value, letter) for line in record.lines):
        return _NAMED
    stem = _slug(letter.stem)
    values = {_slug(line.value) for line in record.lines}
    return sum(len(value) for value in values if len(value) >= SHORTEST and value in stem)


def _is_name_of(value: str, letter: Path) -> bool:
    """True if a cell is the letter's file name, or its number: 007.docx is 7."""
    name, stem = value.strip().casefold(), letter.stem.casefold()
    return name in (letter.name.casefold(), stem) or (stem.isdigit() and name.isdigit() and int(stem) == int(name))


def _slug(text: str) -> str:
    return re.sub(r"[\W_]+", "", text.casefold())
