"""Work that several processes share: each takes the next piece when it has room for it.

Under torchrun the processes, on one machine or several with one folder, count in torchrun's store; a process that dies
or hangs ends the others (`Heartbeat`). Nothing is sent between them but numbers: each writes its own files.
"""

import json
import os
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

WAIT = 0.1  # seconds between two looks
HOURS = timedelta(days=365)  # no limit: a process that is gone is found by its heartbeat
LINGER = 20.0  # seconds that the store's own process waits for the others to leave


class OneProcess:
    """A single process, which does all of it."""

    rank, size = 0, 1

    def agree(self, numbers: Sequence[int] | None) -> list[int]:
        """The numbers that the first process says; each process gives its own, those of others are not asked."""
        return list(numbers or ())

    def share(self, numbers: Sequence[int]) -> Iterator[int]:
        """The numbers that this process is to do, each taken when it is asked for, until none is left."""
        return iter(numbers)

    def done(self, count: int) -> int:
        """Tells that so many more are done; returns how many of all are."""
        self._done = getattr(self, "_done", 0) + count
        return self._done

    def wait_for_all(self) -> Iterator[int]:
        """Waits until every process has done its part; yields how many are done meanwhile."""
        return iter(())

    def close(self) -> None:
        """Leaves."""


class Torchrun(OneProcess):
    """The processes that torchrun has started."""

    def __init__(self) -> None:
        import torch
        import torch.distributed as dist
        from torch.distributed.rendezvous import rendezvous

        from ..train.parallel.heartbeat import Heartbeat

        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))  # "cuda" is then a GPU of its own
        store, self.rank, self.size = next(rendezvous("env://", timeout=HOURS))
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        self._store: Any = dist.PrefixStore(f"lowrank/out/{attempt}", store)  # type: ignore[attr-defined]
        self._heartbeat = Heartbeat(self.rank, self.size)

    def agree(self, numbers: Sequence[int] | None) -> list[int]:
        if self.rank == 0:
            self._store.set("numbers", json.dumps(list(numbers or ())))
        while not self._store.check(["numbers"]):
            time.sleep(WAIT)
        agreed: list[int] = json.loads(self._store.get("numbers"))
        return agreed

    def share(self, numbers: Sequence[int]) -> Iterator[int]:
        while (place := self._store.add("taken", 1) - 1) < len(numbers):
            yield numbers[place]

    def done(self, count: int) -> int:
        total: int = self._store.add("done", count)
        return total

    def wait_for_all(self) -> Iterator[int]:
        self._store.add("ready", 1)
        while self._store.add("ready", 0) < self.size:
            time.sleep(WAIT)
            yield self.done(0)

    def close(self) -> None:
        self._store.add("left", 1)
        end = time.monotonic() + LINGER
        while self.rank == 0 and self._store.add("left", 0) < self.size and time.monotonic() < end:
            time.sleep(WAIT)
        self._heartbeat.stop()


def processes() -> OneProcess:
    """Those that torchrun has started, or this one alone."""
    return Torchrun() if int(os.environ.get("WORLD_SIZE", "1")) > 1 else OneProcess()
