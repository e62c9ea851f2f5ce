"""Files of facts as people have them: what is read, from where, and what is told."""

import datetime
import zipfile
from pathlib import Path

import pytest

from lowrank.data.documents.fact_files import FactFile, read_fact_file
from lowrank.data.documents.kinds import KINDS
from lowrank.data.documents.reading import Reading, read_raw, read_record
from lowrank.data.facts.numerals import Convention

FIELDS = KINDS["earnings_summary"].fields


def written(tmp_path: Path, name: str, text: str | bytes) -> FactFile:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_fact_file(path, FIELDS)


def reading(file: FactFile, name: str | None = None) -> Reading:
    return read_raw(file.choose(name), FIELDS)


def typed(read: Reading) -> dict[str, tuple[str, str]]:
    return {key: (fact.type, fact.value) for key, fact in read.facts.items()}


EXPECTED = {"company": ("name", "Aldane Ltd"), "revenue": ("eur_m", "412.5"), "gross_margin": ("pct", "41.2")}
LINES = "company: Aldane Ltd\nrevenue: €412.5 million\ngross margin: 41.2%\n"
FILES: dict[str, tuple[str, str | bytes]] = {
    "lines": ("a.txt", LINES),
    "equals": ("a.txt", LINES.replace(": ", " = ")),
    "full-width colon": ("a.txt", LINES.replace(": ", "：")),
    "bullets and bold": ("a.md", "".join(f"- **{line.replace(': ', '**: ')}\n" for line in LINES.splitlines())),
    "byte order mark": ("a.txt", LINES.encode("utf-8-sig")),
    "UTF-16": ("a.txt", LINES.encode("utf-16")),
    "UTF-16 without a mark": ("a.txt", LINES.encode("utf-16-le")),
    "CRLF": ("a.txt", LINES.replace("\n", "\r\n")),
    "CR": ("a.txt", LINES.replace("\n", "\r")),
    "no-break spaces": ("a.txt", LINES.replace(" ", "\u00a0").replace("Aldane\u00a0Ltd", "Aldane Ltd")),
    "CSV": ("a.csv", "company,Aldane Ltd\nrevenue,€412.5 million\ngross margin,41.2%\n"),
    "CSV with a head": ("a.csv", "item,value\ncompany,Aldane Ltd\nrevenue,€412.5 million\ngross margin,41.2%\n"),
    "CSV called text": ("a.txt", "company,Aldane Ltd\nrevenue,€412.5 million\ngross margin,41.2%\n"),
    "semicolons": ("a.csv", "company;Aldane Ltd\nrevenue;412,5 Mio. €\ngross margin;41,2 %\n"),
    "tabs": ("a.tsv", "company\tAldane Ltd\nrevenue\t€412.5 million\ngross margin\t41.2%\n"),
    "quoted": ("a.csv", '"company","Aldane Ltd"\n"revenue","€412.5 million"\n"gross margin","41.2%"\n'),
    "Markdown": ("a.md", "| item | value |\n|---|---|\n| company | Aldane Ltd |\n| revenue | €412.5 million |\n"
                 "| gross margin | 41.2% |\n"),
    "Markdown under a heading": ("a.md", "# Facts\n\n| item | value |\n|:--|--:|\n| company | Aldane Ltd |\n"
                                 "| revenue | €412.5 million |\n| **gross margin** | 41.2% |\n"),
    "a row a company": ("a.csv", "company,revenue,gross margin\nAldane Ltd,€412.5 million,41.2%\n"),
    "JSON": ("a.json", '{"company": "Aldane Ltd", "revenue": "€412.5 million", "gross_margin": "41.2%"}'),
    "JSON called text": ("a.txt", '{"company": "Aldane Ltd", "revenue": "€412.5 million", "grossMargin": "41.2%"}'),
    "JSON in facts": ("a.json",
                      '{"facts": {"company": "Aldane Ltd", "revenue": "€412.5 million", "gross margin": "41.2%"}}'),
    "unit in the label": ("a.txt", "company: Aldane Ltd\nRevenue (EUR million): 412.5\nGross margin (%): 41.2\n"),
    "unit in brackets": ("a.txt", "company: Aldane Ltd\nRevenue [€m]: 412.5\nGross margin, %: 41.2\n"),
    "unit said": ("a.csv", "company,Aldane Ltd\nRevenue in EUR millions,412.5\nGross margin in percent,41.2\n"),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_the_same_facts_are_read_from_every_layout(name: str, tmp_path: Path) -> None:
    read = reading(written(tmp_path, *FILES[name]))
    assert typed(read) == EXPECTED
    assert read.summary() == "3 facts, 2 figures"


def test_rows_are_records_by_name_and_number(tmp_path: Path) -> None:
    text = "company,revenue,net income\nAldane,€5 million,€1 million\nBorrow,$7 million,($2 million)\n"
    file = written(tmp_path, "many.csv", text)
    assert [record.name for record in file.records] == ["Aldane", "Borrow"]
    assert typed(reading(file, "borrow"))["net_income"] == ("usd_m", "-2")
    assert typed(reading(file, "1"))["revenue"] == ("eur_m", "5")
    assert reading(file, "2").places["revenue"] == "line 3, revenue"
    with pytest.raises(ValueError, match=r"many\.csv: holds 2 records, name one of Aldane, Borrow$"):
        file.choose()
    with pytest.raises(ValueError, match="must hold one record 'Cee', has 0; there are Aldane, Borrow"):
        file.choose("Cee")


def test_objects_are_records(tmp_path: Path) -> None:
    listed = written(tmp_path, "a.json", '[{"company": "A", "revenue": 5.50}, {"company": "B", "revenue": 6}]')
    lines = written(tmp_path, "a.jsonl", '{"company": "A", "revenue": 5.50}\n{"company": "B", "revenue": 6}\n')
    for file in (listed, lines):
        assert [record.name for record in file.records] == ["A", "B"]
        assert typed(reading(file, "A"))["revenue"] == ("count", "5.50")


def test_values_of_several_columns_have_their_heads(tmp_path: Path) -> None:
    read = reading(written(tmp_path, "a.csv", "Item,2024,2023\nRevenue,€5 million,€4 million\nStaff,12,11\n"))
    assert {fact.label: fact.print for fact in read.facts.values()} == {
        "Revenue, 2024": "€5 million", "Revenue, 2023": "€4 million", "Staff, 2024": "12", "Staff, 2023": "11",
    }  # fmt: skip


def workbook(path: Path, sheets: dict[str, list[list[object]]], formats: dict[str, str] | None = None) -> Path:
    import openpyxl

    book = openpyxl.Workbook()
    book.remove(book.active)
    for title, rows in sheets.items():
        sheet = book.create_sheet(title)
        for row in rows:
            sheet.append(row)
        for cell, format in (formats or {}).items():
            sheet[cell].number_format = format
    book.save(path)
    return path


def test_a_cell_is_what_it_shows(tmp_path: Path) -> None:
    rows: list[list[object]] = [
        ["company", "Aldane Ltd"], ["revenue", 412.5], ["gross margin", 0.412], ["closed", datetime.date(2025, 3, 31)],
        ["staff", 1204], ["price", 1.2],
    ]  # fmt: skip
    formats = {"B2": '[$€-407]#,##0.0" million"', "B3": "0.0%", "B5": "#,##0", "B6": '"$"0.00'}
    file = read_fact_file(workbook(tmp_path / "a.xlsx", {"Facts": rows}, formats), FIELDS)
    read = reading(file)
    assert {fact.label: fact.print for fact in read.facts.values()} == {
        "company": "Aldane Ltd", "revenue": "€412.5 million", "gross margin": "41.2%", "closed": "2025-03-31",
        "staff": "1,204", "price": "$1.20",
    }  # fmt: skip
    assert read.places["gross_margin"] == "Facts!B3"


def test_sheets_are_records(tmp_path: Path) -> None:
    sheets: dict[str, list[list[object]]] = {
        "Aldane": [["revenue", "€5 million"]],
        "Borrow": [[None, None], [None, "revenue", "€6 million"]],
        "Empty": [],
    }
    file = read_fact_file(workbook(tmp_path / "a.xlsx", sheets), FIELDS)
    assert [record.name for record in file.records] == ["Aldane", "Borrow"]
    assert reading(file, "Borrow").places == {"revenue": "Borrow!C2"}


def test_a_workbook_is_bounded_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = workbook(tmp_path / "a.xlsx", {"A": [["revenue", "€5 million"]]})
    monkeypatch.setattr("lowrank.data.workbook.MAX_UNPACKED", 1000)
    with pytest.raises(ValueError, match=r"a\.xlsx: must unpack to at most 0 MB"):
        read_fact_file(path, FIELDS)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", "is empty"),
        ("a.txt", b" \r\n\xc2\xa0\n", "is empty"),
        ("a.txt", b"revenue: 5\x00\x01", "must be text, has the byte 0x00 at 10"),
        ("a.xlsx", b"no zip", r"must be a workbook \(XLSX\), is no ZIP archive"),
        ("a.json", b"{", "must be JSON: "),
        ("a.json", b"[1, 2]", "must be a JSON object, or a list of them, got list"),
        ("a.json", b"[" * 100_000, "must be JSON"),
    ],
)
def test_what_is_no_file_of_facts_is_refused_in_one_line(
    name: str, content: bytes, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=f"{name}: {message}") as error:
        written(tmp_path, name, content)
    assert "\n" not in str(error.value)


def test_a_zip_that_is_no_workbook_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.xlsx", "w") as archive:
        archive.writestr("a.txt", "x")
    with pytest.raises(ValueError, match=r"a\.xlsx: must be a workbook"):
        read_fact_file(tmp_path / "a.xlsx", FIELDS)


def test_latin_1_is_told(tmp_path: Path) -> None:
    file = written(tmp_path, "a.txt", "company: Société Aldane\nrevenue: 5 €\n".encode("cp1252"))
    assert file.notes == ("is not UTF-8 (byte 13): read as Windows-1252",)
    assert typed(reading(file)) == {"company": ("name", "Société Aldane"), "revenue": ("eur", "5")}


SUMMARIES = [
    ("revenue: $5 million\nno colon here\n", "1 fact, 1 figure; line 2 not read"),
    ("revenue: $5 million\nrevenue: $5 million", "1 fact, 1 figure; 1 duplicate"),
    ("revenue: $5 million\nrevenue: $6 million", "2 facts, 2 figures; 1 contradiction"),
    ("revenue: $5 million\nRevenue: $5,000,000", "1 fact, 1 figure; 1 duplicate"),
    ("revenue: about $5 million\nmargin: $5 to $6 million\nfee: €5 zillion\n",
     "3 facts, 0 figures; 3 amounts are not understood"),
    ("price: 1.234\n", "1 fact, 1 figure; 1 doubt"),
    ("price: 1.234\nmargin: 12,5 %", "2 facts, 2 figures"),
    ("closed: 03/04/2025\n", "1 fact, 0 figures; 1 doubt"),
    ("closed: 03/04/2025\ndue: 25/04/2025", "2 facts, 0 figures"),
    ("revenue: $5 million\ncosts: CAD 3 million", "2 facts, 2 figures; 1 doubt"),
    ("# Facts\n\nrevenue: $5 million\n---\n", "1 fact, 1 figure"),
    ("net income: n/a\nrevenue: TBD", "2 facts, 0 figures"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "summary"), SUMMARIES)
def test_a_record_tells_what_it_could_not_read(text: str, summary: str) -> None:
    assert read_record(text, FIELDS).summary() == summary


def test_a_stated_locale_settles_what_is_in_doubt() -> None:
    german = read_record("price: 1.234\nclosed: 03/04/2025", {}, Convention.of_locale("de"))
    american = read_record("price: 1.234\nclosed: 03/04/2025", {}, Convention.of_locale("en-US"))
    assert (german.facts["price"].value, german.facts["closed"].value) == ("1234", "2025-04-03")
    assert (american.facts["price"].value, american.facts["closed"].value) == ("1.234", "2025-03-04")
    assert not german.notes and not american.notes


def test_a_long_label_is_a_label() -> None:
    label = "Net cash provided by (used in) operating activities, continuing operations"
    (fact,) = read_record(f"{label}: $12.3 million", {}).facts.values()
    assert (fact.label, fact.type) == (label, "usd_m")
