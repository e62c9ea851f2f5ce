"""Memory that the judge shares, inputs that nobody has seen, and mistakes that are told before any work."""

from pathlib import Path

import pytest
import torch

from lowrank.bench.judge.arena import Arena, unwritten
from lowrank.bench.judge.judge import ColdMemory, cold_bytes, judge
from lowrank.bench.judge.task import read_task
from lowrank.bench.timing import COLD_BYTES
from lowrank.cli import main

TASK = read_task("nf4-linear")
SMALL = {"m": 1, "n": 8, "k": 128, "blocksize": 64, "kind": "normal", "seed": 1}


def test_as_much_memory_passes_by_as_drives_weights_out_of_the_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    for cache, least in ((0, COLD_BYTES), (int(1e9), 2e9)):
        monkeypatch.setattr("lowrank.bench.machine.cache_bytes", lambda device, cache=cache: cache)
        assert cold_bytes() == least
    cold = ColdMemory(800)
    cold()
    assert cold._other.nbytes == 800


def test_inputs_are_new_at_every_call_and_follow_from_the_secret() -> None:
    first, again = (TASK.inputs(SMALL, b"secret", 0) for _ in range(2))
    for other in (TASK.inputs(SMALL, b"secret", 1), TASK.inputs(SMALL, b"another", 0)):
        assert all(not torch.equal(first[part], other[part]) for part in (0, 1, 2))
    assert all(torch.equal(first[part], again[part]) for part in (0, 1, 2))


def test_an_arena_sees_a_byte_that_is_written_anywhere_but_in_y() -> None:
    data = TASK.inputs({**SMALL, "k": 77}, b"secret", 0)
    arena = Arena(data)
    arena.put(data)
    assert arena.fault() == ("", "") and unwritten(arena.take()) == 8
    y = arena._places[-1]
    arena._shared[y] = 0
    assert arena.fault() == ("", "") and unwritten(arena.take()) == 0
    for at, told in (
        (y.stop, ("guard", "memory was written 0 bytes behind the end of y")),
        (y.start - 1, ("guard", "behind the end of codebook")),
        (0, ("guard", "memory was written before x")),
        (arena._places[1].start + 3, ("inputs-unchanged", "byte 3 of codes was written")),
    ):
        arena.put(data)
        arena._shared[at] ^= 1
        rule, seen = arena.fault()
        assert rule == told[0] and seen.endswith(told[1])


@pytest.mark.parametrize("option", [("--threads", "0"), ("--repetitions", "-1"), ("--limit", "0")])
def test_an_option_out_of_range_is_told_in_one_line(
    option: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "judge", str(TASK.template), *option]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("absent.py", None, "no such file"),
        ("mine.c", "", "is source: compile it"),
        ("mine.txt", "", "must be a file in Python"),
    ],
)
def test_what_cannot_be_judged_is_the_callers_mistake(name: str, text: str | None, told: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=told):
        judge(tmp_path / name)
    with pytest.raises(ValueError, match="task must be one of nf4-gemv, nf4-linear"):
        judge(tmp_path / name, "another")
