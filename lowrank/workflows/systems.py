"""Which systems lowrank runs on, and what it refuses to do on one: README has the same table."""

import platform
from typing import NamedTuple


class Support(NamedTuple):
    """A system, "supported", "slow" or "refused", and a note on it."""

    name: str
    state: str
    note: str


X86 = Support("Linux, x86-64", "supported", "the C library with AMX, AVX-512 or AVX2; Triton on a GPU")
ARM = Support("Linux, Arm64", "supported", "the C library with NEON, tested in an emulator; its speed is not measured")
WSL = Support("Windows, in WSL 2", "supported", "is Linux; not tried")
OTHER = Support("Linux, others", "slow", "the C library with portable vectors; not tried")
MACOS = Support("macOS", "slow", "Apple's compiler has no OpenMP: plain torch; no `lowrank bench`; not tried")
WINDOWS = Support("Windows", "refused", "files are flushed, and memory is read, as on Unix: use WSL 2")
UNKNOWN = Support("others", "slow", "not tried")

SYSTEMS = (X86, ARM, WSL, OTHER, MACOS, WINDOWS, UNKNOWN)
EVERYWHERE = "doctor"  # the verb that runs on a system that is refused
LINUX_ONLY = "bench"  # reads /proc, and pins threads to cores


def this_system() -> Support:
    """The row of the machine that this runs on."""
    system, machine = platform.system(), platform.machine().lower()
    if system == "Windows":
        return WINDOWS
    if system == "Darwin":
        return MACOS
    if system != "Linux":
        return UNKNOWN
    if "microsoft" in platform.release().lower():
        return WSL
    return {"x86_64": X86, "amd64": X86, "aarch64": ARM, "arm64": ARM}.get(machine, OTHER)


def refused_reason(verb: str) -> str:
    """Why a verb does not run on this system; nothing if it does."""
    system = this_system()
    if system.state == "refused" and verb != EVERYWHERE:
        return f"{system.name} is refused: {system.note}"
    if verb == LINUX_ONLY and platform.system() != "Linux":
        return f"{verb} runs on Linux only: it reads /proc, and pins threads to cores"
    return ""
