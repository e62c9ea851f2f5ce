"""Files of examples that others made: what format they are in, and which prompt and answer a line holds.

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
from itertools import pairwise
from pathlib import Path
from typing import Any

# Format -> the key that tells it. An entry has an instruction too, so the order matters.
FORMATS: Mapping[str, str] = {
    "entry": "facts",
    "sharegpt": "conversations",
    "chat": "messages",
    "alpaca": "instruction",
}
FOREIGN = tuple(format for format in FORMATS if format != "entry")
ASKING, ANSWERING = ("human", "user"), ("gpt", "chatgpt", "assistant")


@dataclass(frozen=True)
class Item:
    """One example of a file: the line it starts in (in an array: its place, from 1), and its JSON or what is wrong."""

    line: int
    data: Any
    error: str | None = None


@dataclass(frozen=True)
class Exchange:
    """What is asked, with the text it is asked about, and the answer."""

    instruction: str
    input: str
    output: str


def read_items(path: Path) -> list[Item]:
    """The examples of a file; blank lines are skipped. Raises ValueError for a file that is not there or not UTF-8."""
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: must be UTF-8, byte {error.start} is not") from None
    if text.lstrip().startswith("["):
        whole = _parse(1, text)
        if isinstance(whole.data, list):
            return [Item(number, data) for number, data in enumerate(whole.data, start=1)]
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


def exchange(format: str, data: Mapping[str, Any]) -> Exchange:
    """The first prompt and its answer; behind the first blank line of the prompt, or else its first line, is its input.

    data  of a format other than "entry", valid by its schema
    Raises ValueError if there is no prompt with an answer behind it.
    """
    if format == "alpaca":
        prompt, answer = _joined(data["instruction"], data.get("input", "")), data["output"]
    else:
        turns = data["conversations"] if format == "sharegpt" else data["messages"]
        who, what = ("from", "value") if format == "sharegpt" else ("role", "content")
        prompt, answer = _first_turns([(turn[who], turn[what]) for turn in turns])
    prompt = prompt.strip()
    instruction, _, input = prompt.partition("\n\n" if "\n\n" in prompt else "\n")
    return Exchange(instruction.strip(), input.strip(), answer)


def _joined(instruction: str, input: str) -> str:
    return f"{instruction.strip()}\n\n{input.strip()}" if input.strip() else instruction


def _first_turns(turns: Sequence[tuple[str, str]]) -> tuple[str, str]:
    for (asker, prompt), (answerer, answer) in pairwise(turns):
        if asker in ASKING and answerer in ANSWERING:
            return prompt, answer
    raise ValueError(f"must hold a prompt and its answer next to each other, got {[who for who, _ in turns]}")
