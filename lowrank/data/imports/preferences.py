"""Rows of preferences: two answers to one prompt, of which one is chosen.

    {"prompt": ..., "chosen": ..., "rejected": ...}         texts, or lists of messages
    {"chosen": [user, assistant], "rejected": [user, assistant]}           these two are TRL's
    {"conversations": [...], "chosen": message, "rejected": message}       LLaMA-Factory's

`instruction`, `question` or `query` may stand for `prompt`, with `input`, `history` and `system` as anywhere.
"""

from collections.abc import Mapping
from typing import Any

from ..encoding.template import Turn
from .turns import ROLES, read_turns, shown, text_of

CHOSEN, REJECTED = "chosen", "rejected"
TURNS = ("conversations", "messages")

Asked = tuple[str, tuple[Turn, ...]]  # the system prompt, and the turns, of which the last has its answer


def prompt_key(data: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    """The key of a row's prompt: one of `names`, else one of TURNS; None if its answers begin with it."""
    asked = next((key for key in names if data.get(key) is not None), None)
    if asked is not None or _has_prompt_first(data.get(CHOSEN)):
        return asked
    return next((key for key in TURNS if data.get(key) is not None), None)


def answers_in_turns(data: Mapping[str, Any], asked: str | None) -> tuple[Asked, str]:
    """The chosen conversation of a row whose answers are messages, and the text of the rejected answer.

    asked  the key of the prompt, None where the answers begin with it
    Raises ValueError that begins with a key unless the two differ in their last answer and in nothing else.
    """
    prompt = data.get(asked) if asked is not None else None
    (system, turns), other = (_turns(data, key, prompt) for key in (CHOSEN, REJECTED))
    last, worse = turns[-1], other[1][-1]
    if (system, turns[:-1], last.instruction) != (other[0], other[1][:-1], worse.instruction):
        raise ValueError(f"{REJECTED}: must differ from {CHOSEN} in its last answer alone, got another conversation")
    if isinstance(prompt, str) and turns[0].instruction.strip() != prompt.strip():
        raise ValueError(
            f"{CHOSEN}: must begin with the text of {asked}, got {shown(turns[0].instruction)} and {shown(prompt)}"
        )
    return (system, turns), worse.output or ""


def answers_as_texts(data: Mapping[str, Any]) -> tuple[str, str]:
    """The chosen and the rejected text.  Raises ValueError that begins with a key for one that is none or blank."""
    chosen, rejected = (text_of(data.get(key), key) for key in (CHOSEN, REJECTED))
    for key, text in ((CHOSEN, chosen), (REJECTED, rejected)):
        if not text.strip():
            raise ValueError(f"{key}: must not be empty, there is nothing to learn, got {shown(text)}")
    return chosen, rejected


def _turns(data: Mapping[str, Any], key: str, prompt: Any) -> Asked:
    """Prompt and answer under a key, as one conversation."""
    answer = data.get(key)
    messages = answer if isinstance(answer, list) else [answer]
    if _has_prompt_first(messages):
        return read_turns(messages, key)
    if prompt is None:
        raise ValueError(f"prompt: must be there, or {key} begin with it as messages, got {shown(answer)}")
    asked = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    if not isinstance(asked, list):
        raise ValueError(f"prompt: must be a text or a list of messages, got {shown(asked)}")
    return read_turns([*asked, *messages], key)


def _has_prompt_first(messages: Any) -> bool:
    """True for messages that begin with a system prompt or a user's turn."""
    first = messages[0] if isinstance(messages, list) and messages else None
    role = (first.get("role") or first.get("from")) if isinstance(first, dict) else None
    return isinstance(role, str) and ROLES.get(role.casefold()) in ("system", "user")
