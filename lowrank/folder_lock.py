"""A folder for one process at a time: a file in it with the process as JSON, under an advisory lock, flock(2).

The system lets go of the lock however the process ends. A file that is left over without it is stale: it is told and
taken over.
"""

import fcntl
import json
import os
import shlex
import socket
import sys
import warnings
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any


def lock_file(lock: Path, refusal: Callable[[str], str]) -> int:
    """The descriptor of a lock, which has this process in it; closed, it is free again.

    refusal  the message for another process that has it, given that process
    Raises ValueError with the refusal.
    """
    while True:
        file = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = described(read_holder(file))
            os.close(file)
            raise ValueError(refusal(holder)) from None
        except OSError as error:
            message = f"{lock.parent}: this file system has no locks ({error.strerror}): keep others out"
            warnings.warn(message, stacklevel=4)
        if _is_same(file, lock):
            break
        os.close(file)  # another process has removed it between the two calls
    if left := read_holder(file):
        warnings.warn(f"{lock.parent}: {described(left)} left its lock behind and is gone: taken over", stacklevel=4)
    holder_record = {
        "process": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": shlex.join(sys.argv),
    }
    os.ftruncate(file, 0)
    os.pwrite(file, json.dumps(holder_record).encode(), 0)
    return file


def read_holder(file: int) -> dict[str, Any]:
    """The process in a lock; {} for none, and for one that was not written whole."""
    try:
        values = json.loads(os.pread(file, 1 << 16, 0) or b"{}")
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {}


def described(holder: dict[str, Any]) -> str:
    """ "process 123 on host (since 2026-11-30T00:20:00+00:00)" """
    if not holder:
        return "another process"
    return f"process {holder.get('process')} on {holder.get('host')} (since {holder.get('since')})"


def _is_same(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False
