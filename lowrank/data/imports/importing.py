"""Examples that a person or another model wrote -> entries: their `label: value` lines become typed facts."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..documents.document import Entry
from ..documents.fact_lines import lines_of_object
from ..documents.kind import STYLES
from ..documents.kinds import KINDS, find_kind
from ..documents.reading import read_facts, read_record
from .examples import Fault
from .files import read_items
from .formats import DOCUMENT, conversation, detect, exchange, unread_keys, unwrap
from .letters import letter_text, letters_in, matched
from .turns import shown, text_of

CUSTOM = "custom"
REQUEST = "Write the document that states these facts."
_HEADING = re.compile(r"^##[ \t]+(\S.*?)[ \t#:*]*$", re.MULTILINE)


@dataclass(frozen=True)
class Document:
    """An instruction, its record as `label: value` lines, the document, and what has no place in these."""

    place: str
    instruction: str
    record: str
    text: str
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Documents:
    """The documents of a file in a format or of a folder (""), and the faults of the rows that hold none."""

    rows: int
    format: str = ""
    documents: list[Document] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)


@dataclass(frozen=True)
class Imported:
    """The entries of a file.

    rows    of the file
    places  of the rows that became entries
    faults  of the rows that did not
    notes   what an entry does not hold of its row
    """

    rows: int
    entries: list[Entry] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    notes: list[Fault] = field(default_factory=list)


def read_documents(
    path: Path, *, format: str | None = None, instruction: str | None = None, table: Path | None = None
) -> Documents:
    """The documents of a file in one of FORMATS, or of a folder of letters with a table of their facts.

    instruction  what asks for a document that does not say it; None is REQUEST
    Raises ValueError, one line with the file, for one that cannot be read as a whole.
    """
    if path.is_dir():
        return _letters(path, table, instruction or REQUEST)
    if table is not None:
        raise ValueError(f"{path}: must be a folder of letters, which a table goes with, got a file")
    items = unwrap(read_items(path), path)
    format = format or detect(items, str(path))
    found = Documents(len(items), format)
    for item in items:
        try:
            if item.error is not None:
                raise ValueError(item.error)
            found.documents.append(document_of(format, item.data, item.place, instruction))
        except ValueError as error:
            found.faults.append(Fault.of(item.place, error))
    return found


def document_of(format: str, data: Any, place: str, instruction: str | None = None) -> Document:
    """The document of a row of a format.  Raises ValueError that begins with a key for a row that holds none."""
    if format == "entry":
        entry = Entry.from_json(data, "$")
        return Document(place, entry.instruction, entry.input, entry.output)
    left_out = [shown(key) for key in unread_keys(format, data)] if isinstance(data, dict) else []
    if format == "facts":
        return Document(place, *_record(data, instruction), tuple(left_out))
    pair = exchange(format, data)
    if system := conversation(format, data, "").system:
        left_out.append(f"system {shown(system)}")
    return Document(place, pair.instruction, pair.input, pair.output, tuple(left_out))


def import_documents(found: Documents, *, kind: str | None = None, license: str) -> Imported:
    """The entries of documents; the other arguments as in `import_entry`."""
    imported = Imported(found.rows, faults=list(found.faults))
    for document in found.documents:
        try:
            entry = import_entry(document, len(imported.entries), kind=kind, license=license)
        except ValueError as error:
            imported.faults.append(Fault.of(document.place, error))
            continue
        imported.entries.append(entry)
        imported.places.append(document.place)
        definition = find_kind(entry.kind)
        for note in read_record(document.record, definition.fields if definition else {}).notes:
            imported.notes.append(Fault(document.place, f"record: {note.fault}", str(note)))
        if document.left_out:
            imported.notes.append(Fault(document.place, "an entry has no place for this", ", ".join(document.left_out)))
    return imported


def import_entry(document: Document, index: int, *, kind: str | None = None, license: str) -> Entry:
    """The entry of a document.

    index  its place among the entries, which numbers it
    kind   one of one's own, which all are of; or what a document is whose instruction names none of KINDS.
           None is "custom"
    The sections it requires are those of its own kind, or else those that the document has. Raises ValueError for a
    document without a fact.
    """
    is_own = kind is not None and kind not in KINDS and find_kind(kind) is not None
    named = kind if kind is not None and is_own else kind_of(document.instruction) or kind or CUSTOM
    definition = find_kind(named)
    facts = read_facts(document.record, definition.fields if definition else {})
    if not facts:
        raise ValueError("the input must hold facts, one `label: value` a line, got none")
    headings = tuple(heading.strip("*") for heading in _HEADING.findall(document.text))
    entry = Entry(
        id=f"{named}-{index:04d}",
        kind=named,
        split="train",
        seed=0,
        instruction=document.instruction,
        facts=facts,
        required_sections=definition.required_sections if definition and is_own else headings,
        identities=(),
        input=document.record,
        output=document.text,
        license=license,
    )
    return Entry.from_json(entry.to_json(), "$")  # by which every entry that is read is checked


def kind_of(instruction: str) -> str | None:
    """The kind whose instruction this is, or whose name it mentions ("Draft a credit memo for ..."), None if none."""
    text = instruction.casefold()
    for name, kind in KINDS.items():
        called = (kind.title, kind.noun.partition(" ")[2], *(kind.instruction(style) for style in STYLES))
        if any(phrase.casefold() in text for phrase in called):
            return name
    return None


def _letters(folder: Path, table: Path | None, instruction: str) -> Documents:
    if table is None:
        raise ValueError(f"{folder}: is a folder of letters, whose facts must be in a table, got none")
    letters = letters_in(folder)
    found = Documents(len(letters))
    for letter, facts in matched(letters, table):
        try:
            if isinstance(facts, ValueError):
                raise facts
            found.documents.append(Document(letter.name, instruction, facts, letter_text(letter)))
        except ValueError as error:
            found.faults.append(Fault.of(letter.name, error))
    return found


def _record(data: Any, instruction: str | None) -> tuple[str, str, str]:
    """Instruction, facts as lines, and document of {"facts": {label: value}, "letter": text}."""
    if not isinstance(data, dict):
        raise ValueError(f"must be an object, got {shown(data)}")
    asked = text_of(data["instruction"], "instruction") if data.get("instruction") else instruction or REQUEST
    named = [key for key in DOCUMENT if data.get(key) is not None]
    if len(named) != 1:
        raise ValueError(
            f"the document must be under one of {', '.join(DOCUMENT)}, got {', '.join(named) or 'nothing'}"
        )
    document = text_of(data[named[0]], named[0])
    if not document.strip():
        raise ValueError(f"{named[0]}: must not be empty, got {shown(document)}")
    facts = data.get("facts")
    if isinstance(facts, str):
        return asked, facts.strip(), document
    if not isinstance(facts, Mapping):
        raise ValueError(f"facts: must be an object of labels and values, got {shown(facts)}")
    return asked, "\n".join(f"{line.label}: {line.value}" for line in lines_of_object(facts)), document
