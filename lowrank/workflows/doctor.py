"""A machine as lowrank finds it, and what it therefore does slowly, or not at all.

Every fact is read from the system, from torch, or from the table that chooses kernels; nothing is measured.
"""

import importlib.metadata
import importlib.util
import os
import platform
import re
import shlex
import shutil
import subprocess
import sysconfig
from pathlib import Path
from types import ModuleType
from typing import Any

from .. import __version__
from ..extras import EXTRAS
from .doctor_page import Facts, Report
from .systems import this_system

# The dependencies of pyproject.toml, and the oldest version of each; Triton exists on Linux only.
REQUIRED = {
    "torch": "2.11",
    "triton": "3.6",
    "numpy": "1.26",
    "safetensors": "0.5",
    "sentencepiece": "0.2",
    "huggingface-hub": "1",
    "tqdm": "4.66",
    "pyyaml": "6",
}
# Instructions that make a difference to a product, as /proc/cpuinfo names them on x86-64 and on Arm.
FLAGS = (
    *("fma", "f16c", "avx2", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16"),
    *("asimd", "asimddp", "bf16", "i8mm", "sve"),
)
BF16_FLAGS = ("avx512_bf16", "amx_bf16", "bf16")
# What the environment can change. Names that may hold a secret (HF_TOKEN, WANDB_API_KEY) are not of these.
VARIABLES = re.compile(
    r"(LOWRANK|OMP|GOMP|KMP|MKL|ATEN|ONEDNN|DNNL|TRITON)_\w+|(CUDA_VISIBLE|PYTORCH|TORCH)\w*"
    r"|CC|CFLAGS|LD_PRELOAD|HF_HOME|HF_HUB_OFFLINE|PYTHONSAFEPATH"
)
ROWS_OF_X = (1, 16, 512)
# Bytes of Llama 2 7B: its files in 16 bits (docs/llama-2.md), and a process that generates from it in NF4 (README).
ON_DISK_7B, LOADED_7B = 13.5e9, 4.4e9


def examine(folder: Path = Path()) -> Report:
    """The report of this machine and this process; `folder`: where the free disk is asked for."""
    report = Report()
    report.facts["system"] = _system(report)
    report.facts["processor"] = _processor(report)
    report.facts["memory_and_disk"] = _memory(report, folder)
    report.facts["libraries"] = _libraries(report)
    torch = _import_torch(report)
    if torch is not None:
        c_library = _c_library(report)  # before `_torch`, which lists the OpenMP runtimes of both
        report.facts["torch"] = _torch(report, torch)
        report.facts["c_library"] = c_library
        report.facts["gpu"] = _gpu(report, torch)
        if c_library["file"] is None or c_library["instruction_set"]:
            report.facts["products"] = _products(report, torch)
    report.facts["extras"] = _extras(report)
    report.facts["environment"] = {
        name: value for name, value in sorted(os.environ.items()) if VARIABLES.fullmatch(name)
    }
    return report


def openmp_runtimes(maps: Path = Path("/proc/self/maps")) -> list[str] | None:
    """The OpenMP libraries in this process, by file; None where the system does not tell."""
    if not maps.exists():
        return None
    files = {line.split(maxsplit=5)[-1] for line in maps.read_text().splitlines() if "/" in line}
    return sorted(file for file in files if re.match(r"lib(gomp|iomp5|omp)\b", Path(file).name))


def _system(report: Report) -> Facts:
    system = this_system()
    if system.state == "refused":
        report.broken.append(f"{system.name} is refused: {system.note}")
    elif system.state == "slow":
        report.limits.append(f"{system.name}: {system.note}")
    return {
        "lowrank": __version__,
        "installed_in": str(Path(__file__).parent),
        "python": platform.python_version(),
        "operating_system": _operating_system(),
        "architecture": platform.machine(),
        "support": f"{system.state} ({system.name}): {system.note}",
    }


def _operating_system() -> str:
    kernel = f"{platform.system()} {platform.release()}"
    try:
        return f"{platform.freedesktop_os_release()['PRETTY_NAME']}, {kernel}"
    except (OSError, KeyError):
        return kernel


def _processor(report: Report) -> Facts:
    cpuinfo = _read("/proc/cpuinfo")
    model = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    words = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    flags = [flag for flag in FLAGS if flag in words[1].split()] if words else None
    if flags is not None and not set(flags) & set(BF16_FLAGS):
        report.limits.append(
            "the processor has no products of bfloat16: --dtype fp32, the default on a CPU, is the faster one"
        )
    compiler = _compiler()
    if compiler is None:
        report.limits.append("no C compiler: the C library cannot be built; install one, then lowrank again")
    return {
        "name": model[1] if model else platform.processor() or platform.machine(),
        "cores_of_the_machine": os.cpu_count(),
        "cores_in_use": _cores(),
        "instructions": flags,
        "compiler": compiler,
    }


def _cores() -> int:
    """Cores that this process may run on: a container or taskset can leave some out."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _compiler() -> str | None:
    """The compiler with which the C library would be built, as it calls itself; None if there is none that runs."""
    named = os.environ.get("CC")
    for command in [named] if named else [sysconfig.get_config_var("CC"), "cc", "gcc", "clang"]:
        words = shlex.split(command or "")
        if words and (found := shutil.which(words[0])):
            done = subprocess.run([found, "--version"], capture_output=True, text=True)
            if done.returncode == 0 and done.stdout:
                return f"{found}: {done.stdout.splitlines()[0]}"
    return None


def _memory(report: Report, folder: Path) -> Facts:
    lines = re.findall(r"^(\w+):\s+(\d+) kB", _read("/proc/meminfo"), re.MULTILINE)
    sizes = {name: int(kib) << 10 for name, kib in lines}
    limit = _read("/sys/fs/cgroup/memory.max").strip()
    available, limit_bytes = sizes.get("MemAvailable"), int(limit) if limit.isdigit() else None
    usable = min((size for size in (available, limit_bytes) if size is not None), default=None)
    if usable is not None and usable < LOADED_7B:
        report.limits.append(f"{usable / 1e9:.1f} GB of memory: a 7B in NF4 takes {LOADED_7B / 1e9:.1f} GB")
    free = shutil.disk_usage(folder).free
    if free < ON_DISK_7B:
        report.limits.append(
            f"{free / 1e9:.1f} GB of disk are free: Llama 2 7B has {ON_DISK_7B / 1e9:.1f} GB before it is quantized"
        )
    pages = re.search(r"\[(\w+)\]", _read("/sys/kernel/mm/transparent_hugepage/enabled"))
    if pages is None or pages[1] == "never":
        report.limits.append("no pages of 2 MB on this system: reading large weights waits for addresses more often")
    return {
        "memory_bytes": sizes.get("MemTotal"),
        "available_bytes": available,
        "limit_of_the_container_bytes": limit_bytes,
        "huge_pages": pages[1] if pages else None,
        "folder": str(folder.resolve()),
        "disk_free_bytes": free,
    }


def _libraries(report: Report) -> Facts:
    found: Facts = {}
    for package, oldest in REQUIRED.items():
        if package == "triton" and platform.system() != "Linux":
            continue
        version = found[package] = _version(package)
        if version is None:
            report.broken.append(f"{package} is missing: pip install '{package}>={oldest}'")
        elif _numbers(version) < _numbers(oldest):
            report.broken.append(f"{package} {version} is too old: pip install '{package}>={oldest}'")
    if version := _version("lowrank"):
        report.limits.append(
            f"a distribution called lowrank ({version}) is installed too: an old copy of this, or another project's, "
            "which can replace it: pip uninstall lowrank, then install this again"
        )
    return found


def _import_torch(report: Report) -> ModuleType | None:
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: a library of its own that cannot be loaded
        report.broken.append(f"torch cannot be imported: {_one_line(error)}")
        return None
    return torch


def _torch(report: Report, torch: Any) -> Facts:
    threads, cores, runtimes = torch.get_num_threads(), _cores(), openmp_runtimes()
    if threads < cores:
        report.limits.append(f"torch uses {threads} of {cores} cores")
    elif threads > cores:
        report.limits.append(f"torch uses {threads} threads on {cores} cores, which wait for each other")
    if runtimes and len(runtimes) > 1:
        files = ", ".join(runtimes)
        report.limits.append(
            f"{len(runtimes)} OpenMP runtimes ({files}): where both work at once, they share the cores"
        )
    return {
        "version": torch.__version__,
        "build": _build(torch),
        "threads": threads,
        "threads_between_operators": torch.get_num_interop_threads(),
        "aten_cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "onednn": torch.backends.mkldnn.is_available(),
        "onednn_max_cpu_isa": os.environ.get("ONEDNN_MAX_CPU_ISA"),
        "mkl": torch.backends.mkl.is_available(),
        "openmp_runtimes": runtimes,
    }


def _build(torch: Any) -> str:
    if torch.version.cuda:
        return f"CUDA {torch.version.cuda}"
    return f"ROCm {torch.version.hip}" if torch.version.hip else "CPU"


def _c_library(report: Report) -> Facts:
    from ..kernels.cpu import library as binding

    facts: Facts = {"file": None, "instruction_set": None, "could_use": None, "absent_because": None}
    if (file := binding.file()) is None:
        facts["absent_because"] = binding.unavailable_reason()
        report.limits.append(
            f"{binding.unavailable_reason()}: 4-bit and 8-bit weights are in plain torch, several times slower"
        )
        return facts
    facts["file"] = str(file)
    try:
        facts |= {"instruction_set": binding.instruction_set(), "could_use": list(binding.usable_sets())}
    except ValueError as error:
        report.broken.append(_one_line(error))
        return facts
    if not _has_reference_bytes():
        report.broken.append(f"{file} does not quantize as the plain-torch reference does: install lowrank again")
    if facts["instruction_set"] != facts["could_use"][0]:
        report.limits.append(
            f"{binding.ISA}={facts['instruction_set']}: the processor and the C library have {facts['could_use'][0]}"
        )
    return facts


def _has_reference_bytes() -> bool:
    """True if 4,096 numbers become the same bytes in C and in plain torch."""
    import torch

    from ..kernels.cpu import linear as cpu_linear
    from ..kernels.reference import weights as reference

    w = torch.arange(-2048, 2048).float().sin()
    ours, truth = (room.quantize_4bit(w, double_quant=True) for room in (cpu_linear, reference))
    theirs = truth.tensors()
    return all(torch.equal(tensor, theirs[name]) for name, tensor in ours.tensors().items())


def _gpu(report: Report, torch: Any) -> Facts:
    if not torch.cuda.is_available():
        driver = shutil.which("nvidia-smi") or Path("/proc/driver/nvidia/version").exists()
        because = "no GPU" if not driver else f"an NVIDIA driver, but no GPU that torch ({_build(torch)}) can use"
        report.limits.append(f"{because}: Triton's kernels are not used, and everything is computed on the CPU")
        return {"devices": 0}
    from ..kernels.dispatch.table import OLDEST_CAPABILITY

    facts: Facts = {"devices": torch.cuda.device_count()}
    for number in range(torch.cuda.device_count()):
        found = torch.cuda.get_device_properties(number)
        capability = f"{found.major}.{found.minor}"
        facts[f"{number}"] = {"name": found.name, "capability": capability, "memory_bytes": found.total_memory}
        if (found.major, found.minor) < OLDEST_CAPABILITY:
            oldest = ".".join(map(str, OLDEST_CAPABILITY))
            report.limits.append(f"{found.name}: Triton's kernels need compute capability {oldest}: plain torch there")
    if importlib.util.find_spec("triton") is None:
        report.limits.append("Triton is missing: on a GPU everything is plain torch")
    return facts


def _products(report: Report, torch: Any) -> Facts:
    """The path of a forward product and of dX for NF4 weights, as the table chooses it; nothing is run."""
    from ..kernels.cpu import library as binding
    from ..kernels.dispatch.explain import explain

    facts: Facts = {}
    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        for dtype in (torch.bfloat16, torch.float32):
            for m in ROWS_OF_X:
                chosen = {item.op: item.path for item in explain(m, 4096, 4096, dtype=dtype, device=device)}
                name = f"{device} {str(dtype).removeprefix('torch.')}, {m} row{'s' * (m > 1)}"
                facts[name] = f"forward: {chosen['linear forward']}; dX: {chosen['linear dX']}"
    if binding.file() is not None and binding.instruction_set() != binding.MATRIX_UNIT:
        paths = facts[f"cpu bfloat16, {ROWS_OF_X[-1]} rows"]
        report.limits.append(f"no matrix unit in use: bfloat16 products of {ROWS_OF_X[-1]} rows: {paths}")
    return facts


def _extras(report: Report) -> Facts:
    facts: Facts = {}
    for extra, libraries in EXTRAS.items():
        facts[extra] = {library.package: _version(library.package) for library in libraries}
        for library in libraries:
            if facts[extra][library.package] is None:
                report.limits.append(
                    f"{library.package} is missing: {library.serves} will not run; pip install {library.package}"
                )
    return facts


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _numbers(version: str) -> tuple[int, ...]:
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in found[0].split(".")) if found else ()


def _read(path: str) -> str:
    """The text of a file of the system; nothing where there is none, or it may not be read."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
