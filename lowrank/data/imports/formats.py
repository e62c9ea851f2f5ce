"""Formats of examples: which one a file is in, and the conversation that a row of it holds.

    entry     {"facts": {...}, "kind": ..., "instruction": ..., "output": ...}     ours: see `documents`
    facts     {"facts": {...}, "letter": ...}                                      for `importing` alone
    sharegpt  {"conversations": [{"from": "human", "value": ...}, {"from": "gpt", "value": ...}]}
    chat      {"messages": [{"role": "user", "content": ...}, {"role": "assistant", "content": ...}]}
    alpaca    {"instruction": ..., "input": ..., "output": ...}
    prompt    {"prompt": ..., "completion": ...}, or question and answer, query and response
    text      {"text": ...}                                                        learned whole, without a prompt
    preference  {"prompt": ..., "chosen": ..., "rejected": ...}                    see `preferences`

`system` may stand beside turns and prompts, `history` beside prompts. A key that would change what is learned and is
not understood is refused; any other key is left alone and told.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..documents.document import Entry
from ..encoding.template import Conversation, Turn
from .item import Item
from .preferences import CHOSEN, REJECTED, answers_as_texts, answers_in_turns, prompt_key
from .turns import read_turns, shown, text_of

ASKED = ("instruction", "prompt", "question", "query")
ABOUT = ("input", "context")
ANSWERED = ("output", "completion", "response", "answer")
SYSTEM = ("system", "system_prompt")
DOCUMENT = ("letter", "document", "output", "text")
# Keys that would change what is learned.
REFUSED = {
    **dict.fromkeys(("tools", "functions"), "tools cannot be learned here"),
    **dict.fromkeys(("images", "image", "videos", "audios"), "texts alone can be learned"),
    **dict.fromkeys((CHOSEN, REJECTED), "one answer without the other is no preference"),
}

PREFERENCE = "preference"

# Format -> the keys of which a row needs one of each group. The order matters: an entry has an instruction too.
FORMATS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "entry": (("facts",), ("kind", "instruction", "required_sections")),
    "facts": (("facts",),),
    PREFERENCE: ((CHOSEN,), (REJECTED,)),
    "sharegpt": (("conversations",),),
    "chat": (("messages",),),
    "alpaca": (("instruction",),),
    "prompt": (("prompt", "question", "query"),),
    "text": (("text",),),
}
FOREIGN = tuple(format for format in FORMATS if format not in ("entry", PREFERENCE))  # that may become entries
READ = {
    "sharegpt": ("conversations", *SYSTEM),
    "chat": ("messages", *SYSTEM),
    "text": ("text",),
    "facts": ("facts", "instruction", *DOCUMENT),
}


@dataclass(frozen=True)
class Exchange:
    """An instruction, the text it is about, and the answer."""

    instruction: str
    input: str
    output: str


def format_of(data: Any) -> str | None:
    """The first of FORMATS that a row has the keys of, None if it has those of none."""
    return next((name for name in FORMATS if is_of_format(name, data)), None)


def is_of_format(format: str, data: Any) -> bool:
    """True if a row has the keys by which a format is told."""
    return isinstance(data, dict) and all(not data.keys().isdisjoint(group) for group in FORMATS[format])


def detect(items: Sequence[Item], place: str) -> str:
    """The format that most rows have the keys of, so that no single row decides.

    Raises ValueError, a line that starts with `place`, if no row that could be read has those of any.
    """
    votes = Counter(name for item in items if (name := format_of(item.data)) is not None)
    if votes:
        return votes.most_common(1)[0][0]
    if all(item.error is not None for item in items):
        raise ValueError(f"{place}:{items[0].place}: {items[0].error}{and_more(len(items))}")
    seen = Counter(key for item in items if isinstance(item.data, dict) for key in item.data)
    known = "instruction and output, messages, conversations, prompt and completion, text, facts"
    raise ValueError(
        f"{place}: the format must be told by its keys, one of {known}, "
        f"got {', '.join(repr(key) for key, _ in seen.most_common(8)) or 'no objects'}"
    )


def and_more(count: int) -> str:
    """The count of further rows with a fault that was told of one: " (and 11 more rows)", or nothing for one."""
    return f" (and {count - 1} more row{'s' if count > 2 else ''})" if count > 1 else ""


def unwrap(items: Sequence[Item], path: Path) -> Sequence[Item]:
    """The rows inside a file that is one object with one list of objects; the items as they are in any other file.

    Raises ValueError for an object with several such lists.
    """
    if len(items) != 1 or not isinstance(items[0].data, dict) or format_of(items[0].data) is not None:
        return items
    lists = {key: rows for key, rows in items[0].data.items() if isinstance(rows, list) and _is_object(rows[:1])}
    if len(lists) > 1:
        raise ValueError(f"{path}: must hold one list of entries, got {', '.join(map(repr, lists))}")
    return [Item(n, f"[{n}]", row) for rows in lists.values() for n, row in enumerate(rows, start=1)] or items


def _is_object(rows: list[Any]) -> bool:
    return any(isinstance(row, dict) for row in rows)


def conversation(format: str, data: Any, id: str) -> Conversation:
    """Every turn of a row of a format; its own id, where it has one, goes before `id`.

    Raises ValueError that begins with a key for one that is missing, no text, or refused, and unless each prompt has
    its answer behind it.
    """
    if not isinstance(data, dict):
        raise ValueError(f"must be an object, got {shown(data)}")
    if format == "entry":
        return Entry.from_json(data, "").conversation
    if format == "facts":
        raise ValueError("facts: must be imported first, got a record and its document")
    for key, reason in REFUSED.items():
        if data.get(key) and not (format == PREFERENCE and key in (CHOSEN, REJECTED)):
            raise ValueError(f"{key}: {reason}, got {shown(data[key])}")
    if data.get("weight") not in (None, 1):
        raise ValueError(f"weight: must be 1 for a whole row, got {shown(data['weight'])}")
    id = data["id"] if isinstance(data.get("id"), str) else id
    if format == PREFERENCE:
        return _preference(data, id)
    if format == "text":
        text = _filled(data, "text")
        return Conversation(id, (Turn("", output=text),), is_text=True)
    system, turns = read_turns(data.get(_turns_key(format)), _turns_key(format)) if format in READ else _asked(data)
    return Conversation(id, turns, _system(data, system))


def _preference(data: Mapping[str, Any], id: str) -> Conversation:
    """The conversation with the chosen answer, and the rejected one beside it."""
    asked = prompt_key(data, ASKED)
    if isinstance(data[CHOSEN], str) and asked is not None and isinstance(data[asked], str):
        chosen, rejected = answers_as_texts(data)
        others = {key: value for key, value in data.items() if key not in ANSWERED}
        system, turns = _asked({**others, ANSWERED[0]: chosen})
    else:
        (system, turns), rejected = answers_in_turns(data, asked)
    if rejected == turns[-1].output:
        raise ValueError(f"{REJECTED}: must differ from {CHOSEN}, got the same answer twice")
    return Conversation(id, turns, _system(data, system), rejected=rejected)


def _turns_key(format: str) -> str:
    return "conversations" if format == "sharegpt" else "messages"


def _asked(data: Mapping[str, Any]) -> tuple[str, tuple[Turn, ...]]:
    """The system prompt and the turns of a row with a prompt and its answer, what was said before in front."""
    asked, answered = _present(data, ASKED), _present(data, ANSWERED)
    if isinstance(data.get(asked), list):
        return _asked_in_turns(data, asked, answered)
    about = _present(data, ABOUT)
    input = "" if data.get(about) is None else text_of(data[about], about)
    instruction = text_of(data.get(asked), asked)
    if not (instruction + input).strip():
        raise ValueError(f"{asked}: must not be empty, got {shown(instruction)}")
    return "", (*_history(data), Turn(instruction, input, _filled(data, answered)))


def _asked_in_turns(data: Mapping[str, Any], asked: str, answered: str) -> tuple[str, tuple[Turn, ...]]:
    """A prompt and a completion that are messages; only the completion is learned."""
    if not isinstance(data.get(answered), list):
        raise ValueError(f"{answered}: must be a list of messages as {asked} is, got {shown(data.get(answered))}")
    prompt = [{**message, "weight": 0} if isinstance(message, dict) else message for message in data[asked]]
    return read_turns([*prompt, *data[answered]], asked)


def _history(data: Mapping[str, Any]) -> tuple[Turn, ...]:
    """The turns before: pairs of prompt and answer, or messages."""
    history = data.get("history")
    if not history:
        return ()
    if isinstance(history, list) and all(isinstance(pair, list) and len(pair) == 2 for pair in history):
        return tuple(
            Turn(text_of(asked, f"history[{number}][1]"), output=text_of(answer, f"history[{number}][2]"))
            for number, (asked, answer) in enumerate(history, start=1)
        )
    system, turns = read_turns(history, "history")
    if system:
        raise ValueError(f"history[1]: must be a prompt, got a system prompt {shown(system)}")
    return turns


def _system(data: Mapping[str, Any], in_turns: str) -> str:
    """The one system prompt of a row, "" for none; a blank one is none."""
    prompts = [in_turns] if in_turns.strip() else []
    prompts += [text for key in SYSTEM if data.get(key) is not None and (text := text_of(data[key], key)).strip()]
    if len(set(prompts)) > 1:
        raise ValueError(f"system: must be one system prompt, got {shown(prompts[0])} and {shown(prompts[1])}")
    return prompts[0] if prompts else ""


def _present(data: Mapping[str, Any], keys: Sequence[str]) -> str:
    """The first of the keys that a row has a value for, or else the first of them."""
    return next((key for key in keys if data.get(key) is not None), keys[0])


def _filled(data: Mapping[str, Any], key: str) -> str:
    text = text_of(data.get(key), key)
    if not text.strip():
        raise ValueError(f"{key}: must not be empty, there is nothing to learn, got {shown(text)}")
    return text


def unread_keys(format: str, data: Mapping[str, Any]) -> Iterable[str]:
    """The keys of a row that nothing is learned from, without those that have no value."""
    if format == "entry":  # which has no unknown keys
        return ()
    answer_keys = (CHOSEN, REJECTED, prompt_key(data, ASKED)) if format == PREFERENCE else (_present(data, ANSWERED),)
    read = READ.get(format) or (
        _present(data, ASKED),
        _present(data, ABOUT),
        *answer_keys,
        "history",
        *SYSTEM,
    )
    return (key for key, value in data.items() if value not in (None, "", []) and key not in ("id", "weight", *read))


def exchange(format: str, data: Mapping[str, Any]) -> Exchange:
    """A prompt and its answer; behind the first blank line of the prompt, or else its first line, is its input.

    data  of a format other than "entry" and "facts"; a system prompt is left out
    Raises ValueError for anything but one prompt with its answer.
    """
    said = conversation(format, data, "")
    if len(said.turns) != 1 or said.is_text or said.rejected is not None:
        got = "a text" if said.is_text else len(said.turns) if said.rejected is None else "two answers"
        raise ValueError(f"must be one prompt and its answer, got {got}")
    turn = said.turns[0]
    prompt = f"{turn.instruction.strip()}\n\n{turn.input.strip()}".strip()
    instruction, _, input = prompt.partition("\n\n" if "\n\n" in prompt else "\n")
    return Exchange(instruction.strip(), input.strip(), turn.output or "")
