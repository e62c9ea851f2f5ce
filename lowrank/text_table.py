"""Rows as a text table, no wider than the terminal."""

import shutil
import textwrap
from collections.abc import Sequence

GAP = "  "
LEAST_PROSE = 24  # columns that a wrapped cell needs to be read


def table(rows: Sequence[Sequence[object]], header: Sequence[str], width: int | None = None) -> str:
    """Columns in plain text: words to the left, figures to the right

    width  of the terminal where it is left out, 80 where there is none. Cells of several words are wrapped to fit; a
           table that is still too wide is continued below, its first column repeated.
    """
    width = width or shutil.get_terminal_size().columns
    cells = [list(header), *([str(cell) for cell in row] for row in rows)]
    is_numeric = [all(_is_figure(row[column]) for row in cells[1:]) for column in range(len(header))]
    widths = _wrapped(cells, is_numeric, width)
    return "\n\n".join(_block(cells, part, widths, is_numeric) for part in _parts(widths, width))


def _wrapped(cells: Sequence[Sequence[str]], is_numeric: Sequence[bool], width: int) -> list[int]:
    """The width of each column: of its widest cell, or less for columns of prose in a table that would be too wide."""
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    excess = _total(widths) - width
    prose = [c for c, wide in enumerate(widths) if wide > LEAST_PROSE and not is_numeric[c] and _has_words(cells, c)]
    if excess <= 0 or sum(widths[c] - LEAST_PROSE for c in prose) < excess:
        return widths
    for column in sorted(prose, key=lambda c: -widths[c]):
        cut = min(excess, widths[column] - LEAST_PROSE)
        widths[column] -= cut
        excess -= cut
    return widths


def _parts(widths: Sequence[int], width: int) -> list[list[int]]:
    """The columns of each part of a table: as many as fit, the first one in every part."""
    parts = [[0]]
    for column in range(1, len(widths)):
        if len(parts[-1]) > 1 and _total([widths[c] for c in (*parts[-1], column)]) > width:
            parts.append([0])
        parts[-1].append(column)
    return parts


def _block(
    cells: Sequence[Sequence[str]], columns: Sequence[int], widths: Sequence[int], is_numeric: Sequence[bool]
) -> str:
    blocks = [
        _row([row[c] for c in columns], [widths[c] for c in columns], [is_numeric[c] for c in columns]) for row in cells
    ]
    lines = [line for block in blocks[1:] for line in block]
    rule = "-" * max(map(len, [*blocks[0], *lines]))
    return "\n".join([*blocks[0], rule, *lines])


def _row(row: Sequence[str], widths: Sequence[int], is_numeric: Sequence[bool]) -> list[str]:
    """The lines of one row: as many as its longest cell."""
    wrapped = [
        [cell]
        if len(cell) <= width
        else textwrap.wrap(cell, width, break_long_words=False, break_on_hyphens=False) or [cell]
        for cell, width in zip(row, widths, strict=True)
    ]
    height = max(map(len, wrapped))
    filled = [lines + [""] * (height - len(lines)) for lines in wrapped]
    return [
        GAP.join(
            part.rjust(width) if right else part.ljust(width)
            for part, width, right in zip(parts, widths, is_numeric, strict=True)
        ).rstrip()
        for parts in zip(*filled, strict=True)
    ]


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + len(GAP) * (len(widths) - 1)


def _has_words(cells: Sequence[Sequence[str]], column: int) -> bool:
    """True of a column whose widest cell has several words, none of which is too long to be wrapped."""
    words = [word for row in cells for word in row[column].split()]
    return max(map(len, words), default=0) <= LEAST_PROSE


def _is_figure(text: str) -> bool:
    return not text or text[:1].isdigit() or text[:2].lstrip("+-").isdigit()
