"""Entries -> token ids, labels that say what is learned, and batches.

B rows, T tokens of the longest row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..model.loss import IGNORED
from ..model.tokenizer import Tokenizer
from .template import render


class Instructed(Protocol):
    """What can be learned from: a document's `Entry`, a `MixtureRow`, or anything with these four texts."""

    @property
    def id(self) -> str: ...
    @property
    def instruction(self) -> str: ...
    @property
    def input(self) -> str: ...
    @property
    def output(self) -> str: ...


@dataclass(frozen=True)
class Example:
    """One sequence: its tokens, of which the first `prompt_length` are given and the rest is learned."""

    id: str
    tokens: tuple[int, ...]
    prompt_length: int

    @property
    def supervised(self) -> int:
        """How many tokens are learned: the completion and its end-of-text token."""
        return len(self.tokens) - self.prompt_length


def encode_example(entry: Instructed, tokenizer: Tokenizer, template: str) -> Example:
    """Begin, prompt, completion, end of text. Prompt and completion are tokenized apart, as in generation."""
    prompt = tokenizer.encode(render(template, entry.instruction, entry.input), bos=True, eos=False)
    completion = tokenizer.encode(entry.output, bos=False, eos=True)
    return Example(entry.id, (*prompt, *completion), len(prompt))


def encode_all(
    entries: Sequence[Instructed], tokenizer: Tokenizer, template: str, max_tokens: int
) -> tuple[list[Example], list[Example]]:
    """Every entry as an example: those that fit into `max_tokens`, and those that do not and are left out whole.

    A cut answer would teach to stop early, or never. Raises ValueError if nothing is left.
    """
    examples = [encode_example(entry, tokenizer, template) for entry in entries]
    kept = [example for example in examples if len(example.tokens) <= max_tokens]
    dropped = [example for example in examples if len(example.tokens) > max_tokens]
    if not kept:
        raise ValueError(f"max_tokens = {max_tokens} leaves none of {len(examples)} entries to learn from")
    return kept, dropped


def collate(examples: Sequence[Example]) -> tuple[Tensor, Tensor]:
    """tokens and labels, int64 [B, T], filled up at the right; labels are -100 on prompts and filling.

    The filling is told by length, never by a token id, so that an end-of-text token is always learned.
    """
    length = max(len(example.tokens) for example in examples)
    tokens = torch.zeros(len(examples), length, dtype=torch.int64)
    labels = torch.full((len(examples), length), IGNORED)
    for row, example in enumerate(examples):
        end = len(example.tokens)
        tokens[row, :end] = torch.tensor(example.tokens)
        labels[row, example.prompt_length : end] = tokens[row, example.prompt_length : end]
    return tokens, labels


def epoch_batches(examples: Sequence[Example], batch_size: int, seed: int, epoch: int) -> list[list[Example]]:
    """The examples of one epoch in an order that (seed, epoch) alone decides; the last batch may be short."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order = torch.randperm(len(examples), generator=generator).tolist()
    return [[examples[i] for i in order[start : start + batch_size]] for start in range(0, len(order), batch_size)]
