"""Starts the processes of submissions: it imports torch once, and forks for each.

    python -m lowrank.bench.judge.launcher DESCRIPTOR CORE,CORE,...

It knows of no inputs and no secrets, so what it forks does not either. The judge sends {"submission": ...} with the
worker's end of a socket and is answered {"pid": ...}; {"wait": pid} is answered by {"status": ...} once it has ended.
"""

import json
import os
import signal
import socket
import sys
from contextlib import suppress
from typing import Any

from . import worker


def main() -> None:
    """Answers the judge until it hangs up; in a forked process, serves one submission."""
    judge = socket.socket(fileno=int(sys.argv[1]))
    if cores := [int(core) for core in sys.argv[2].split(",") if core]:
        os.sched_setaffinity(0, cores)
    judge.send(b"{}")
    started: list[int] = []
    while True:
        text, descriptors, _, _ = socket.recv_fds(judge, worker.MESSAGE, 1)
        if not text:
            break
        told: dict[str, Any] = json.loads(text)
        if "wait" in told:
            _, status = os.waitpid(told["wait"], 0)
            started.remove(told["wait"])
            judge.send(json.dumps({"status": os.waitstatus_to_exitcode(status)}).encode())
            continue
        pid = os.fork()
        if pid == 0:
            judge.close()
            worker.run(socket.socket(fileno=descriptors[0]), told)
        os.close(descriptors[0])
        started.append(pid)
        judge.send(json.dumps({"pid": pid}).encode())
    for pid in started:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    os._exit(0)  # what torch has to take down takes it a second


if __name__ == "__main__":
    main()
