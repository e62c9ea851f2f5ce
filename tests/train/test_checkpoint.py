"""Checkpoints: whole or not there, the newest few and the best kept, and a full disk that costs nothing but the try."""

import resource
from pathlib import Path

import pytest
import torch

from lowrank.train.checkpoint import Checkpoints, Cursor

STATE = {"identity": {}}
TENSORS = {"numbers": torch.arange(10_000.0)}


def names(checkpoints: Checkpoints) -> list[str]:
    return sorted(path.name for path in checkpoints.folder.iterdir())


def test_the_newest_are_kept_in_the_order_of_steps_and_batches(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    for cursor in (Cursor(1), Cursor(1, 3), Cursor(2), Cursor(10)):
        checkpoints.save(cursor, STATE, TENSORS, {})
    assert names(checkpoints) == ["step-00000002.pt", "step-00000010.pt"]
    assert checkpoints.cursors() == [Cursor(2), Cursor(10)]
    checkpoints.save(Cursor(10, 4), STATE, TENSORS, {})
    assert names(checkpoints) == ["step-00000010-batch-0004.pt", "step-00000010.pt"]
    assert checkpoints.load()[0]["cursor"] == (10, 4)


@pytest.mark.parametrize("begin", [lambda checkpoints: checkpoints.load({}), Checkpoints.clear], ids=["resume", "anew"])
def test_what_a_killed_run_left_half_written_is_removed_by_the_next(begin, tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    checkpoints.save(Cursor(1), STATE, TENSORS, {})
    (checkpoints.folder / ".step-00000002.pt.k3_abcde.unfinished").write_bytes(b"half")
    (checkpoints.folder / ".step-00000002.parts.unfinished").mkdir()
    begin(checkpoints)
    assert not list(checkpoints.folder.glob(".step-*"))


def test_the_best_is_kept_however_old(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=1)
    for step in range(1, 6):
        checkpoints.save(Cursor(step), STATE, TENSORS, {}, best=Cursor(min(step, 2)))
    assert names(checkpoints) == ["step-00000002.pt", "step-00000005.pt"]


def test_the_generators_go_on_from_where_they_were(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(Cursor(1), STATE, TENSORS, {})
    drawn = torch.rand(3)
    torch.manual_seed(5)
    checkpoints.load()
    assert torch.equal(torch.rand(3), drawn)


def test_a_disk_that_is_full_leaves_the_checkpoint_before_as_it_was(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(Cursor(1), STATE, TENSORS, {})
    before = (checkpoints.folder / "step-00000001.pt").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))  # the kernel refuses what goes beyond
    try:
        with pytest.raises(
            OSError, match=r"step-00000002\.pt: cannot be written .*step-00000001\.pt before it is whole"
        ):
            checkpoints.save(Cursor(2), STATE, TENSORS, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert names(checkpoints) == ["step-00000001.pt"]
    assert (checkpoints.folder / "step-00000001.pt").read_bytes() == before


def test_no_space_at_the_last_moment_leaves_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(Cursor(1), STATE, TENSORS, {})

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match=r"No space left on device\): step-00000001\.pt before it is whole"):
        checkpoints.save(Cursor(2), STATE, TENSORS, {})
    assert names(checkpoints) == ["step-00000001.pt"]
