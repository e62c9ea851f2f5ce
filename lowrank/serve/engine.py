"""The one thread that runs the models: texts are asked for from any thread or task, and are written at once.

    submit -> waiting (bounded) -> active: rows of a `ContinuousBatch` -> Piece, Piece, ..., Finished | Failed | Stopped

Each base has a batch, which texts join and leave between two tokens, in whichever hats: a step writes a token of each.
Several bases take turns, a step each. Pieces of a text come PIECE_SECONDS apart or more, however fast it is written.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import Context, copy_context
from dataclasses import dataclass, replace

from ..adapters import using_adapter
from ..layers.prefix_cache import PrefixCache
from ..model.completion import Completion
from ..model.continuous_batch import CACHE_BYTES, MOST_ROWS, ContinuousBatch, Request, Row
from ..model.llama import Llama
from ..model.tokenizer import Tokenizer
from .private_log import log, place_of

PIECE_SECONDS = 0.05
LAST = 8  # texts whose seconds say how long the next will wait

# Whatever ends one text must not end the thread that all texts are written in.
MISTAKES = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError, OSError, RuntimeError, TypeError),
    ValueError,
)


@dataclass(frozen=True, kw_only=True)
class TextRequest(Request):
    """One text to write, by a model in a hat; None for the base alone."""

    model: Llama
    tokenizer: Tokenizer
    adapter: str | None


@dataclass(frozen=True)
class Piece:
    """The text goes on."""

    text: str


@dataclass(frozen=True)
class Finished:
    """The text is whole."""

    completion: Completion


@dataclass(frozen=True)
class Failed:
    """The text could not be finished: `reason` is one line without anything of the prompt.

    is_mistake  True if it is the request's, which was refused
    """

    reason: str
    is_mistake: bool = False


@dataclass(frozen=True)
class Stopped:
    """The text was given up, since nobody waits for it or the server ends."""


Event = Piece | Finished | Failed | Stopped


class QueueFullError(Exception):
    """As many texts wait as may; `retry_after` seconds from now there may be room."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"too many texts are waiting: try again in {retry_after} s")
        self.retry_after = retry_after


class ClosedError(Exception):
    """The engine takes no more texts."""


class Text:
    """A text that was asked for; `tell` hears of it, in any thread, until one of Finished, Failed and Stopped."""

    def __init__(self, request: TextRequest, tell: Callable[[Event], None]) -> None:
        self.request, self.tell = request, tell
        self.is_cancelled = False
        self.begun = self.told = 0.0
        self.row: Row | None = None
        self._untold = ""

    def go_on(self) -> None:
        """Tells what is new, unless it told something a moment ago and the text is still to end."""
        assert self.row is not None
        self._untold += self.row.new_text()
        now = time.monotonic()
        if self._untold and (self.row.has_ended or now - self.told >= PIECE_SECONDS):
            self.tell(Piece(self._untold))
            self.told, self._untold = now, ""


class Engine:
    """The thread that writes all texts.

    active       texts that are written at once, up to MOST_ROWS
    waiting      texts that may wait for a place; a further one is refused
    cache_bytes  of the keys and values of those of a base: see `ContinuousBatch`
    """

    def __init__(self, *, active: int = 8, waiting: int = 16, cache_bytes: int = CACHE_BYTES) -> None:
        if not 1 <= active <= MOST_ROWS or waiting < 0:
            rule = f"the engine must write 1 to {MOST_ROWS} texts and let 0 or more wait"
            raise ValueError(f"{rule}, got {active} and {waiting}")
        self.active, self.waiting, self.cache_bytes = active, waiting, cache_bytes
        self._changed = threading.Condition()
        self._queue: deque[Text] = deque()
        self._running: list[Text] = []
        self._seconds: deque[float] = deque([1.0], maxlen=LAST)
        self._is_closed = False
        self._batches: dict[Llama, ContinuousBatch] = {}
        self._contexts: dict[tuple[Llama, str | None], Context] = {}
        self._thread = threading.Thread(target=self._work, name="lowrank-engine", daemon=True)
        self._thread.start()

    def submit(self, texts: Sequence[Text]) -> None:
        """Takes all of the texts, or none.

        Raises QueueFullError if there is no room for them, ClosedError if the engine has ended.
        """
        with self._changed:
            if self._is_closed:
                raise ClosedError("the server is ending")
            if len(self._running) + len(self._queue) + len(texts) > self.active + self.waiting:
                raise QueueFullError(self._retry_after())
            self._queue.extend(texts)
            self._changed.notify()

    def cancel(self, texts: Sequence[Text]) -> None:
        """Gives the texts up: those that wait at once, others before their next token."""
        with self._changed:
            for text in texts:
                text.is_cancelled = True
            given_up = [text for text in self._queue if text.is_cancelled]
            for text in given_up:
                self._queue.remove(text)
        for text in given_up:
            text.tell(Stopped())

    @property
    def load(self) -> tuple[int, int]:
        """(texts that are written, texts that wait)"""
        with self._changed:
            return len(self._running), len(self._queue)

    def close(self, timeout: float = 30.0) -> None:
        """Gives up every text and ends the thread, at the latest when the token that is being computed is there."""
        with self._changed:
            self._is_closed = True
            for text in (*self._queue, *self._running):
                text.is_cancelled = True
            self._changed.notify()
        self._thread.join(timeout)

    def _retry_after(self) -> int:
        """Seconds until a text will be finished, about: as long as the last ones took."""
        return max(1, min(60, round(sum(self._seconds) / len(self._seconds))))

    def _work(self) -> None:
        try:
            while self._admit():
                for model in list(self._batches):
                    self._step(model)
        finally:
            with self._changed:
                self._is_closed = True
                left = (*self._running, *self._queue)
                self._running.clear()
                self._queue.clear()
            self._batches.clear()
            for text in left:
                text.tell(Stopped())

    def _admit(self) -> bool:
        """Begins texts once there are some, while there is room; false if the engine is closed."""
        begun = []
        with self._changed:
            while not (self._is_closed or self._running or self._queue):
                self._changed.wait()
            if self._is_closed:
                return False
            while self._queue and len(self._running) < self.active:
                begun.append(self._queue.popleft())
                self._running.append(begun[-1])
        for text in begun:
            self._begin(text)
        return True

    def _begin(self, text: Text) -> None:
        asked, text.begun = text.request, time.monotonic()
        try:
            text.row = self._context_of(asked).run(self._batch_of(asked).add, asked)
        except MISTAKES as error:
            self._end(text, replace(_failed(error), is_mistake=isinstance(error, ValueError)))

    def _batch_of(self, asked: TextRequest) -> ContinuousBatch:
        """The batch of a base, with the beginnings of prompts that it has read; of a chat, all that was said before."""
        if asked.model not in self._batches:
            self._batches[asked.model] = ContinuousBatch(
                asked.model,
                asked.tokenizer,
                rows=self.active,
                cache_bytes=self.cache_bytes,
                prefixes=PrefixCache(),
                row_errors=MISTAKES,
            )
        return self._batches[asked.model]

    def _context_of(self, asked: TextRequest) -> Context:
        """A context in which the hat is worn: one for all texts in it, which a batch then takes together."""
        key = asked.model, asked.adapter
        if key not in self._contexts:
            with using_adapter(asked.model, asked.adapter):
                self._contexts[key] = copy_context()
        return self._contexts[key]

    def _step(self, model: Llama) -> None:
        """Writes a token of each text of a base, and tells what became of them."""
        batch, texts = self._batches[model], {}
        for text in [text for text in self._running if text.request.model is model]:
            assert text.row is not None
            if text.is_cancelled:
                batch.cancel(text.row)
                self._end(text, Stopped())
            else:
                texts[text.row] = text
        try:
            moved = batch.step()
        except MISTAKES as error:  # of all texts together
            for row, text in texts.items():
                batch.cancel(row)
                self._end(text, _failed(error))
            return
        for row in moved:
            text = texts[row]
            if row.error is not None:
                self._end(text, _failed(row.error))
                continue
            text.go_on()
            if row.completion is not None:
                self._end(text, Finished(row.completion))

    def _end(self, text: Text, end: Event) -> None:
        with self._changed:
            self._running.remove(text)
            if isinstance(end, Finished):
                self._seconds.append(time.monotonic() - text.begun)
        text.tell(end)


def _failed(error: Exception) -> Failed:
    """An error as it is told: by its message where that can hold nothing of the prompt, else by its kind."""
    if isinstance(error, FloatingPointError | ValueError):
        return Failed(str(error))
    log.error("a text could not be finished: %s", place_of(error))
    return Failed(f"the text could not be finished ({type(error).__name__})")
