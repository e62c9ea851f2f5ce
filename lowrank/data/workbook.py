"""Workbooks of spreadsheets (XLSX), which are ZIP archives: a small file may unpack to more than memory has."""

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..extras import need

_UNCOMPUTED = re.compile(
    rb'<(?:\w+:)?c\s[^<>]*?\br="([A-Z]+\d+)"[^<>]*>\s*<(?:\w+:)?f(?:\s[^<>]*)?(?:/>|>[^<]*</(?:\w+:)?f>)'
    rb"\s*(?:<(?:\w+:)?v\s*/>|<(?:\w+:)?v>\s*</(?:\w+:)?v>)?\s*</(?:\w+:)?c>"
)
MAX_UNPACKED = 200_000_000  # bytes


class NotAWorkbookError(ValueError):
    """A file that is no workbook; the text says why."""


def open_workbook(path: Path, what: str) -> Any:
    """openpyxl's workbook, for reading: of formulas the values that were last computed.

    what  needs it, for the message if openpyxl is missing
    Raises NotAWorkbookError, and ValueError for a file that unpacks to more than MAX_UNPACKED.
    """
    openpyxl = need("openpyxl", what)
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
    except zipfile.BadZipFile:
        raise NotAWorkbookError("is no ZIP archive") from None
    if unpacked > MAX_UNPACKED:
        raise ValueError(f"{path}: must unpack to at most {MAX_UNPACKED // 10**6} MB, would be {unpacked // 10**6} MB")
    try:
        return openpyxl.load_workbook(path, read_only=True, data_only=True)
    except (KeyError, OSError, ValueError, zipfile.BadZipFile, openpyxl.utils.exceptions.InvalidFileException) as error:
        raise NotAWorkbookError(f"cannot be read: {error}") from None


def merged_cells(path: Path, book: Any) -> Iterator[tuple[str, str]]:
    """(title of a sheet, range such as "A1:C1") of all cells of an open workbook that are merged.

    openpyxl tells them only of a workbook that is read whole, which takes fifty times the memory.
    """
    with zipfile.ZipFile(path) as archive:
        for sheet in book.worksheets:
            inside = archive.read(sheet._worksheet_path)
            for cells in re.findall(rb'<(?:\w+:)?mergeCell\s[^>]*?ref="([^"]+)"', inside):
                yield sheet.title, cells.decode("utf-8", "replace")


def uncomputed_cells(path: Path, book: Any) -> Iterator[str]:
    """The cells of an open workbook, "Sheet1!B2", whose formula has no value: no program has computed it."""
    with zipfile.ZipFile(path) as archive:
        for sheet in book.worksheets:
            inside = archive.read(sheet._worksheet_path)
            for cell in _UNCOMPUTED.findall(inside):
                yield f"{sheet.title}!{cell.decode('ascii', 'replace')}"
