"""The folder of a run: one process at a time, and nothing in it is lost unasked."""

import json
import os
import signal
import sys
import warnings
from pathlib import Path

import pytest
from child_process import start

from lowrank.train.checkpoint import FOLDER
from lowrank.train.resume.folder import (
    ADAPTER,
    BEST,
    LOCK,
    STOP,
    ask_to_stop,
    clear,
    holder_of,
    is_asked_to_stop,
    is_going_on,
    locked,
)

HOLD = """
import sys, time
from pathlib import Path
from lowrank.train.resume.folder import locked
with locked(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(600)
"""


def test_a_second_run_is_refused_and_told_who_has_the_folder(tmp_path: Path) -> None:
    out = tmp_path / "runs" / "one"
    with locked(out):
        assert holder_of(out) is not None
        with pytest.raises(ValueError, match=rf"one: process {os.getpid()} on .* trains into it: wait for it"):
            locked(out).__enter__()
        (out / "file").touch()
    assert holder_of(out) is None and not (out / LOCK).exists()
    with locked(out):
        pass


def test_a_folder_that_was_made_for_nothing_is_removed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no data"), locked(tmp_path / "new"):
        raise ValueError("no data")
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="a file is in its way"):
        locked(tmp_path / "file").__enter__()


@pytest.mark.slow
def test_the_lock_of_a_process_that_was_killed_is_told_and_taken_over(tmp_path: Path) -> None:

    child = start(sys.executable, "-c", HOLD, tmp_path)
    assert child.stdout.readline() == "locked\n"
    with pytest.raises(ValueError, match=f"process {child.pid} on"):
        locked(tmp_path).__enter__()
    child.send_signal(signal.SIGKILL)
    child.communicate()
    taken = pytest.warns(UserWarning, match=f"process {child.pid} on .* left its lock behind and is gone: taken over")
    with taken, locked(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["process"] == os.getpid()


@pytest.mark.parametrize("text", ["", "{", "[]", "null"])
def test_a_lock_that_was_not_written_whole_is_in_nobodys_way(tmp_path: Path, text: str) -> None:
    (tmp_path / LOCK).write_text(text)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with locked(tmp_path):
            pass


def test_only_a_run_that_goes_on_is_asked_to_stop(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no process trains into it"):
        ask_to_stop(tmp_path)
    (tmp_path / STOP).touch()  # of a run that ended before it saw it
    with locked(tmp_path):
        assert not is_asked_to_stop(tmp_path)
        assert f"process {os.getpid()}" in ask_to_stop(tmp_path)
        assert is_asked_to_stop(tmp_path)
    assert not is_asked_to_stop(tmp_path)


def checkpoint(out: Path) -> None:
    (out / FOLDER).mkdir(parents=True)
    (out / FOLDER / "step-00000003.pt").touch()


def hat(out: Path, *more: str, name: str = ADAPTER) -> None:
    (out / name).mkdir(parents=True)
    for file in ("adapter_config.json", "adapter_model.safetensors", *more):
        (out / name / file).touch()


def test_what_goes_on_what_begins_and_what_is_refused(tmp_path: Path) -> None:
    new, stopped, finished = (tmp_path / name for name in ("new", "stopped", "finished"))
    checkpoint(stopped)
    hat(finished)
    assert not is_going_on(new, False, False) and not is_going_on(new, "auto", False)
    with pytest.raises(ValueError, match="no such checkpoint, so there is nothing to resume"):
        is_going_on(new, True, False)
    assert (
        is_going_on(stopped, True, False)
        and is_going_on(stopped, "auto", False)
        and not is_going_on(stopped, False, True)
    )
    with pytest.raises(ValueError, match="holds a run already: resume it, overwrite it, or"):
        is_going_on(stopped, False, False)
    for resume in (False, "auto"):  # its checkpoints are deleted: the hat is all that is left of it
        with pytest.raises(ValueError, match="holds a run already: it has no checkpoint to go on from"):
            is_going_on(finished, resume, False)
    assert not is_going_on(finished, False, True)


def test_what_a_run_left_without_checkpoint_and_hat_may_be_begun_again(tmp_path: Path) -> None:
    for name in ("config.json", "train.jsonl"):
        (tmp_path / name).touch()
    assert not is_going_on(tmp_path, False, False)


@pytest.mark.parametrize("name", [ADAPTER, BEST])
def test_a_file_of_somebody_else_in_a_hat_is_told_before_any_work(tmp_path: Path, name: str) -> None:
    hat(tmp_path, "notes.txt", name=name)
    checkpoint(tmp_path)
    for resume, overwrite in ((False, True), (True, False), ("auto", False)):
        with pytest.raises(ValueError, match=rf"{name}: holds notes\.txt, which would be lost"):
            is_going_on(tmp_path, resume, overwrite)


@pytest.mark.parametrize("litter", [".DS_Store", "._hat", "Thumbs.db", "desktop.ini", ".nfs0001", ".ipynb_checkpoints"])
def test_what_systems_leave_behind_is_in_nobodys_way(tmp_path: Path, litter: str) -> None:
    hat(tmp_path, litter)
    assert not is_going_on(tmp_path, False, True)


def test_clearing_takes_the_run_and_leaves_what_is_not_of_it(tmp_path: Path) -> None:
    checkpoint(tmp_path)
    hat(tmp_path)
    hat(tmp_path, name=BEST)
    for name in ("config.json", "train.jsonl", "held_out.jsonl", "report.html", "notes.txt"):
        (tmp_path / name).touch()
    clear(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {FOLDER, "notes.txt"}
    assert not list((tmp_path / FOLDER).iterdir())
