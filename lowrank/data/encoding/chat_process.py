"""A chat template at work in a process of its own, within limits: a template is a program that came with a model."""

import json
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from ...extras import need

SECONDS, BYTES = 1.0, 256 * 2**20  # of processor time a rendering, and of memory
START = 60.0  # seconds by the clock, on a machine that is busy with other things
PATIENCE = 10.0 if sys.platform == "win32" else 60.0  # the same for an answer: only Windows does not count SECONDS
LONGEST = 200  # characters of an error that are told


class ChatProcess:
    """text = template(variables)

    Raises ValueError, one line, for a template that is none, that fails, or that reaches a limit. Its process ends with
    this object, or when the template reaches a limit; the next rendering starts another.
    """

    def __init__(self, source: str) -> None:
        need("jinja2", "template chat")
        self.source = source
        self._lock = threading.Lock()
        self._child: subprocess.Popen[str] | None = None

    def render(self, variables: Mapping[str, Any]) -> str:
        """The text of the template with these variables, which are of JSON's kinds."""
        with self._lock:
            child = self._child or self._start()
            return self._ask(child, json.dumps(variables))

    def _start(self) -> "subprocess.Popen[str]":
        command = [sys.executable, "-P", str(Path(__file__).with_name("chat_child.py")), str(SECONDS), str(BYTES)]
        child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
            env=os.environ | {"PYTHONIOENCODING": "utf-8", "OPENBLAS_NUM_THREADS": "1"},
        )
        self._child = child
        weakref.finalize(self, _end, child)
        self._line(child, None, START)
        try:
            self._ask(child, json.dumps(self.source))
        except ValueError:
            self._child = None
            _end(child)
            raise
        return child

    def _ask(self, child: "subprocess.Popen[str]", line: str) -> str:
        answer: dict[str, str] = json.loads(self._line(child, line, PATIENCE))
        if "error" in answer:
            raise ValueError(f"template chat: {_short(answer['error'])}")
        return answer["text"]

    def _line(self, child: "subprocess.Popen[str]", line: str | None, seconds: float) -> str:
        """The answer to a line.  Raises ValueError if the process ends instead, or gives none in so many seconds."""
        assert child.stdin is not None and child.stdout is not None
        clock = threading.Timer(seconds, child.kill)
        clock.start()
        try:
            if line is not None:
                child.stdin.write(line + "\n")
                child.stdin.flush()
            answer = child.stdout.readline()
        except BrokenPipeError:
            answer = ""
        finally:
            clock.cancel()
        if answer:
            return answer
        self._child = None
        _end(child)
        raise ValueError(f"template chat: {_end_reason(child.returncode, seconds)}")


@lru_cache(maxsize=4)
def process_of(source: str) -> ChatProcess:
    """The process of a template's text; one that is long unused ends."""
    return ChatProcess(source)


def _end(child: "subprocess.Popen[str]") -> None:
    child.kill()
    child.wait()
    for pipe in (child.stdin, child.stdout):
        assert pipe is not None
        with suppress(BrokenPipeError):  # what the child was to read may still stand in the buffer
            pipe.close()


def _end_reason(status: int, seconds: float) -> str:
    if sys.platform != "win32" and status == -signal.SIGPROF:
        return f"takes more than {SECONDS:g} s"
    if sys.platform != "win32" and status == -signal.SIGKILL:
        return f"gives no answer within {seconds:g} s"
    return f"its process ended with status {status}"


def _short(text: str) -> str:
    """A text in one line."""
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}..."
