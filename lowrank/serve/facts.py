"""Facts as a request brings them -> records, by the readers that the command line has.

The readers take files: what was sent stands in a file of its own, in a folder that only this user can read, for as long
as it is read.
"""

import csv
import json
import re
import tempfile
import threading
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError

from ..data.documents.fact_files import FactFile, read_fact_file
from ..data.documents.facts_record import FactsRecord
from ..data.documents.kind import Kind
from ..grounding.decoding import Grounding
from ..grounding.names import phrases_of
from .errors import Refusal
from .shelf import Base

MAX_TEXT = 1_000_000  # bytes of a file that is no workbook
MAX_FACTS = 500  # of one record
LONGEST_FACT = 4_000  # characters of a label or value
MAX_RECORDS = 5_000
LONGEST_NAME = 100
SUFFIXES = (".csv", ".json", ".jsonl", ".md", ".tsv", ".txt", ".xlsm", ".xlsx")
TYPED = "facts.txt"  # the name of facts that came without a file
_reading = threading.Lock()  # one file at a time: reading a large one takes memory


def read_file(content: bytes, name: str, kind: Kind) -> FactFile:
    """The records of a file that was sent.

    name  as its user calls it; only its end matters
    Raises Refusal, with the user's own name of the file, for one that cannot be read.
    """
    shown = plain_name(name)
    if len(content) > MAX_TEXT and not content.startswith(b"PK\x03\x04"):
        raise Refusal(400, f"{shown}: a text must have at most {MAX_TEXT:,} bytes, got {len(content):,}", param="facts")
    with _reading, tempfile.TemporaryDirectory(prefix="lowrank-") as folder:
        path = Path(folder) / shown
        path.write_bytes(content)
        try:
            file = read_fact_file(path, kind.fields)
        except (ParseError, ValueError, csv.Error, zipfile.BadZipFile) as error:
            told = str(error).replace(f"{folder}/", "")
            raise Refusal(400, told if told.startswith(shown) else f"{shown}: {told}", param="facts") from None
    if not 1 <= len(file.records) <= MAX_RECORDS:
        raise Refusal(400, f"{shown}: must have 1 to {MAX_RECORDS:,} records, got {len(file.records):,}", param="facts")
    return FactFile(Path(shown), file.records, file.notes, file.text)


def read_record(file: FactFile, name: str | None, kind: Kind) -> FactsRecord:
    """A record of a file: the one of a number from 1 or a name, or the only one."""
    try:
        numbers = range(1, len(file.records) + 1)
        numbered = {str(number): raw for number, raw in zip(numbers, file.records, strict=True)}
        raw = numbered.get(name or "") or file.choose(name)
    except ValueError as error:
        raise Refusal(400, str(error), param="record") from None
    if len(raw.lines) > MAX_FACTS:
        raise Refusal(
            400, f"{file.path}: a record must have at most {MAX_FACTS} facts, got {len(raw.lines)}", param="facts"
        )
    if any(len(line.label) > LONGEST_FACT or len(line.value) > LONGEST_FACT for line in raw.lines):
        raise Refusal(400, f"{file.path}: a fact must have at most {LONGEST_FACT:,} characters", param="facts")
    try:
        return FactsRecord.of(file, raw, kind.name, (), None)
    except ValueError as error:
        raise Refusal(400, str(error), param="facts") from None


def facts_of_request(facts: str | Mapping[str, Any], name: str | None, kind: Kind) -> FactsRecord:
    """The record of the parameter `facts`: a text as a file has it, or an object of labels with values."""
    text, file = (facts, TYPED) if isinstance(facts, str) else (json.dumps(facts, ensure_ascii=False), "facts.json")
    return read_record(read_file(text.encode("utf-8"), file, kind), name, kind)


def grounding(record: FactsRecord, base: Base) -> Grounding:
    """The constraint of one text that states figures of a record only."""
    return Grounding(record.facts, base.vocabulary, phrases_of(record.kind))


def plain_name(name: str) -> str:
    """The last part of a path, of letters that a file name and a message can have."""
    last = re.split(r"[/\\]", name)[-1]
    plain = re.sub(r"[^\w.,+() -]", "_", last).strip(" .")[-LONGEST_NAME:].strip(" .")
    if not plain:
        return TYPED
    return plain if Path(plain).suffix.lower() in SUFFIXES or "." in plain else f"{plain}.txt"


def cells_json(record: FactsRecord) -> list[dict[str, Any]]:
    """The facts of a record as JSON, each with the cell that it stands in."""
    return [
        {
            "key": key,
            "label": fact.label,
            "print": fact.print,
            "type": fact.type,
            "is_figure": fact.is_figure,
            "required": fact.required,
            "formula": fact.source,
            "cell": record.cells[key].to_json() if key in record.cells else None,
        }
        for key, fact in record.facts.items()
    ]
