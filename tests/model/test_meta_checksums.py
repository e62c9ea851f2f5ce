"""Meta's MD5 sums: compared where they are, and every way in which they can be wrong told by name."""

import hashlib
from pathlib import Path

import pytest

from lowrank.model.meta_checksums import verify_checklist


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two files and the list that `md5sum` would write of them."""
    lines = []
    for name, content in (("consolidated.00.pth", b"weights"), ("params.json", b"{}")):
        (tmp_path / name).write_bytes(content)
        lines.append(f"{hashlib.md5(content).hexdigest()}  {name}\n")
    (tmp_path / "checklist.chk").write_text("".join(lines))
    return tmp_path


def test_the_sum_of_every_listed_file_is_compared(folder: Path) -> None:
    assert verify_checklist(folder) == ("consolidated.00.pth", "params.json")


def test_the_tokenizer_has_a_list_of_its_own(folder: Path) -> None:
    (folder / "tokenizer.model").write_bytes(b"pieces")
    (folder / "tokenizer_checklist.chk").write_text(f"{hashlib.md5(b'pieces').hexdigest().upper()} *tokenizer.model\n")
    assert verify_checklist(folder)[-1] == "tokenizer.model"


@pytest.mark.parametrize("name", ["consolidated.00.pth", "params.json"])
def test_a_file_of_another_sum_is_named_with_both_sums(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"damaged")
    with pytest.raises(ValueError, match=rf"{name}: has the MD5 sum {hashlib.md5(b'damaged').hexdigest()}, .* says "):
        verify_checklist(folder)


def test_a_file_that_is_missing_is_named(folder: Path) -> None:
    (folder / "params.json").unlink()
    with pytest.raises(ValueError, match=r"params.json: is missing, though checklist.chk lists it"):
        verify_checklist(folder)


def test_a_folder_without_sums_says_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no checklist.chk"):
        verify_checklist(tmp_path)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("", "lists no file"),
        ("consolidated.00.pth", r"chk:1: must be an MD5 sum and a file name"),
        ("d41d8cd98f00b204e9800998ecf8427  params.json", r"chk:1: must be an MD5 sum"),
        ("d41d8cd98f00b204e9800998ecf8427e  ../../etc/passwd", r"must name a file beside the list, got '../../etc"),
        ("d41d8cd98f00b204e9800998ecf8427e  ..", r"must name a file beside the list"),
    ],
    ids=["empty", "no-sum", "short-sum", "path-traversal", "parent"],
)
def test_a_list_that_is_none_is_refused(folder: Path, line: str, reason: str) -> None:
    (folder / "checklist.chk").write_text(line + "\n")
    with pytest.raises(ValueError, match=reason):
        verify_checklist(folder)
