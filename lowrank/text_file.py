"""Text files that people have: UTF-8 with or without a byte order mark, anything else refused by its place."""

import gzip
import zlib
from pathlib import Path

# The longest first: UTF-32's begins as UTF-16's does.
_MARKS = {
    b"\xff\xfe\x00\x00": "UTF-32",
    b"\x00\x00\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}


def no_file_reason(path: Path) -> str:
    """Why a path is no file that can be read, "" for one that is there."""
    if path.is_file():
        return ""
    return "is a folder, a file is needed" if path.is_dir() else "no such file"


def read_text(path: Path | str) -> str:
    r"""The text of a UTF-8 file, without its byte order mark; line ends stay as they are. NAME.gz is unpacked.

    Raises ValueError "FILE:LINE: must be UTF-8, ..." for another encoding, and for a path that is no file.
    """
    path = Path(path)
    if reason := no_file_reason(path):
        raise ValueError(f"{path}: {reason}")
    data = path.read_bytes()
    if path.suffix == ".gz":
        try:
            data = gzip.decompress(data)
        except (EOFError, OSError, zlib.error) as error:
            raise ValueError(f"{path}: must be whole gzip data: {error}") from None
    for mark, name in _MARKS.items():
        if data.startswith(mark):
            raise ValueError(f"{path}: must be UTF-8, and begins as {name} does: save it as UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        line, column = before.count(b"\n") + 1, error.start - (before.rfind(b"\n") + 1)
        raise ValueError(
            f"{path}:{line}: must be UTF-8, byte {column + 1} of the line, 0x{data[error.start]:02x}, is not: "
            "save it as UTF-8"
        ) from None
