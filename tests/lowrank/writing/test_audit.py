"""The audit of a text: each figure's state and cell, what is not used, and the page."""

import re
from pathlib import Path

import pytest

from lowrank.data.documents.facts_record import Cell, FactsRecord
from lowrank.writing.audit import Audit
from lowrank.writing.audit_page import render_audit

pytest.importorskip("markdown_it")

TEXT = """# Earnings Summary

## Results
For Q3 2024, revenue was $412.5 million, and prior revenue $384.3 million, a rise of 7.3%.

The gross margin was $412.5 million.
It has 99 shops and a **12 zorkmid** loan.
"""


def test_every_figure_has_its_state_and_its_cell(subject: FactsRecord) -> None:
    audit = Audit.of(subject, TEXT)
    states = {figure.figure.text: figure.state for figure in audit.figures[:3]}
    assert states["$412.5 million"] == states["$384.3 million"] == "right"
    assert [figure.state for figure in audit.figures[3:5]] == ["other name", "not in the facts"]
    first = audit.figures[0]
    assert [cell.to_json() for cell in first.cells] == [
        {
            "file": "companies.csv",
            "place": "line 2, revenue",
            "sheet": None,
            "row": 2,
            "column": "revenue",
        }
    ]
    assert first.line == 4 and TEXT[first.figure.start : first.figure.end] == "$412.5 million"


def test_a_derived_figure_has_the_cells_that_it_follows_from(subject: FactsRecord) -> None:
    audit = Audit.of(subject, TEXT)
    (growth,) = [figure for figure in audit.figures if figure.figure.text == "7.3%"]
    assert [str(cell) for cell in growth.cells] == [
        "companies.csv: line 2, revenue",
        "companies.csv: line 2, prior revenue",
    ]


def test_the_json_says_what_is_not_used_and_not_understood(tmp_path: Path) -> None:
    path = tmp_path / "facts.txt"
    path.write_text("company: Aldane\nrevenue: about 5 zorkmids\ngross margin: 41.2%\nno colon here\n")
    subject = FactsRecord.read(path, "earnings_summary")
    audit = Audit.of(subject, "Aldane grew.").to_json()
    assert audit["not_used"] == ["gross_margin"]
    assert [row["place"] for row in audit["not_understood"]["facts"]] == ["line 4", "line 2"]
    assert audit["counts"]["facts_not_understood"] == 2 and audit["counts"]["figures"] == 0
    assert audit["shares"]["precision"] is None and audit["shares"]["recall"] == 0.0
    assert "Margins" not in audit["sections_missing"] and audit["sections_missing"]
    assert audit["sentence"].startswith("no figure; 1 fact not used; 1 amount of the facts not understood")


def test_the_page_links_each_figure_to_the_row_of_its_fact(subject: FactsRecord) -> None:
    page = render_audit(Audit.of(subject, TEXT), {"hat": "<mine>"})
    links = re.findall(r'<mark class="right[^>]*>[^<]*<a href="#(fact-\d+)"', page)
    assert len(links) == 4
    assert all(f'<tr id="{link}">' in page for link in links)
    assert 'title="revenue: $412.5 million (companies.csv: line 2, revenue)"' in page
    assert "revenue: $412.5 million, but under another name (companies.csv: line 2, revenue)" in page
    assert '<mark class="wrong" title="not in the facts">99<sup>✗</sup></mark>' in page
    assert "<h1>Earnings Summary</h1>" in page and "&lt;mine&gt;" in page
    assert '<td class="cell">line 2, prior revenue</td>' in page


def test_a_text_and_a_record_with_tags_are_escaped(tmp_path: Path) -> None:
    path = tmp_path / "<i>.txt"
    path.write_text('company: <script>x</script>\nrevenue: $5 million\nnote: "quoted" & <b>\n')
    subject = FactsRecord.read(path, "earnings_summary")
    page = render_audit(Audit.of(subject, "<script>revenue of $5 million</script>"))
    assert "<script" not in page and "<b>" not in page.replace("<body>", "") and "<i>" not in page
    assert "&lt;script&gt;revenue of <mark" in page


def test_an_empty_text_has_an_audit(subject: FactsRecord) -> None:
    audit = Audit.of(subject, "")
    assert audit.counts()["figures"] == 0 and audit.faults == []
    assert "Nothing was written." in render_audit(audit)


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("line 7", (None, 7, None)),
        ("line 3, revenue, net", (None, 3, "revenue, net")),
        ("Sheet 1!AB12", ("Sheet 1", 12, "AB")),
        ("balance sheet, cash", (None, None, "balance sheet, cash")),
    ],
)
def test_a_place_is_read_as_a_cell(place: str, expected: tuple[str | None, int | None, str | None]) -> None:
    cell = Cell.of("a", place)
    assert (cell.sheet, cell.row, cell.column) == expected
    assert str(cell) == f"a: {place}"


def test_two_cells_of_one_value_are_two_cells(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.active.append(["company", "revenue", "prior revenue"])
    book.active.append(["Aldane", "$5 million", "$5 million"])
    book.save(tmp_path / "a.xlsx")
    subject = FactsRecord.read(tmp_path / "a.xlsx", "earnings_summary")
    assert {key: cell.place for key, cell in subject.cells.items()} == {
        "company": "Sheet!A2",
        "revenue": "Sheet!B2",
        "prior_revenue": "Sheet!C2",
    }
