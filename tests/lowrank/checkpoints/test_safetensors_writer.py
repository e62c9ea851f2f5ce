"""Files that are written a tensor at a time: whole in the end, and gone on with after an interruption."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from lowrank.checkpoints.safetensors_writer import JOURNAL, PlannedFile, StreamWriter, plan_files, weight_map
from lowrank.model.tensor_file import Layout

GROUPS = [
    {"a": torch.arange(6.0).view(2, 3)},
    {"b.codes": torch.arange(8, dtype=torch.uint8), "b.scale": torch.tensor([0.5, 2.0])},
    {"c": torch.ones(4, dtype=torch.bfloat16)},
]


def plan(max_bytes: float = 1e9) -> tuple[PlannedFile, ...]:
    layouts = [{key: Layout(tuple(t.shape), t.dtype, t.nbytes) for key, t in group.items()} for group in GROUPS]
    return plan_files(layouts, max_bytes)


def contents(folder: Path) -> dict[str, Tensor]:
    return {key: tensor for file in folder.glob("*.safetensors") for key, tensor in load_file(file).items()}


def assert_whole(folder: Path) -> None:
    expected = {key: tensor for group in GROUPS for key, tensor in group.items()}
    found = contents(folder)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], tensor) and found[key].dtype == tensor.dtype for key, tensor in expected.items())
    assert not (folder / JOURNAL).exists()


@pytest.mark.parametrize(("max_bytes", "count"), [(1e9, 1), (24, 2), (40, 2), (1, 3)])
def test_every_tensor_is_in_a_file_of_at_most_the_size(max_bytes: float, count: int, tmp_path: Path) -> None:
    files = plan(max_bytes)
    assert len(files) == count
    writer = StreamWriter(tmp_path, files, "identity")
    for group in reversed(GROUPS):  # in any order
        writer.write(group)
    writer.close()
    assert_whole(tmp_path)
    index = weight_map(files)
    assert index["metadata"] == {"total_size": 48}
    assert set(index["weight_map"].values()) == {file.name for file in tmp_path.iterdir()}
    holder = index["weight_map"]
    assert holder["b.codes"] == holder["b.scale"]


def test_what_was_written_is_not_written_again(tmp_path: Path) -> None:
    StreamWriter(tmp_path, plan(24), "identity").write(GROUPS[1])
    writer = StreamWriter(tmp_path, plan(24), "identity")
    assert writer.done == {"b.codes", "b.scale"}
    assert writer.missing_bytes == 32
    writer.write(GROUPS[0])
    writer.write(GROUPS[2])
    writer.close()
    assert_whole(tmp_path)


@pytest.mark.parametrize("damage", ["byte", "torn journal", "file gone", "other identity"])
def test_what_does_not_have_its_hash_is_written_again(damage: str, tmp_path: Path) -> None:
    writer = StreamWriter(tmp_path, plan(24), "identity")
    writer.write(GROUPS[0])
    writer.write(GROUPS[1])
    identity, first = "identity", sorted(tmp_path.glob("*.safetensors"))[0]
    if damage == "byte":
        first.write_bytes(first.read_bytes()[:-1] + b"\x7f")
    elif damage == "torn journal":
        journal = tmp_path / JOURNAL
        journal.write_text(journal.read_text()[:-10])
    elif damage == "file gone":
        first.unlink()
    else:
        identity = "another"
    again = StreamWriter(tmp_path, plan(24), identity)
    assert again.done == {"byte": {"b.codes", "b.scale"}, "torn journal": {"a"}}.get(damage, set())
    for group in GROUPS:
        if not group.keys() <= again.done:
            again.write(group)
    again.close()
    assert_whole(tmp_path)


def test_every_tensor_begins_on_a_multiple_of_its_width() -> None:
    (file,) = plan()
    widths = {key: tensor.element_size() for group in GROUPS for key, tensor in group.items()}
    assert all(begin % widths[key] == 0 for key, (begin, _) in file.places.items())
    assert json.loads(file.header[8:])["__metadata__"] == {"format": "pt"}
