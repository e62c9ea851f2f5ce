"""Child processes of tests: none outlives its time limit, and one that fails shows what it printed."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

LIMIT = 240.0  # seconds: less than the limit of a test, so that it is the child whose stacks are shown
LAST_WORDS = 10.0  # seconds from SIGABRT, at which faulthandler prints the stacks of every thread, to SIGKILL
HELPERS = str(Path(__file__).parent)


def environment(**changes: str) -> dict[str, str]:
    """This process's environment with changes; a Python in it prints stacks at a fatal signal, and finds helpers."""
    path = os.pathsep.join(filter(None, [HELPERS, os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONFAULTHANDLER": "1", "PYTHONPATH": path, **changes}


def start(*command: object, cwd: str | Path = "/", env: dict[str, str] | None = None, **options: Any) -> Any:
    """A process that leads a group of its own, its output in pipes; for `finish`."""
    return subprocess.Popen(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env=environment() if env is None else env,
        start_new_session=True,
        **options,
    )


def finish(
    process: "subprocess.Popen[str]", limit: float = LIMIT, check: bool = True
) -> "subprocess.CompletedProcess[str]":
    """Waits for a process of `start`, and ends all of its group.

    The test fails, and shows stdout and stderr, if the limit (seconds) is reached or, with `check`, at a status other
    than 0.
    """
    late = False
    try:
        try:
            out, err = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            late = True
            started = _descendants(process.pid)
            _send(signal.SIGABRT, *started)
            try:
                out, err = process.communicate(timeout=LAST_WORDS)
            except subprocess.TimeoutExpired:
                _send(signal.SIGKILL, *started)
                out, err = process.communicate()
    finally:
        _send(signal.SIGKILL, -process.pid)
    if late or (check and process.returncode):
        how = f"did not end within {limit:g} s" if late else f"ended with status {process.returncode}"
        pytest.fail(f"{_title(process)} {how}\n--- stdout\n{out}\n--- stderr\n{err}", pytrace=False)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def run(
    *command: object,
    cwd: str | Path = "/",
    env: dict[str, str] | None = None,
    limit: float = LIMIT,
    check: bool = True,
) -> "subprocess.CompletedProcess[str]":
    """Runs a command to its end: `start`, then `finish`."""
    return finish(start(*command, cwd=cwd, env=env), limit, check)


def run_python(*arguments: object, **options: Any) -> "subprocess.CompletedProcess[str]":
    """`run` with this interpreter: run_python("-c", code, argument)."""
    return run(sys.executable, *arguments, **options)


def _descendants(number: int) -> list[int]:
    """A process and all that descend from it, also those that lead groups of their own, as torchrun's do."""
    found = [number]
    for parent in found:  # which grows
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            found += map(int, task.read_text().split())
    return found


def _send(number: int, *processes: int) -> None:
    """Signals processes, or of a negative number a group; those that are gone are passed over."""
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, number)


def _title(process: "subprocess.Popen[str]") -> str:
    command = " ".join(map(str, process.args))
    return command if len(command) <= 200 else f"{command[:200]}..."
