"""Files and folders that appear complete or not at all: written under another name, flushed to disk, and renamed.

The other name is .NAME.RANDOM.unfinished, and its process holds a lock on it. A process that is killed leaves it behind
without the lock: whoever writes NAME next removes it.
"""

import fnmatch
import glob
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

UNFINISHED = ".unfinished"
# What systems, editors and file servers put into any folder that is looked at: nobody's work, and in nobody's way.
LITTER = (
    *(".DS_Store", "._*", ".AppleDouble", ".ipynb_checkpoints", "Thumbs.db", "desktop.ini", ".directory"),
    *("@eaDir", ".nfs*", ".fuse_hidden*", ".~lock.*", "*.swp"),
)


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A folder beside `target` to write into; it becomes `target` if the block succeeds.

    It replaces an older folder only if all files of that have a successor in the new one, or are LITTER, which stays:
    no foreign file is ever lost.  Raises ValueError otherwise.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_unfinished(target.parent, glob.escape(target.name) + ".")
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=UNFINISHED, dir=target.parent))
    aside.chmod(0o755)
    try:
        with held(aside):
            yield aside
            publish_folder(aside, target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def resumed_folder(target: Path, names: Iterable[str]) -> Iterator[Path]:
    """As `new_folder`, for long work: after an interruption or a full disk, it stays for the next attempt.

    names: all files of the finished folder, so that a folder that cannot be replaced is refused before the work.
    Yields `partial_folder(target)`, with whatever an earlier attempt left in it; a ValueError deletes it.
    """
    aside = partial_folder(target)
    check_replaceable(target, names)
    aside.mkdir(parents=True, exist_ok=True)
    aside.chmod(0o755)
    try:
        yield aside
        publish_folder(aside, target)
    except ValueError:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def partial_folder(target: Path) -> Path:
    """Where `resumed_folder` keeps unfinished work: `.NAME.partial`, beside the folder that it will become."""
    return target.parent / f".{target.name}.partial"


def publish_folder(aside: Path, target: Path) -> None:
    """Gives a finished folder its final name."""
    for file in aside.rglob("*"):
        if file.is_file():  # some libraries write for their own user alone
            file.chmod(0o644)
        _flush(file)
    if target.exists():
        check_replaceable(target, {path.name for path in aside.iterdir()})
        old = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent))
        target.rename(old / target.name)
        try:
            aside.rename(target)
        except OSError:
            (old / target.name).rename(target)
            raise
        else:
            for path in (old / target.name).iterdir():
                if _is_litter(path.name) and not (target / path.name).exists():
                    path.rename(target / path.name)
        finally:
            shutil.rmtree(old)
    else:
        aside.rename(target)
    _flush(target.parent)


def check_replaceable(target: Path, names: Iterable[str]) -> None:
    """Raises ValueError if a folder of these files could not take the place of what is there without losing any."""
    if not target.exists():
        return
    if not target.is_dir():
        raise ValueError(f"{target}: is a file, and a folder is to be written there")
    successors = set(names)
    if foreign := sorted(
        path.name for path in target.iterdir() if path.name not in successors and not _is_litter(path.name)
    ):
        raise ValueError(f"{target}: holds {foreign[0]}, which would be lost: name a new or empty folder")


def _is_litter(name: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in LITTER)


@contextmanager
def new_file(target: Path) -> Iterator[Path]:
    """A path beside `target` to write to; it becomes `target`, replacing an older file, if the block succeeds."""
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_unfinished(target.parent, glob.escape(target.name) + ".")
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=UNFINISHED, dir=target.parent)
    os.close(handle)
    aside = Path(name)
    aside.chmod(0o644)
    try:
        with held(aside):
            yield aside
            _flush(aside)
            aside.replace(target)
            _flush(target.parent)
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def held(path: Path) -> Iterator[None]:
    """A lock on a file or folder as long as it is being written, by which others see that its process lives.

    Raises OSError if another process took it for a left one in the moment before.
    """
    import fcntl

    descriptor = os.open(path, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks, where nothing is ever removed
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if not path.exists():
            raise FileNotFoundError(f"{path}: was removed as unfinished by another process: run this again")
        yield
    finally:
        os.close(descriptor)


def remove_unfinished(folder: Path, start: str) -> None:
    """Removes what processes that were killed left in a folder of writing names that begin so (a pattern of glob)."""
    import fcntl

    for path in folder.glob(f".{start}*{UNFINISHED}"):
        with suppress(OSError):  # another process holds it, or has removed it
            descriptor = os.open(path, os.O_RDONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()
            finally:
                os.close(descriptor)


def write_text(target: Path, text: str) -> None:
    """Writes the text in UTF-8."""
    with new_file(target) as aside:
        aside.write_text(text, encoding="utf-8", newline="\n")


def write_json(target: Path, value: Any) -> None:
    """Writes the value as indented JSON with a final newline.  Raises ValueError for NaN and infinity."""
    write_text(target, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
