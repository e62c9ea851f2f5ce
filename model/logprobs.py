"""The probabilities that a model gave to the tokens that were written.

V vocabulary.
"""

from dataclasses import dataclass

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


def token_logprob(logits: Tensor, token: int, top: int = 0) -> TokenLogprob:
    """log p = l - log sum exp l, in float64, for a token and for the `top` likeliest

    logits  float32 [V]
    """
    log_p = logits.double().log_softmax(-1)
    likeliest = log_p.topk(min(top, len(log_p)))
    pairs = zip(likeliest.indices.tolist(), likeliest.values.tolist(), strict=True)
    return TokenLogprob(token, float(log_p[token]), tuple(pairs))


def check_logprobs(count: int | None) -> None:
    """Raises ValueError unless the number of likeliest tokens is None, for no probabilities at all, or 0 to MOST."""
    if count is not None and (not isinstance(count, int) or isinstance(count, bool) or not 0 <= count <= MOST):
        raise ValueError(f"logprobs must be 0 to {MOST} likeliest tokens, or None, got {count!r}")
