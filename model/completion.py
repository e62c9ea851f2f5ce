"""A text that a model writes, token by token, and what it is in the end.

V vocabulary.
"""

import codecs
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from .logprobs import TokenLogprob, token_logprob
from .sampling import Constraint
from .tokenizer import Tokenizer

End = Literal["end of text", "stop", "max_new_tokens", "context"]


@dataclass(frozen=True)
class Completion:
    """The text that a model wrote for one prompt.

    text      joins the prompt: prompt + text is the text as the model sees it; or, of an answer, stands by itself
    tokens    all that were written, those of a stop string among them, without the one that ended the text
    end       "end of text": the model ended it; "stop": at a stop string; "max_new_tokens": cut there; "context": cut
              because the model's context is full
    logprobs  one of each of the tokens, if they were asked for
    """

    text: str
    tokens: tuple[int, ...]
    end: End
    logprobs: tuple[TokenLogprob, ...] | None = None


class GrowingText:
    """The text of one row, up to its first stop string.

    is_own  True if it stands by itself: the space that a text's first token brings along is no part of it
    top     the likeliest tokens that are kept beside each token; None if no probabilities are
    never   tokens that are not drawn
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        stop: str | Sequence[str],
        constraint: Constraint | None,
        is_own: bool,
        top: int | None,
        never: Sequence[int],
    ) -> None:
        self.stop = [stop] if isinstance(stop, str) else list(stop)
        if not all(self.stop):
            raise ValueError("stop: a text that ends a row must have a character")
        self.tokenizer = tokenizer
        self.constraint = constraint
        self.drops_space = is_own and tokenizer.has_dummy_prefix
        self.tokens: list[int] = []
        self.top, self.never = top, never
        self.logprobs: list[TokenLogprob] = []
        self.text = ""  # whole characters: bytes of one that is not finished are still in the decoder
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.end: int | None = None
        self.reason: End = "max_new_tokens"

    def add(self, token: int) -> bool:
        """Adds one more token; true if the row ends with it."""
        self.tokens.append(token)
        self._extend(self.decoder.decode(self.tokenizer.token_bytes(token)))
        return self.end is not None

    def add_logprob(self, token: int, logits: Tensor) -> None:
        """Keeps the probability of the next token; logits float32 [V]."""
        self.logprobs.append(token_logprob(logits, token, self.top or 0, self.never))

    def _extend(self, more: str) -> None:
        before = len(self.text)
        self.text += more
        places = (self.text.find(stop, max(0, before - len(stop) + 1)) for stop in self.stop)
        self.end = min((place for place in places if place >= 0), default=None)

    def sure(self) -> str:
        """The part that nothing that follows can take back: no half a character, stop string or unfinished figure."""
        if self.end is not None:
            return self._shown(self.end)
        unsure = self.constraint.unfinished if self.constraint else 0
        for stop in self.stop:
            begun = (size for size in range(len(stop) - 1, 0, -1) if self.text.endswith(stop[:size]))
            unsure = max(unsure, next(begun, 0))
        return self._shown(len(self.text) - unsure)

    def close(self, reason: End) -> None:
        """Keeps why the row has ended."""
        self.reason = reason

    def completion(self) -> Completion:
        """The whole, once the row has ended."""
        if self.end is None:
            self._extend(self.decoder.decode(b"", final=True))
        unfinished = self.constraint.unfinished if self.constraint else 0
        end = len(self.text) - unfinished if self.end is None else self.end
        logprobs = None if self.top is None else tuple(self.logprobs)
        return Completion(self._shown(end), tuple(self.tokens), self.reason, logprobs)

    def _shown(self, end: int) -> str:
        text = self.text[: max(end, 0)]
        return text.removeprefix(" ") if self.drops_space else text
