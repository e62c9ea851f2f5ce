"""Text from a model, a token at a time: greedy or sampled, for one prompt or a batch of them.

B rows, V vocabulary.
"""

from collections.abc import Callable, Iterator, Sequence
from contextvars import copy_context
from typing import Unpack

import torch
from torch import Tensor

from .llama import KVCache, Llama
from .sampling import Constraint, Sampler, Sampling, SamplingOptions
from .static_decode import DecodeStep
from .tokenizer import Tokenizer


def generate(
    model: Llama,
    tokenizer: Tokenizer,
    prompts: str | Sequence[str],
    *,
    max_new_tokens: int,
    stop: Sequence[str] = (),
    constraints: Sequence[Constraint | None] | None = None,
    fixed_shapes: bool | None = None,
    **sampling: Unpack[SamplingOptions],
) -> list[str]:
    """The completions of the prompts, each up to its end-of-text token, a stop string or `max_new_tokens`.

    stop         texts that end a row; neither they nor what follows them is returned
    constraints  one a row, or None for a row that may write anything; a text cut off at `max_new_tokens` loses the part
                 that its constraint calls unfinished
    sampling     temperature, top_k, top_p, min_p, repetition_penalty, seed: see `Sampling`
    Prompts of different lengths run as one batch and each gives what it gives alone. fixed_shapes as in
    `generate_tokens`.
    """
    asked = [prompts] if isinstance(prompts, str) else list(prompts)
    rows = [tokenizer.encode(text, bos=True, eos=False) for text in asked]
    bound = constraints or [None] * len(rows)
    texts = [_Text(tokenizer, stop, constraint) for constraint in bound]
    steps = generate_tokens(
        model,
        rows,
        max_new_tokens=max_new_tokens,
        eos_id=tokenizer.eos_id,
        ends=lambda row, token: texts[row].add(token),
        constraints=constraints,
        fixed_shapes=fixed_shapes,
        **sampling,
    )
    for _ in steps:
        pass
    return [text.final() for text in texts]


def stream(
    model: Llama,
    tokenizer: Tokenizer,
    prompt: str,
    *,
    max_new_tokens: int,
    stop: Sequence[str] = (),
    constraint: Constraint | None = None,
    **sampling: Unpack[SamplingOptions],
) -> Iterator[str]:
    """One completion as it is written: pieces of text that join to what `generate` returns for the prompt."""
    text, shown = _Text(tokenizer, stop, constraint), 0
    steps = generate_tokens(
        model,
        [tokenizer.encode(prompt, bos=True, eos=False)],
        max_new_tokens=max_new_tokens,
        eos_id=tokenizer.eos_id,
        ends=lambda row, token: text.add(token),
        constraints=[constraint],
        **sampling,
    )
    for _ in steps:
        sure = text.sure()
        yield sure[shown:]
        shown = max(shown, len(sure))
    yield text.final()[shown:]


class _Text:
    """The text of one row, up to its first stop string."""

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str], constraint: Constraint | None) -> None:
        if not all(stop):
            raise ValueError("stop: a text that ends a row must have a character")
        self.tokenizer = tokenizer
        self.stop = stop
        self.constraint = constraint
        self.tokens: list[int] = []
        self.end: int | None = None

    def add(self, token: int) -> bool:
        """Adds one more token; true if the row ends with it."""
        self.tokens.append(token)
        if self.stop:
            text = self.tokenizer.decode(self.tokens)
            self.end = min((start for stop in self.stop if (start := text.find(stop)) >= 0), default=None)
        return self.end is not None

    def sure(self) -> str:
        """The part that nothing that follows can take back: no half a character, stop string or unfinished figure."""
        text = self.tokenizer.decode(self.tokens)
        if self.end is not None:
            return text[: self.end]
        if text.endswith("\N{REPLACEMENT CHARACTER}"):  # a character whose last byte is still to come
            text = text.rstrip("\N{REPLACEMENT CHARACTER}")
        unsure = self.constraint.unfinished if self.constraint else 0
        for stop in self.stop:
            begun = (size for size in range(len(stop) - 1, 0, -1) if text.endswith(stop[:size]))
            unsure = max(unsure, next(begun, 0))
        return text[: len(text) - unsure]

    def final(self) -> str:
        """The text, once the row has ended."""
        text = self.tokenizer.decode(self.tokens)
        if self.end is not None:
            return text[: self.end]
        return text[: len(text) - (self.constraint.unfinished if self.constraint else 0)]


def generate_tokens(
    model: Llama,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    eos_id: int | None = None,
    ends: Callable[[int, int], bool] | None = None,
    constraints: Sequence[Constraint | None] | None = None,
    fixed_shapes: bool | None = None,
    **sampling: Unpack[SamplingOptions],
) -> Iterator[list[int | None]]:
    """The next token of every row, step by step; None for a row that has ended with `eos_id` (which is not yielded).

    ends          called with each row and its token: true if the row ends with it (and it is still yielded)
    constraints   one a row, or None
    fixed_shapes  decode by `DecodeStep`, which a GPU replays as one CUDA graph; left out: where there is a GPU.
                  Adapters must then stay as they are until the last token.
    The model runs in the context of this call, wherever the tokens are asked for: see `using_adapter`.
    Raises ValueError for an empty prompt, or a prompt that leaves no room in `config.max_seq_len`.
    """
    longest = max(map(len, prompts))
    room = model.config.max_seq_len - longest
    if min(map(len, prompts)) == 0 or room < 1:
        raise ValueError(f"a prompt must have 1 to {model.config.max_seq_len - 1} tokens, got {[*map(len, prompts)]}")
    device = model.tok_embeddings.weight.device
    sampler = Sampler(Sampling(**sampling), prompts, device, constraints)
    steps = min(max_new_tokens, room)
    return _tokens(_Forward(model, prompts, longest + steps, fixed_shapes), sampler, steps, eos_id, ends)


@torch.inference_mode()
def _tokens(
    forward: "_Forward",
    sampler: Sampler,
    steps: int,
    eos_id: int | None,
    ends: Callable[[int, int], bool] | None,
) -> Iterator[list[int | None]]:
    rows = len(sampler.generators)
    ended = [False] * rows
    chosen: Tensor | None = None
    for _ in range(steps):
        chosen = sampler.choose(forward(chosen), ended)
        tokens = chosen.tolist()
        ended = [end or token == eos_id for end, token in zip(ended, tokens, strict=True)]
        if all(ended):
            return
        step = [None if end else token for token, end in zip(tokens, ended, strict=True)]
        sampler.take(step)
        if ends is not None:
            ended = [end or ends(row, tokens[row]) for row, end in enumerate(ended)]
        yield step
        if all(ended):
            return


class _Forward:
    """The logits after the prompts, then those after one more token a row; in the context of its creation."""

    def __init__(
        self, model: Llama, prompts: Sequence[Sequence[int]], capacity: int, fixed_shapes: bool | None
    ) -> None:
        weight = model.tok_embeddings.weight
        device, longest = weight.device, max(map(len, prompts))
        self.model = model
        self.context = copy_context()
        self.prompts = torch.tensor([[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts], device=device)
        padding = torch.tensor([longest - len(prompt) for prompt in prompts], device=device)
        self.padding = padding if padding.any() else None
        self.cache = KVCache(model.config, len(prompts), capacity, weight.dtype, device)
        self.fixed_shapes = device.type == "cuda" if fixed_shapes is None else fixed_shapes
        self.step = DecodeStep(model, self.cache, self.padding)

    def __call__(self, chosen: Tensor | None) -> Tensor:
        """chosen int64 [B], or None for the prompts -> logits float32 [B, V]"""
        if self.fixed_shapes and chosen is not None:
            return self.context.run(self.step, chosen[:, None])
        tokens = self.prompts if chosen is None else chosen[:, None]
        hidden = self.context.run(self.model.hidden, tokens, self.cache, self.padding)
        return self.model.logits(hidden[:, -1])
