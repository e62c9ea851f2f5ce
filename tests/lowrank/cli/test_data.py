"""`lowrank data`: documents, check and import, as they print and exit."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lowrank.cli import main
from lowrank.data.documents.document import make_documents, read_jsonl, write_jsonl

Run = Callable[..., tuple[int, list[str], list[str]]]

EXAMPLE = {
    "instruction": "Write a note.",
    "input": "company: Acme Ltd\ndebt: $5.25 million\nrate: 7.25%",
    "output": "## Note\nAcme Ltd has debt of $5.25 million at a rate of 7.25%.",
}
RUN = """
[base]
path = "embedded"
[adapter]
name = "notes"
rank = 2
[data]
train = "{data}"
[run]
out = "{out}"
epochs = 1
"""


@pytest.fixture
def data(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `lowrank data ...`: (status, lines of standard output, lines of standard error)."""

    def run(*arguments: object) -> tuple[int, list[str], list[str]]:
        status = main(["data", *map(str, arguments)])
        out, err = capsys.readouterr()
        return status, out.splitlines(), err.splitlines()

    return run


def write_lines(path: Path, *rows: Any) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


@pytest.mark.slow
def test_a_kind_can_be_held_out(data: Run, tmp_path: Path) -> None:
    status, out, _ = data("documents", tmp_path, "--n", 18, "--hold-out", "audit_letter")
    assert status == 0 and len(out) == 3
    train, test = read_jsonl(tmp_path / "train.jsonl"), read_jsonl(tmp_path / "test.jsonl")
    assert len({entry.kind for entry in train}) == 9
    assert {entry.kind for entry in test} == {"audit_letter"}


def test_a_kind_that_is_none_cannot_be_held_out(data: Run, tmp_path: Path) -> None:
    status, out, err = data("documents", tmp_path / "out", "--hold-out", "poem")
    assert (status, out, len(err)) == (2, [], 1)
    assert "hold_out must be one of earnings_summary, " in err[0]
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_our_documents_have_nothing_wrong(data: Run, tmp_path: Path) -> None:
    path = tmp_path / "test.jsonl"
    write_jsonl(path, make_documents(50, seed=7, split="test"))
    assert data("check", path) == (0, [f"{path}: entry, 50 examples, 0 wrong, 0 notes"], [])


def test_a_wrong_line_is_told_with_its_number_key_rule_and_value(data: Run, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", EXAMPLE, EXAMPLE | {"output": 3}, {"instruction": "x"})
    assert data("check", path)[:2] == (
        1,
        [
            f"{path}:2: output: must be a text, got 3 (2 times, in 2, 3)",
            f"{path}: alpaca, 3 examples, 2 wrong, 0 notes",
        ],
    )


def test_a_conversation_without_an_answer_is_wrong(data: Run, tmp_path: Path) -> None:
    turn = {"from": "human", "value": "Hi"}
    path = write_lines(tmp_path / "a.jsonl", {"conversations": [turn, turn]})
    status, out, _ = data("check", path)
    assert status == 1
    assert out[0] == f"{path}:1: conversations: must be prompts, each with its answer behind it, got user user"


def test_the_format_can_be_given(data: Run, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", EXAMPLE)
    assert data("check", path, "--format", "chat")[1][0] == f"{path}:1: must be of the format chat, got alpaca"


def test_what_does_not_keep_a_row_from_being_learned_is_a_note(data: Run, tmp_path: Path) -> None:
    long = EXAMPLE | {"output": EXAMPLE["output"] * 100}
    path = write_lines(tmp_path / "a.jsonl", EXAMPLE, EXAMPLE | {"score": 1}, EXAMPLE, long)
    status, out, _ = data("check", path)
    assert status == 0
    assert out[:-1] == [
        f"{path}:4: note: must have at most 1024 tokens to be learned, got 2753",
        f"{path}:1: note: nothing is learned from the key 'score', got 1 row with it",
        f"{path}:2: note: a row that is there twice is learned twice",
    ]
    status, out, _ = data("check", path, "--max-tokens", 20)
    assert status == 1 and out[-2] == f"{path}: none of 4 entries has at most 20 tokens"


def test_an_entry_that_was_edited_no_longer_matches_its_hash(data: Run, tmp_path: Path) -> None:
    entry = make_documents(1, seed=7, split="train")[0]
    path = write_lines(tmp_path / "a.jsonl", entry.to_json() | {"output": "nothing"})
    status, out, _ = data("check", path)
    assert status == 1
    assert out[0].startswith(f"{path}:1: sha256: expected ")


def test_what_a_document_lacks_is_a_note_and_no_error(data: Run, tmp_path: Path) -> None:
    row = make_documents(1, seed=7, split="train")[0].to_json()
    del row["sha256"]
    path = write_lines(tmp_path / "a.jsonl", row | {"output": "## Headline\nIt was $1 million."})
    status, out, _ = data("check", path)
    assert status == 0
    assert out[:-1] == [
        f"{path}:1: note: output: must have each of its required sections, with a text, got 33% of them",
        f"{path}:1: note: output: each figure must be in the facts, got $1 million",
        f"{path}:1: note: output: each figure of the facts must be stated, got none for "
        "revenue, prior_revenue, change, gross_margin, net_income, eps",
    ]


def test_problems_and_notes_as_json(data: Run, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", EXAMPLE, 7)
    status, out, _ = data("check", path, "--json")
    assert status == 1
    assert json.loads("\n".join(out)) == {
        "file": str(path),
        "format": "alpaca",
        "examples": 2,
        "wrong": 1,
        "all_too_long": False,
        "problems": [{"place": "2", "rule": "must be an object", "value": "7"}],
        "notes": [],
    }


@pytest.mark.parametrize(("verb", "arguments"), [("check", []), ("import", ["out.jsonl"])])
def test_a_file_that_is_missing_or_of_no_format_is_the_callers_mistake(
    data: Run, tmp_path: Path, verb: str, arguments: list[str]
) -> None:
    status, _, err = data(verb, tmp_path / "none.jsonl", *arguments)
    assert (status, err) == (2, [f"lowrank: {tmp_path / 'none.jsonl'}: no such file"])
    status, _, err = data(verb, write_lines(tmp_path / "a.jsonl", {"txt": "x"}), *arguments)
    assert status == 2 and len(err) == 1 and "the format must be told by its keys" in err[0]


@pytest.mark.slow
@pytest.mark.parametrize("format", ["alpaca", "sharegpt", "chat"])
@pytest.mark.parametrize("array", [False, True], ids=["lines", "array"])
def test_a_foreign_file_becomes_entries_and_trains(data: Run, tmp_path: Path, format: str, array: bool) -> None:
    prompt = f"{EXAMPLE['instruction']}\n\n{EXAMPLE['input']}"
    row: dict[str, Any] = {
        "alpaca": EXAMPLE,
        "sharegpt": {
            "conversations": [{"from": "human", "value": prompt}, {"from": "gpt", "value": EXAMPLE["output"]}]
        },
        "chat": {
            "messages": [{"role": "user", "content": prompt}, {"role": "assistant", "content": EXAMPLE["output"]}]
        },
    }[format]
    source, out = tmp_path / "gpt.json", tmp_path / "new" / "mine.jsonl"
    source.write_text(json.dumps([row, row], indent=1)) if array else write_lines(source, row, row)
    assert data("import", source, out)[:2] == (0, [f"{out}: 2 entries of 2 examples, 0 left out"])
    assert [entry.id for entry in read_jsonl(out)] == ["custom-0000", "custom-0001"]
    twice = f"{out}:2: note: a row that is there twice is learned twice"
    assert data("check", out)[:2] == (0, [twice, f"{out}: entry, 2 examples, 0 wrong, 1 notes"])
    if format == "chat" and array:
        (tmp_path / "run.toml").write_text(RUN.format(data=out, out=tmp_path / "run"))
        assert main(["train", str(tmp_path / "run.toml")]) == 0


def test_an_import_tells_per_line_what_is_left_out_and_which_figures_have_no_fact(data: Run, tmp_path: Path) -> None:
    strange = EXAMPLE | {"output": "Debt is $5.25 million, the rate 7.25% and cash $9 million."}
    source = write_lines(tmp_path / "a.jsonl", strange, EXAMPLE | {"input": "no facts"}, 7)
    status, out, _ = data("import", source, tmp_path / "out.jsonl", "--kind", "note", "--license", "CC0-1.0")
    assert status == 1
    assert out == [
        f"{source}:1: note: output: each figure must be in the facts, got $9 million",
        f"{source}:3: left out: must be an object, got 7",
        f"{source}:2: left out: the input must hold facts, one `label: value` a line, got none",
        f"{tmp_path / 'out.jsonl'}: 1 entries of 3 examples, 2 left out",
    ]
    (entry,) = read_jsonl(tmp_path / "out.jsonl")
    assert (entry.id, entry.license) == ("note-0000", "CC0-1.0")


def test_nothing_to_import_writes_nothing(data: Run, tmp_path: Path) -> None:
    source = write_lines(tmp_path / "a.jsonl", EXAMPLE | {"input": ""})
    status, _, err = data("import", source, tmp_path / "out.jsonl")
    assert (status, err) == (2, [f"lowrank: {source}: must hold at least one example with facts, got none of 1"])
    assert not (tmp_path / "out.jsonl").exists()


def test_our_own_entries_need_no_import(data: Run, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", make_documents(1, seed=7, split="train"))
    status, _, err = data("import", tmp_path / "a.jsonl", tmp_path / "out.jsonl")
    assert status == 2 and err[0].endswith(
        "must be one of facts, sharegpt, chat, alpaca, prompt, text, got entries, which need no import"
    )


def test_spoiled_documents_are_preferences_that_a_check_takes(data: Run, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "train.jsonl", make_documents(10, seed=7, split="train"))
    status, out, _ = data("spoil", tmp_path / "train.jsonl", tmp_path / "spoiled.jsonl")
    assert status == 0
    assert out == [f"{tmp_path / 'spoiled.jsonl'}: 37 preferences: 10 by label, 10 by digit, 10 by scale, 7 by period"]
    status, out, _ = data("check", tmp_path / "spoiled.jsonl", "--preference")
    assert status == 0 and out[-1].endswith("preference, 37 examples, 0 wrong, 0 notes")
    status, _, err = data("check", tmp_path / "spoiled.jsonl")
    assert status == 2 and err[0].endswith("which are learned with preference.loss")
    status, out, _ = data("show", tmp_path / "spoiled.jsonl", "--n", 1)
    assert status == 0 and out[-1]
