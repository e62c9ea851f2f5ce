"""The workbench's calls: files of facts, records, documents as events, files out, sessions apart."""

import io
import json
import zipfile
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from httpx2 import Response
from served import FACTS, PORT, Endless, Served

from lowrank.data.documents.kinds import KINDS
from lowrank.serve import kept_files
from lowrank.serve.guard import MAX_FILE
from lowrank.serve.workbench import _Places, _whole_sentences

TABLE = (
    "company,period,revenue,prior revenue\nAldane Foods Ltd,Q3 2024,$12.5 million,$10.0 million\n"
    "Bergholm AG,Q3 2024,$97.3 million,$101.4 million\n"
)


class Bench:
    """A browser with a session."""

    def __init__(self, served: Served) -> None:
        self.client = served.client
        del self.client.headers["authorization"]
        self.client.headers["origin"] = f"http://127.0.0.1:{PORT}"
        self.enter(served)

    def enter(self, served: Served) -> None:
        entered = self.client.post("/session", json={"code": served.doorkeeper.code})
        self.client.headers["x-lowrank-key"] = entered.json()["key"]

    def send(self, content: bytes, name: str = "companies.csv", kind: str = "earnings_summary") -> Response:
        headers = {"x-lowrank-name": quote(name), "x-lowrank-kind": kind}
        return self.client.post("/api/facts", content=content, headers=headers)

    def write(self, **changes: Any) -> list[dict[str, Any]]:
        body = {"models": ["red"], "kind": "earnings_summary", "max_new_tokens": 60}
        answer = self.client.post("/api/write", json=body | changes)
        assert answer.status_code == 200, answer.text
        return [json.loads(event.removeprefix("data: ")) for event in answer.text.split("\n\n") if event]


@pytest.fixture
def bench(served: Served) -> Iterator[Bench]:
    """A browser that was let in."""
    yield Bench(served)


def test_the_choices_are_those_of_the_start(bench: Bench) -> None:
    state = bench.client.get("/api/state").json()
    assert [base["name"] for base in state["bases"]] == ["embedded"]
    assert [choice["hat"] for choice in state["bases"][0]["choices"]] == [None, "red", "blue"]
    assert [kind["name"] for kind in state["kinds"]] == [*KINDS, "document"]
    assert all(kind["has_example"] for kind in state["kinds"][:-1]) and not state["kinds"][-1]["has_example"]


def test_a_table_has_its_records_and_every_fact_its_cell(bench: Bench) -> None:
    read = bench.send(TABLE.encode()).json()
    assert read["records"] == ["Aldane Foods Ltd", "Bergholm AG"] and read["record"] == "1"
    cells = {fact["key"]: fact["cell"] for fact in read["facts"]}
    assert cells["revenue"] == {
        "file": "companies.csv", "place": "line 2, revenue", "sheet": None, "row": 2, "column": "revenue",
    }  # fmt: skip
    assert cells["change"] is None  # it follows from two others
    asked = {"file": read["file"], "kind": "earnings_summary", "record": "2"}
    second = bench.client.post("/api/record", json=asked).json()
    assert second["title"] == "Bergholm AG"
    assert {fact["print"] for fact in second["facts"]} >= {"$97.3 million", "$101.4 million"}
    as_any = bench.client.post("/api/record", json=asked | {"kind": "document"}).json()
    assert all(fact["formula"] is None for fact in as_any["facts"])


@pytest.mark.slow
def test_a_workbook_is_read_and_one_that_unpacks_to_too_much_is_refused(bench: Bench) -> None:
    import openpyxl

    book = openpyxl.Workbook()
    for row in (["company", "revenue", "prior revenue"], ["Aldane Foods Ltd", "$12.5 million", "$10.0 million"]):
        book.active.append(row)
    held = io.BytesIO()
    book.save(held)
    read = bench.send(held.getvalue(), "companies.xlsx").json()
    cells = {fact["key"]: fact["cell"] for fact in read["facts"]}
    assert cells["revenue"]["sheet"] == "Sheet" and cells["revenue"]["column"] == "B" and cells["revenue"]["row"] == 2
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/worksheets/sheet1.xml", b"0" * 201_000_000)
    assert len(bomb.getvalue()) < MAX_FILE
    answer = bench.send(bomb.getvalue(), "bomb.xlsx")
    assert answer.status_code == 400 and "must unpack to at most 200 MB" in answer.json()["error"]["message"]


@pytest.mark.long
@pytest.mark.parametrize(
    ("content", "name", "told"),
    [
        (b"", "empty.csv", "empty.csv: is empty"),
        (b"  \n", "../../../etc/passwd", "passwd.txt: is empty"),
        (b"\x00\x01\x02", "C:\\Users\\x\\facts.txt", "facts.txt: must be text, has the byte 0x00"),
        (b"PK\x03\x04 no archive", "broken.xlsx", "broken.xlsx: "),
        (b"[1, 2]", "list.json", "list.json: must be a JSON object, or a list of them"),
        (b"[" * 100_000, "deep.json", "deep.json: must be JSON of few levels"),
        (b"nothing here", "<b>.txt", "_b_.txt: must hold facts such as"),
        (b'a,"' + b"x" * 200_000, "quote.csv", "quote.csv: a fact must have at most 4,000 characters"),
        (b"revenue: " + b"$5 million and " * 300, "long.txt", "long.txt: a fact must have at most 4,000 characters"),
        (b"x" * 1_000_001, "text.txt", "text.txt: a text must have at most 1,000,000 bytes, got 1,000,001"),
        ((b" " * 400 + b"x\n") * 2_000, "spaces.txt", "spaces.txt: must hold facts such as"),
        (b"-" + b" " * 900_000 + b"x", "bullet.txt", "bullet.txt: must hold facts such as"),
        ("\n".join(f"fact {n}: {n}1" for n in range(600)).encode(), "many.txt", "a record must have at most 500 facts"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_that_cannot_be_read_is_told_by_its_own_name(bench: Bench, content: bytes, name: str, told: str) -> None:
    answer = bench.send(content, name)
    message = answer.json()["error"]["message"]
    assert answer.status_code == 400 and told in message and "/tmp" not in message and "lowrank-" not in message


def test_a_large_file_is_refused(bench: Bench) -> None:
    assert bench.send(b"x" * (MAX_FILE + 1)).status_code == 413


@pytest.mark.slow
def test_two_hats_write_side_by_side_and_every_figure_has_its_cell(bench: Bench) -> None:
    file = bench.send(TABLE.encode()).json()["file"]
    events = bench.write(models=["red", "blue"], file=file, record="2")
    assert [event["type"] for event in events[:2]] == ["begin", "begin"]
    for side, model in enumerate(("red", "blue")):
        own = [event for event in events if event["side"] == side]
        assert own[0]["model"] == model and own[-1]["type"] == "end" and "in the facts" in own[-1]["audit"]["sentence"]
        text = "".join(event["text"] for event in own if event["type"] == "piece")
        assert text == own[-1]["text"]
        for figure in own[-1]["audit"]["figures"]:
            assert figure["state"] == "right" and figure["cells"][0]["row"] == 3
            wide = text.encode("utf-16-le")
            assert wide[2 * figure["start"] : 2 * figure["end"]].decode("utf-16-le") == figure["text"]
    assert [event["side"] for event in events] != sorted(event["side"] for event in events)  # at once
    alone = bench.write(models=["blue"], file=file, record="2")
    assert alone[-1]["text"] == next(event for event in events if event["type"] == "end" and event["side"])["text"]


def test_a_document_goes_out_in_every_format(bench: Bench) -> None:
    file = bench.send(TABLE.encode()).json()["file"]
    text = "# Results\n\nRevenue was $12.5 million. <script>alert(1)</script>\n"
    body = {"text": text, "file": file, "record": "1", "kind": "earnings_summary", "model": "red"}
    answers = {
        format: bench.client.post("/api/export", json=body | {"format": format})
        for format in ("md", "html", "docx", "audit")
    }
    for format, answer in answers.items():
        ending = {"audit": "-figures.html"}.get(format, f".{format}")
        named = f"attachment; filename*=UTF-8''Aldane-Foods-Ltd-red{ending}"
        assert answer.status_code == 200 and answer.headers["content-disposition"] == named
    assert answers["md"].text == text
    for page in (answers["html"].text, answers["audit"].text):
        assert "<script" not in page and "&lt;script&gt;" in page and "$12.5 million" in page
    assert zipfile.ZipFile(io.BytesIO(answers["docx"].content)).testzip() is None
    assert "line 2, revenue" in answers["audit"].text
    for changes, param in (({"format": "exe"}, "format"), ({"text": " "}, "text"), ({"model": "../x"}, "model")):
        refused = bench.client.post("/api/export", json=body | {"format": "md"} | changes)
        assert refused.status_code in (400, 404) and refused.json()["error"]["param"] == param


def test_an_example_is_read_as_it_is_given(bench: Bench) -> None:
    for kind in KINDS:
        made = bench.client.post("/api/example", json={"kind": kind}).json()
        assert bench.send(made["text"].encode(), made["name"], kind).status_code == 200
    assert bench.client.post("/api/example", json={"kind": "document"}).status_code == 400


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"models": []}, "models"),
        ({"models": ["red", "blue", "embedded"]}, "models"),
        ({"models": ["/etc"]}, "model"),
        ({"kind": "../kind.toml"}, "kind"),
        ({"record": "7"}, "record"),
        ({"style": "verse"}, "style"),
        ({"temperature": -1}, "temperature"),
        ({"max_new_tokens": 201}, "max_new_tokens"),
        ({"file": "unknown"}, "file"),
        ({"path": "/etc/passwd"}, "path"),
    ],
    ids=str,
)
def test_a_mistake_is_told_by_its_parameter(bench: Bench, changes: dict[str, Any], param: str) -> None:
    file = bench.send(TABLE.encode()).json()["file"]
    body = {"models": ["red"], "kind": "earnings_summary", "file": file, "record": "1"}
    answer = bench.client.post("/api/write", json=body | changes)
    assert answer.status_code in (400, 404, 410) and answer.json()["error"]["param"] == param


def test_a_session_sees_its_own_files_and_forgets_them_when_it_ends(bench: Bench, served: Served) -> None:
    file = bench.send(FACTS.encode(), "facts.txt").json()["file"]
    body = {"file": file, "kind": "earnings_summary"}
    first, key = dict(bench.client.cookies), bench.client.headers["x-lowrank-key"]
    assert bench.client.post("/api/record", json=body).status_code == 200
    bench.client.cookies.clear()
    bench.enter(served)
    assert bench.client.post("/api/record", json=body).status_code == 410
    bench.client.cookies.clear()
    bench.client.cookies.update(first)
    bench.client.headers["x-lowrank-key"] = key
    assert bench.client.delete("/session").status_code == 204
    bench.client.cookies.clear()
    bench.client.cookies.update(first)
    assert bench.client.post("/api/record", json=body).status_code == 401


def test_few_files_are_kept(bench: Bench) -> None:
    files = [bench.send(FACTS.encode(), "facts.txt").json()["file"] for _ in range(kept_files.MOST + 1)]
    found = [
        bench.client.post("/api/record", json={"file": file, "kind": "earnings_summary"}).status_code for file in files
    ]
    assert found == [410] + [200] * kept_files.MOST


def test_a_full_queue_is_told(bench: Bench, served: Served, make_text: Any, endless: Endless) -> None:
    file = bench.send(FACTS.encode(), "facts.txt").json()["file"]
    texts = [make_text(None, lambda event: None, constraint=endless) for _ in range(3)]
    served.engine.submit(texts)
    body = {"models": ["red", "blue"], "kind": "earnings_summary", "file": file}
    answer = bench.client.post("/api/write", json=body)
    assert answer.status_code == 429 and int(answer.headers["retry-after"]) >= 1
    served.engine.cancel(texts)
    endless.may_go_on.set()


def test_places_are_counted_as_javascript_counts() -> None:
    text = "a𝔅c€𝔇"
    encoded = text.encode("utf-16-le")
    assert [_Places(text).of(place) for place in range(6)] == [
        len(text[:place].encode("utf-16-le")) // 2 for place in range(6)
    ]
    assert _Places(text).of(5) == len(encoded) // 2


@pytest.mark.parametrize(
    ("text", "whole"),
    [("", 0), ("Revenue was $12", 0), ("One. Two", 4), ("One.", 0), ("# One\nTw", 6), ("One. Two\nThree. F", 15)],
)
def test_figures_are_looked_at_where_nothing_can_change_them(text: str, whole: int) -> None:
    assert _whole_sentences(text) == whole
