"""A `.pth` file that is written one tensor at a time is read by torch."""

from pathlib import Path

import pytest
import torch

from lowrank.checkpoints.pth_writer import PthWriter

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.uint8, torch.int8)
TENSORS = {
    "a.b": torch.arange(12).reshape(3, 4),
    "ä": torch.arange(7),
    "transposed": torch.arange(12).reshape(3, 4).T,
    "one": torch.tensor(5),
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_is_written_is_what_is_read(dtype: torch.dtype, tmp_path: Path) -> None:
    tensors, path = {key: tensor.to(dtype) for key, tensor in TENSORS.items()}, tmp_path / "file"
    with PthWriter(path) as file:
        for key, tensor in tensors.items():
            file.write({key: tensor})
    read = torch.load(path, mmap=True, weights_only=True)
    assert list(tmp_path.iterdir()) == [path]
    assert read.keys() == tensors.keys()
    for key, tensor in tensors.items():
        assert read[key].dtype == dtype
        assert torch.equal(read[key], tensor)


def test_a_file_does_not_hold_a_tensor_twice(tmp_path: Path) -> None:
    with PthWriter(tmp_path / "file") as file:
        file.write({key: torch.ones(1000, 100) for key in ("a", "b")})
    assert 2 * 400_000 < (tmp_path / "file").stat().st_size < 2 * 400_000 + 10_000


def test_an_error_inside_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), PthWriter(tmp_path / "file") as file:
        file.write({"a": torch.ones(2)})
        1 / 0  # noqa: B018
    assert not list(tmp_path.iterdir())
