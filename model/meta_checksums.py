"""The MD5 sums that come with Meta's weights: `checklist.chk`, and `tokenizer_checklist.chk` beside the tokenizer.

Each line is what `md5sum` writes: 32 hexadecimal digits, two spaces (or a space and a star), a file name.
"""

import hashlib
import re
from pathlib import Path

CHECKLISTS = ("checklist.chk", "tokenizer_checklist.chk")
_LINE = re.compile(r"([0-9a-fA-F]{32}) [ *](.+)")


def verify_checklist(folder: Path) -> tuple[str, ...]:
    """The names of the files whose sums were compared, in the order of the lists; every sum must be equal.

    Raises ValueError naming the list if there is none or a line of it is no sum, and naming the file that is missing or
    whose sum differs.
    """
    checklists = [folder / name for name in CHECKLISTS if (folder / name).is_file()]
    if not checklists:
        raise ValueError(f"{folder}: holds no {CHECKLISTS[0]}, the MD5 sums that come with Meta's weights")
    checked = []
    for checklist in checklists:
        for name, expected in _sums(checklist):
            file = folder / name
            if not file.is_file():
                raise ValueError(f"{file}: is missing, though {checklist.name} lists it")
            if (actual := _md5_of(file)) != expected:
                raise ValueError(f"{file}: has the MD5 sum {actual}, {checklist.name} says {expected}: fetch it again")
            checked.append(name)
    return tuple(checked)


def _sums(checklist: Path) -> list[tuple[str, str]]:
    """(file name, MD5 sum) of each line."""
    sums = []
    for number, line in enumerate(checklist.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None:
            raise ValueError(f"{checklist}:{number}: must be an MD5 sum and a file name, got {line[:80]!r}")
        name = match[2].removeprefix("./")
        if Path(name).name != name or name == "..":
            raise ValueError(f"{checklist}:{number}: must name a file beside the list, got {name!r}")
        sums.append((name, match[1].lower()))
    if not sums:
        raise ValueError(f"{checklist}: lists no file")
    return sums


def _md5_of(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
