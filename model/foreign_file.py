"""Files that lie in the place of others: empty, pointers of Git LFS, pages of a website."""

from pathlib import Path


def foreign_file_reason(path: Path) -> str:
    """Why a file is not what its name promises: one of the things that are found in a file's place by mistake."""
    with path.open("rb") as file:
        start = file.read(64).lstrip()
    if not start:
        return "it is empty"
    if start.startswith(b"version https://git-lfs"):
        return "it is a pointer of Git LFS and not the file itself: run `git lfs pull` in its folder"
    if start[:1] == b"<":
        return "it is a page of a website and not the file itself: download it again, signed in if it asks for that"
    return ""
