"""The tutorial of one's own documents, from a table and sixty letters to ten DOCX files: every command on it is run.

The files that the page shows are written first, and its edits (```diff) made where they stand. What would take minutes
is made short by QUICK, and by nothing else.
"""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from lowrank.cli import main

PAGE = Path(__file__).resolve().parent.parent / "docs" / "tutorial-own-documents.md"
QUICK = {
    "lowrank train": "run.epochs=3",
    "lowrank generate": "--max-new-tokens 150",
    "lowrank eval": "--n 1",
}
BLOCK = re.compile(r'^```(?P<language>\w+)(?: title="(?P<file>[^"]+)")?\n(?P<text>.*?)^```$', re.MULTILINE | re.DOTALL)

docx = pytest.importorskip("docx")
pytest.importorskip("markdown_it")


def blocks() -> Iterator[tuple[str, str, str]]:
    """(language, file, text) of the blocks of the page, in order, up to the part that needs a download."""
    page = PAGE.read_text(encoding="utf-8").partition("## On a real model")[0]
    for match in BLOCK.finditer(page):
        yield match["language"], match["file"] or "", match["text"]


def edit(path: Path, diff: str) -> None:
    """Makes the edit of a block: lines behind a space or a minus become those behind a space or a plus."""
    lines = diff.splitlines()
    old = "\n".join(line[1:] for line in lines if line[0] in " -")
    new = "\n".join(line[1:] for line in lines if line[0] in " +")
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{path.name} has {text.count(old)} times\n{old}"
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_the_page_has_every_step() -> None:
    told = [text for language, _, text in blocks() if language == "sh"]
    verbs = [" ".join(line.split()[1:4]) for text in told for line in text.splitlines()]
    for step in (
        "data kind sample",
        "data kind new",
        "data kind check",
        "data import mine/letters",
        "data check mine.jsonl",
    ):
        assert step in verbs
    assert any(verb.startswith("train ") for verb in verbs) and any(verb.startswith("generate ") for verb in verbs)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:the warm-up takes")  # of a run that was made short
def test_the_page_runs_from_a_table_and_sixty_letters_to_ten_docx_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for language, file, text in blocks():
        if language == "toml":
            (tmp_path / file).write_text(text, encoding="utf-8")
    ran = []
    for language, file, text in blocks():
        if language == "diff":
            edit(tmp_path / file, text)
        for command in text.splitlines() if language == "sh" else ():
            quick = next((more for beginning, more in QUICK.items() if command.startswith(beginning)), "")
            _, *arguments = shlex.split(f"{command} {quick}")
            assert main(arguments) == 0, f"{command}: {capsys.readouterr().err}"
            ran.append(command)
    assert len(ran) == 10
    check_folder(tmp_path / "sent", tmp_path / "next" / "facts.csv")


def check_folder(sent: Path, table: Path) -> None:
    """Ten letters as DOCX and HTML, each with an audit in which every figure has its cell in the table."""
    head, *rows = [line.split(",") for line in table.read_text(encoding="utf-8").splitlines()]
    letters = sorted(sent.glob("*.docx"))
    assert len(letters) == 10
    figures = 0
    for letter in letters:
        paragraphs = docx.Document(str(letter)).paragraphs
        assert paragraphs and any(paragraph.text for paragraph in paragraphs)
        assert (sent / f"{letter.stem}.html").is_file() and (sent / f"{letter.stem}.audit.html").is_file()
        audit = json.loads((sent / f"{letter.stem}.audit.json").read_text(encoding="utf-8"))
        assert audit["record"]["kind"] == "investor_letter"
        row = rows[audit["record"]["number"] - 1]
        for figure in audit["figures"]:
            assert figure["state"] in ("right", "other name"), figure
            (cell, *_) = figure["cells"]
            assert (cell["file"], cell["row"]) == ("facts.csv", audit["record"]["number"] + 1)
            printed = {fact["key"]: fact["print"] for fact in audit["facts"]}[figure["fact"]]
            assert cell["column"] in head and row[head.index(cell["column"])] == printed
            figures += 1
    assert figures > 10
    summary = json.loads((sent / "summary.json").read_text(encoding="utf-8"))
    assert summary["finished"] == 10 and summary["counts"]["figures"] == figures
