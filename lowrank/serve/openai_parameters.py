"""The parameters of OpenAI's chat and completions API that are honoured, and those that are refused by name.

Extensions: `facts`, `kind`, `record` and `grounded`; `top_k`, `min_p` and `repetition_penalty`. docs/serving.md has the
table.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..data.encoding.template import Conversation, Turn
from ..model.logprobs import MOST
from ..model.sampling import SamplingOptions
from .errors import Refusal, short
from .json_body import Parameters

MOST_TEXTS = 8  # of one request
MOST_MESSAGES = 200
MOST_LIKELIEST_OF_COMPLETIONS = 5  # as OpenAI's; of a chat MOST
MOST_STOPS, LONGEST_STOP = 4, 200

# A parameter of OpenAI's that does nothing here -> the values at which it does nothing there either.
INERT: Mapping[str, tuple[Any, ...]] = {
    "audio": (),
    "frequency_penalty": (0, 0.0),
    "function_call": ("none",),
    "functions": ([],),
    "logit_bias": ({},),
    "metadata": ({},),
    "modalities": (["text"],),
    "parallel_tool_calls": (True, False),  # of tools, of which there are none
    "prediction": (),
    "presence_penalty": (0, 0.0),
    "prompt_cache_key": (),
    "reasoning_effort": (),
    "response_format": ({"type": "text"},),
    "safety_identifier": (),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "user": (),
    "verbosity": (),
    "web_search_options": (),
}
INERT_OF_COMPLETIONS: Mapping[str, tuple[Any, ...]] = {
    "best_of": (1,),
    "echo": (False,),
    "suffix": ("",),
    **{name: INERT[name] for name in ("frequency_penalty", "presence_penalty", "logit_bias", "user")},
}
_ROLES = ("system", "developer", "user", "assistant")
_INERT_IN_A_MESSAGE: Mapping[str, tuple[Any, ...]] = {
    "annotations": ([],),
    "audio": (),
    "function_call": (),
    "name": (),
    "refusal": (),
    "tool_call_id": (),
    "tool_calls": ([],),
}


@dataclass(frozen=True)
class Options:
    """The options that both calls have.

    n         texts a prompt
    facts     a text, an object, or None
    grounded  True if figures come from the facts alone
    logprobs  the number of likeliest tokens beside each token with its probability; None for no probabilities
    """

    model: Any
    max_new_tokens: int
    n: int
    stop: tuple[str, ...]
    sampling: SamplingOptions
    stream: bool
    with_usage: bool
    facts: Any
    kind: str | None
    record: str | None
    grounded: bool
    logprobs: int | None


def read_options(parameters: Parameters, most_tokens: int, *, is_chat: bool) -> Options:
    """Takes the parameters of both calls, which differ in `logprobs`.

    most_tokens  the most that a text may have, and what it may have if the request does not say
    """
    names = [name for name in ("max_tokens", "max_completion_tokens") if name in parameters.values]
    if len(names) == 2:
        raise Refusal(400, "max_tokens and max_completion_tokens are one thing: leave one out", param="max_tokens")
    facts = parameters.take("facts")
    if facts is not None and not isinstance(facts, str | dict):
        raise parameters.refusal("facts", "a text or an object of labels with values", facts)
    stream = parameters.flag("stream", False)
    shown = parameters.take("stream_options")
    if shown is not None and not (stream and isinstance(shown, dict)):
        raise parameters.refusal("stream_options", "an object, and of `stream`", shown)
    inner = Parameters(shown or {}, "stream_options.")
    with_usage = inner.flag("include_usage", False)
    inner.inert({"include_obfuscation": (False,)})
    inner.finish()
    options = Options(
        model=parameters.take("model"),
        max_new_tokens=parameters.whole(names[0] if names else "max_tokens", most_tokens, 1, most_tokens),
        n=parameters.whole("n", 1, 1, MOST_TEXTS),
        stop=parameters.texts("stop", most=MOST_STOPS, longest=LONGEST_STOP),
        sampling={
            "temperature": parameters.number("temperature", 1.0, 0.0, 2.0),
            "top_p": parameters.number("top_p", 1.0, 1e-6, 1.0),
            "top_k": parameters.whole("top_k", 0, 0, 1_000_000),
            "min_p": parameters.number("min_p", 0.0, 0.0, 1.0),
            "repetition_penalty": parameters.number("repetition_penalty", 1.0, 0.01, 100.0),
            "seed": parameters.whole("seed", secrets.randbelow(2**31), -(2**62), 2**62),
        },
        stream=stream,
        with_usage=with_usage,
        facts=facts,
        kind=parameters.text("kind", longest=100),
        record=parameters.text("record", longest=1000),
        grounded=parameters.flag("grounded", facts is not None),
        logprobs=_likeliest(parameters, is_chat),
    )
    if facts is None:
        given = {"kind": options.kind, "record": options.record, "grounded": options.grounded or None}
        for name, value in given.items():
            if value is not None:
                raise Refusal(400, f"{name} is of `facts`: without facts there is nothing to ground in", param=name)
    return options


def _likeliest(parameters: Parameters, is_chat: bool) -> int | None:
    """`logprobs`: of a chat true or false beside `top_logprobs`, of a completion the number itself."""
    if not is_chat:
        count = parameters.whole("logprobs", -1, 0, MOST_LIKELIEST_OF_COMPLETIONS)
        return None if count < 0 else count
    wanted, count = parameters.flag("logprobs", False), parameters.whole("top_logprobs", 0, 0, MOST)
    if count and not wanted:
        raise Refusal(400, "top_logprobs is of `logprobs`: it must be true beside it", param="top_logprobs")
    return count if wanted else None


def read_messages(value: object) -> Conversation:
    """Messages -> a conversation that ends with what is to be answered; without messages, one without turns."""
    if not isinstance(value, list) or len(value) > MOST_MESSAGES:
        raise Refusal(400, f"messages must be a list of at most {MOST_MESSAGES}, got {short(value)}", param="messages")
    system, turns = "", list[Turn]()
    for number, message in enumerate(value):
        where = f"messages[{number}]"
        if not isinstance(message, dict):
            raise Refusal(400, f"{where} must be an object, got {short(message)}", param=where)
        parameters = Parameters(message, f"{where}.")
        role, content = parameters.take("role"), _content(parameters.take("content"), f"{where}.content")
        parameters.inert(_INERT_IN_A_MESSAGE)
        parameters.finish()
        if role not in _ROLES:
            raise Refusal(400, f"{where}.role must be one of {', '.join(_ROLES)}, got {short(role)}", param=where)
        if role in ("system", "developer"):
            if number:
                raise Refusal(400, f"{where}: a system message must be the first", param=where)
            system = content
        elif role == "user":
            if turns and turns[-1].output is None:
                raise Refusal(400, f"{where}: users and assistants must take turns", param=where)
            turns.append(Turn(content))
        else:
            if not turns or turns[-1].output is not None:
                raise Refusal(400, f"{where}: users and assistants must take turns", param=where)
            turns[-1] = Turn(turns[-1].instruction, output=content)
    if value and (not turns or turns[-1].output is not None):
        raise Refusal(400, "the last of the messages must be the user's", param="messages")
    return Conversation("", tuple(turns), system)


def _content(value: object, where: str) -> str:
    """A text, or a list of parts of text."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise Refusal(400, f"{where} must be a text, got {short(value)}", param=where)
    texts = []
    for part in value:
        if not (isinstance(part, dict) and part.keys() == {"type", "text"} and part["type"] == "text"):
            raise Refusal(400, f"{where}: a part must be of type text, got {short(part)}", param=where)
        if not isinstance(part["text"], str):
            raise Refusal(400, f"{where}: a part must have a text, got {short(part['text'])}", param=where)
        texts.append(part["text"])
    return "".join(texts)


def read_prompts(value: object) -> Sequence[str | list[int]]:
    """The prompts of a completion: a text, the ids of one, or a list of either."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and value:
        if all(isinstance(one, int) and not isinstance(one, bool) for one in value):
            return [value]
        if all(isinstance(one, str) for one in value) or all(isinstance(one, list) for one in value):
            return value
    raise Refusal(400, f"prompt must be a text, ids, or a list of either, got {short(value)}", param="prompt")
