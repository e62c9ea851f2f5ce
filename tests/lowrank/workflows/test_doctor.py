"""The page of `lowrank doctor`: its facts are those of the machine, and what is missing or broken is told."""

import ctypes.util
import importlib.metadata
import json
import os
import platform
import re
import shutil
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from lowrank import extras
from lowrank.cli import main
from lowrank.kernels.cpu import library as binding
from lowrank.kernels.dispatch import table
from lowrank.workflows import doctor, systems

ROOT = next(folder for folder in Path(__file__).resolve().parents if (folder / "pyproject.toml").exists())


@pytest.fixture(autouse=True)
def nothing_is_remembered():
    """Forgets the C library and the paths chosen by it, before and after a test that changes them."""
    remembered = (binding.library, binding.unavailable_reason, table.choose, table.choice_reason)
    for function in remembered:
        function.cache_clear()
    yield
    for function in remembered:
        function.cache_clear()


@pytest.fixture
def versions(monkeypatch: pytest.MonkeyPatch):
    """Sets the version under which a distribution is installed; None: it is not."""
    told, real = {}, importlib.metadata.version

    def version(package):
        found = told[package] if package in told else real(package)
        if found is None:
            raise importlib.metadata.PackageNotFoundError(package)
        return found

    monkeypatch.setattr(importlib.metadata, "version", version)
    return told


def mentioned(lines, *words):
    """The lines in which all of the words are."""
    return [line for line in lines if all(word in line for word in words)]


def leaves(value):
    """Every value of a JSON object that is neither a list nor an object, with its key."""
    for key, part in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(part, dict | list):
            yield from leaves(part)
        else:
            yield str(key), part


# What is there


def test_the_facts_are_those_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(binding.ISA, raising=False)
    report = doctor.examine()
    facts = report.facts
    assert report.broken == []
    assert facts["system"]["python"] == platform.python_version()
    assert facts["processor"]["cores_in_use"] == len(os.sched_getaffinity(0))
    assert facts["memory_and_disk"]["memory_bytes"] == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert facts["torch"]["version"] == facts["libraries"]["torch"] == torch.__version__
    assert facts["torch"]["threads"] == torch.get_num_threads()
    assert facts["torch"]["aten_cpu_capability"] == torch.backends.cpu.get_cpu_capability()
    assert facts["c_library"]["instruction_set"] == binding.instruction_set() == facts["c_library"]["could_use"][0]
    assert facts["c_library"]["could_use"][-1] == "portable"
    assert facts["gpu"]["devices"] == torch.cuda.device_count()
    assert facts["extras"]["gguf"] == {"gguf": importlib.metadata.version("gguf")}


def test_asking_which_instruction_sets_could_be_used_changes_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(binding.ISA, "portable")
    report = doctor.examine()
    assert report.facts["c_library"]["instruction_set"] == binding.instruction_set() == "portable"
    assert report.facts["environment"][binding.ISA] == "portable"
    widest = report.facts["c_library"]["could_use"][0]
    assert mentioned(report.limits, "LOWRANK_CPU_ISA=portable", widest) or widest == "portable"


def test_every_set_that_could_be_used_is_one_that_can_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in binding.usable_sets():
        monkeypatch.setenv(binding.ISA, name)
        binding.library.cache_clear()
        assert binding.instruction_set() == name


def test_the_json_has_the_facts_of_the_page(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    assert main(["doctor", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert main(["doctor"]) == 0
    page = capsys.readouterr().out
    moving = {"available_bytes", "disk_free_bytes"}  # others use the machine as well
    for key, value in leaves(told):
        if isinstance(value, str) or (isinstance(value, int) and not key.endswith("bytes")):
            assert (str(value) if not isinstance(value, bool) else {True: "yes", False: "no"}[value]) in page
        elif value is not None and key not in moving:
            assert f"{value / 1e9:.1f} GB" in page
    for key in (key for facts in told.values() if isinstance(facts, dict) for key in facts):
        assert (key if key.isupper() else key.removesuffix("_bytes").replace("_", " ")) in page
    assert re.search(r"^  OMP_WAIT_POLICY +PASSIVE$", page, re.MULTILINE)


def test_openmp_runtimes_are_the_files_that_are_mapped(tmp_path: Path) -> None:
    maps = tmp_path / "maps"
    maps.write_text(
        "7f00-7f10 r-xp 00000000 08:01 11 /a b/torch/lib/libgomp.so.1\n"
        "7f10-7f20 r--p 00010000 08:01 11 /a b/torch/lib/libgomp.so.1\n"
        "7f20-7f30 r-xp 00000000 08:01 12 /usr/lib/libiomp5.so\n"
        "7f30-7f40 r-xp 00000000 08:01 13 /x/sklearn.libs/libgomp-1d2f3a.so.1.0.0\n"
        "7f40-7f50 r-xp 00000000 08:01 14 /usr/lib/libcompiler.so\n"
        "7f50-7f60 rw-p 00000000 00:00 0 \n"
    )
    assert doctor.openmp_runtimes(maps) == [
        "/a b/torch/lib/libgomp.so.1", "/usr/lib/libiomp5.so", "/x/sklearn.libs/libgomp-1d2f3a.so.1.0.0"
    ]  # fmt: skip
    assert doctor.openmp_runtimes(tmp_path / "none") is None


def test_no_variable_that_may_hold_a_secret_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "WANDB_API_KEY", "HUGGING_FACE_HUB_TOKEN", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "do-not-tell")
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    report = doctor.examine()
    assert "do-not-tell" not in report.text() and "do-not-tell" not in json.dumps(report.to_json())
    assert report.facts["environment"]["OMP_WAIT_POLICY"] == "PASSIVE"


# What is missing


def test_without_the_c_library_plain_torch_computes_and_the_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binding, "file", lambda: None)
    report = doctor.examine()
    assert report.facts["c_library"]["file"] is None
    assert report.facts["c_library"]["absent_because"] == binding.unavailable_reason() != ""
    assert set(report.facts["products"].values()) == {"forward: plain torch; dX: plain torch"}
    assert mentioned(report.limits, binding.unavailable_reason(), "plain torch") and not report.broken


def test_without_a_compiler_it_is_told_that_the_library_cannot_be_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "/bin/false")
    report = doctor.examine()
    assert report.facts["processor"]["compiler"] is None
    assert mentioned(report.limits, "no C compiler") and not report.broken


def test_without_a_gpu_triton_is_said_not_to_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    report = doctor.examine()
    assert report.facts["gpu"] == {"devices": 0}
    assert mentioned(report.limits, "Triton's kernels are not used")
    assert not [name for name in report.facts["products"] if name.startswith("cuda")]


@pytest.mark.parametrize("capability", [(7, 5), (9, 0)], ids=["T4", "H100"])
def test_a_gpu_is_described_and_one_that_is_too_old_is_told(monkeypatch: pytest.MonkeyPatch, capability) -> None:
    major, minor = capability
    found = SimpleNamespace(name="NVIDIA X", major=major, minor=minor, total_memory=16 * 10**9)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: found)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: found.name)
    report = doctor.examine()
    shown = {"name": "NVIDIA X", "capability": f"{major}.{minor}", "memory_bytes": 16 * 10**9}
    assert report.facts["gpu"] == {"devices": 1, "0": shown}
    old = capability < table.OLDEST_CAPABILITY
    assert bool(mentioned(report.limits, "NVIDIA X", "compute capability 8.0")) == old
    assert ("plain torch" in report.facts["products"]["cuda bfloat16, 1 row"]) == old


def test_a_missing_library_of_an_extra_is_told_with_what_will_not_run(versions) -> None:
    versions["gguf"] = None
    report = doctor.examine()
    assert report.facts["extras"]["gguf"] == {"gguf": None}
    assert "gguf is missing: `lowrank export --format gguf` will not run; pip install gguf" in report.limits
    assert not report.broken


def test_little_memory_and_disk_are_told_with_what_does_not_fit(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=10**9))
    monkeypatch.setattr(
        doctor, "_read", lambda path: "MemTotal:  2000000 kB\nMemAvailable:  1000000 kB\n" if "mem" in path else ""
    )
    limits = doctor.examine(tmp_path).limits
    assert mentioned(limits, "1.0 GB of memory", "7B") and mentioned(limits, "1.0 GB of disk", "13.5 GB")


@pytest.mark.parametrize(("threads", "cores", "told"), [(1, 4, "uses 1 of 4 cores"), (4, 1, "4 threads on 1 cores")])
def test_threads_that_do_not_fit_the_cores_are_told(monkeypatch: pytest.MonkeyPatch, threads, cores, told) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cores)))
    assert mentioned(doctor.examine().limits, told)


def test_two_openmp_runtimes_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "openmp_runtimes", lambda: ["/a/libgomp.so.1", "/b/libiomp5.so"])
    assert mentioned(doctor.examine().limits, "2 OpenMP runtimes", "/a/libgomp.so.1", "/b/libiomp5.so")


def test_another_distribution_of_the_name_is_told(versions) -> None:
    versions["lowrank"] = "1.0.0"
    assert mentioned(doctor.examine().limits, "lowrank (1.0.0)", "pip uninstall lowrank")
    versions["lowrank"] = None
    assert not mentioned(doctor.examine().limits, "pip uninstall lowrank")


# What is broken


@pytest.mark.parametrize(
    ("library", "told"),
    [
        pytest.param("no library", "cannot be loaded", id="no library"),
        pytest.param(None, "cannot be loaded", id="no file"),
        pytest.param(ctypes.util.find_library("m"), "built from other sources", id="other sources"),
    ],
)
def test_a_library_that_is_there_and_cannot_be_used_is_broken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], library, told
) -> None:
    path = tmp_path / "native.so"
    if library == "no library":
        path.write_text("text")
    monkeypatch.setenv(binding.LIBRARY, library if library and " " not in library else str(path))
    assert main(["doctor"]) == 1
    page = capsys.readouterr().out
    assert re.search(rf"^broken\n  - .*{told}", page, re.MULTILINE)
    assert main(["doctor", "--json"]) == 1
    assert mentioned(json.loads(capsys.readouterr().out)["broken"], told)


def test_an_instruction_set_that_the_processor_lacks_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(binding.ISA, "abacus")
    assert mentioned(doctor.examine().broken, "LOWRANK_CPU_ISA", "'abacus'")


def test_a_library_that_computes_something_else_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_has_reference_bytes", lambda: False)
    assert mentioned(doctor.examine().broken, str(binding.file()), "reference")


def test_the_comparison_with_the_reference_sees_one_wrong_code(monkeypatch: pytest.MonkeyPatch) -> None:
    from lowrank.kernels.cpu import linear as cpu_linear

    right = cpu_linear.quantize_4bit

    def wrong(*arguments, **options):
        quantized = right(*arguments, **options)
        quantized.codes[7] ^= 1
        return quantized

    assert doctor._has_reference_bytes()
    monkeypatch.setattr(cpu_linear, "quantize_4bit", wrong)
    assert not doctor._has_reference_bytes()


@pytest.mark.parametrize(("version", "told"), [("2.10.0", "torch 2.10.0 is too old"), (None, "torch is missing")])
def test_a_dependency_that_is_too_old_or_missing_is_broken(
    versions, capsys: pytest.CaptureFixture[str], version, told
) -> None:
    versions["torch"] = version
    assert main(["doctor"]) == 1
    assert f"{told}: pip install 'torch>=2.11'" in capsys.readouterr().out


def test_without_torch_the_page_is_there_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    report = doctor.examine()
    assert mentioned(report.broken, "torch cannot be imported")
    assert "torch" not in report.facts and report.facts["processor"]["cores_in_use"] >= 1


def test_wrong_input_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["doctor", "heart"])
    assert stop.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


# Systems


@pytest.mark.parametrize(
    ("system", "machine", "release", "expected"),
    [
        ("Linux", "x86_64", "6.1.0", systems.X86),
        ("Linux", "aarch64", "6.1.0", systems.ARM),
        ("Linux", "riscv64", "6.1.0", systems.OTHER),
        ("Linux", "x86_64", "5.15.0-microsoft-standard-WSL2", systems.WSL),
        ("Darwin", "arm64", "24.0.0", systems.MACOS),
        ("Windows", "AMD64", "11", systems.WINDOWS),
        ("FreeBSD", "amd64", "14", systems.UNKNOWN),
    ],
)
def test_a_system_is_known_by_what_it_calls_itself(
    monkeypatch: pytest.MonkeyPatch, system, machine, release, expected
) -> None:
    for name, value in (("system", system), ("machine", machine), ("release", release)):
        monkeypatch.setattr(platform, name, lambda value=value: value)
    assert systems.this_system() == expected


@pytest.mark.parametrize(
    ("system", "verb", "refused"),
    [("Windows", ["quantize", "a", "b"], True), ("Darwin", ["bench", "kernels"], True), ("Darwin", ["doctor"], False)],
    ids=["everything on Windows", "bench on macOS", "nothing else on macOS"],
)
def test_what_cannot_work_on_a_system_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], system, verb, refused
) -> None:
    monkeypatch.setattr(platform, "system", lambda: system)
    status = main(verb)
    told = capsys.readouterr().err.splitlines()
    assert (status, len(told)) == ((1, 1) if refused else (0, 0))


def test_on_windows_the_page_is_printed_and_says_that_it_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Windows")
    assert main(["doctor"]) == 1
    assert re.search(r"^broken\n  - Windows is refused: .*WSL 2", capsys.readouterr().out, re.MULTILINE)


def test_readme_has_the_table_of_systems() -> None:
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "".join(f"| {row.name} | {row.state} | {row.note} |\n" for row in systems.SYSTEMS) in page


def test_the_oldest_versions_are_those_of_the_project_file() -> None:
    asked = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    assert dict(re.match(r"([\w-]+)>=([\d.]+)", line).groups() for line in asked) == doctor.REQUIRED


def test_the_table_of_extras_says_what_each_library_serves() -> None:
    assert all(library.serves for libraries in extras.EXTRAS.values() for library in libraries)
