"""The folder of a run: one process at a time trains into it, and what is in it is not lost unasked.

.lock   while a process trains: which one, as JSON, under an advisory lock of the system (flock(2)), which lets go
        of it however that process ends. A file that is left over without the lock is stale: it is told and taken over
stop    asks the process that trains to end after its step, with checkpoint and hat: `ask_to_stop`
"""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from lowrank.adapters.files import WEIGHTS_FILE
from lowrank.adapters.peft_config import CONFIG_FILE
from lowrank.atomic_io import check_replaceable, write_text
from lowrank.checkpoints.sidecar_files import RECORD_FILE
from lowrank.folder_lock import described, lock_file, read_holder

from ..checkpoint import Checkpoints

ADAPTER, BEST = "hat", "hat-best"
CONFIG, LOG, HELD_OUT, REPORT = "config.json", "train.jsonl", "held_out.jsonl", "report.html"
LOCK, STOP = ".lock", "stop"
ADAPTER_FILES = (CONFIG_FILE, WEIGHTS_FILE, RECORD_FILE)

Resume = bool | Literal["auto"]


def is_going_on(out: Path, resume: Resume, overwrite: bool) -> bool:
    """True for a run that goes on from its newest checkpoint, False for one that begins; it changes nothing.

    resume: "auto" goes on if there is a checkpoint, and else begins.
    Raises ValueError for nothing to resume, a run that is neither to be resumed nor overwritten, and a folder into
    which the hat could not be written at the end.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out}: is a file, and run.out must be a folder")
    for name in (ADAPTER, BEST):
        check_replaceable(out / name, ADAPTER_FILES)
    checkpoints = Checkpoints(out, 1)
    if resume and checkpoints.cursors():
        return True
    if resume is True:
        raise ValueError(f"{checkpoints.folder}: no such checkpoint, so there is nothing to resume: begin the run anew")
    if not overwrite and (checkpoints.cursors() or any((out / name).exists() for name in (ADAPTER, BEST))):
        rest = (
            "resume it, overwrite it" if checkpoints.cursors() else "it has no checkpoint to go on from: overwrite it"
        )
        raise ValueError(f"{out}: holds a run already: {rest}, or name another run.out")
    return False


def clear(out: Path) -> None:
    """Removes what an earlier run left, the hats first: none of it must stand beside the config of the new one."""
    for name in (ADAPTER, BEST):
        shutil.rmtree(out / name, ignore_errors=True)
    Checkpoints(out, 1).clear()
    for name in (CONFIG, LOG, HELD_OUT, REPORT):
        (out / name).unlink(missing_ok=True)


@contextlib.contextmanager
def locked(out: Path) -> Iterator[None]:
    """The folder, made if need be, for this process alone while the block lasts.

    Raises ValueError naming the process that has it. A folder that was made and is left empty is removed again.
    """
    is_new = not out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise ValueError(f"{out}: cannot be made: a file is in its way") from None
    lock = out / LOCK
    file = lock_file(
        lock, lambda holder: f"{out}: {holder} trains into it: wait for it, stop it, or name another run.out"
    )
    try:
        (out / STOP).unlink(missing_ok=True)
        yield
    finally:
        with contextlib.suppress(OSError):
            lock.unlink(missing_ok=True)
            (out / STOP).unlink(missing_ok=True)
        os.close(file)
        if is_new:
            with contextlib.suppress(OSError):  # it holds something
                out.rmdir()


def ask_to_stop(out: Path) -> str:
    """Asks the process that trains into a folder to end with its hat; returns which.  Raises ValueError for none."""
    holder = holder_of(out)
    if holder is None:
        raise ValueError(f"{out}: no process trains into it")
    write_text(out / STOP, "")
    return holder


def is_asked_to_stop(out: Path) -> bool:
    """True once somebody has called `ask_to_stop`."""
    return (out / STOP).exists()


def holder_of(out: Path) -> str | None:
    """The process that trains into a folder, None if none does."""
    try:
        file = os.open(out / LOCK, os.O_RDWR)
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return described(read_holder(file))
    finally:
        os.close(file)
    return None
