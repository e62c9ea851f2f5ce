"""Text from a model, a token at a time: greedy or sampled, for one prompt or a batch of them.

B rows, V vocabulary.
"""

import operator
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Unpack

import torch
from torch import Tensor

from .completion import Completion, End, GrowingText
from .drafts import Lookup
from .forward import Forward, room_of
from .llama import Llama, Prefixes
from .logprobs import check_logprobs
from .sampling import Constraint, Sampler, Sampling, SamplingOptions
from .tokenizer import Tokenizer

Prompt = str | Sequence[int]


def generate(
    model: Llama,
    tokenizer: Tokenizer,
    prompts: str | Sequence[Prompt],
    *,
    max_new_tokens: int,
    stop: str | Sequence[str] = (),
    constraints: Sequence[Constraint | None] | None = None,
    answer: bool = False,
    fixed_shapes: bool | None = None,
    drafts: bool | Lookup = True,
    prefixes: Prefixes | None = None,
    **sampling: Unpack[SamplingOptions],
) -> list[str]:
    """The completions of the prompts, each up to an end token, a stop string, `max_new_tokens` or a full context.

    prompts      texts, or the ids of whole prompts
    stop         one text, or several, that end a row; neither they nor what follows them is returned
    constraints  one a row, or None for a row that may write anything; a text that is cut off loses the part that its
                 constraint calls unfinished
    answer       True for an answer to a template's prompt, which is tokenized as a text of its own: the space that
                 SentencePiece puts in front of its first word is no part of it. Else the text joins the prompt
    sampling     temperature, top_k, top_p, min_p, repetition_penalty, seed: see `Sampling`
    drafts       True to verify tokens that the text suggests, several in a pass (`model.drafts`), where that changes no
                 byte: of one prompt, on a CPU. A `Lookup` that is given again drafts from earlier texts, too
    prefixes     what prompts begin with alike is read once: `layers.prefix_cache`, of one prompt
    Prompts of different lengths run as one batch and each gives what it gives alone. fixed_shapes as in
    `generate_tokens`, whose errors it raises. `complete` tells the tokens and the ends as well.
    """
    completions = complete(
        model,
        tokenizer,
        prompts,
        max_new_tokens=max_new_tokens,
        stop=stop,
        constraints=constraints,
        answer=answer,
        fixed_shapes=fixed_shapes,
        drafts=drafts,
        prefixes=prefixes,
        **sampling,
    )
    return [completion.text for completion in completions]


def complete(
    model: Llama,
    tokenizer: Tokenizer,
    prompts: str | Sequence[Prompt],
    *,
    max_new_tokens: int,
    stop: str | Sequence[str] = (),
    constraints: Sequence[Constraint | None] | None = None,
    answer: bool = False,
    fixed_shapes: bool | None = None,
    drafts: bool | Lookup = True,
    prefixes: Prefixes | None = None,
    logprobs: int | None = None,
    **sampling: Unpack[SamplingOptions],
) -> list[Completion]:
    """The texts of `generate`, each with its tokens and how each text ended; arguments as there.

    logprobs  the number of likeliest tokens to keep beside each token with its probability: 0 for the token's alone,
              None for none at all. See `TokenLogprob`
    """
    if not isinstance(prompts, Iterable):
        raise ValueError(f"prompts must be a text, or several, got {prompts!r}")
    asked = [prompts] if isinstance(prompts, str) else list(prompts)
    # No code but this module's and the constraints' runs between the tokens.
    with unchanged(model):
        texts, steps = _begun(
            model,
            tokenizer,
            asked,
            max_new_tokens,
            stop,
            constraints,
            answer,
            fixed_shapes,
            drafts,
            prefixes,
            sampling,
            logprobs,
        )
        for _ in steps:
            pass
    return [text.completion() for text in texts]


def unchanged(model: Llama) -> AbstractContextManager[None]:
    """A block between whose tokens the caller changes nothing in the model: it is looked at once, where it can be.

    `complete` is one; `stream` and `generate_tokens`, between whose tokens others' code runs, are called in one.
    """
    return nullcontext() if model.fused_blocks is None else model.fused_blocks.unchanged()


def stream(
    model: Llama,
    tokenizer: Tokenizer,
    prompt: Prompt,
    *,
    max_new_tokens: int,
    stop: str | Sequence[str] = (),
    constraint: Constraint | None = None,
    answer: bool = False,
    drafts: bool | Lookup = True,
    prefixes: Prefixes | None = None,
    logprobs: int | None = None,
    **sampling: Unpack[SamplingOptions],
) -> Generator[str, None, Completion]:
    """One completion as it is written: pieces of text that join to what `generate` returns for the prompt.

    With drafts the numbers of the weights must stay until the text ends: pieces may be of logits computed before.
    Returns the whole of it (as the value of `yield from`), with `logprobs` as in `complete`.
    """
    texts, steps = _begun(
        model,
        tokenizer,
        [prompt],
        max_new_tokens,
        stop,
        [constraint],
        answer,
        None,
        drafts,
        prefixes,
        sampling,
        logprobs,
    )
    (text,), shown = texts, 0
    for _ in steps:
        sure = text.sure()
        yield sure[shown:]
        shown = max(shown, len(sure))
    completion = text.completion()
    yield completion.text[shown:]
    return completion


def _begun(
    model: Llama,
    tokenizer: Tokenizer,
    prompts: Sequence[Prompt],
    max_new_tokens: int,
    stop: str | Sequence[str],
    constraints: Sequence[Constraint | None] | None,
    answer: bool,
    fixed_shapes: bool | None,
    drafts: bool | Lookup,
    prefixes: Prefixes | None,
    sampling: SamplingOptions,
    logprobs: int | None,
) -> tuple[list[GrowingText], Iterator[list[int | None]]]:
    """The texts behind the prompts, empty yet, and the steps that write them."""
    check_logprobs(logprobs)
    rows = [_ids(tokenizer, prompt) for prompt in prompts]
    never = tokenizer.rows_without_piece(model.config.vocab_size)
    texts = [
        GrowingText(tokenizer, stop, constraint, answer or (isinstance(prompt, str) and not prompt), logprobs, never)
        # `Sampler` tells another number of constraints
        for prompt, constraint in zip(prompts, constraints or [None] * len(rows), strict=False)
    ]
    steps = generate_tokens(
        model,
        rows,
        max_new_tokens=max_new_tokens,
        eos_id=tokenizer.eos_ids,
        ends=lambda row, token: texts[row].add(token),
        ended=lambda row, end: texts[row].close(end),
        drawn=None if logprobs is None else lambda row, token, logits: texts[row].add_logprob(token, logits),
        constraints=constraints,
        never=never,
        fixed_shapes=fixed_shapes,
        drafts=drafts,
        prefixes=prefixes,
        **sampling,
    )
    return texts, steps


def _ids(tokenizer: Tokenizer, prompt: object) -> list[int]:
    """The ids of a prompt: a text's, or those that are given, as ints or a row of a tensor or an array of them."""
    if isinstance(prompt, str):
        return tokenizer.encode(prompt, bos=True)
    try:
        return [operator.index(token) for token in prompt]  # type: ignore[attr-defined]
    except TypeError:
        raise ValueError(f"a prompt must be a text, or the ids of one, got {prompt!r}") from None


def generate_tokens(
    model: Llama,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    eos_id: int | Sequence[int] | None = None,
    ends: Callable[[int, int], bool] | None = None,
    ended: Callable[[int, End], None] | None = None,
    drawn: Callable[[int, int, Tensor], None] | None = None,
    constraints: Sequence[Constraint | None] | None = None,
    never: Sequence[int] = (),
    fixed_shapes: bool | None = None,
    drafts: bool | Lookup = False,
    prefixes: Prefixes | None = None,
    **sampling: Unpack[SamplingOptions],
) -> Iterator[list[int | None]]:
    """The next token of every row, step by step; None for a row that has ended (its end token is not yielded).

    eos_id        the end token, or several: any of them ends a row
    ends          called with each row and its token: true if the row ends with it (and it is still yielded)
    ended         called with each row that ends and the reason, once
    drawn         called with each row, its token and the logits float32 [V] that it was drawn from, before `ends`
    constraints   one a row, or None
    never         tokens that are not drawn: rows of the embedding that no piece has
    fixed_shapes  decode by `DecodeStep`, which a GPU replays as one CUDA graph; left out: where there is a GPU.
                  Adapters must then stay as they are until the last token.
    drafts        as in `generate`. The numbers of the weights must then stay as they are until the last token.
    prefixes      as in `generate`
    A row ends by itself when it has filled `config.max_seq_len` positions. The model runs in the context of this call,
    wherever the tokens are asked for: see `using_adapter`.
    Raises ValueError for an empty prompt, a prompt that leaves no room in `config.max_seq_len`, and a number of tokens
    below 1; FloatingPointError, once tokens are asked for, naming the first layer that gives what is not finite.
    """
    room = room_of(model, prompts, max_new_tokens)
    stops = {eos_id} if isinstance(eos_id, int) else set(eos_id or ())
    if foreign := [token for token in stops if not isinstance(token, int)]:
        raise ValueError(f"eos_id must be token ids, got {foreign[0]!r}")
    device = model.tok_embeddings.weight.device
    sampler = Sampler(Sampling(**sampling), prompts, device, constraints, never)
    if not prompts:
        return iter(())
    forward = Forward(model, prompts, max(map(len, prompts)) + max(room), fixed_shapes, drafts, prefixes)
    return _Rows(forward, sampler, room, max_new_tokens, stops, ends, ended, drawn).tokens()


class _Rows:
    """The rows of one batch, each of which ends by itself.

    room  the tokens that each row may write
    """

    def __init__(
        self,
        forward: Forward,
        sampler: Sampler,
        room: Sequence[int],
        asked: int,
        stops: set[int],
        ends: Callable[[int, int], bool] | None,
        ended: Callable[[int, End], None] | None,
        drawn: Callable[[int, int, Tensor], None] | None,
    ) -> None:
        self.forward, self.sampler, self.room, self.asked, self.stops = forward, sampler, room, asked, stops
        self.ends, self.tell, self.drawn = ends, ended, drawn
        self.ended = [False] * len(room)

    @torch.inference_mode()
    def tokens(self) -> Iterator[list[int | None]]:
        """The tokens of every step, until every row has ended."""
        chosen: Tensor | None = None
        step = 0
        while not all(self.ended):
            self.forward.cache.living = [row for row, end in enumerate(self.ended) if not end]
            logits = self.forward(chosen)
            self.forward.check(logits, self.ended)
            chosen = self.sampler.choose(logits, self.ended)
            tokens = chosen.tolist()
            for row, token in enumerate(tokens):
                if token in self.stops:
                    self._end(row, "end of text")
            if all(self.ended):
                return
            written = [None if end else token for token, end in zip(tokens, self.ended, strict=True)]
            self.sampler.take(written)
            step += 1
            for row, taken in enumerate(written):
                if taken is None:
                    continue
                if self.drawn is not None:
                    self.drawn(row, taken, logits[row])
                if self.ends is not None and self.ends(row, taken):
                    self._end(row, "stop")
                elif step == self.room[row]:
                    self._end(row, "max_new_tokens" if step == self.asked else "context")
            yield written

    def _end(self, row: int, reason: End) -> None:
        if not self.ended[row]:
            self.ended[row] = True
            if self.tell is not None:
                self.tell(row, reason)
