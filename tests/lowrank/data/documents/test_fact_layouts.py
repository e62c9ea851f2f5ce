"""Tables as programs export them: titles, units, spare cells, hidden sheets, formulas; JSON in lists and exponents."""

from pathlib import Path

import pytest

from lowrank.data.documents.fact_files import FactFile, read_fact_file
from lowrank.data.documents.kinds import KINDS
from lowrank.data.documents.reading import read_raw

FIELDS = KINDS["earnings_summary"].fields


def written(tmp_path: Path, name: str, text: str) -> FactFile:
    (tmp_path / name).write_text(text, encoding="utf-8")
    return read_fact_file(tmp_path / name, FIELDS)


def prints(file: FactFile, number: int = 0) -> dict[str, str]:
    return {fact.label: fact.print for fact in read_raw(file.records[number], FIELDS).facts.values()}


ROW = {"company": "Aldane", "revenue": "$5", "gross margin": "6%"}


@pytest.mark.parametrize(
    "text",
    [
        "company,revenue,gross margin\nAldane,$5,6%\n",
        "sep=;\ncompany;revenue;gross margin\nAldane;$5;6%\n",
        "Facts of 2024\n\ncompany,revenue,gross margin\nAldane,$5,6%\n",
        'company,revenue,"gross\nmargin"\nAldane,$5,6%\n',
    ],
    ids=["plain", "stated delimiter", "a title", "a label in two lines"],
)
def test_a_head_is_found(text: str, tmp_path: Path) -> None:
    assert prints(written(tmp_path, "a.csv", text)) == ROW


def test_a_quoted_value_of_two_lines_keeps_its_words_apart(tmp_path: Path) -> None:
    file = written(tmp_path, "a.csv", 'company,revenue,note\n"Aldane\nFoods",$5,new\n')
    assert prints(file)["company"] == "Aldane Foods"


def test_two_columns_are_a_table_if_the_kind_knows_their_head(tmp_path: Path) -> None:
    file = written(tmp_path, "a.csv", "company,revenue\nAldane,$5\nBorrow,$6\n")
    assert [record.name for record in file.records] == ["Aldane", "Borrow"]
    assert prints(file, 1) == {"company": "Borrow", "revenue": "$6"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("company,revenue,gross margin\nAldane,$5,6%,extra\n", ("line 2", "extra")),
        ("company,revenue,,gross margin\nAldane,$5,$7,6%\n", ("line 2", "$7")),
        ("Facts of 2024\ncompany,revenue,gross margin\nAldane,$5,6%\n", ("line 1", "Facts of 2024")),
    ],
)
def test_a_cell_without_a_label_is_told(text: str, told: tuple[str, str], tmp_path: Path) -> None:
    file = written(tmp_path, "a.csv", text)
    assert (prints(file), file.records[0].not_read) == (ROW, (told,))


def test_rows_of_three_columns_need_no_head(tmp_path: Path) -> None:
    file = written(tmp_path, "a.csv", "revenue,$5,audited\ngross margin,6%,estimate\n")
    assert prints(file) == {
        "revenue": "$5",
        "revenue, 2": "audited",
        "gross margin": "6%",
        "gross margin, 2": "estimate",
    }


def test_a_column_of_units_is_of_its_row(tmp_path: Path) -> None:
    file = written(tmp_path, "a.csv", "metric,unit,2024,2023\nsales,USD m,412.5,384.3\nyield,%,41.2,40\n")
    assert prints(file) == {
        "sales, 2024": "USD 412.5 million", "sales, 2023": "USD 384.3 million", "yield, 2024": "41.2%",
        "yield, 2023": "40%",
    }  # fmt: skip


def test_json_numbers_are_as_people_write_them(tmp_path: Path) -> None:
    file = written(tmp_path, "a.json", '{"revenue": 4.125e8, "yield": 1.5E-3, "staff": 412, "price": 1.20}')
    assert prints(file) == {"revenue": "412500000", "yield": "0.0015", "staff": "412", "price": "1.20"}


def test_a_list_in_an_object_of_one_key_is_the_records(tmp_path: Path) -> None:
    file = written(tmp_path, "a.json", '{"companies": [{"company": "Aldane", "revenue": "$5"}, {"company": "Borrow"}]}')
    assert [record.name for record in file.records] == ["Aldane", "Borrow"]


@pytest.mark.parametrize("text", ['{"revenue": "$5", "revenue": "$6"}', '{"a": 1}\n{"revenue": 5, "revenue": 6}'])
def test_a_key_that_stands_twice_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a\.json: an object must have each key once, got 'revenue' twice"):
        written(tmp_path, "a.json", text)


def test_a_workbook_tells_what_it_leaves_out(tmp_path: Path) -> None:
    import openpyxl

    book = openpyxl.Workbook()
    book.active.title = "Notes"
    book.active["A1"] = "Prepared by finance."
    aldane, hidden = book.create_sheet("Aldane"), book.create_sheet("Old")
    for row in (["revenue", 5], ["gross margin", "=B1/2"]):
        aldane.append(row)
    hidden.append(["revenue", 999])
    hidden.sheet_state = "hidden"
    book.save(tmp_path / "a.xlsx")
    file = read_fact_file(tmp_path / "a.xlsx", FIELDS)
    assert [record.name for record in file.records] == ["Aldane"]
    assert file.notes == (
        "sheet 'Old' is hidden, and not read",
        "Aldane!B2: a formula that was never computed: open the file in a spreadsheet program and save it",
        "sheet 'Notes' has no label with a value, and is not read",
    )


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must be a file, is a folder"):
        read_fact_file(tmp_path, FIELDS)


@pytest.mark.parametrize(
    "text",
    [
        '[{"label": "sales", "value": "$5"}, {"label": "yield", "value": "6%"}]',
        '{"facts": [{"metric": "sales", "value": 5, "unit": "USD"}, {"metric": "yield", "value": 6, "unit": "%"}]}',
        '{"sales": {"value": 5, "currency": "USD"}, "yield": {"value": 6, "unit": "%"}, "cash": {"value": null}}',
    ],
)
def test_labels_with_values_may_be_objects(text: str, tmp_path: Path) -> None:
    found = prints(written(tmp_path, "a.json", text))
    assert {label: print.replace("USD ", "$") for label, print in found.items()} == {"sales": "$5", "yield": "6%"}


def test_a_label_that_stands_twice_in_a_list_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="each label must stand once, got 'sales' twice"):
        written(tmp_path, "a.json", '[{"label": "sales", "value": "$5"}, {"label": "sales", "value": "$6"}]')


def test_a_rule_of_a_table_may_be_of_one_dash(tmp_path: Path) -> None:
    file = written(tmp_path, "a.md", "| item | value | note |\n|:-|-:|:-:|\n| sales | $5 | new |\n| yield | - | - |\n")
    assert prints(file) == {"sales": "$5", "sales, note": "new", "yield": "-", "yield, note": "-"}


def test_a_mark_before_windows_1252_is_none_of_its_text(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbfcompany;sales;yield\nM\xfcller;5;6%\n")
    assert prints(read_fact_file(tmp_path / "a.csv", FIELDS))["company"] == "Müller"
