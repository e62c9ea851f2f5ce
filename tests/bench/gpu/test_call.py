"""The first call on a real device, without one: its stages, what it keeps, how it goes on, and what it refuses."""

import json
import sys
from pathlib import Path

import pytest
from child_process import environment, run_python

from lowrank.bench import machine
from lowrank.bench.gpu import call
from lowrank.bench.gpu.stages import STAGES, Stage


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Four stages that note their names; the second fails, the third never ends."""
    noted = tmp_path / "noted"
    codes = {"one": "", "two": "sys.exit(1)", "three": "time.sleep(60)", "four": ""}

    def command(stage: Stage, python: str, out: list[Path], dry_run: bool) -> list[str]:
        note = f"import sys, time; open({str(noted)!r}, 'a').write({stage.name + chr(10)!r}); "
        return [sys.executable, "-c", note + codes[stage.name]]

    monkeypatch.setattr(Stage, "command", command)
    monkeypatch.setattr(call, "LEAST", 0)
    limits = {"three": 1}
    monkeypatch.setattr(call, "STAGES", [Stage(name, "", (), limits.get(name, 60)) for name in codes])
    return noted


def run(tmp_path: Path, *arguments: str) -> int:
    return call.main(["--state", str(tmp_path / "state.json"), *arguments])


def test_a_failure_does_not_stop_the_others_and_fails_the_exit_status(stages: Path, tmp_path: Path, capsys) -> None:
    assert run(tmp_path) == 1
    assert stages.read_text().split() == ["one", "two", "three", "four"]
    assert capsys.readouterr().out.splitlines()[-1] == "one: done; two: wrong; three: stopped; four: done"


@pytest.mark.slow
def test_a_second_call_goes_on_with_what_was_stopped(stages: Path, tmp_path: Path, monkeypatch) -> None:
    run(tmp_path)
    stages.unlink()
    assert run(tmp_path) == 1
    assert stages.read_text().split() == ["three"]
    stages.unlink()
    monkeypatch.setattr(machine, "source", lambda: "other kernels")
    run(tmp_path)
    assert stages.read_text().split() == ["one", "two", "three", "four"]


def test_without_time_nothing_more_is_begun(stages: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(call, "LEAST", 10)
    assert run(tmp_path, "--seconds", "5") == 1
    assert not stages.exists() and "the next call goes on here" in capsys.readouterr().out


def test_another_checkout_is_refused(monkeypatch, tmp_path: Path, capsys) -> None:
    monkeypatch.setattr(call, "ROOT", tmp_path)
    assert call.main([]) == 2
    assert "would be measured, not" in capsys.readouterr().out


def test_a_stage_without_its_program_is_passed_over(monkeypatch, tmp_path: Path, capsys) -> None:
    monkeypatch.setattr(Stage, "missing", lambda stage: "a program")
    monkeypatch.setattr(call, "STAGES", [Stage("races", "", (), 1)])
    assert run(tmp_path) == 0
    assert "races: a program is not here" in capsys.readouterr().out
    assert json.loads((tmp_path / "state.json").read_text())[machine.source()] == {"races": "absent"}


def test_folders_are_given_as_absolute_paths() -> None:
    for stage in STAGES:
        command = stage.command("python", [Path("/a/b")], dry_run=False)
        assert ("--out" in command) == stage.writes and "--dry-run" not in command


@pytest.mark.long
def test_every_stage_prints_its_plan_without_a_gpu(tmp_path: Path) -> None:
    command = ("-m", "lowrank.bench.gpu.call", "--dry-run", "--out", tmp_path, "--state", tmp_path / "state.json")
    said = run_python(*command, env=environment(), cwd=tmp_path).stdout
    assert said.count("exit status 0") == len(STAGES)
    assert not list(tmp_path.iterdir())
