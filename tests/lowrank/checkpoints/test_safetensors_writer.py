"""Files that are written a tensor at a time: complete in the end, and continued after an interruption."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from lowrank.checkpoints.safetensors_writer import (
    DTYPE_NAMES,
    JOURNAL,
    PlannedFile,
    PlannedWriter,
    StreamWriter,
    plan_file,
    plan_files,
    weight_map,
)
from lowrank.model.tensor_file import Layout

GROUPS = [
    {"a": torch.arange(6.0).view(2, 3)},
    {"b.codes": torch.arange(8, dtype=torch.uint8), "b.scale": torch.tensor([0.5, 2.0])},
    {"c": torch.ones(4, dtype=torch.bfloat16)},
]


def plan(max_bytes: float = 1e9) -> tuple[PlannedFile, ...]:
    return plan_files(map(layouts_of, GROUPS), max_bytes)


def layouts_of(tensors: dict[str, Tensor]) -> dict[str, Layout]:
    return {key: Layout.of(tuple(tensor.shape), tensor.dtype) for key, tensor in tensors.items()}


def contents(folder: Path) -> dict[str, Tensor]:
    return {key: tensor for file in folder.glob("*.safetensors") for key, tensor in load_file(file).items()}


def assert_same_tensors(read: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert read.keys() == expected.keys()
    assert all(torch.equal(read[key], tensor) and read[key].dtype == tensor.dtype for key, tensor in expected.items())


def assert_complete(folder: Path) -> None:
    assert_same_tensors(contents(folder), {key: tensor for group in GROUPS for key, tensor in group.items()})
    assert not (folder / JOURNAL).exists()


@pytest.mark.parametrize(("max_bytes", "count"), [(1e9, 1), (24, 2), (40, 2), (1, 3)])
def test_every_tensor_is_in_a_file_of_at_most_the_size(max_bytes: float, count: int, tmp_path: Path) -> None:
    files = plan(max_bytes)
    assert len(files) == count
    writer = StreamWriter(tmp_path, files, "identity")
    for group in reversed(GROUPS):  # in any order
        writer.write(group)
    writer.close()
    assert_complete(tmp_path)
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
    assert_complete(tmp_path)


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
    assert_complete(tmp_path)


# Groups of odd sizes: each would put the next out of line if the tensors of a file were not sorted by width.
ODD = {
    "layers.10.b": torch.arange(3, dtype=torch.uint8),
    "layers.2.a": torch.arange(12.0).view(3, 4).T,
    "layers.2.b": torch.arange(5, dtype=torch.int8),
    "ä": torch.arange(7, dtype=torch.bfloat16),
    "half": torch.arange(3, dtype=torch.float16),
    "none": torch.zeros(0, 4),
    "one": torch.tensor(5.0),
}


@pytest.mark.parametrize("count", range(1, len(ODD) + 1))
def test_every_tensor_begins_at_a_multiple_of_its_item_size_and_the_data_at_a_multiple_of_8(count: int) -> None:
    tensors = dict(list(ODD.items())[:count])
    file = plan_file("odd", layouts_of(tensors))
    assert len(file.header) % 8 == 0 and min(begin for begin, _ in file.places.values()) == len(file.header)
    assert all(begin % tensors[key].element_size() == 0 for key, (begin, _) in file.places.items())
    assert json.loads(file.header[8:])["__metadata__"] == {"format": "pt"}


@pytest.mark.parametrize("count", range(1, len(ODD) + 1))
def test_a_file_has_the_bytes_that_safetensors_writes(count: int, tmp_path: Path) -> None:
    tensors = {key: tensor.contiguous() for key, tensor in list(ODD.items())[:count]}
    save_file(tensors, tmp_path / "theirs", metadata={"format": "pt"})
    with PlannedWriter(tmp_path, [plan_file("ours", layouts_of(tensors))]) as writer:
        writer.write(tensors)
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


@pytest.mark.parametrize("dtype", DTYPE_NAMES, ids=str)
def test_what_is_written_is_what_is_read(dtype: torch.dtype, tmp_path: Path) -> None:
    tensors = {key: tensor.to(dtype) for key, tensor in ODD.items()}
    with PlannedWriter(tmp_path, [plan_file("file", layouts_of(tensors))]) as writer:
        for key, tensor in tensors.items():
            writer.write({key: tensor})
    assert_same_tensors(load_file(tmp_path / "file"), tensors)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_file_says_that_it_is_of_torch(tmp_path: Path) -> None:
    with PlannedWriter(tmp_path, [plan_file("file", layouts_of({"a": torch.ones(2)}))]) as writer:
        writer.write({"a": torch.ones(2)})
    with safe_open(tmp_path / "file", framework="pt") as read:
        assert read.metadata() == {"format": "pt"}


@pytest.mark.parametrize(
    "make", [PlannedWriter, lambda *rest: StreamWriter(*rest, "identity")], ids=["plain", "resumed"]
)
def test_an_error_inside_leaves_no_file_that_can_be_read(make: Any, tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), make(tmp_path, plan()) as writer:
        for group in GROUPS:
            writer.write(group)
        1 / 0  # noqa: B018
    with pytest.raises(SafetensorError):
        load_file(tmp_path / "model.safetensors")
