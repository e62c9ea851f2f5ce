"""The one reader of files to learn from: what training refuses, a check refuses, by the same words.

A row is refused if it is no row of its file's format, if it has nothing to learn, or if the template refuses its text.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..documents.document import Entry
from ..encoding.template import Conversation, check_learnable
from .files import read_items
from .formats import PREFERENCE, conversation, detect, format_of, is_of_format, unread_keys, unwrap
from .item import Item

PLACES = 5  # that a summary names
ANY_TEMPLATE = "plain"  # refuses no text


@dataclass(frozen=True)
class Fault:
    """A row that cannot be learned: its place in the file, the rule that it breaks, and the value, if there is one."""

    place: str
    rule: str
    value: str = ""

    @classmethod
    def of(cls, place: str, error: ValueError) -> "Fault":
        """The fault of an error "key: rule, got value"."""
        rule, _, value = _words(error).partition(", got ")
        return cls(place, rule, value)

    @property
    def kind(self) -> str:
        """The rule without the numbers in brackets, by which faults are counted."""
        return "".join(part.partition("]")[2] if number else part for number, part in enumerate(self.rule.split("[")))

    def __str__(self) -> str:
        return f"{self.rule}{self.value and f', got {self.value}'}"


@dataclass(frozen=True)
class Examples:
    """A file to learn from.

    rows           of the file, with those that cannot be learned
    format         one of FORMATS
    conversations  of the rows that can be learned
    places         of these rows
    entries        place -> the entry, of a file of entries
    faults         of the others
    unread         key -> the number of rows that have it, of keys that nothing is learned from
    """

    path: Path
    format: str
    rows: int = 0
    conversations: list[Conversation] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    entries: dict[str, Entry] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    unread: Counter[str] = field(default_factory=Counter)


def read_examples(
    path: Path, template: str, format: str | None = None, *, is_preference: bool | None = None
) -> Examples:
    """The rows of a file in one of FORMATS.

    template  the name of the one that they are learned in
    format    None: the one whose keys most rows have
    is_preference  True if preferences are to be learned, False if answers are, None if either will do
    Raises ValueError, one line, for a file that cannot be read as a whole, and for preferences where answers are to be
    learned, or the other way round.
    """
    items = unwrap(read_items(path), path)
    read = Examples(path, format or detect(items, str(path)), len(items))
    if is_preference is False and read.format == PREFERENCE:
        raise ValueError(f"{path}: holds preferences, chosen and rejected, which are learned with preference.loss")
    if is_preference and read.format != PREFERENCE:
        raise ValueError(f"{path}: must hold preferences, chosen and rejected, for preference.loss, got {read.format}")
    for item in items:
        try:
            conversation = _learnable(read, item, template)
        except ValueError as error:
            read.faults.append(Fault.of(item.place, error))
            continue
        read.conversations.append(conversation)
        read.places.append(item.place)
        read.unread.update(unread_keys(read.format, item.data))
    return read


def read_conversations(
    path: Path, template: str = ANY_TEMPLATE, *, is_preference: bool | None = None
) -> list[Conversation]:
    """The conversations of a file of which every row can be learned; `is_preference` as in `read_examples`.

    Raises ValueError, one line with file and place, for the first that cannot, and says how many are like it.
    """
    read = read_examples(path, template, is_preference=is_preference)
    if read.faults:
        raise ValueError(first_fault(read))
    return read.conversations


def first_fault(read: Examples) -> str:
    """The first fault of a file, and how many there are more: "FILE:3: output: must be a text, got 5 (and 2 more)"."""
    count = len(read.faults)
    more = f" (and {count - 1} more of {read.rows} rows)" if count > 1 else ""
    return f"{read.path}:{read.faults[0].place}: {read.faults[0]}{more}"


def summary(faults: Iterable[Fault], mark: str = "") -> list[str]:
    """A line a kind of fault, behind a mark: place and words of its first, how many there are, and the first places."""
    kinds: dict[str, list[Fault]] = {}
    for fault in faults:
        kinds.setdefault(fault.kind, []).append(fault)
    return [
        f"{alike[0].place}: {mark}{alike[0]}{_further([fault.place for fault in alike])}" for alike in kinds.values()
    ]


def _further(places: Sequence[str]) -> str:
    if len(places) == 1:
        return ""
    dots = ", ..." if len(places) > PLACES else ""
    return f" ({len(places)} times, in {', '.join(places[:PLACES])}{dots})"


def _learnable(read: Examples, item: Item, template: str) -> Conversation:
    """The conversation of a row, which can be learned."""
    if item.error is not None:
        raise ValueError(item.error)
    id = f"{read.path.stem}:{item.number}"
    if read.format == "entry":
        entry = Entry.from_json(item.data, "$")
        said = entry.conversation
    else:
        if not is_of_format(read.format, item.data) and (other := format_of(item.data)) is not None:
            raise ValueError(f"must be of the format {read.format}, got {other}")
        said = conversation(read.format, item.data, id)
    for text in (
        said.id,
        said.system,
        *(text for t in said.turns for text in (t.instruction, t.input, t.output or "")),
        said.rejected or "",
    ):
        text.encode()
    check_learnable(said, template)
    if read.format == "entry":
        read.entries[item.place] = entry
    return said


def _words(error: ValueError) -> str:
    if isinstance(error, UnicodeEncodeError):
        return f"must be text that UTF-8 has, got the lone surrogate {error.object[error.start]!a}"
    return str(error).removeprefix("$: ")
