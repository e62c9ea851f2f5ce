"""Texts of the engine as an asyncio task waits for them, and answers that end when their client has gone.

    engine's thread -> call_soon_threadsafe -> one queue a request -> the answer

A client that reads slowly holds up its own answer and nothing else: the engine never waits for it, and what it has yet
to read is at most the texts that it asked for.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TypeVar

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from .engine import ClosedError, Engine, Event, Failed, Finished, Piece, QueueFullError, Stopped, Text, TextRequest
from .errors import Refusal

SILENCE = 5.0  # seconds after which a stream says that it is still there
Value = TypeVar("Value")


class Texts:
    """The texts of one request.  Raises Refusal if the engine has no room for them, or has ended."""

    def __init__(self, engine: Engine, requests: Sequence[TextRequest]) -> None:
        self._engine = engine
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[tuple[int, Event]] = asyncio.Queue()
        self._open = len(requests)
        self._texts = [Text(request, self._teller(number)) for number, request in enumerate(requests)]
        try:
            engine.submit(self._texts)
        except QueueFullError as error:
            raise Refusal(429, str(error), code="queue_full", retry_after=error.retry_after) from None
        except ClosedError as error:
            raise Refusal(503, str(error)) from None

    def _teller(self, number: int) -> Callable[[Event], None]:
        def tell(event: Event) -> None:
            with suppress(RuntimeError):  # the loop has ended, and with it whoever waited
                self._loop.call_soon_threadsafe(self._events.put_nowait, (number, event))

        return tell

    async def events(self) -> AsyncIterator[tuple[int, Event] | None]:
        """(number of the text, what became of it) as it happens, until all have ended; None after some silence.

        Raises Refusal where a text failed, and asyncio.CancelledError where it was given up.
        """
        while self._open:
            try:
                number, event = await asyncio.wait_for(self._events.get(), SILENCE)
            except TimeoutError:
                yield None
                continue
            if isinstance(event, Failed):
                self.cancel()
                raise Refusal(400 if event.is_mistake else 500, event.reason, code="failed")
            if isinstance(event, Stopped):
                self.cancel()
                raise Refusal(503, "the server is ending, or the text was given up", code="stopped")
            if isinstance(event, Finished):
                self._open -= 1
            yield number, event

    def cancel(self) -> None:
        """Gives up what is not finished."""
        self._engine.cancel(self._texts)


@contextmanager
def given_up_with(receive: Receive, gone: Callable[[], None]) -> Iterator[None]:
    """Calls `gone` when the client goes away during the block."""

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        gone()

    watcher = asyncio.ensure_future(watch())
    try:
        yield
    finally:
        watcher.cancel()


async def unless_gone(receive: Receive, gone: Callable[[], None], work: Awaitable[Value]) -> Value:
    """The value of some work, during which `gone` is called if the client goes away."""
    with given_up_with(receive, gone):
        return await work


class EventStream(Response):
    """Server-sent events: `data: ...` lines, as they come.

    events  bytes of whole events
    gone    is called when the stream ends, for whatever reason, and at once when the client goes away
    """

    media_type = "text/event-stream"

    def __init__(
        self, events: AsyncIterator[bytes], gone: Callable[[], None], headers: Mapping[str, str] | None = None
    ) -> None:
        self.status_code, self.background = 200, None
        self.events, self.gone = events, gone
        self.init_headers({"x-accel-buffering": "no", **(headers or {})})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the events until they end, or nobody is there."""
        start: Message = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        try:
            with given_up_with(receive, self.gone), suppress(OSError):
                await send(start)
                async for event in self.events:
                    await send({"type": "http.response.body", "body": event, "more_body": True})
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self.gone()


__all__ = ["EventStream", "Piece", "Texts", "given_up_with", "unless_gone"]
