"""The one thread that runs the models: texts are asked for from any thread or task, and are written in turns.

    submit -> waiting (bounded) -> active (a few at a time) -> Piece, Piece, ..., Finished | Failed | Stopped

Each active text writes up to TURN_TOKENS tokens, or for TURN_SECONDS, and then the next one does: short texts do not
wait for long ones, and two hats side by side are seen to write at once. On a CPU a small model is faster so than in a
batch with a hat a row: a token of one row is one call of C (`layers.cpu_decode`), one of rows in several hats is not.
Whoever batches continuously puts another `_work` into this class; nothing else knows in which order tokens are written.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from ..adapters import using_adapter
from ..layers.prefix_cache import PrefixCache
from ..model.completion import Completion
from ..model.generate import stream
from ..model.llama import Llama
from ..model.sampling import Constraint, SamplingOptions
from ..model.tokenizer import Tokenizer
from .private_log import log, place_of

TURN_TOKENS, TURN_SECONDS = 8, 0.05
LAST = 8  # texts whose seconds say how long the next will wait

# Whatever ends one text must not end the thread that all texts are written in.
MISTAKES = (ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError, OSError, RuntimeError, TypeError)


@dataclass(frozen=True)
class TextRequest:
    """One text to write.

    adapter     the hat, None for the base alone
    prompt      ids of the whole prompt; `answer` as in `generate`
    constraint  of its figures, if it is grounded: for this text alone
    logprobs    as in `complete`
    """

    model: Llama
    tokenizer: Tokenizer
    adapter: str | None
    prompt: Sequence[int]
    answer: bool
    max_new_tokens: int
    stop: Sequence[str] = ()
    sampling: SamplingOptions = field(default_factory=SamplingOptions)
    constraint: Constraint | None = None
    logprobs: int | None = None


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
    """The text could not be finished: `reason` is one line without anything of the prompt."""

    reason: str


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
        self.begun = 0.0
        self._steps: Generator[str, None, Completion] | None = None

    def next_piece(self, prefixes: PrefixCache | None = None) -> str:
        """The text that one more token adds.  Raises StopIteration with the completion as its value.

        prefixes  what the prompts of its model began with so far
        """
        if self._steps is None:
            asked, self.begun = self.request, time.monotonic()
            self._steps = stream(
                asked.model,
                asked.tokenizer,
                asked.prompt,
                max_new_tokens=asked.max_new_tokens,
                stop=asked.stop,
                constraint=asked.constraint,
                answer=asked.answer,
                prefixes=prefixes,
                logprobs=asked.logprobs,
                **asked.sampling,
            )
            with using_adapter(asked.model, asked.adapter):  # a text that is begun in it is finished in it
                return next(self._steps)
        return next(self._steps)

    def drop(self) -> None:
        """Lets go of the cache of keys and values."""
        if self._steps is not None:
            self._steps.close()
        self._steps = None


class Engine:
    """The thread that writes all texts.

    active   texts that are written in turns, each with a cache of its own
    waiting  texts that may wait for a turn; a further one is refused
    """

    def __init__(self, *, active: int = 4, waiting: int = 16) -> None:
        if active < 1 or waiting < 0:
            raise ValueError(f"the engine must write 1 text or more and let 0 or more wait, got {active} and {waiting}")
        self.active, self.waiting = active, waiting
        self._changed = threading.Condition()
        self._queue: deque[Text] = deque()
        self._running: list[Text] = []
        self._seconds: deque[float] = deque([1.0], maxlen=LAST)
        self._is_closed = False
        self._prefixes: WeakKeyDictionary[Llama, PrefixCache] = WeakKeyDictionary()
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
            while running := self._admit():
                for text in running:
                    if (end := self._turn(text)) is not None:
                        self._end(text, end)
        finally:
            with self._changed:
                self._is_closed = True
                left = (*self._running, *self._queue)
                self._running.clear()
                self._queue.clear()
            for text in left:
                text.drop()
                text.tell(Stopped())

    def _admit(self) -> list[Text]:
        """The texts whose turn it is, once there is one; none if the engine is closed."""
        with self._changed:
            while not (self._is_closed or self._running or self._queue):
                self._changed.wait()
            if self._is_closed:
                return []
            while self._queue and len(self._running) < self.active:
                self._running.append(self._queue.popleft())
            return list(self._running)

    def _turn(self, text: Text) -> Event | None:
        """Writes some tokens of a text; returns its end, None if it goes on."""
        pieces = []
        end: Event | None = None
        until = time.monotonic() + TURN_SECONDS
        try:
            for _ in range(TURN_TOKENS):
                if text.is_cancelled:
                    end = Stopped()
                    break
                pieces.append(text.next_piece(self._prefixes_of(text.request.model)))
                if time.monotonic() > until:
                    break
        except StopIteration as stop:
            end = Finished(stop.value)
        except (FloatingPointError, ValueError) as error:
            end = Failed(str(error))
        except MISTAKES as error:
            log.error("a text could not be finished: %s", place_of(error))
            end = Failed(f"the text could not be finished ({type(error).__name__})")
        if written := "".join(pieces):
            text.tell(Piece(written))
        return end

    def _prefixes_of(self, model: Llama) -> PrefixCache:
        """The beginnings of prompts that the model has read; of a chat, all that was said before."""
        if model not in self._prefixes:
            self._prefixes[model] = PrefixCache()
        return self._prefixes[model]

    def _end(self, text: Text, end: Event) -> None:
        text.drop()
        with self._changed:
            self._running.remove(text)
            if isinstance(end, Finished):
                self._seconds.append(time.monotonic() - text.begun)
        text.tell(end)
