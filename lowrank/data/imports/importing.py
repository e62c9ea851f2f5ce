"""Examples that a person or another model wrote -> entries: their `label: value` lines become typed facts."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..documents.document import Entry
from ..documents.kind import STYLES
from ..documents.kinds import KINDS
from ..documents.reading import read_facts
from .examples import Fault
from .files import read_items
from .formats import DOCUMENT, FOREIGN, conversation, detect, exchange, unread_keys, unwrap
from .turns import shown, text_of

CUSTOM = "custom"
REQUEST = "Write the document that states these facts."
_HEADING = re.compile(r"^##[ \t]+(\S.*?)[ \t#:*]*$", re.MULTILINE)


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


def import_file(
    path: Path, *, format: str | None = None, kind: str | None = None, instruction: str | None = None, license: str
) -> Imported:
    """The entries of a file in one of FOREIGN formats; the other arguments as in `import_entry`.

    Raises ValueError, one line with the file, for one that cannot be read as a whole or holds entries already.
    """
    items = unwrap(read_items(path), path)
    format = format or detect(items, str(path))
    if format not in FOREIGN:
        raise ValueError(f"{path}: must be one of {', '.join(FOREIGN)}, got entries, which need no import")
    imported = Imported(len(items))
    for item in items:
        try:
            if item.error is not None:
                raise ValueError(item.error)
            entry = import_entry(
                format, item.data, len(imported.entries), kind=kind, instruction=instruction, license=license
            )
        except ValueError as error:
            imported.faults.append(Fault.of(item.place, error))
            continue
        imported.entries.append(entry)
        imported.places.append(item.place)
        left_out = [shown(key) for key in unread_keys(format, item.data)]
        if format != "facts" and (system := conversation(format, item.data, "").system):
            left_out.append(f"system {shown(system)}")
        if left_out:
            imported.notes.append(Fault(item.place, "an entry has no place for this", ", ".join(left_out)))
    return imported


def import_entry(
    format: str,
    data: Any,
    index: int,
    *,
    kind: str | None = None,
    instruction: str | None = None,
    license: str,
) -> Entry:
    """The entry of a row.

    format       one of FOREIGN
    index        its place among the entries, which numbers it
    kind         what it is if its instruction names none of KINDS; None is "custom"
    instruction  what asks for its document if the row does not say; None is REQUEST
    The sections it requires are those that the document has. Raises ValueError that begins with a key for a row that is
    none of its format, and for one without a fact.
    """
    asked, facts_text, document = _record(data, instruction) if format == "facts" else _said(format, data)
    named = kind_of(asked) or kind or CUSTOM
    facts = read_facts(facts_text, KINDS[named].fields if named in KINDS else {})
    if not facts:
        raise ValueError("the input must hold facts, one `label: value` a line, got none")
    entry = Entry(
        id=f"{named}-{index:04d}",
        kind=named,
        split="train",
        seed=0,
        instruction=asked,
        facts=facts,
        required_sections=tuple(heading.strip("*") for heading in _HEADING.findall(document)),
        identities=(),
        input=facts_text,
        output=document,
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


def _said(format: str, data: Any) -> tuple[str, str, str]:
    """Instruction, facts and document of a prompt and its answer."""
    said = exchange(format, data)
    return said.instruction, said.input, said.output


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
    return asked, _fact_lines(data.get("facts")), document


def _fact_lines(facts: Any) -> str:
    """A line `label: value` a fact, of an object or of a text that has such lines."""
    if isinstance(facts, str):
        return facts.strip()
    if not isinstance(facts, Mapping):
        raise ValueError(f"facts: must be an object of labels and values, got {shown(facts)}")
    lines = []
    for label, value in facts.items():
        if isinstance(value, dict | list | bool):
            raise ValueError(f"facts.{label}: must be a text or a number, got {shown(value)}")
        if value is not None and str(value).strip():
            lines.append(f"{label}: {' '.join(str(value).split())}")
    return "\n".join(lines)
