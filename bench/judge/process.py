"""The judge's end of a submission's process, which runs only while it is asked for something, and never meanwhile.

A call, as the judge times it: the process is stopped; the judge writes new inputs and drives them out of the caches;
the clock starts, and the process goes on; it says that it has done; the judge copies y, and the clock stops; the
process is stopped again. So nothing can be read, decoded or warmed before the clock runs, and what is computed after
the answer comes too late to be in the copy.
"""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self

from torch import Tensor

from .arena import Arena
from .rules import RuleBroken
from .task import Data
from .worker import CLOCKS, MESSAGE

QUIET_SECONDS = 0.05  # an idle process uses no processor time in so long; one whose threads still spin gets more tries
QUIET_TRIES = 16
BUSY_SECONDS = 1e-3  # of processor time in QUIET_SECONDS, above which a process is not at rest
START_SECONDS = 120.0  # for the import of torch, on a machine that is busy
END_SECONDS = 0.3  # from a worker's hanging up to the end of its process
CLOCK_SLACK = 0.05  # seconds by which the system may set the time of day meanwhile

clock = time.perf_counter


@dataclass(frozen=True)
class Answer:
    """The y that a call left when it returned, float32 [M, N], and how long that took."""

    y: Tensor
    seconds: float


class Launcher:
    """The process that starts those of submissions; with `cores`, all of them on these.  Raises OSError if it ends."""

    def __init__(self, cores: list[int] | None = None) -> None:
        self._link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        words = [str(theirs.fileno()), ",".join(map(str, cores or []))]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "lowrank.bench.judge.launcher", *words],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            # Inductor compiles in the process itself, which then leaves none behind.
            env={**os.environ, "PYTHONSAFEPATH": "1", "TORCHINDUCTOR_COMPILE_THREADS": "1"},
            start_new_session=True,
        )
        theirs.close()
        self._link.settimeout(START_SECONDS)
        self._receive()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._link.close()
        self._process.wait()

    def start(self, submission: Path, task: Path, threads: int, nonce: str) -> tuple[int, socket.socket]:
        """A process for the submission, and the judge's end of a socket to it."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        order = {"submission": str(submission), "task": str(task), "threads": threads, "nonce": nonce}
        socket.send_fds(self._link, [json.dumps(order).encode()], [theirs.fileno()])
        theirs.close()
        return int(self._receive()["pid"]), ours

    def status(self, pid: int) -> int:
        """The status of a process that has ended, or is about to; of one that was killed, minus the signal."""
        self._link.send(json.dumps({"wait": pid}).encode())
        return int(self._receive()["status"])

    def _receive(self) -> dict[str, Any]:
        text = self._link.recv(MESSAGE)
        if not text:
            raise OSError("the process that starts submissions has ended")
        told: dict[str, Any] = json.loads(text)
        return told


class Worker:
    """A submission in a process of its own. Every method raises RuleBroken where the submission breaks a rule.

    limit  seconds that anything may take
    """

    def __init__(self, launcher: Launcher, submission: Path, task: Path, *, threads: int, limit: float) -> None:
        self._launcher, self._submission, self._limit, self._has_ended = launcher, submission, limit, False
        self._nonce = secrets.token_hex(8)
        self.pid, self._link = launcher.start(submission, task, threads, self._nonce)
        self._link.settimeout(limit)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._link.close()
        for pid in [*self.descendants(), self.pid]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if not self._has_ended:
            self._launcher.status(self.pid)

    def load(self) -> None:
        """Waits until the submission is loaded.  Raises ValueError if it has not the function that is called."""
        self._receive()

    def lay_out(self, data: Data) -> None:
        """New memory for calls of the shapes of `data`, of which the process learns no more than these shapes."""
        self.arena = Arena(data)
        self._ask("lay out", [self.arena.descriptor], parts=self.arena.parts)
        os.close(self.arena.descriptor)
        self.stop()

    def call(self, data: Data, before: Callable[[], None] = lambda: None) -> Answer:
        """One call with these inputs; `before` runs between their writing and the start of the clock."""
        self.stop()
        self.arena.put(data)
        before()
        self._send("call")
        start = clock()
        os.kill(self.pid, signal.SIGCONT)
        told = self._receive()
        y = self.arena.take()
        seconds = clock() - start
        self.stop()
        if fault := told.get("fault"):
            raise RuleBroken("plain-tensor", str(fault))
        return Answer(y, seconds)

    def round_trip(self) -> float:
        """Seconds of a call in which nothing is computed."""
        self.stop()
        self._send("nothing")
        start = clock()
        os.kill(self.pid, signal.SIGCONT)
        self._receive()
        return clock() - start

    def changes_later(self, answer: Answer) -> bool:
        """True if the answer of the last call, left alone for a while, is another than it was."""
        if len(list(self._states())) == 1:
            return False  # no thread is there to go on
        for _ in range(QUIET_TRIES):
            os.kill(self.pid, signal.SIGCONT)
            time.sleep(QUIET_SECONDS)
            self._ask("again")
            self.stop()
            if self.arena.take().numpy().tobytes() != answer.y.numpy().tobytes():
                return True
        return False

    def check_rest(self) -> None:
        """Nothing is computed while nothing is asked, no process is left behind, and the clocks are the system's."""
        os.kill(self.pid, signal.SIGCONT)
        for _ in range(QUIET_TRIES):
            before = self._processor_seconds()
            time.sleep(QUIET_SECONDS)
            used = self._processor_seconds() - before
            if used <= BUSY_SECONDS and "R" not in self._states():
                break
        else:
            raise RuleBroken("at-rest", f"after its answer it computes on: {1e3 * used:.0f} ms at the last look")
        if left := self.descendants():
            raise RuleBroken("processes", f"{len(left)} are left: {', '.join(map(_title, left))}")
        self._check_clocks()
        self.stop()

    def descendants(self) -> list[int]:
        """The processes that it started, and theirs, as far as the system has them below it."""
        found = [self.pid]
        for parent in found:  # which grows
            for children in Path(f"/proc/{parent}/task").glob("*/children"):
                with suppress(FileNotFoundError, ProcessLookupError):  # of a thread that has ended meanwhile
                    found += map(int, children.read_text().split())
        return found[1:]

    def stop(self) -> None:
        """Stops every thread of the process, and returns when all of them stand."""
        until = time.monotonic() + self._limit
        os.kill(self.pid, signal.SIGSTOP)
        while not self.is_stopped():
            if time.monotonic() > until:
                raise RuleBroken("at-rest", "it does not stop when it is told to")
            time.sleep(1e-5)

    def is_stopped(self) -> bool:
        """True if every thread is stopped, or has ended."""
        return all(state in "TtZX" for state in self._states())

    def _states(self) -> Iterator[str]:
        """The letter of every thread (proc(5)); it stands behind the name, which may have brackets in it."""
        for thread in Path(f"/proc/{self.pid}/task").iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):
                yield (thread / "stat").read_text().rpartition(")")[2].split()[0]

    def _processor_seconds(self) -> float:
        """Used by all its threads, also those that have ended: another process's clock, clock_getcpuclockid(3)."""
        try:
            return time.clock_gettime((~self.pid << 3) | 2)
        except OSError:
            self._raise_ended()

    def _check_clocks(self) -> None:
        before = {name: getattr(time, name)() for name in CLOCKS}
        told = self._ask("tell the time").get("clocks")
        for name, earliest in before.items():
            unit = 1e9 if name.endswith("_ns") else 1.0
            slack = CLOCK_SLACK * unit if name.startswith("time") else 0.0
            now = told.get(name) if isinstance(told, dict) else None
            if not isinstance(now, int | float) or not earliest - slack <= now <= getattr(time, name)() + slack:
                raise RuleBroken("clock", f"time.{name}() is {now}, between {earliest} and {getattr(time, name)()}")

    def _ask(self, what: str, descriptors: list[int] | None = None, **more: Any) -> dict[str, Any]:
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGCONT)
        self._send(what, descriptors, **more)
        return self._receive()

    def _send(self, what: str, descriptors: list[int] | None = None, **more: Any) -> None:
        """The number is new each time, so that no answer can be given before its question."""
        self._nonce = secrets.token_hex(8)
        message = json.dumps({"do": what, "nonce": self._nonce, **more}).encode()
        try:
            socket.send_fds(self._link, [message], descriptors or [])
        except (BrokenPipeError, ConnectionResetError):
            self._raise_ended()

    def _receive(self) -> dict[str, Any]:
        try:
            text = self._link.recv(MESSAGE)
        except TimeoutError:
            raise RuleBroken("in-time", f"no answer within {self._limit:g} s") from None
        except ConnectionResetError:
            text = b""
        if not text:
            self._raise_ended()
        try:
            told = json.loads(text)
        except ValueError:
            told = None
        if not isinstance(told, dict):
            raise RuleBroken("runs", "the answer is no message of the judge's worker")
        if "raised" in told:
            raise RuleBroken("runs", f"raises {told['raised']}")
        if "absent" in told:
            raise ValueError(f"{self._submission}: has no function {told['absent']}")
        if told.get("nonce") != self._nonce:
            raise RuleBroken("runs", "an answer came that was not asked for")
        return told

    def _raise_ended(self) -> NoReturn:
        """Says how the process ended; one that only hung up, and lives on, is ended after a while."""
        self._has_ended = True
        until = clock() + END_SECONDS
        while clock() < until and any(state not in "ZX" for state in self._states()):
            time.sleep(1e-3)
        os.kill(self.pid, signal.SIGKILL)
        status = self._launcher.status(self.pid)
        how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        raise RuleBroken("runs", f"its process {how}")


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return str(pid)
