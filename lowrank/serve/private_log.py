"""Lines for the terminal in which there is no fact, no prompt and no text, not even in the message of an error."""

import logging
from pathlib import Path
from typing import Self

log = logging.getLogger("lowrank.serve")


def place_of(error: BaseException) -> str:
    """ "ZeroDivisionError in engine.py:120": an error without its message, which may quote what was asked."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = f" in {Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace is not None else ""
    return f"{type(error).__name__}{where}"


class _PrivateHandler(logging.Handler):
    """Hands warnings of other libraries on, an error with its place alone."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        told = place_of(error) if error is not None else record.name
        log.warning("%s: %s", "the server" if error is None else "a request failed", told)


class PrivateLog:
    """While it is open, what uvicorn and asyncio log is told by its place alone."""

    NAMES = ("uvicorn", "uvicorn.error", "uvicorn.asgi", "asyncio")

    def __enter__(self) -> Self:
        self._handler = _PrivateHandler(logging.WARNING)
        self._before = [(name, logging.getLogger(name).propagate) for name in self.NAMES]
        for name, _ in self._before:
            logging.getLogger(name).addHandler(self._handler)
            logging.getLogger(name).propagate = False
        return self

    def __exit__(self, *_: object) -> None:
        for name, propagates in self._before:
            logging.getLogger(name).removeHandler(self._handler)
            logging.getLogger(name).propagate = propagates
