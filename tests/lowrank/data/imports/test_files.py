"""Files of examples: lines, arrays, tables, and where each row of them is."""

import json
import sys
from pathlib import Path

import pytest
from data_cases import GOOD, lines

from lowrank.data.imports.files import read_items
from lowrank.data.imports.item import Item

ALPACA = {"instruction": "Write.", "input": "debt: $5", "output": "Debt is $5."}


def test_lines_are_counted_with_the_blank_ones(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('\ufeff{"a": "x\u2028y"}\n\n{\n[1\n', encoding="utf-8")
    items = read_items(path)
    assert [(item.place, item.data) for item in items] == [("1", {"a": "x\u2028y"}), ("3", None), ("4", None)]
    assert [item.error and item.error.partition(" at ")[2] for item in items] == [None, "column 2", "column 3"]


def test_an_array_is_numbered_by_its_examples(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps([ALPACA, 7], indent=2))
    assert read_items(path) == [Item(1, "[1]", ALPACA), Item(2, "[2]", 7)]


def test_values_behind_each_other_are_numbered_by_the_lines_they_begin_in(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('\n{\n"a": 1}\n\n{"b":\n2} {"c": 3}\n')
    assert [(item.place, item.data) for item in read_items(path)] == [("2", {"a": 1}), ("5", {"b": 2}), ("6", {"c": 3})]


def test_a_table_is_numbered_by_the_lines_its_rows_begin_in(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('instruction,output\n\n"two\nlines",a\nb,c\n')
    assert [(item.place, item.data) for item in read_items(path)] == [
        ("3", {"instruction": "two\nlines", "output": "a"}),
        ("5", {"instruction": "b", "output": "c"}),
    ]


def test_a_parquet_file_has_the_rows_of_its_lines(tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = [{"messages": [{"role": "user", "content": "Hi", "weight": None}]}, {"messages": None}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert read_items(tmp_path / "a.parquet") == [Item(n, f"[{n}]", row) for n, row in enumerate(rows, start=1)]


def test_a_workbook_has_the_rows_of_its_first_sheet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in (("instruction", "output"), ("a", "b"), (None, None), ("c", 5)):
        book.active.append(row)
    book.save(tmp_path / "a.xlsx")
    assert read_items(tmp_path / "a.xlsx") == [
        Item(2, "2", {"instruction": "a", "output": "b"}),
        Item(4, "4", {"instruction": "c", "output": 5}),
    ]
    monkeypatch.setattr("lowrank.data.workbook.MAX_UNPACKED", 1000)
    with pytest.raises(ValueError, match=r"a\.xlsx: must unpack to at most 0 MB"):
        read_items(tmp_path / "a.xlsx")


@pytest.mark.parametrize(("name", "library"), [("a.parquet", "pyarrow"), ("a.xlsx", "openpyxl")])
def test_without_its_library_a_table_is_refused_in_one_line(
    name: str, library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).write_bytes(b"")
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ValueError, match=rf": {library} is missing: pip install {library}$"):
        read_items(tmp_path / name)


def test_a_folder_and_a_missing_file_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.jsonl: no such file$"):
        read_items(tmp_path / "none.jsonl")
    with pytest.raises(ValueError, match=r": is a folder, a file is needed$"):
        read_items(tmp_path)


def test_one_bad_line_leaves_the_others_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines(*GOOD) + b'{"instruction": "cut')
    items = read_items(path)
    assert [item.data for item in items] == [*GOOD, None]
    assert (items[-1].place, items[-1].error) == (
        "5",
        "must be JSON, got none: unterminated string starting at, at column 17",
    )
