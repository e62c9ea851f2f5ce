"""Messages of a conversation -> its turns: who says what, and which answers are learned.

    {"role": "user", "content": ...}    {"from": "human", "value": ...}    either, in any file

`weight`, `train` or `loss` of an answer is 1 or 0; 0 means that it is read and not learned. Tools have no place here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..encoding.template import Turn

ROLES = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("human", "user"), "user"),
    **dict.fromkeys(("gpt", "chatgpt", "assistant", "model", "bot"), "assistant"),
}
TOOL_ROLES = ("tool", "function", "function_call", "observation", "ipython")
TOOL_KEYS = ("tool_calls", "function_call", "tool_call_id")
WEIGHTS = ("weight", "train", "loss")
SHOWN = 60  # characters of a value


@dataclass(frozen=True)
class Message:
    """One message: "system", "user" or "assistant", its text, and if it is learned."""

    role: str
    text: str
    learned: bool


def read_turns(messages: Any, place: str) -> tuple[str, tuple[Turn, ...]]:
    """The system prompt, "" for none, and the prompts, each with its answer.

    Raises ValueError that begins with a place for a message that is none, a tool's, or out of order.
    """
    if not isinstance(messages, list):
        raise ValueError(f"{place}: must be a list of messages, got {shown(messages)}")
    read = [_message(message, f"{place}[{number}]") for number, message in enumerate(messages, start=1)]
    system = read[0].text if read and read[0].role == "system" else ""
    exchanged = read[1:] if read and read[0].role == "system" else read
    for number, message in enumerate(exchanged, start=1 + len(read) - len(exchanged)):
        if message.role == "system":
            raise ValueError(f"{place}[{number}]: a system prompt must be the first message, got one later")
    return system, pairs(exchanged, place)


def pairs(messages: Sequence[Message], place: str) -> tuple[Turn, ...]:
    """Each prompt with the answer behind it.  Raises ValueError if they do not take turns."""
    roles = [message.role for message in messages]
    if not messages or roles != ["user", "assistant"] * (len(messages) // 2):
        raise ValueError(
            f"{place}: must be prompts, each with its answer behind it, got {' '.join(roles) or 'nothing'}"
        )
    if not all(message.text.strip() for message in messages):
        raise ValueError(f"{place}: each prompt and each answer must have a text, got an empty one")
    return tuple(
        Turn(asked.text, output=answer.text, learned=answer.learned)
        for asked, answer in zip(messages[::2], messages[1::2], strict=True)
    )


def _message(data: Any, place: str) -> Message:
    if not isinstance(data, dict):
        raise ValueError(f"{place}: must be an object, got {shown(data)}")
    who, what = ("role", "content") if "role" in data or "content" in data else ("from", "value")
    role = data.get(who)
    if role in TOOL_ROLES:
        raise ValueError(f"{place}.{who}: a tool's turn cannot be learned here, got {role!r}")
    if not isinstance(role, str) or role.casefold() not in ROLES:
        raise ValueError(f"{place}.{who}: must be one of {', '.join(ROLES)}, got {shown(role)}")
    if used := [key for key in TOOL_KEYS if data.get(key)]:
        raise ValueError(f"{place}.{used[0]}: a call of a tool cannot be learned here, got {shown(data[used[0]])}")
    role = ROLES[role.casefold()]
    return Message(role, _content(data.get(what), f"{place}.{what}"), _is_learned(data, role, place))


def _content(content: Any, place: str) -> str:
    """A text, or the texts of a list of parts, one behind another."""
    if not isinstance(content, list):
        return text_of(content, place)
    texts = []
    for number, part in enumerate(content, start=1):
        if not isinstance(part, dict) or part.get("type") != "text":
            kind = part.get("type") if isinstance(part, dict) else part
            raise ValueError(f"{place}[{number}].type: must be 'text', got {shown(kind)}")
        texts.append(text_of(part.get("text"), f"{place}[{number}].text"))
    return "".join(texts)


def _is_learned(data: dict[str, Any], role: str, place: str) -> bool:
    is_learned = role == "assistant"
    for key in WEIGHTS:
        weight = data.get(key)
        if weight is None:
            continue
        if weight not in (0, 1):
            raise ValueError(f"{place}.{key}: must be 0 or 1, got {shown(weight)}")
        if weight and role != "assistant":
            raise ValueError(f"{place}.{key}: must be 0 but for an answer, got {shown(weight)} of a {role} turn")
        is_learned = is_learned and bool(weight)
    return is_learned


def text_of(value: Any, place: str) -> str:
    """The value if it is a text.  Raises ValueError that begins with its place for anything else."""
    if not isinstance(value, str):
        raise ValueError(f"{place}: must be a text, got {shown(value)}")
    return value


def shown(value: Any) -> str:
    """A value in a few words of one line: what it is, for a list or an object, which may be of any depth."""
    if value is None:
        return "nothing"
    if isinstance(value, dict | list):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
