"""Log probabilities of tokens in the shapes of OpenAI's API.

A token's text is its bytes as UTF-8, with a replacement mark for what is half a character, or a control token's name;
in a chat its bytes stand beside it, as there. The tokens are those of the text that is shown: those of a stop string
have none.
"""

import codecs
from collections.abc import Iterator
from typing import Any

from ..model.completion import Completion
from ..model.logprobs import TokenLogprob
from ..model.tokenizer import Tokenizer


def chat_logprobs(completion: Completion, tokenizer: Tokenizer) -> dict[str, Any]:
    """`logprobs` of a choice of /v1/chat/completions"""

    def shape(token: int, logprob: float) -> dict[str, Any]:
        spelled = _spelled(token, tokenizer)
        return {"token": spelled.decode("utf-8", "replace"), "logprob": logprob, "bytes": list(spelled)}

    content = [
        {**shape(one.token, one.logprob), "top_logprobs": [shape(*likely) for likely in one.top]}
        for _, one in _shown(completion, tokenizer)
    ]
    return {"content": content, "refusal": None}


def completion_logprobs(completion: Completion, tokenizer: Tokenizer) -> dict[str, Any]:
    """`logprobs` of a choice of /v1/completions; an offset is counted in characters of the choice's text.

    Of likeliest tokens with one text, as bytes of half a character have, the likeliest is kept.
    """
    shown = list(_shown(completion, tokenizer))

    def text(token: int) -> str:
        return _spelled(token, tokenizer).decode("utf-8", "replace")

    return {
        "tokens": [text(one.token) for _, one in shown],
        "token_logprobs": [one.logprob for _, one in shown],
        "top_logprobs": [{text(token): value for token, value in reversed(one.top)} for _, one in shown],
        "text_offset": [offset for offset, _ in shown],
    }


def _shown(completion: Completion, tokenizer: Tokenizer) -> Iterator[tuple[int, TokenLogprob]]:
    """(offset in the text, probability) of the tokens that have a part in the text."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    assert completion.logprobs is not None
    texts = [decoder.decode(tokenizer.token_bytes(token)) for token in completion.tokens]
    written = "".join(texts)
    # The space in front of the first word, which is no part of an answer.
    dropped = len(written) - len(written.removeprefix(" ")) if not written.startswith(completion.text) else 0
    end = 0
    for text, one in zip(texts, completion.logprobs, strict=True):
        if end - dropped >= len(completion.text):
            return
        yield max(0, end - dropped), one
        end += len(text)


def _spelled(token: int, tokenizer: Tokenizer) -> bytes:
    """The bytes of a token; of a control token those of its name."""
    return tokenizer.piece(token).encode() if tokenizer.is_control(token) else tokenizer.token_bytes(token)
