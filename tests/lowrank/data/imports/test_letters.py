"""Letters in a folder beside a table: which row is whose, and the text of a DOCX file."""

from pathlib import Path

import pytest

from lowrank.cli import main
from lowrank.data.documents.document import read_jsonl
from lowrank.data.imports.letters import letter_text, letters_in, matched

TABLE = "fund,quarter,file,net asset value\nHarrow Lane,Q1 2021,,$287.0 million\nHarrow Lane,Q2 2021,,$91.5 million\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two letters and a table beside them."""
    letters = tmp_path / "letters"
    letters.mkdir()
    (tmp_path / "funds.csv").write_text(f"{TABLE}Tidewell,Q1 2021,odd name.md,$5.0 million\n")
    (letters / "harrow-lane_Q1-2021.md").write_text("## Value\r\nHarrow Lane has a net asset value of $287.0 million.")
    (letters / "Letter Harrow Lane Q2 2021 final.txt").write_text("The net asset value is $91.5 million.")
    (letters / "odd name.md").write_text("Tidewell has $5.0 million.")
    (letters / ".DS_Store").write_text("x")
    return letters


def test_a_letter_has_the_row_that_its_name_names(folder: Path) -> None:
    found = {letter.name: facts for letter, facts in matched(letters_in(folder), folder.parent / "funds.csv")}
    assert found == {
        "harrow-lane_Q1-2021.md": "fund: Harrow Lane\nquarter: Q1 2021\nnet asset value: $287.0 million",
        "Letter Harrow Lane Q2 2021 final.txt": "fund: Harrow Lane\nquarter: Q2 2021\nnet asset value: $91.5 million",
        "odd name.md": "fund: Tidewell\nquarter: Q1 2021\nnet asset value: $5.0 million",
    }


def test_a_folder_and_its_table_become_entries(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, table = folder.parent / "mine.jsonl", folder.parent / "funds.csv"
    (folder / "harrow-lane.md").write_text("Of both.")
    (folder / "strange.md").write_text("Of none.")
    (folder / "tidewell.md").write_text("A second one.")
    status = main(["data", "import", str(folder), str(out), "--table", str(table), "--instruction", "Write to all."])
    told = capsys.readouterr().out
    assert status == 1
    for line in (
        "harrow-lane.md: left out: a letter's name must name one row, got 'Harrow Lane' and 'Harrow Lane' for",
        "strange.md: left out: a row must be named by the name of its letter, got none for strange.md",
        "odd name.md: left out: the row of 'Tidewell' must have one letter, got tidewell.md too (2 times, ",
        f"{out}: 2 entries of 6 examples, 4 left out",
    ):
        assert line in told, told
    first, second = sorted(read_jsonl(out), key=lambda entry: entry.input)
    assert (first.instruction, first.required_sections, second.required_sections) == ("Write to all.", ("Value",), ())
    assert first.facts["net_asset_value"].value == "287"


def test_a_folder_without_a_table_and_a_file_with_one_are_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "import", str(folder), "out.jsonl"]) == 2
    assert "whose facts must be in a table" in capsys.readouterr().err
    assert main(["data", "import", str(folder / "odd name.md"), "out.jsonl", "--table", "x.csv"]) == 2
    assert "must be a folder of letters" in capsys.readouterr().err


def test_a_docx_letter_is_read_as_markdown(tmp_path: Path) -> None:
    docx = pytest.importorskip("docx")
    document = docx.Document()
    document.add_heading("Quarterly Letter", 0)
    document.add_heading("Results", 1)
    document.add_paragraph("The return was 2.16%.")
    document.add_paragraph("First", style="List Bullet")
    table = document.add_table(rows=1, cols=2)
    table.rows[0].cells[0].text, table.rows[0].cells[1].text = "cash", "8.3%"
    document.save(str(tmp_path / "a.docx"))
    assert letter_text(tmp_path / "a.docx") == (
        "# Quarterly Letter\n\n## Results\n\nThe return was 2.16%.\n\n- First\n\n| cash | 8.3% |\n| --- | --- |\n"
    )
    (tmp_path / "b.docx").write_text("no zip")
    with pytest.raises(ValueError, match=r"b\.docx: must be a DOCX document"):
        letter_text(tmp_path / "b.docx")


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ("quarter,vehicle,cash\nQ1 2021,Harrow Lane,8.3%\n", ""),  # no column is called as records are
        ("fund,cash\nHarrow Lane,8.3%\n", ""),
        (
            "Harrow Lane,Q1 2021,8.3%\nTidewell,Q1 2021,4.1%\n",
            "the first row of a table must name its columns, got '8.3%'",
        ),
        (
            "fund,cash,Cash\nHarrow Lane,8.3%,8.3%\n",
            "line 1: each column must have a name of its own, got 'cash' twice",
        ),
    ],
)
def test_a_table_of_any_head_is_taken_and_one_without_is_refused(
    table: str, told: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder.parent / "t.csv").write_text(table)
    for other in ("Letter Harrow Lane Q2 2021 final.txt", "odd name.md"):
        (folder / other).unlink()
    words = ["data", "import", str(folder), str(folder.parent / "o.jsonl"), "--table", str(folder.parent / "t.csv")]
    status = main(words)
    printed = capsys.readouterr()
    assert status == (2 if told else 0) and told in printed.out + printed.err
