"""Loss and perplexity of completions, and of a long text through a sliding window.

    perplexity = exp(nats / tokens)        bits a byte = nats / (ln 2 * bytes of the text in UTF-8)

Bits a byte do not depend on how a tokenizer cuts the text; nats a token do.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lowrank.data.encoding.batching import Example, collate
from lowrank.kernels.llama_ops.linear_cross_entropy import linear_cross_entropy
from lowrank.model.llama import Llama
from lowrank.model.loss import IGNORED
from lowrank.model.tokenizer import Tokenizer


def completion_loss(model: Llama, examples: Sequence[Example], batch_size: int = 16) -> float:
    """sum of -log p(token | prompt, tokens before it) / number of completion tokens, in nats, end of text included

    The mean is over tokens, not over examples, so it does not depend on the batches.
    """
    losses = completion_losses(model, examples, batch_size)
    return sum(losses) / sum(example.supervised for example in examples)


@torch.inference_mode()
def completion_losses(model: Llama, examples: Sequence[Example], batch_size: int = 16) -> list[float]:
    """The nats of each example's completion, `example.supervised` tokens."""
    device = model.tok_embeddings.weight.device
    losses = []
    for start in range(0, len(examples), batch_size):
        tokens, labels = collate(examples[start : start + batch_size])
        hidden = model.hidden(tokens[:, :-1].to(device))
        for row, targets in zip(hidden, labels[:, 1:].to(device), strict=True):
            losses.append(_nats(model, row, targets))
    return losses


@dataclass(frozen=True)
class Perplexity:
    """Totals of one text: predicted tokens, their bytes, and nats."""

    tokens: int
    bytes: int
    nats: float

    @property
    def per_token(self) -> float:
        """exp(nats / tokens); infinity where that is beyond a float."""
        mean = self.nats / self.tokens
        return math.exp(mean) if mean < 700 else math.inf

    @property
    def bits_per_byte(self) -> float:
        """nats / (ln 2 * bytes)"""
        return self.nats / (math.log(2) * self.bytes)


@torch.inference_mode()
def text_perplexity(
    model: Llama, tokenizer: Tokenizer, text: str, *, window: int | None = None, stride: int | None = None
) -> Perplexity:
    """-sum over tokens t of log p(t | those before it in its window), each token predicted once

    window  tokens that are seen at once, begin-of-text among them (left out: the context that the model was made for)
    stride  tokens that a window moves on by (left out: half of it): a token has at least window - stride before it,
            except in the first window; a smaller stride predicts better, and takes longer
    Begin-of-text stands before the text alone and is not predicted; every token of the text is, but the first one where
    a tokenizer begins texts with nothing: its bytes are then not counted either.
    Raises ValueError for an empty text, a window beyond the context, or a stride that is not in 1 .. window - 1.
    """
    window = model.config.max_seq_len if window is None else window
    stride = window // 2 if stride is None else stride
    context = model.config.max_seq_len
    if not 2 <= window <= context or not 1 <= stride < window:
        raise ValueError(f"window must be in 2 .. {context} and stride in 1 .. window - 1, got {window} and {stride}")
    ids = torch.tensor(tokenizer.encode(text, bos=True, eos=False))
    if len(ids) < 2:
        least = "one token" if tokenizer.bos_id is not None else "two tokens"
        raise ValueError(f"a text must have at least {least}, got {text!r}")
    device = model.tok_embeddings.weight.device
    nats, done = 0.0, 1
    while done < len(ids):
        end = min(len(ids), window if done == 1 else done + stride)
        start = max(0, end - window)
        seen = ids[start:end]
        targets = seen[1:].clone()
        targets[: done - start - 1] = IGNORED  # predicted in a window before this one
        nats += _nats(model, model.hidden(seen[None, :-1].to(device))[0], targets.to(device))
        done = end
    unpredicted = len(tokenizer.token_bytes(int(ids[0])))  # none of begin-of-text
    return Perplexity(len(ids) - 1, len(text.encode()) - unpredicted, nats)


def _nats(model: Llama, hidden: Tensor, targets: Tensor) -> float:
    """hidden [T, D], targets int64 [T] -> the sum of the losses of those that are not -100."""
    counted = targets != IGNORED
    return float(linear_cross_entropy(hidden[counted], model.output.weight.to(hidden.dtype), targets[counted]))
