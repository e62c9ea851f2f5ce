"""Files of tensors that are written one tensor at a time are read by those whose formats they are."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from lowrank.checkpoints.tensor_files import PthWriter, SafetensorsWriter

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.uint8, torch.int8)
TENSORS = {
    "a.b": torch.arange(12).reshape(3, 4),
    "ä": torch.arange(7),
    "transposed": torch.arange(12).reshape(3, 4).T,
    "none": torch.zeros(0, 4),
    "one": torch.tensor(5),
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("writer", ["safetensors", "pth"])
def test_what_is_written_is_what_is_read(writer: str, dtype: torch.dtype, tmp_path: Path) -> None:
    tensors, path = {key: tensor.to(dtype) for key, tensor in TENSORS.items()}, tmp_path / "file"
    if writer == "pth":
        tensors.pop("none")  # a file of no bytes cannot be mapped, and no checkpoint has one
    with SafetensorsWriter(path, len(tensors)) if writer == "safetensors" else PthWriter(path) as file:
        for key, tensor in tensors.items():
            file.add(key, tensor)
    read = load_file(path) if writer == "safetensors" else torch.load(path, mmap=True, weights_only=True)
    assert list(tmp_path.iterdir()) == [path]
    assert read.keys() == tensors.keys()
    for key, tensor in tensors.items():
        assert read[key].dtype == dtype
        assert torch.equal(read[key], tensor)


def test_a_safetensors_file_says_that_it_is_of_torch(tmp_path: Path) -> None:
    with SafetensorsWriter(tmp_path / "file", 1) as file:
        file.add("a", torch.ones(2))
    with safe_open(tmp_path / "file", framework="pt") as read:
        assert read.metadata() == {"format": "pt"}


def test_a_pth_file_does_not_hold_a_tensor_twice(tmp_path: Path) -> None:
    with PthWriter(tmp_path / "file") as file:
        for key in ("a", "b"):
            file.add(key, torch.ones(1000, 100))
    assert 2 * 400_000 < (tmp_path / "file").stat().st_size < 2 * 400_000 + 10_000


@pytest.mark.parametrize("writer", [lambda path: SafetensorsWriter(path, 2), PthWriter], ids=["safetensors", "pth"])
def test_an_error_inside_leaves_no_file_that_can_be_read(writer, tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), writer(tmp_path / "file") as file:
        file.add("a", torch.ones(2))
        1 / 0  # noqa: B018
    assert not (tmp_path / "file").exists() or (tmp_path / "file").read_bytes()[:8] == bytes(8)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]
