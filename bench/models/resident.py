"""Resident memory of this process, without importing torch."""

import resource
from pathlib import Path


def peak_resident_bytes() -> int:
    """The most memory this process has had resident, pages of mapped files counted.

    Linux's `ru_maxrss` starts at what the parent had; its `VmHWM` is this process's own.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) << 10 for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
