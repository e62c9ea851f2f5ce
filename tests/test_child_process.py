"""The helper that runs child processes: a limit that holds for a whole group, and output that is shown."""

import os
import sys
import time
from pathlib import Path

import pytest
from child_process import environment, finish, run, run_python, start

pytestmark = pytest.mark.slow


def test_output_and_status_of_a_child_that_ends() -> None:
    done = run_python("-c", "import sys; print(sys.argv[1]); sys.exit(3)", 7, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (3, "7\n", "")


def test_a_child_that_fails_shows_both_of_its_outputs() -> None:
    with pytest.raises(
        pytest.fail.Exception, match=r"status 1\n--- stdout\nsaid\n\n--- stderr\n(.|\n)*ValueError: why"
    ):
        run_python("-c", "print('said', flush=True); raise ValueError('why')")


def test_a_child_that_hangs_is_ended_and_shows_where_every_thread_was() -> None:
    code = "import threading\ndef waits(): threading.Event().wait()\nthreading.Thread(target=waits).start()\nwaits()"
    with pytest.raises(pytest.fail.Exception, match=r"did not end within 2 s") as failure:
        run_python("-c", code, limit=2)
    assert str(failure.value).count("in waits") == 2


def test_what_a_child_started_ends_with_it(tmp_path: Path) -> None:
    code = "import subprocess; print(subprocess.Popen(['sleep', '1000'], stdin=-3, stdout=-3, stderr=-3).pid)"
    number = int(run_python("-c", code).stdout)
    assert_ends(number)


def assert_ends(number: int) -> None:
    """A process that was sent a signal ends within a minute: when is the system's affair."""
    deadline = time.monotonic() + 60
    while _lives(number):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _lives(number: int) -> bool:
    """True for a process that runs: not gone, and no zombie that waits to be reaped by its parent."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_child_that_ignores_the_first_signal_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("child_process.LAST_WORDS", 0.5)
    code = "trap '' ABRT; echo ready; while :; do sleep 0.1; done"
    with pytest.raises(pytest.fail.Exception, match=r"did not end within 1 s\n--- stdout\nready"):
        run("sh", "-c", code, limit=1)


def test_a_descendant_in_a_group_of_its_own_is_ended_too() -> None:
    code = "import os, subprocess, time\nchild = subprocess.Popen(['sleep', '1000'], start_new_session=True)\n"
    code += "print(child.pid, flush=True)\ntime.sleep(1000)"
    with pytest.raises(pytest.fail.Exception, match=r"did not end within 2 s") as failure:
        run_python("-c", code, limit=2)
    (number,) = (int(line) for line in str(failure.value).splitlines() if line.isdigit())
    assert_ends(number)


def test_a_child_is_started_and_awaited_later() -> None:
    process = start(sys.executable, "-c", "print(1)", env=environment(NAME="x"))
    assert finish(process).stdout == "1\n"
    assert "NAME" not in os.environ
