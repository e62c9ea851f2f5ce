"""Texts that a model generates for prompts, and whether each ended with end-of-text.

The one place where the grid generates: what changes how a text is written (a rule on its figures, a temperature) is an
argument here, and a field of `grid.columns.Column`, so that it becomes an axis of the grid.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from lowrank.model.generate import Prompt, complete
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
    prompts: Sequence[Prompt],
    max_new_tokens: int,
    constraints: Sequence[Constraint | None] | None = None,
    *,
    answer: bool = True,
    temperature: float = 0.0,
    seeds: Sequence[int] | None = None,
) -> list[Output]:
    """A text behind each prompt, all of them as one batch; each gives what it gives alone.

    answer       as in `generate`
    constraints  the tokens that a row may write; a text that is cut loses what its constraint calls unfinished
    temperature  0 takes the likeliest token
    seeds        of the draws, one a row
    Raises ValueError for a prompt that leaves no room in the context.
    """
    completions = complete(
        model,
        tokenizer,
        prompts,
        max_new_tokens=max_new_tokens,
        constraints=constraints,
        answer=answer,
        temperature=temperature,
        seed=list(seeds) if seeds is not None else 0,
    )
    return [Output(one.text, len(one.tokens), one.end == "end of text") for one in completions]
