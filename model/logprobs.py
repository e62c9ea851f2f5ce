"""The probabilities that a model gave to the tokens that were written.

V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

MOST = 20  # of the likeliest tokens beside one that was written


@dataclass(frozen=True)
class TokenLogprob:
    """log p(token | the prompt and the tokens before it), in nats

    p = softmax(l) of the model's logits as they come, before temperature, filters, penalties and constraints: the same
    numbers whichever way a token was chosen.
    top  the likeliest tokens in its place, each with its own, the likeliest first
    """

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


def token_logprob(logits: Tensor, token: int, top: int = 0, never: Sequence[int] = ()) -> TokenLogprob:
    """log p = l - log sum exp l, in float64, for a token and for the `top` likeliest

    logits  float32 [V]
    never   rows of the embedding that no piece has: none of them is named among the likeliest
    """
    log_p = logits.double().log_softmax(-1)
    named = log_p.index_fill(0, torch.tensor(never, dtype=torch.int64, device=log_p.device), float("-inf"))
    likeliest = named.topk(min(top, len(log_p) - len(never)))
    pairs = zip(likeliest.indices.tolist(), likeliest.values.tolist(), strict=True)
    return TokenLogprob(token, float(log_p[token]), tuple(pairs))


def check_logprobs(count: int | None) -> None:
    """Raises ValueError unless the number of likeliest tokens is None, for no probabilities at all, or 0 to MOST."""
    if count is not None and (not isinstance(count, int) or isinstance(count, bool) or not 0 <= count <= MOST):
        raise ValueError(f"logprobs must be 0 to {MOST} likeliest tokens, or None, got {count!r}")
