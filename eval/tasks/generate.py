"""Texts that a model generates for prompts, and whether each ended with end-of-text.

The one place where the grid generates: what changes how a text is written (a rule on its figures, a temperature) is an
argument here, and a field of `grid.columns.Column`, so that it becomes an axis of the grid.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from lowrank.model.generate import generate_tokens
from lowrank.model.llama import Llama
from lowrank.model.sampling import Constraint
from lowrank.model.tokenizer import Tokenizer


@dataclass(frozen=True)
class Output:
    """One text, how many tokens it has, and whether an end-of-text token ended it (else it was cut)."""

    text: str
    tokens: int
    ended: bool


def write(
    model: Llama,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    max_new_tokens: int,
    constraints: Sequence[Constraint | None] | None = None,
) -> list[Output]:
    """The likeliest token each time, of those that a row's constraint permits, all prompts as one batch; each gives
    what it gives alone.

    Raises ValueError for a prompt that leaves no room in the context.
    """
    rows = [tokenizer.encode(prompt, bos=True, eos=False) for prompt in prompts]
    written: list[list[int]] = [[] for _ in rows]
    ended = [False] * len(rows)
    steps = 0
    for tokens in generate_tokens(
        model, rows, max_new_tokens=max_new_tokens, eos_id=tokenizer.eos_id, constraints=constraints
    ):
        steps += 1
        for row, token in enumerate(tokens):
            if token is None:
                ended[row] = True
            else:
                written[row].append(token)
    room = min(max_new_tokens, model.config.max_seq_len - max(map(len, rows)))
    if steps < room:  # it stops before that only when every row has ended
        ended = [True] * len(rows)
    return [Output(tokenizer.decode(ids), len(ids), end) for ids, end in zip(written, ended, strict=True)]
