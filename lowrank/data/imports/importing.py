"""Examples that a person or another model wrote -> entries: their `label: value` lines become typed facts."""

import re
from collections.abc import Mapping
from typing import Any

from ..documents.document import Entry
from ..documents.kind import STYLES
from ..documents.kinds import KINDS
from ..documents.reading import read_facts
from .formats import exchange

CUSTOM = "custom"
_HEADING = re.compile(r"^##[ \t]+(\S.*?)[ \t#:*]*$", re.MULTILINE)


def import_entry(format: str, data: Mapping[str, Any], index: int, *, kind: str | None, license: str) -> Entry:
    """The entry of an example.

    format   "alpaca", "sharegpt" or "chat"; `data` is valid by its schema
    index    its place in the file, which numbers it
    kind     what it is if its instruction names none of KINDS; None is "custom"
    The sections it requires are those that the document has. Raises ValueError for an input without a fact.
    """
    said = exchange(format, data)
    named = kind_of(said.instruction) or kind or CUSTOM
    facts = read_facts(said.input, KINDS[named].fields if named in KINDS else {})
    if not facts:
        raise ValueError("the input must hold facts, one `label: value` a line, got none")
    return Entry(
        id=f"{named}-{index:04d}",
        kind=named,
        split="train",
        seed=0,
        instruction=said.instruction,
        facts=facts,
        required_sections=tuple(heading.strip("*") for heading in _HEADING.findall(said.output)),
        identities=(),
        input=said.input,
        output=said.output,
        license=license,
    )


def kind_of(instruction: str) -> str | None:
    """The kind whose instruction this is, or whose name it mentions ("Draft a credit memo for ..."), None if none."""
    text = instruction.casefold()
    for name, kind in KINDS.items():
        called = (kind.title, kind.noun.partition(" ")[2], *(kind.instruction(style) for style in STYLES))
        if any(phrase.casefold() in text for phrase in called):
            return name
    return None
