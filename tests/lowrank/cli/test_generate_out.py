"""lowrank generate --out: a document a record, each as it is alone, resumed after a full disk, shared by processes."""

import errno
import json
import os
import re
import socket
from pathlib import Path

import pytest
from child_process import environment, run_python

from lowrank.cli import main
from lowrank.kernels.cpu import library
from lowrank.layers.cpu_decode import FusedBlocks
from lowrank.model.continuous_batch import ContinuousBatch
from lowrank.writing import job as job_module

docx = pytest.importorskip("docx")
pytest.importorskip("markdown_it")

HEAD = "company,period,revenue,prior revenue,gross margin,net income,earnings per share,driver"
ROWS = [
    "Aldane Foods Ltd,Q3 2024,$412.5 million,$384.3 million,41.2%,$38.9 million,$1.32,new stores",
    "Bellmere plc,Q3 2024,$55.5 million,$51.0 million,12.5%,$3.1 million,$0.32,price rises",
    "../../etc/passwd,Q3 2024,$65.5 million,$61.0 million,13.5%,$4.1 million,$0.42,price rises",
    '"=cmd|x,<b>",Q3 2024,$75.5 million,$71.0 million,14.5%,$5.1 million,$0.52,@price rises',
    "BELLMERE PLC,Q3 2024,$85.5 million,$81.0 million,15.5%,$6.1 million,$0.62,price rises",
]
NAMES = ["aldane-foods-ltd", "bellmere-plc-2", "etc-passwd", "cmd-x-b", "bellmere-plc-5"]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "companies.csv"
    path.write_text("\n".join([HEAD, *ROWS]) + "\n", encoding="utf-8")
    return path


def generate(table: Path, *words: object, kind: str = "earnings_summary", tokens: int = 60) -> int:
    arguments = ["--facts", table, "--kind", kind, "--max-new-tokens", tokens, *words]
    return main(["generate", "embedded", "--dtype", "fp32", *map(str, arguments)])


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]):
    """Runs a command; gives its status and the lines of stderr without the notes on the facts."""

    def run(*words: object, **options: object) -> tuple[int, str]:
        status = generate(*words, **options)  # type: ignore[arg-type]
        return status, "\n".join(line for line in capsys.readouterr().err.splitlines() if line.startswith("lowrank"))

    return run


def texts(folder: Path) -> dict[str, str]:
    return {path.stem: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.md"))}


@pytest.mark.slow
def test_each_record_has_its_files_and_an_audit_with_the_cell_of_each_figure(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert generate(table, "--out", out, "--format", "md,html,docx", "--grounded", tokens=90) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith(f"{out}/index.html: 5 documents. ")
    assert f"{table}: records 2 and 5 have one name, 'Bellmere plc'" in printed.err
    suffixes = (".md", ".html", ".docx", ".audit.html", ".audit.json")
    expected = {f"{name}{suffix}" for name in NAMES for suffix in suffixes} | {"index.html", "summary.json", "job.json"}
    assert {path.name for path in out.iterdir()} == expected
    assert not (tmp_path.parent / "etc").exists()
    audit = json.loads((out / "bellmere-plc-5.audit.json").read_text())
    assert audit["record"] == {"name": "BELLMERE PLC", "number": 5, "kind": "earnings_summary"}
    places = {figure["fact"]: figure["cells"] for figure in audit["figures"]}
    assert places and "revenue" in places
    assert places["revenue"] == [
        {"file": "companies.csv", "place": "line 6, revenue", "sheet": None, "row": 6, "column": "revenue"}
    ]
    assert audit["counts"]["figures"] == audit["counts"]["right"] + audit["counts"]["other_name"] > 0
    text = (out / "bellmere-plc-5.md").read_text(encoding="utf-8")
    assert all(text[figure["start"] : figure["end"]] == figure["text"] for figure in audit["figures"])
    document = docx.Document(str(out / "bellmere-plc-5.docx"))
    headings = [line.lstrip("# ") for line in text.splitlines() if line.startswith("#")]
    assert [p.text for p in document.paragraphs if re.match("Title|Heading", p.style.name)] == headings
    article = (out / "bellmere-plc-5.html").read_text(encoding="utf-8").partition("<article")[2]
    assert len(re.findall(r"<h\d>", article)) == len(headings) and "# " not in article
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["records"], summary["finished"]) == (5, 5)
    assert [row["number"] for row in summary["documents"]] == [1, 2, 3, 4, 5]
    assert summary["counts"]["figures"] == sum(row["counts"]["figures"] for row in summary["documents"])
    index = (out / "index.html").read_text(encoding="utf-8")
    assert "&lt;b&gt;" in index and "<b>" not in index
    assert index.count("<thead>") == 1 and index.count("</tr>") == 1 + 5 + len(summary["job"])
    assert index.count('scope="col"') == len(re.findall(r"<t[dh]", index.partition("<tbody>")[2].partition("</tr>")[0]))
    links = re.findall(r'href="\./([^"]+)"', index)
    assert len(links) == 5 * 5 and all((out / link).is_file() for link in links)


@pytest.mark.long
@pytest.mark.parametrize("how", [("--grounded",), ("--temperature", "0.9", "--top-p", "0.95", "--seed", "11")])
def test_a_text_is_what_it_is_alone_whatever_the_batch(
    how: tuple[str, ...], table: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert generate(table, "--out", tmp_path / "one", "--batch", 1, *how) == 0
    assert generate(table, "--out", tmp_path / "three", "--batch", 3, *how) == 0
    assert generate(table, "--out", tmp_path / "many", "--batch", 1000, *how) == 0
    monkeypatch.setattr(FusedBlocks, "joins_rows", lambda blocks, model: False)  # as on a GPU, or in a mix of hats
    assert generate(table, "--out", tmp_path / "fixed", "--batch", 3, *how) == 0
    for other in ("three", "many", "fixed"):
        assert texts(tmp_path / "one") == texts(tmp_path / other)
    assert len(set(texts(tmp_path / "one").values())) == 5
    capsys.readouterr()
    seed = int(how[-1]) if "--seed" in how else 0
    alone = list(how)
    if "--seed" in how:
        alone[-1] = str(seed + 4)
    assert generate(table, "--record", "5", *alone) == 0
    assert capsys.readouterr().out.rstrip("\n") + "\n" == texts(tmp_path / "one")["bellmere-plc-5"]


@pytest.mark.slow
@pytest.mark.skipif(bool(library.unavailable_reason()), reason="the library was not built")
def test_a_document_that_ends_makes_room_for_the_next_and_the_summary_is_in_the_order_of_the_table(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[int] = []
    step = ContinuousBatch.step
    monkeypatch.setattr(ContinuousBatch, "step", lambda many: (rows.append(len(many)), step(many))[1])
    out = tmp_path / "out"
    assert generate(table, "--out", out, "--batch", 2, "--stop", ".", "--grounded", tokens=90) == 0
    lengths = [len(text) for text in texts(out).values()]
    assert len(set(lengths)) > 1 and rows[0] == 2
    assert rows.count(1) < len(rows) / 2  # a place is empty at the end alone
    summary = json.loads((out / "summary.json").read_text())
    assert [row["number"] for row in summary["documents"]] == [1, 2, 3, 4, 5]


@pytest.mark.slow
def test_a_full_disk_keeps_what_is_finished_and_resume_goes_on(
    table: Path, tmp_path: Path, told, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, whole = tmp_path / "out", tmp_path / "whole"
    words = ("--format", "docx,md", "--batch", 2)
    assert told(table, "--out", whole, *words)[0] == 0
    real, written = job_module.write_text, []

    def full(path: Path, text: str) -> None:
        written.append(path.name)
        if path.name.startswith("etc-passwd.audit"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(path, text)

    monkeypatch.setattr(job_module, "write_text", full)
    status, said = told(table, "--out", out, *words)
    assert status == 1
    assert said == f"lowrank: {out}: no space left on device: 2 of 5 documents are finished and stay; --resume goes on"
    names = {path.name.split(".")[0] for path in out.iterdir()}
    assert names == {"aldane-foods-ltd", "bellmere-plc-2", "job"}
    monkeypatch.setattr(job_module, "write_text", real)
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("*.md")}
    status, said = told(table, "--out", out, *words)
    assert (status, said) == (
        2,
        f"lowrank: {out}: holds this job, 2 of 5 documents are finished: resume it, or name another folder",
    )
    assert told(table, "--out", out, *words, "--resume", "--batch", 1)[0] == 0
    assert texts(out) == texts(whole)
    assert {name: (out / name).stat().st_mtime_ns for name in before} == before
    assert json.loads((out / "summary.json").read_text()) == json.loads((whole / "summary.json").read_text())
    assert generate(table, "--out", out, *words, "--resume") == 0  # nothing is left to do
    assert {name: (out / name).stat().st_mtime_ns for name in before} == before


def test_an_interrupt_is_told_with_what_is_finished(table: Path, tmp_path: Path, told, monkeypatch) -> None:
    real = job_module.write_docx

    def stop(path: Path, *arguments: object) -> None:
        if path.name.startswith("bellmere"):
            raise KeyboardInterrupt
        real(path, *arguments)

    monkeypatch.setattr(job_module, "write_docx", stop)
    status, said = told(table, "--out", tmp_path / "out", "--format", "md,docx", "--batch", 1, tokens=8)
    assert status == 1
    assert said == "lowrank: interrupted: 1 of 5 documents are finished and stay; --resume goes on"
    assert not list((tmp_path / "out").glob("bellmere*"))


@pytest.mark.slow
def test_a_folder_that_is_in_use_or_anothers_is_refused_before_anything_is_written(
    table: Path, tmp_path: Path, told
) -> None:
    out = tmp_path / "out"
    assert told(table, "--out", out, tokens=8)[0] == 0
    there = {path.name: path.read_bytes() for path in out.iterdir()}

    status, said = told(table, "--out", out, "--seed", 3, "--resume", tokens=8)
    assert (status, said) == (2, f"lowrank: {out}: holds another job: its seed is 0, not 3: name another folder")
    status, said = told(table, "--out", out, "--resume", tokens=9)
    assert said == f"lowrank: {out}: holds another job: its max new tokens is 8, not 9: name another folder"
    table.write_text(table.read_text() + ROWS[0].replace("Aldane", "Cardew") + "\n")
    assert "holds another job: its facts is" in told(table, "--out", out, "--resume", tokens=8)[1]
    assert {path.name: path.read_bytes() for path in out.iterdir()} == there

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.docx").write_text("mine")
    status, said = told(table, "--out", tmp_path / "mine")
    assert (status, said) == (2, f"lowrank: {tmp_path}/mine: holds thesis.docx, and no job: name a new or empty folder")
    (tmp_path / "file").write_text("")
    assert told(table, "--out", tmp_path / "file")[0] == 2

    job = job_module.Job(tmp_path / "busy", {}, ("md",), ["a"])
    with job.opened(resume=False):
        status, said = told(table, "--out", tmp_path / "busy", "--resume")
        assert status == 2 and "holds another job" in said
    job = job_module.Job(out, json.loads((out / "job.json").read_text()), ("md",), NAMES)
    in_use = pytest.raises(ValueError, match=r"out: process \d+ on .* writes into it: wait for it")
    with job.opened(resume=True), in_use, job.opened(resume=True):
        pass
    assert sorted(path.name for path in out.iterdir()) == sorted(there)


@pytest.mark.parametrize(
    ("text", "words", "rule"),
    [
        ("\n".join(ROWS[:2]), (), "line 1: the first row of a table must name its columns, got '$412.5 million'"),
        (HEAD, (), "line 1: a table must have a row below its head, got none"),
        (
            f"{HEAD},Revenue\n{ROWS[0]},$5 million",
            (),
            "line 1: each column must have a name of its own, got 'revenue' twice",
        ),
        (f"{HEAD},\n{ROWS[0]},$5 million", (), "line 1: each column must have a name, got none for column 9"),
        (
            "\n".join(line.rpartition(",")[0] for line in [HEAD, *ROWS[:2]]),
            (),
            "must have each field of the kind 'earnings_summary', has none called 'driver' or 'main driver': "
            "add it, or take [fields.driver] out of the kind",
        ),
        (f"{HEAD}\n{ROWS[0]}", ("--format", "pdf"), "--format must be some of md,html,docx, got 'pdf'"),
        (f"{HEAD}\n{ROWS[0]}", ("--batch", "0"), "--batch must be at least 1, got 0"),
        (
            f"{HEAD}\n{ROWS[0]}",
            ("--cache-limit", "20kB"),
            "MB of keys and values, and --cache-limit is 0.0 MB",
        ),
        (f"{HEAD}\n{ROWS[0]}", ("--record", "1"), "--record is of one text: --out writes a document for each record"),
        (f"{HEAD}\n{ROWS[0]}", ("--html", "x.html"), "--html is of one text: --out writes a document for each record"),
        (f"{HEAD}\n{ROWS[0]}", ("--derive", "ratio(revenue, x)"), "'x' is no figure of the record"),
        (f"{HEAD}\n{ROWS[0]}", ("--template", "chat"), "--template chat is the model's own chat template"),
        (f"{HEAD}\n{ROWS[0].replace('new', 'very ' * 3000)}", (), "instruction, and the model has"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_bad_input_is_refused_in_one_line_and_nothing_is_written(
    text: str, words: tuple[str, ...], rule: str, tmp_path: Path, told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.csv").write_text(text + "\n", encoding="utf-8")
    status, said = told(Path("t.csv"), "--out", tmp_path / "out", *words)
    assert status == 2 and rule in said and said.count("\n") == 0, said
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_merged_cells_are_refused_with_their_place(tmp_path: Path, told) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in (HEAD, *ROWS[:2]):
        book.active.append(row.split(","))
    book.active.title = "Q3"
    book.save(tmp_path / "plain.xlsx")
    book.active.merge_cells("A2:A3")
    book.save(tmp_path / "merged.xlsx")
    status, said = told(tmp_path / "merged.xlsx", "--out", tmp_path / "out")
    assert status == 2 and not (tmp_path / "out").exists()
    assert said.endswith("merged.xlsx: Q3!A2:A3: a cell of a table must stand alone, these are merged: unmerge them")
    assert told(tmp_path / "plain.xlsx", "--out", tmp_path / "out", tokens=4)[0] == 0
    audit = json.loads((tmp_path / "out" / "bellmere-plc.audit.json").read_text())
    (cell,) = next(fact["cells"] for fact in audit["facts"] if fact["key"] == "prior_revenue")
    assert cell == {"file": "plain.xlsx", "place": "Q3!D3", "sheet": "Q3", "row": 3, "column": "D"}


def test_options_of_a_folder_need_one(table: Path, tmp_path: Path, told) -> None:
    for words in (("--batch", "2"), ("--format", "md"), ("--cache-limit", "1GB"), ("--resume",)):
        status, said = told(table, "--record", "1", *words)
        assert status == 2 and said.endswith(f"{words[0]} is of --out: without a folder there is one text")
    assert main(["generate", "embedded", "--prompt", "x", "--out", str(tmp_path / "out")]) == 2


@pytest.mark.long
@pytest.mark.parametrize("count", [2, 3])
def test_processes_share_the_documents_and_leave_one_folder(count: int, table: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [
        "generate",
        "embedded",
        "--dtype",
        "fp32",
        "--facts",
        table,
        "--kind",
        "earnings_summary",
        "--max-new-tokens",
        "20",
        "--batch",
        1,
    ]
    assert main([*map(str, words), "--out", str(tmp_path / "one")]) == 0
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", count, "--master-port", port, "-m", "lowrank"]
    done = run_python(*torchrun, *words, "--out", tmp_path / "several", env=environment(OMP_NUM_THREADS="1"))
    assert done.stdout.count("5 documents") == 1
    assert texts(tmp_path / "several") == texts(tmp_path / "one")
    assert (tmp_path / "several" / "summary.json").read_bytes() == (tmp_path / "one" / "summary.json").read_bytes()
    assert not (tmp_path / "several" / ".lock").exists()
