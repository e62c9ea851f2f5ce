"""Signals that end a run: the first is kept until a checkpoint can be written, the second ends the process at once."""

import contextlib
import os
import signal
import threading
from types import FrameType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
MESSAGE = b"\nstops after this batch and writes a checkpoint; once more ends at once\n"


class RunStopped(KeyboardInterrupt):
    """A run ended by a signal, after its checkpoint was written."""


class StopSignals:
    """SIGINT, SIGTERM and SIGHUP while the block lasts; `received` is the name of the first, "" before it.

    One that is ignored, as under nohup, stays ignored. Python hears signals in the main thread alone: in another this
    changes nothing.
    """

    def __init__(self) -> None:
        self.received = ""
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        self.received = signal.Signals(number).name
        self._restore()  # the next one is met by what was there before, which ends the process
        with contextlib.suppress(OSError):  # a terminal that is gone
            os.write(2, MESSAGE)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()
