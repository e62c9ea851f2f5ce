"""Where a figure comes from: the machine and how busy it was, the versions, and the code that was measured."""

import hashlib
import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import torch

from lowrank import __version__, kernels
from lowrank.kernels.cpu import library

BUSY_OTHERS, BUSY_STEAL = 0.05, 0.02  # shares of the processor above which a measurement is thrown away


@dataclass(frozen=True)
class Counters:
    """Seconds since boot, over all cores: spent, of these at work, of these withheld by the hypervisor; and our own."""

    total: float
    busy: float
    steal: float
    own: float


@dataclass(frozen=True)
class Load:
    """Other use of the processor during a measurement, as shares of all its cores."""

    average_before: float
    average_after: float
    others: float
    steal: float

    @property
    def is_busy(self) -> bool:
        """Too much for the figure to stand."""
        return self.others > BUSY_OTHERS or self.steal > BUSY_STEAL


class LoadMeter:
    """Reads /proc before (when it is made) and after (when it is asked) a measurement."""

    def __init__(self) -> None:
        self._average, self._before = os.getloadavg()[0], read_counters()

    def load(self) -> Load:
        """The load since this meter was made."""
        return load_between(self._before, read_counters(), self._average, os.getloadavg()[0])


def read_counters(stat: Path = Path("/proc/stat")) -> Counters:
    """The first line of /proc/stat (proc(5)), and the processor time of this process."""
    ticks = [int(word) for word in stat.read_text().splitlines()[0].split()[1:9]]
    user, nice, system, _, _, irq, softirq, steal = (tick / os.sysconf("SC_CLK_TCK") for tick in ticks)
    own = os.times()
    total = sum(ticks) / os.sysconf("SC_CLK_TCK")
    return Counters(total, user + nice + system + irq + softirq, steal, sum(own[:4]))


def load_between(before: Counters, after: Counters, average_before: float, average_after: float) -> Load:
    """The shares of the processor that went to others and to the hypervisor's other guests."""
    total = max(after.total - before.total, 1e-9)
    others = (after.busy - before.busy) - (after.own - before.own)
    shares = (max(0.0, seconds) / total for seconds in (others, after.steal - before.steal))
    return Load(round(average_before, 2), round(average_after, 2), *(round(share, 4) for share in shares))


def pin(threads: int = 2) -> int:
    """This process on the first `threads` of its cores, with as many threads for torch; returns how many that are."""
    cores = first_cores(threads)
    os.sched_setaffinity(0, cores)
    torch.set_num_threads(len(cores))
    return len(cores)


def first_cores(threads: int) -> list[int]:
    """The first so many of the cores that this process may run on."""
    return sorted(os.sched_getaffinity(0))[:threads]


def name(device: torch.device) -> str:
    """The GPU; or the processor, its instruction set in use, and its cores.

    "AMD EPYC (family 25, model 1, avx2), 2 cores": hypervisors call processors of several generations alike.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    path = Path("/proc/cpuinfo")
    cpuinfo = path.read_text() if path.exists() else ""
    family, model = _field(cpuinfo, "cpu family"), _field(cpuinfo, "model")
    about = [f"family {family}", f"model {model}"] if family and model else []
    about.append("plain torch" if library.unavailable_reason() else library.instruction_set())
    return f"{_field(cpuinfo, 'model name') or platform.machine()} ({', '.join(about)}), {os.cpu_count()} cores"


def _field(cpuinfo: str, key: str) -> str:
    """The first value of a key in /proc/cpuinfo, or nothing: Arm's has other keys."""
    found = re.search(rf"^{key}\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return found[1] if found else ""


def file_name(machine: str) -> str:
    """ "NVIDIA H200" -> "nvidia-h200.jsonl" """
    return re.sub(r"[^a-z0-9]+", "-", machine.lower()).strip("-") + ".jsonl"


def cache_bytes(device: torch.device) -> int:
    """The size of the last-level cache; 0 where the system does not tell."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).L2_cache_size)
    sizes = Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")
    return max((1024 * int(path.read_text().strip().removesuffix("K")) for path in sizes), default=0)


def clocks(device: torch.device) -> dict[str, int] | None:
    """MHz of the multiprocessors and of the memory, and degrees Celsius; None without nvidia-smi."""
    if device.type != "cuda" or not shutil.which("nvidia-smi"):
        return None
    query = ["nvidia-smi", "--query-gpu=clocks.sm,clocks.mem,temperature.gpu", "--format=csv,noheader,nounits"]
    done = subprocess.run(
        [*query, f"--id=GPU-{torch.cuda.get_device_properties(device).uuid}"], capture_output=True, text=True
    )
    figures = re.findall(r"\d+", done.stdout)
    return dict(zip(("sm_mhz", "memory_mhz", "celsius"), map(int, figures), strict=True)) if len(figures) == 3 else None


def versions(packages: list[str]) -> dict[str, str]:
    """The versions of Python, lowrank, and those of the packages that are installed."""
    found = {"python": platform.python_version(), "lowrank": __version__}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """The commit of the checkout that is measured, with -dirty if it was changed; None outside of one."""
    here = Path(__file__).resolve()
    if not shutil.which("git") or not _git(here.parent, "ls-files", here.name):
        return None  # an installed copy may lie in somebody else's checkout
    return _git(here.parent, "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*") or None


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True)
    return done.stdout.strip()


def source() -> str:
    """The first 12 hexadecimal digits of the SHA-256 over our kernels and this bench: it says what ran without git."""
    whole = hashlib.sha256()
    for folder in (Path(next(iter(kernels.__path__))), Path(__file__).parent):
        for path in sorted(folder.resolve().rglob("*.py")):
            whole.update(path.name.encode() + b"\0" + path.read_bytes())
    return whole.hexdigest()[:12]
