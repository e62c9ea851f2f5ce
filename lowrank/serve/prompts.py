"""A question -> the tokens that a model goes on from: a conversation in the template of the hat, or a plain text."""

from collections.abc import Sequence
from dataclasses import replace

from ..data.encoding.chat_template import ChatTemplate
from ..data.encoding.template import CHAT, Conversation, Turn, find
from .errors import Refusal, short
from .shelf import Choice

Prompt = tuple[list[int], bool]  # the tokens, and `answer` as `generate` takes it


def conversation_prompt(choice: Choice, conversation: Conversation) -> Prompt:
    """The tokens of a conversation whose last turn is to be answered.

    Raises Refusal for a text that the template refuses, and one that leaves no room in the context.
    """
    tokenizer = choice.base.tokenizer
    try:
        if choice.template == CHAT:
            return fitting(choice, ChatTemplate(tokenizer).asked(conversation))
        tokens: list[int] = []
        for part in find(choice.template).parts(conversation):
            tokens += tokenizer.encode(part.text, bos=not part.answered, eos=part.answered)
    except ValueError as error:
        raise Refusal(400, str(error), param="messages") from None
    return fitting(choice, (tokens, True))


def text_prompt(choice: Choice, text: str) -> Prompt:
    """The tokens of a text to go on from."""
    return fitting(choice, (choice.base.tokenizer.encode(text, bos=True), text == ""))


def token_prompt(choice: Choice, tokens: Sequence[int]) -> Prompt:
    """Tokens that were given as such.  Raises Refusal for one that the tokenizer does not have."""
    size = choice.base.tokenizer.vocab_size
    for token in tokens:
        if isinstance(token, bool) or not isinstance(token, int) or not 0 <= token < size:
            raise Refusal(400, f"prompt: a token must be in 0 to {size - 1}, got {short(token)}", param="prompt")
    return fitting(choice, (list(tokens), False))


def fitting(choice: Choice, prompt: Prompt) -> Prompt:
    """The prompt itself.  Raises Refusal if it is empty, or as long as the context of the base."""
    most, length = choice.base.model.config.max_seq_len, len(prompt[0])
    if not 1 <= length < most:
        raise Refusal(
            400,
            f"the prompt must have 1 to {most - 1} tokens for {choice.base.name}, got {length}",
            code="context_length_exceeded" if length else None,
        )
    return prompt


def with_input(conversation: Conversation, text: str) -> Conversation:
    """The conversation with the facts as the input of its last turn."""
    *before, last = conversation.turns
    return replace(conversation, turns=(*before, Turn(last.instruction, text, last.output)))
