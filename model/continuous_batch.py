"""Many texts at once, which begin and end whenever they do: continuous batching (Orca, OSDI 2022).

    add -> waiting -> reading its prompt -> writing, a token a step -> ended
            until a row and memory are free   in parts, one a step

A step writes a token of each text that is read and reads a part of one that is not; what has ended makes room for what
waits. So no text waits for the longest of a batch, and none for long while a long prompt is read.

Each text has a cache, a position, a sampler, a constraint and a context (its adapters) of its own, and is computed as
it is alone: `FusedBlocks.logits_of_rows` gives each the bits of a call of its own. Where that cannot join a text to
others (on a GPU, say), its step is a call of its own. Either way its text is to the byte the one that `complete` writes
for its prompt alone, whatever stands beside it, and whenever it comes. A text that is written alone is drafted
(`model.drafts`), which changes no byte.

V vocabulary.
"""

from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from .completion import Completion, End, GrowingText
from .drafts import Lookup
from .forward import Forward, room_of
from .generate import Prompt
from .llama import Llama, NextToken, Prefixes
from .logprobs import check_logprobs
from .sampling import Constraint, Sampler, Sampling, SamplingOptions
from .tokenizer import Tokenizer

MOST_ROWS = 64
CACHE_BYTES = 4 << 30
Value = TypeVar("Value")


@dataclass(frozen=True)
class Request:
    """A text to write: arguments as of `complete`, for one prompt; prefixes in the place of the batch's own."""

    prompt: Prompt
    max_new_tokens: int
    stop: str | Sequence[str] = ()
    constraint: Constraint | None = None
    answer: bool = False
    logprobs: int | None = None
    sampling: SamplingOptions = field(default_factory=SamplingOptions)
    prefixes: Prefixes | None = None


class Row:
    """One text of a batch, from `ContinuousBatch.add` until it has ended.

    completion  the whole of it, once it has ended
    error       what it ended by in its place: one of the batch's `row_errors`
    positions   of the prompt and of what may be written
    """

    def __init__(self, model: Llama, tokenizer: Tokenizer, request: Request) -> None:
        check_logprobs(request.logprobs)
        asked = request.prompt
        self.prompt = tokenizer.encode(asked, bos=True) if isinstance(asked, str) else list(asked)
        (self._room,) = room_of(model, [self.prompt], request.max_new_tokens)
        self.positions = len(self.prompt) + self._room
        never = tokenizer.rows_without_piece(model.config.vocab_size)
        is_own = request.answer or asked == ""
        self._text = GrowingText(tokenizer, request.stop, request.constraint, is_own, request.logprobs, never)
        device = model.tok_embeddings.weight.device
        self._sampler = Sampler(Sampling(**request.sampling), [self.prompt], device, [request.constraint], never)
        self._request, self._model, self._ends = request, model, set(tokenizer.eos_ids)
        self._context, self._shown = copy_context(), 0
        self.completion: Completion | None = None
        self.error: Exception | None = None
        self._forward: Forward | None = None
        self._parts: Generator[None, None, Tensor] | None = None
        self._chosen: Tensor | None = None

    def new_text(self) -> str:
        """The text that is new since the last call, less what a token to come may take back."""
        whole = self._text.sure() if self.completion is None else self.completion.text
        new, self._shown = whole[self._shown :], max(self._shown, len(whole))
        return new

    @property
    def has_ended(self) -> bool:
        """True once it has a completion or an error."""
        return self.completion is not None or self.error is not None

    @property
    def is_read(self) -> bool:
        """True once it has its first token, and goes on from it."""
        return self._chosen is not None

    def begin(self, drafts: bool | Lookup, prefixes: Prefixes | None) -> None:
        """Takes the memory of its keys and values."""
        prefixes = self._request.prefixes or prefixes
        self._forward = self._context.run(Forward, self._model, [self.prompt], self.positions, None, drafts, prefixes)
        self._parts = self._forward.read()

    def read(self) -> Tensor | None:
        """Reads a part of the prompt; the logits float32 [1, V] behind it once all is read."""
        assert self._parts is not None
        try:
            next(self._parts)
        except StopIteration as end:
            logits: Tensor = end.value
            return logits
        return None

    def kept(self) -> Tensor | None:
        """The logits behind its last token where a draft had it; else it must go on, by `go_on` or `next_token`."""
        assert self._forward is not None and self._chosen is not None
        return self._forward.kept(self._chosen)

    def go_on(self) -> Tensor:
        """The logits float32 [1, V] behind its last token, by a call of its own."""
        assert self._forward is not None and self._chosen is not None
        return self._forward.go_on(self._chosen)

    def next_token(self) -> NextToken:
        """Its last token, for a call together with others."""
        assert self._forward is not None and self._chosen is not None
        return NextToken(self._chosen, self._forward.cache, self._forward.context)

    def take(self, logits: Tensor) -> None:
        """Adds the token that is chosen from its logits, float32 [1, V], or ends with it."""
        assert self._forward is not None
        self._forward.check(logits, (False,))
        self._chosen = self._sampler.choose(logits, (False,))
        token = int(self._chosen)
        if token in self._ends:
            self._end("end of text")
            return
        self._sampler.take([token])
        if self._request.logprobs is not None:
            self._text.add_logprob(token, logits[0])
        if self._text.add(token):
            self._end("stop")
        elif len(self._text.tokens) == self._room:
            self._end("max_new_tokens" if self._room == self._request.max_new_tokens else "context")

    def _end(self, reason: End) -> None:
        self._text.close(reason)
        self.completion = self._text.completion()

    def drop(self) -> None:
        """Gives its memory back."""
        self._forward = self._parts = None


class ContinuousBatch:
    """The texts that are written at once, those that wait to be, and the steps of all of them.

    rows          texts that are read or written at once, 1 to MOST_ROWS
    cache_bytes   of keys and values of these: each takes those of its prompt and of all that it may write. What does
                  not fit waits, in the order in which it came. Not counted: a prompt that `prefixes` reads is there
                  twice until it is read, and what they keep
    drafts        True for drafts of a text from itself while it is the only one; a `Lookup` is for texts one after
                  another, and so for one row
    prefixes      reads prompts, in parts: what they begin with alike once. Without it a prompt is one part
    parts_a_step  of prompts that a step reads at most: 1, so that no text waits long for its next token; more where
                  only the end of all counts
    row_errors    exceptions that end the text they come from alone, as its `error`: of its constraint, of its numbers.
                  Any other ends the step

    It is used by one thread at a time. The numbers of the weights must stay until all texts have ended.
    Raises ValueError for a number of rows or bytes out of range.
    """

    def __init__(
        self,
        model: Llama,
        tokenizer: Tokenizer,
        *,
        rows: int = 8,
        cache_bytes: int = CACHE_BYTES,
        drafts: bool | Lookup = True,
        prefixes: Prefixes | None = None,
        parts_a_step: int = 1,
        row_errors: tuple[type[Exception], ...] = (),
    ) -> None:
        if not 1 <= rows <= MOST_ROWS:
            raise ValueError(f"a batch must have 1 to {MOST_ROWS} rows, got {rows}")
        if cache_bytes < 1:
            raise ValueError(f"cache_bytes must be 1 or more, got {cache_bytes}")
        self.model, self.tokenizer, self.rows, self.cache_bytes = model, tokenizer, rows, cache_bytes
        self.drafts, self.prefixes, self.parts_a_step, self.row_errors = drafts, prefixes, parts_a_step, row_errors
        self._bytes_a_position = bytes_a_position(model)
        self._waiting: deque[Row] = deque()
        self._active: list[Row] = []

    def __len__(self) -> int:
        """The texts that have not ended, those that wait among them."""
        return len(self._waiting) + len(self._active)

    @property
    def bytes(self) -> int:
        """The size of the keys and values of the texts at hand."""
        return sum(map(self._bytes_of, self._active))

    def add(self, request: Request) -> Row:
        """A text to write in the context of this call: with the adapters of `using_adapter` around it.

        Raises ValueError for a request that `complete` refuses, and for one that takes more than `cache_bytes`.
        """
        row = Row(self.model, self.tokenizer, request)
        if (needed := self._bytes_of(row)) > self.cache_bytes:
            raise ValueError(
                f"{len(row.prompt)} tokens and {row.positions - len(row.prompt)} new ones need {_mb(needed)} of keys "
                f"and values, and there are {_mb(self.cache_bytes)} for all texts: ask for fewer, or allow more"
            )
        self._waiting.append(row)
        return row

    def cancel(self, row: Row) -> None:
        """Gives a text up, wherever it is: its place is free."""
        if row in self._waiting:
            self._waiting.remove(row)
        elif row in self._active:
            self._active.remove(row)
            row.drop()

    @torch.inference_mode()
    def step(self) -> list[Row]:
        """Reads parts of prompts and writes a token of each text that is read; returns those that went on or ended.

        After an error that is none of `row_errors` the texts at hand cannot go on: `cancel` them.
        """
        self._enter()
        logits = self._go_on([row for row in self._active if row.is_read])
        logits |= self._read([row for row in self._active if not (row.is_read or row.has_ended)])
        for row, found in logits.items():
            if found is not None:
                self._of_one(row, partial(row.take, found))
        moved = [row for row in self._active if row.has_ended or logits.get(row) is not None]
        for row in moved:
            if row.has_ended:
                self.cancel(row)
        return moved

    def _enter(self) -> None:
        """Lets texts begin while there are rows and memory for the next one."""
        while self._waiting and len(self._active) < self.rows:
            if self.bytes + self._bytes_of(self._waiting[0]) > self.cache_bytes:
                return
            self._active.append(row := self._waiting.popleft())
            self._of_one(row, partial(row.begin, self.drafts, self.prefixes))

    def _read(self, rows: Sequence[Row]) -> dict[Row, Tensor | None]:
        """The logits behind the prompts that are read to their ends, the first ones first; None where one is not."""
        logits: dict[Row, Tensor | None] = {}
        for _ in range(self.parts_a_step):
            row = next((row for row in rows if logits.get(row) is None and row.error is None), None)
            if row is None:
                break
            logits[row] = self._of_one(row, row.read)
        return logits

    def _go_on(self, rows: Sequence[Row]) -> dict[Row, Tensor | None]:
        """The logits behind the last token of each text; None where it ends with an error."""
        logits = {row: self._of_one(row, row.kept) for row in rows}
        rest = [row for row, found in logits.items() if found is None and row.error is None]
        fused = self.model.fused_blocks
        if fused is not None and len(rest) > 1:
            joined = fused.logits_of_rows(self.model, [row.next_token() for row in rest])
            logits.update(zip(rest, joined, strict=True))
        for row in rest:
            if logits[row] is None:
                logits[row] = self._of_one(row, row.go_on)
        return logits

    def _of_one(self, row: Row, step: Callable[[], Value]) -> Value | None:
        """The value of a step of one text; None if the text ends with an error."""
        try:
            return step()
        except self.row_errors as error:
            row.error = error
            return None

    def _bytes_of(self, row: Row) -> int:
        return row.positions * self._bytes_a_position


def bytes_a_position(model: Llama) -> int:
    """The size of a position of one text in a cache: keys and values of all layers, in their format, and angles."""
    weight = model.tok_embeddings.weight
    held = vars(model.cache_type(model.config, 1, 1, weight.dtype, weight.device)).values()
    tensors = [part for one in held for part in (one if isinstance(one, tuple) else (one,)) if isinstance(part, Tensor)]
    return sum(tensor.nbytes for tensor in tensors)


def _mb(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
