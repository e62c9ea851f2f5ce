"""Files of examples: what format they are in, and which conversation a line holds.

    entry     {"facts": {...}, ...}                               ours: see `documents`
    alpaca    {"instruction": ..., "input": ..., "output": ...}
    sharegpt  {"conversations": [{"from": "human", "value": ...}, {"from": "gpt", "value": ...}]}
    chat      {"messages": [{"role": "user", "content": ...}, {"role": "assistant", "content": ...}]}

A file is JSON lines, or one JSON array.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..documents.document import Entry
from ..encoding.template import Conversation, Turn

# Format -> the key that tells it. An entry has an instruction too, so the order matters.
FORMATS: Mapping[str, str] = {
    "entry": "facts",
    "sharegpt": "conversations",
    "chat": "messages",
    "alpaca": "instruction",
}
FOREIGN = tuple(format for format in FORMATS if format != "entry")
SYSTEM, ASKING, ANSWERING = ("system", "developer"), ("human", "user"), ("gpt", "chatgpt", "assistant")


@dataclass(frozen=True)
class Item:
    """One example of a file: the line it starts in (in an array: its place, from 1), and its JSON or what is wrong."""

    line: int
    data: Any
    error: str | None = None


@dataclass(frozen=True)
class Exchange:
    """An instruction, the text it is about, and the answer."""

    instruction: str
    input: str
    output: str


def read_items(path: Path) -> list[Item]:
    """The examples of a file; blank lines are skipped. Raises ValueError for a file that is missing or not UTF-8."""
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: must be UTF-8, byte {error.start} is not") from None
    if text.lstrip().startswith("["):
        array = _parse(1, text)
        if isinstance(array.data, list):
            return [Item(number, data) for number, data in enumerate(array.data, start=1)]
    # Not splitlines: it also breaks at U+2028, which JSON leaves as it is.
    lines = enumerate(text.split("\n"), start=1)
    return [_parse(number, line) for number, line in lines if line.strip()]


def _parse(line: int, text: str) -> Item:
    try:
        return Item(line, json.loads(text))
    except json.JSONDecodeError as error:
        return Item(line, None, f"{error.msg} at column {error.colno}")


def detect(items: Sequence[Item], place: str) -> str:
    """The format that most examples have the key of, so that no single line decides.

    Raises ValueError, a line that starts with `place`, if none has a key of any.
    """
    keys = [next((name for name, key in FORMATS.items() if key in item.data), None) for item in items if _is_row(item)]
    votes = Counter(name for name in keys if name is not None)
    if not votes:
        known = ", ".join(f"{key!r} ({name})" for name, key in FORMATS.items())
        raise ValueError(f"{place}: the format must be told by a key, one of {known}, got no example with any")
    return votes.most_common(1)[0][0]


def _is_row(item: Item) -> bool:
    return isinstance(item.data, dict)


def conversation(format: str, data: Mapping[str, Any], id: str) -> Conversation:
    """Every turn of an example of a format other than "entry"; its own id, where it has one, goes before `id`.

    Raises ValueError for a key that is missing or no text, and unless each prompt has its answer behind it.
    """
    id = data["id"] if isinstance(data.get("id"), str) else id
    if format == "alpaca":
        prompt, answer = _text(data, "instruction"), _text(data, "output")
        return Conversation(id, (Turn(prompt, _text({"input": "", **data}, "input"), answer),))
    who, what = ("from", "value") if format == "sharegpt" else ("role", "content")
    turns = data.get(FORMATS[format])
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise ValueError(f"{FORMATS[format]}: must be a list of objects, got {turns!r}")
    spoken = [(_text(turn, who), _text(turn, what)) for turn in turns]
    system = spoken[0][1] if spoken and spoken[0][0] in SYSTEM else ""
    exchanged = spoken[1:] if system else spoken
    asked, answered = exchanged[::2], exchanged[1::2]
    if (
        not exchanged
        or len(asked) != len(answered)
        or not all(speaker in ASKING for speaker, _ in asked)
        or not all(speaker in ANSWERING for speaker, _ in answered)
    ):
        raise ValueError(f"must be prompts, each with its answer behind it, got {[speaker for speaker, _ in spoken]}")
    return Conversation(
        id, tuple(Turn(prompt, output=answer) for (_, prompt), (_, answer) in zip(asked, answered, strict=True)), system
    )


def exchange(format: str, data: Mapping[str, Any]) -> Exchange:
    """A prompt and its answer; behind the first blank line of the prompt, or else its first line, is its input.

    data  of a format other than "entry"; a system prompt is left out
    Raises ValueError for anything but one prompt with its answer.
    """
    turns = conversation(format, data, "").turns
    if len(turns) != 1:
        raise ValueError(f"must be one prompt and its answer, got {len(turns)}")
    turn = turns[0]
    prompt = f"{turn.instruction.strip()}\n\n{turn.input.strip()}".strip()
    instruction, _, input = prompt.partition("\n\n" if "\n\n" in prompt else "\n")
    return Exchange(instruction.strip(), input.strip(), turn.output or "")


def read_conversations(path: Path) -> list[Conversation]:
    """The conversations of a file of any of FORMATS, recognized by its keys; a mixture's rows are "alpaca".

    Raises ValueError naming file, line, key and what was expected there.
    """
    items = read_items(path)
    if not items:
        raise ValueError(f"{path}: must hold at least one entry, got none")
    for item in items:
        if item.error is not None or not isinstance(item.data, dict):
            problem = item.error or f"got {type(item.data).__name__}"
            raise ValueError(f"{path}:{item.line}: expected a JSON object, {problem}")
    format = detect(items, str(path))
    if format == "entry":
        return [Entry.from_json(item.data, f"{path}:{item.line}").conversation for item in items]
    conversations = []
    for item in items:
        try:
            conversations.append(conversation(format, item.data, f"{path.stem}:{item.line}"))
        except ValueError as error:
            raise ValueError(f"{path}:{item.line}: {error}") from None
    return conversations


def _text(data: Mapping[str, Any], key: str) -> str:
    if not isinstance(data.get(key), str):
        raise ValueError(f"{key}: expected a string, got {data.get(key, 'nothing')!r}")
    return str(data[key])
