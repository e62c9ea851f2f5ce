"""Conversations -> token ids, labels that say what is learned, and batches of rows that are much of a length.

B rows, T tokens of the longest row. A row is one example, or several that are packed (see `packing`).
"""

from collections.abc import Sequence, Sized
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from ...model.loss import IGNORED
from ...model.tokenizer import Tokenizer
from .chat_template import ChatTemplate
from .template import CHAT, DEFAULT, Conversation, Turn, check_learnable, find, learnable_parts

MEGABATCH = 50  # batches that are sorted together, at most

S = TypeVar("S", bound=Sized)  # a row; its length is in tokens


@dataclass(frozen=True)
class Example:
    """One sequence: its tokens, and for each its label: the token itself where it is learned, else -100."""

    id: str
    tokens: tuple[int, ...]
    labels: tuple[int, ...]

    @property
    def supervised(self) -> int:
        """Number of tokens that are learned: the answers and their end-of-text tokens."""
        return sum(label != IGNORED for label in self.labels)

    @property
    def unlearned(self) -> "Example":
        """The same tokens, none of which is learned: a loss of weight 0."""
        return Example(self.id, self.tokens, (IGNORED,) * len(self))

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True)
class PreferencePair(Example):
    """Two answers to one prompt: the tokens and labels of the chosen sequence, and behind them the rejected one's.

    cut  the number of tokens of the chosen sequence
    """

    cut: int

    @property
    def chosen(self) -> Example:
        """The sequence that is preferred."""
        return Example(self.id, self.tokens[: self.cut], self.labels[: self.cut])

    @property
    def rejected(self) -> Example:
        """The sequence that the chosen one is preferred to."""
        return Example(self.id, self.tokens[self.cut :], self.labels[self.cut :])


def longest_sequence(example: Example) -> int:
    """Tokens of an example, of a pair those of the longer of its two: what a limit on tokens is about."""
    return max(example.cut, len(example) - example.cut) if isinstance(example, PreferencePair) else len(example)


def encode(conversation: Conversation, tokenizer: Tokenizer, template: str) -> Example:
    """The parts of a conversation, each tokenized separately as in generation.

    What is asked stands behind begin-of-text, an answer before end-of-text; with the model's own chat template, as
    `ChatTemplate` has it. A preference becomes a `PreferencePair`. Raises ValueError naming the conversation that has
    nothing to learn, or a text that the template refuses.
    """
    if conversation.rejected is not None:
        better, worse = (encode(alternative, tokenizer, template) for alternative in conversation.alternatives)
        both = (better.tokens + worse.tokens, better.labels + worse.labels)
        return PreferencePair(conversation.id, *both, cut=len(better))
    try:
        if template == CHAT and not conversation.is_text:
            check_learnable(conversation, template)
            ids, learned = ChatTemplate(tokenizer).learnable(conversation)
            chosen = (token if is_learned else IGNORED for token, is_learned in zip(ids, learned, strict=True))
            return Example(conversation.id, tuple(ids), tuple(chosen))
        parts = learnable_parts(conversation, DEFAULT if template == CHAT else template)
    except ValueError as error:
        raise ValueError(f"entry {conversation.id}: {error}") from None
    tokens: list[int] = []
    labels: list[int] = []
    for part in parts:
        ids = tokenizer.encode(part.text, bos=not part.answered, eos=part.answered)
        tokens += ids
        labels += ids if part.learned else [IGNORED] * len(ids)
    return Example(conversation.id, tuple(tokens), tuple(labels))


def prompt_for(template: str, tokenizer: Tokenizer, instruction: str, input: str) -> tuple[str | list[int], bool]:
    """The prompt of a task, a text or its tokens, and the value of `answer` that `generate` takes it with.

    Raises ValueError for a text that the template refuses.
    """
    if template == CHAT:
        return ChatTemplate(tokenizer).asked(Conversation("", (Turn(instruction, input),)))
    return find(template).render(instruction, input), True


def shared_beginning(template: str, tokenizer: Tokenizer, instruction: str) -> list[int]:
    """The tokens with which the prompts of an instruction begin, whatever the input: but for the last ones, which may
    join its first characters.
    """
    begun = (prompt_for(template, tokenizer, instruction, input)[0] for input in ("a", "0"))
    one, other = (tokenizer.encode(prompt, bos=True) if isinstance(prompt, str) else prompt for prompt in begun)
    return one[: count_shared(one, other)]


def count_shared(one: Sequence[int], other: Sequence[int]) -> int:
    """The number of tokens with which two sequences begin alike."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))


def split_by_length(examples: Sequence[Example], max_tokens: int) -> tuple[list[Example], list[Example]]:
    """Those that fit into `max_tokens`, and those that do not and are left out whole.

    A cut answer would teach to stop early, or never.
    """
    kept = [example for example in examples if longest_sequence(example) <= max_tokens]
    dropped = [example for example in examples if longest_sequence(example) > max_tokens]
    return kept, dropped


def encode_all(
    conversations: Sequence[Conversation], tokenizer: Tokenizer, template: str, max_tokens: int
) -> tuple[list[Example], list[Example]]:
    """Every conversation as an example, in two lists: see `split_by_length`. Raises ValueError if none fits."""
    examples = [encode(conversation, tokenizer, template) for conversation in conversations]
    kept, dropped = split_by_length(examples, max_tokens)
    if not kept:
        raise ValueError(f"max_tokens = {max_tokens} leaves none of {len(examples)} entries to learn from")
    return kept, dropped


def name_some(ids: Sequence[str], most: int = 10) -> str:
    """ "a, b and 3 more": the first `most` ids, and how many follow."""
    rest = len(ids) - most
    return ", ".join(ids[:most]) + (f" and {rest} more" if rest > 0 else "")


def collate(examples: Sequence[Example]) -> tuple[Tensor, Tensor]:
    """tokens and labels, int64 [B, T], filled up at the right; labels are -100 on prompts and filling.

    The filling is known by length, never by a token id, so that an end-of-text token is always learned.
    """
    length = max(map(len, examples))
    tokens = torch.zeros(len(examples), length, dtype=torch.int64)
    labels = torch.full((len(examples), length), IGNORED)
    for row, example in enumerate(examples):
        tokens[row, : len(example)] = torch.tensor(example.tokens)
        labels[row, : len(example)] = torch.tensor(example.labels)
    return tokens, labels


def epoch_batches(
    rows: Sequence[S], batch_size: int, seed: int, epoch: int, *, group_by_length: bool = False
) -> list[list[S]]:
    """The rows of one epoch, each once, in batches that (seed, epoch) alone decides; one of them may be short.

    group_by_length sorts the shuffled rows inside megabatches of at most 50 batches, and at most a quarter of the
    rows, so that a batch holds rows of much the same length but not the same ones each epoch. The batches are then
    shuffled, or every megabatch would run from long to short.
    """
    generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**64)
    shuffled = [rows[index] for index in _permutation(len(rows), generator)]
    if group_by_length:
        size = batch_size * max(1, min(MEGABATCH, len(rows) // (4 * batch_size)))
        megabatches = [shuffled[start : start + size] for start in range(0, len(shuffled), size)]
        shuffled = [row for megabatch in megabatches for row in sorted(megabatch, key=len, reverse=True)]
    batches = [shuffled[start : start + batch_size] for start in range(0, len(shuffled), batch_size)]
    if group_by_length:
        batches = [batches[index] for index in _permutation(len(batches), generator)]
    return batches


def _permutation(n: int, generator: torch.Generator) -> list[int]:
    order: list[int] = torch.randperm(n, generator=generator).tolist()
    return order
