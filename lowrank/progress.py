"""Progress bars whose lock belongs to one process."""

import os
import threading
from typing import Any

from tqdm import tqdm


class ProgressBar(tqdm):  # type: ignore[type-arg]  # generic to type checkers alone
    """tqdm with a lock of threads.

    tqdm's own lock is a semaphore that forks share: a process that is killed while it has it, by a scheduler or for
    want of memory, leaves its parent, and all others that were forked from it, waiting for ever at the next bar, shown
    or not.
    """

    _lock: Any = threading.RLock()

    @classmethod
    def renew_lock(cls) -> None:
        """A new lock, for a fork: a thread of the parent may have had the old one, and is not in the child."""
        cls._lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=ProgressBar.renew_lock)
