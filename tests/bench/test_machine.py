"""Where a figure comes from, and how busy the machine was."""

import os
import re
from pathlib import Path

import pytest
import torch

from lowrank.bench import machine
from lowrank.bench.machine import Counters, load_between


@pytest.mark.parametrize(
    ("after", "others", "steal", "busy"),
    [
        pytest.param(Counters(120, 20, 0, 19.5), 0.025, 0.0, False, id="quiet"),
        pytest.param(Counters(120, 20, 0, 10), 0.5, 0.0, True, id="another-process"),
        pytest.param(Counters(120, 20, 1, 20), 0.0, 0.05, True, id="another-guest"),
        pytest.param(Counters(120, 20, 0, 20.3), 0.0, 0.0, False, id="our-clock-is-finer-than-that-of-the-system"),
    ],
)
def test_what_is_neither_idle_nor_ours_makes_a_machine_busy(after, others, steal, busy) -> None:
    load = load_between(Counters(100, 0, 0, 0), after, 0.5, 1.0)
    assert (load.others, load.steal, load.is_busy) == (others, steal, busy)
    assert (load.average_before, load.average_after) == (0.5, 1.0)


def test_the_counters_are_those_of_proc_stat(tmp_path: Path) -> None:
    stat = tmp_path / "stat"
    ticks = os.sysconf("SC_CLK_TCK")
    stat.write_text(f"cpu  {ticks} {2 * ticks} {3 * ticks} {40 * ticks} 0 0 {ticks} {5 * ticks} 9 9\ncpu0 1 1 1\n")
    found = machine.read_counters(stat)
    assert (found.total, found.busy, found.steal) == (52, 7, 5)
    assert found.own > 0
    assert machine.LoadMeter().load().steal >= 0


def test_a_machine_names_its_file() -> None:
    assert machine.file_name("NVIDIA H200") == "nvidia-h200.jsonl"
    name = machine.name(torch.device("cpu"))
    assert name.endswith(f"{os.cpu_count()} cores") and machine.file_name(name).endswith("cores.jsonl")


def test_processors_that_a_hypervisor_calls_alike_have_files_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def named(family: int, model: int, instruction_set: str) -> str:
        cpuinfo = f"cpu family\t: {family}\nmodel\t\t: {model}\nmodel name\t: AMD EPYC\n"
        monkeypatch.setattr(machine.Path, "read_text", lambda path: cpuinfo)
        monkeypatch.setattr(machine.library, "unavailable_reason", lambda: "")
        monkeypatch.setattr(machine.library, "instruction_set", lambda: instruction_set)
        return machine.name(torch.device("cpu"))

    zen3, zen4 = named(25, 1, "avx2"), named(25, 17, "avx512bf16")
    assert zen3.startswith("AMD EPYC (family 25, model 1, avx2), ")
    assert len({machine.file_name(name) for name in (zen3, zen4, named(25, 17, "avx2"))}) == 3


def test_the_code_that_ran_is_named_by_its_bytes_and_versions_by_what_is_installed() -> None:
    assert re.fullmatch("[0-9a-f]{12}", machine.source())
    found = machine.versions(["torch", "no-such-package"])
    assert found["torch"] == torch.__version__.partition("+")[0] or found["torch"] == torch.__version__
    assert "no-such-package" not in found and {"python", "lowrank"} <= set(found)


def test_pinning_leaves_as_many_threads_as_cores() -> None:
    cores, threads = os.sched_getaffinity(0), torch.get_num_threads()
    try:
        assert machine.pin(1) == 1 == len(os.sched_getaffinity(0)) == torch.get_num_threads()
    finally:
        os.sched_setaffinity(0, cores)
        torch.set_num_threads(threads)
