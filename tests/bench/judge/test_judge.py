"""Honest submissions pass, malformed ones are told in a line, and nothing is done before the clock runs."""

import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lowrank.bench import rows
from lowrank.bench.judge import judge as judging
from lowrank.bench.judge.judge import OURS, PLAIN, THEIRS, judge
from lowrank.bench.judge.process import Launcher, Worker
from lowrank.bench.judge.rules import RuleBroken
from lowrank.bench.judge.task import names, read_task
from lowrank.cli import main

TASK = read_task("nf4-linear")
HONEST = {"template": TASK.template, "ours": Path(judging.__file__).with_name("ours.py")}
SMALL = {"m": 1, "n": 8, "k": 128, "blocksize": 64, "kind": "normal", "seed": 1}
GOOD = TASK.template.read_text()

pytestmark = pytest.mark.slow


def verdict(submission: Path, launcher: Launcher, task: str = "nf4-gemv", **more: Any) -> judging.Judgement:
    return judge(submission, task, **{"repetitions": 0, "limit": 20.0, "launcher": launcher, **more})


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.py"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("task", names())
@pytest.mark.parametrize("name", HONEST)
def test_an_honest_submission_in_python_passes(name: str, task: str, launcher: Launcher) -> None:
    found = verdict(HONEST[name], launcher, task)
    assert found.passed, found.sentence()
    assert found.calls == judging.CALLS * len(read_task(task).tests)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A shared library of a text in C, beside the header of the task."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")

    def compile(text: str) -> Path:
        folder = tmp_path_factory.mktemp("library")
        (folder / "mine.c").write_text(text, encoding="utf-8")
        flags = ("-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-I", str(TASK.folder))
        subprocess.run([compiler, *flags, "-o", "mine.so", "mine.c"], check=True, cwd=folder)
        return folder / "mine.so"

    return compile


C = (TASK.folder / "submission.c").read_text(encoding="utf-8")


@pytest.mark.parametrize("task", names())
def test_an_honest_submission_in_c_passes(compiled: Callable[[str], Path], task: str, launcher: Launcher) -> None:
    found = verdict(compiled(C), launcher, task)
    assert found.passed, found.sentence()


def test_a_library_that_writes_behind_y_is_refused(compiled: Callable[[str], Path], launcher: Launcher) -> None:
    found = verdict(compiled(C.replace("n < N; n++", "n <= N; n++")), launcher)
    assert (found.rule, found.seen) == ("guard", "memory was written 0 bytes behind the end of y")


def test_a_library_without_the_function_is_the_callers_mistake(
    compiled: Callable[[str], Path], launcher: Launcher
) -> None:
    with pytest.raises(ValueError, match="has no function nf4_linear"):
        verdict(compiled("int nothing;"), launcher)


MALFORMED = {
    "raises": ("def custom_kernel(data):\n    raise KeyError('no\\nsuch')\n", "runs", "raises KeyError"),
    "does not import": ("import nothing_of_this_name\n", "runs", "ModuleNotFoundError"),
    "is no Python": ("def custom_kernel(data:\n", "runs", "SyntaxError"),
    "ends": ("def custom_kernel(data):\n    raise SystemExit(3)\n", "runs", "raises SystemExit: 3"),
    "ends at once": ("import os\n\ndef custom_kernel(data):\n    os._exit(3)\n", "runs", "ended with status 3"),
    "crashes": ("import ctypes\n\ndef custom_kernel(data):\n    ctypes.string_at(0)\n", "runs", "SIGSEGV"),
    "hangs": ("import time\n\ndef custom_kernel(data):\n    time.sleep(60)\n", "in-time", "within 0.5 s"),
    "returns nothing": ("def custom_kernel(data):\n    pass\n", "plain-tensor", "NoneType"),
    "another shape": ("def custom_kernel(data):\n    return data[-1].T\n", "plain-tensor", "(64, 1)"),
    "another dtype": ("def custom_kernel(data):\n    return data[-1].double()\n", "plain-tensor", "float64"),
    "writes over x": (GOOD.replace("    return", "    x.mul_(2)\n    return"), "inputs-unchanged", "of x was written"),
    "hangs up": ("import os\n\ndef custom_kernel(data):\n    os.closerange(3, 99)\n", "runs", ""),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_submission_is_told_in_one_line(name: str, tmp_path: Path, launcher: Launcher) -> None:
    text, rule, seen = MALFORMED[name]
    found = verdict(written(tmp_path, text), launcher, limit=0.5 if rule == "in-time" else 20.0)
    assert (found.rule, seen in found.seen) == (rule, True), found.sentence()
    assert "\n" not in found.sentence() and len(found.sentence()) < 800


def test_a_file_without_the_function_is_the_callers_mistake(tmp_path: Path, launcher: Launcher) -> None:
    with pytest.raises(ValueError, match="has no function custom_kernel"):
        verdict(written(tmp_path, "def kernel(data): ..."), launcher)


def test_a_submission_may_print_what_it_likes(tmp_path: Path, launcher: Launcher) -> None:
    assert verdict(
        written(tmp_path, GOOD.replace("    n, k =", "    print('much' * 10**6)\n    n, k =")), launcher
    ).passed


def started(launcher: Launcher) -> Worker:
    worker = Worker(launcher, HONEST["template"], TASK.folder, threads=1, limit=20)
    worker.load()
    return worker


def test_a_submission_stands_still_while_its_inputs_are_written_and_when_it_has_answered(launcher: Launcher) -> None:
    data = TASK.inputs(SMALL, b"secret", 0)
    with started(launcher) as worker:
        worker.lay_out(data)
        assert worker.is_stopped()
        states = []
        answer = worker.call(data, lambda: states.append(worker.is_stopped()))
        assert states == [True] and worker.is_stopped()
        assert TASK.check(data, answer.y) == ("", "")


def test_the_clock_starts_when_memory_is_cold_and_stops_when_y_is_copied(
    launcher: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, seen = TASK.inputs(SMALL, b"secret", 0), []
    with started(launcher) as worker:
        worker.lay_out(data)
        monkeypatch.setattr("lowrank.bench.judge.process.clock", lambda: seen.append("clock") or 0.0)
        take, put = worker.arena.take, worker.arena.put
        monkeypatch.setattr(worker.arena, "take", lambda: seen.append("y") or take())
        monkeypatch.setattr(worker.arena, "put", lambda data: seen.append("inputs") or put(data))
        worker.call(data, lambda: seen.append("cold"))
    assert seen == ["inputs", "cold", "clock", "y", "clock"]


def test_a_timed_case_has_a_row_for_each_side_with_ratios(
    tmp_path: Path, launcher: Launcher, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(judging, "read_task", lambda name: replace(TASK, tests=(SMALL,), benchmarks=(SMALL,)))
    monkeypatch.setattr(judging, "Launcher", lambda cores: _Kept(launcher))
    out = tmp_path / "rows.jsonl"
    words = ["bench", "judge", str(TASK.template), "--repetitions", "3", "--out", str(out)]
    assert main(words) == 0
    found = rows.read(out)
    assert [row["provider"] for row in found] == [THEIRS, OURS, PLAIN]
    assert found[0]["over"].keys() == {OURS, PLAIN} and found[0]["repetitions"] == 3
    assert found[0]["machine"] and found[0]["date"] and found[0]["sha256"]
    printed = capsys.readouterr().out
    assert "all 7 calls of nf4-gemv are right" in printed and "1 x 8 x 128" in printed
    assert main([*words[:2], str(written(tmp_path, MALFORMED["raises"][0])), "--repetitions", "0"]) == 1
    assert "refused, it breaks the rule 'runs'" in capsys.readouterr().out


class _Kept:
    """The launcher of all tests, which the judge does not close."""

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher

    def __enter__(self) -> Launcher:
        return self._launcher

    def __exit__(self, *_: object) -> None: ...


def test_the_processes_of_submissions_end_with_the_judge(launcher: Launcher) -> None:
    with started(launcher) as worker:
        pid = worker.pid
    assert not Path(f"/proc/{pid}").exists()
    with pytest.raises(RuleBroken, match="SIGKILL"), started(launcher) as worker:
        worker.lay_out(TASK.inputs(SMALL, b"secret", 0))
        subprocess.run(["kill", "-9", str(worker.pid)], check=True)
        time.sleep(0.05)
        worker.call(TASK.inputs(SMALL, b"secret", 0))
