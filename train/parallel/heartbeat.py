"""Detects a process that died: the others would wait for it in a collective without limit and without a message.

Every process counts its beats in torchrun's shared store, and reads those of the next rank. A process that sees no new
beats for SILENCE seconds writes a verdict into the store, which all read, and exits.
"""

import os
import socket
import sys
import threading
import time
from contextlib import suppress
from datetime import timedelta

import torch.distributed as dist

BEAT = 1.0  # seconds between two looks
SILENCE = 20.0  # seconds after which a process that is not heard of counts as dead

VERDICT = "verdict"
OF_OTHERS = ("gloo", "NCCL", "TCPStore", "ProcessGroup")  # in the words of an error that some other process is behind


class Heartbeat:
    """Beats and looks from now on, in two threads, until `stop`."""

    def __init__(self, rank: int, size: int) -> None:
        self._rank, self._next = rank, (rank + 1) % size
        self._host, self._port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        patience = timedelta(seconds=SILENCE)
        store = dist.TCPStore(self._host, self._port, is_master=False, timeout=patience)  # type: ignore[attr-defined]
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        self._store = dist.PrefixStore(f"lowrank/{attempt}", store)  # type: ignore[attr-defined]
        self._say(0)
        self._stopped = threading.Event()
        self._answered = time.monotonic()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._beat, self._look_at_the_store)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stops the beats. The other processes must have been informed, or they count this one as dead."""
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def tell(self, error: BaseException) -> None:
        """Ends the others with this process's error. If that only says that another one is gone, finds out which.

        Found out, it is said, and this process ends here with status 1.
        """
        if any(word in str(error) for word in OF_OTHERS):
            time.sleep(SILENCE + 3 * BEAT)
        self.stop()
        first_line = (str(error).splitlines() or [""])[0]
        with suppress(dist.DistError):  # the store may be what is gone
            self._store.compare_set(VERDICT, "", f"rank {self._rank} stopped: {type(error).__name__}: {first_line}")

    def _beat(self) -> None:
        beats, seen, changed = 0, b"", time.monotonic()
        other = f"beat/{self._next}"
        while not self._stopped.wait(BEAT):
            beats += 1
            try:
                self._say(beats)
                now = self._store.get(other) if self._store.check([other]) else b""
                if self._store.check([VERDICT]):
                    self._end(self._store.get(VERDICT).decode())
                if now == seen and time.monotonic() - changed > SILENCE:
                    self._end(self._store.compare_set(VERDICT, "", self._silence(seen.decode())).decode())
            except dist.DistError as error:
                self._end(f"the store of rank 0, {self._host}:{self._port}, is gone: {error}")
            self._answered = time.monotonic()
            if now != seen:
                seen, changed = now, self._answered

    def _say(self, beats: int) -> None:
        self._store.set(f"beat/{self._rank}", f"{beats} {socket.gethostname()} {os.getpid()}")

    def _look_at_the_store(self) -> None:
        """A machine that is gone closes no connection: the thread that asks would wait for ever."""
        while not self._stopped.wait(BEAT):
            if time.monotonic() - self._answered > 2 * SILENCE:
                self._end(f"the store of rank 0, {self._host}:{self._port}, has not answered for {2 * SILENCE:.0f} s")

    def _silence(self, beat: str) -> str:
        _, host, process = beat.split() if beat else ("", "which never began", "?")
        return f"rank {self._next} ({host}, process {process}) is dead or hangs: not heard of for {SILENCE:.0f} s"

    def _end(self, reason: str) -> None:
        if not self._stopped.is_set():
            print(f"rank {self._rank} ends: {reason}", file=sys.stderr, flush=True)
            os._exit(1)
