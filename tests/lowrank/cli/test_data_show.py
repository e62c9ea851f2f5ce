"""`lowrank data show`: what a person sees in a terminal, in a file, and when something is wrong."""

import json
import re
import sys
from pathlib import Path

import pytest

from lowrank.cli import main
from lowrank.cli.data.show import columns
from lowrank.data.documents.document import make_documents, write_jsonl
from lowrank.data.encoding.batching import encode

ENTRIES = make_documents(6, seed=3, split="train")
ANSI = re.compile(r"\x1b\[[\d;]*m")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory):
    path = tmp_path_factory.mktemp("data") / "train.jsonl"
    write_jsonl(path, ENTRIES)
    return path


@pytest.fixture
def show(data, capsys: pytest.CaptureFixture[str]):
    """Runs the command on the file: (status, standard output, standard error)."""

    def run(*arguments, file=data):
        try:
            status = main(["data", "show", str(file), *map(str, arguments)])
        except SystemExit as stop:
            status = stop.code
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch):
    """Standard output as a terminal of 80 columns."""
    monkeypatch.setattr(type(sys.stdout), "isatty", lambda _: True, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("NO_COLOR", raising=False)


def cells(out, name):
    """The cells of every line that is named so, in order."""
    return [cell for line in out.splitlines() if line.startswith(name.ljust(11)) for cell in line[11:].split()]


def test_every_token_is_printed_with_its_id_position_and_mark(show, tokenizer) -> None:
    status, out, _ = show("--n", 1)
    example = encode(ENTRIES[0].conversation, tokenizer, "alpaca")
    assert status == 0
    assert list(map(int, cells(out, "id"))) == list(example.tokens)
    assert list(map(int, cells(out, "position"))) == list(range(len(example)))
    assert len(cells(out, "piece")) == len(example)
    assert cells(out, "supervised") == ["*"] * example.supervised
    assert f"{ENTRIES[0].id}: {len(example)} tokens, {example.supervised} supervised, segment 0" in out


def test_marks_stand_under_their_tokens(show) -> None:
    _, out, _ = show("--n", 1)
    lines = out.splitlines()
    for number, line in enumerate(lines):
        if line.startswith("supervised"):
            ends = [end.end() for end in re.finditer(r"\S+", lines[number - 1])]
            assert {mark.end() for mark in re.finditer(r"\*", line)} <= set(ends)


def test_totals_are_of_the_whole_file(show, tokenizer) -> None:
    examples = [encode(entry.conversation, tokenizer, "alpaca") for entry in ENTRIES]
    lengths = sorted(map(len, examples))
    limit = lengths[-2]
    _, out, _ = show("--n", 0, "--max-tokens", limit)
    (long,) = [example for example in examples if len(example) > limit]
    assert f"6 entries, in tokens: half of them up to {lengths[2]} long" in out
    assert f"1 over {limit} tokens, left out: {long.id} ({len(long)})" in out
    assert f"{sum(lengths) - len(long):,} tokens to train on" in out


def test_a_terminal_has_colour_and_underlines(show, terminal) -> None:
    _, out, _ = show("--n", 1)
    marked = re.findall(r"\x1b\[4;32m(.*?)\x1b\[0m", out)
    plain = ANSI.sub("", out)
    assert len(marked) == len(cells(plain, "supervised"))
    tables = [line for line in plain.splitlines() if line.startswith(("piece ", "id ", "position ", "supervised"))]
    assert 70 < max(map(columns, tables)) <= 80


@pytest.mark.parametrize("why", ["no terminal", "NO_COLOR"])
def test_there_is_no_colour_without_a_terminal_or_with_no_color(
    why, show, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if why == "NO_COLOR":
        request.getfixturevalue("terminal")
        monkeypatch.setenv("NO_COLOR", "1")
    assert not ANSI.search(show("--n", 1)[1])


def test_a_packed_row_has_segments_whose_positions_begin_again(show) -> None:
    found = json.loads(show("--n", 1, "--pack", 800, "--json")[1])
    (row,) = found["shown"]
    assert len(row["entries"]) >= 2 and len(row["tokens"]) <= 800
    for number in range(len(row["entries"])):
        segment = [token for token in row["tokens"] if token["segment"] == number]
        assert [token["position"] for token in segment] == list(range(len(segment)))
        assert (segment[0]["piece"], segment[0]["supervised"]) == ("<s>", False)
        assert (segment[-1]["piece"], segment[-1]["supervised"]) == ("</s>", True)
    assert found["totals"]["row_length"] == 800
    assert found["template"] == {"name": "alpaca", "version": 1}


def test_one_entry_is_shown_by_its_id_alone_packed_or_left_out(show) -> None:
    wanted = ENTRIES[4].id
    alone, packed, long = (
        json.loads(show("--id", wanted, "--json", *more)[1])["shown"]
        for more in ((), ("--pack", 800), ("--max-tokens", 10))
    )
    assert alone[0]["entries"] == long[0]["entries"] == [wanted]
    assert wanted in packed[0]["entries"]
    assert (alone[0]["left_out"], long[0]["left_out"]) == (False, True)
    assert "left out: too long" in show("--id", wanted, "--max-tokens", 10)[1]


def test_the_page_is_written_and_the_totals_are_still_told(show, tmp_path: Path) -> None:
    status, out, _ = show("--n", 2, "--html", tmp_path / "t.html")
    assert status == 0
    assert "2 of them, token by token" in out and "tokens to train on" in out and "position" not in out
    assert (tmp_path / "t.html").read_text(encoding="utf-8").count("<section") == 2


def test_the_template_decides_what_is_shown(show, llama2_tokenizer: Path) -> None:
    for where in (llama2_tokenizer, llama2_tokenizer.parent):
        _, out, _ = show("--n", 1, "--template", "llama2-chat", "--tokenizer", where)
        assert cells(out, "piece")[:5] == ["<s>", "▁[", "INST", "]", "▁Write"]
        assert cells(out, "piece")[-2:] == ["▁", "</s>"]


@pytest.mark.parametrize(
    ("text", "width"), [("abc", 3), ("日本", 4), ("e\u0301", 1), ("", 0)], ids=["latin", "wide", "combining", "empty"]
)
def test_columns_are_those_of_a_terminal(text, width) -> None:
    assert columns(text) == width


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--id", "nobody"), "--id: .*train.jsonl holds no entry 'nobody'"),
        (("--pack", 100, "--max-tokens", 200), "--pack must be at least --max-tokens, got 100 and 200"),
        (("--n", -1), "--n must be at least 0"),
        (("--max-tokens", -5), "--max-tokens must be at least 1, got -5"),
        (("--max-tokens", 0), "--max-tokens must be at least 1, got 0"),
        (("--pack", 0), "--pack must be at least 1, got 0"),
        (("--template", "chatml"), "invalid choice: 'chatml'"),
        (("--tokenizer", "nowhere"), "nowhere: no such tokenizer file"),
    ],
    ids=["id", "pack", "n", "max-tokens", "max-tokens-0", "pack-0", "template", "tokenizer"],
)
def test_a_mistake_is_told_in_one_line(arguments, message, show) -> None:
    status, _, err = show(*arguments)
    assert status == 2
    assert len(err.splitlines()) == 1 and re.search(message, err)


def test_a_file_that_is_not_there_or_empty_is_named(show, tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("\n")
    assert "nowhere.jsonl: no such file" in show(file=tmp_path / "nowhere.jsonl")[2]
    assert "empty.jsonl: must hold at least one entry" in show(file=tmp_path / "empty.jsonl")[2]


def test_an_entry_with_nothing_to_learn_is_named(show, tmp_path: Path) -> None:
    row = {key: value for key, value in ENTRIES[0].to_json().items() if key != "sha256"} | {"output": ""}
    (tmp_path / "bad.jsonl").write_text(json.dumps(row))
    status, _, err = show(file=tmp_path / "bad.jsonl")
    assert status == 2
    assert "bad.jsonl:1: output: expected a text, got an empty one" in err
