"""Files of others: lines and arrays, which format they are in, and the prompt and answer of each."""

import json
from pathlib import Path
from typing import Any

import pytest

from lowrank.data.documents.document import make_documents, write_jsonl
from lowrank.data.encoding.template import Conversation, Turn
from lowrank.data.imports.formats import Exchange, Item, conversation, detect, exchange, read_conversations, read_items
from lowrank.data.mixture.rows import MixtureRow, write_rows

ALPACA = {"instruction": "Write.", "input": "debt: $5", "output": "Debt is $5."}
SHAREGPT = {
    "conversations": [
        {"from": "system", "value": "Be brief."},
        {"from": "human", "value": "Write.\n\ndebt: $5\n\nrate: 2%"},
        {"from": "gpt", "value": "Debt is $5."},
    ]
}
CHAT = {
    "messages": [{"role": "user", "content": "Write.\ndebt: $5"}, {"role": "assistant", "content": "Debt is $5."}]
}  # fmt: skip


def test_lines_are_counted_with_the_blank_ones(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('\ufeff{"a": "x\u2028y"}\n\n{\n[1\n', encoding="utf-8")
    items = read_items(path)
    assert [(item.line, item.data) for item in items] == [(1, {"a": "x\u2028y"}), (3, None), (4, None)]
    assert [item.error and item.error.partition(" at ")[2] for item in items] == [None, "column 2", "column 3"]


def test_an_array_is_numbered_by_its_examples(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps([ALPACA, 7], indent=2))
    assert read_items(path) == [Item(1, ALPACA), Item(2, 7)]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.jsonl: no such file"):
        read_items(tmp_path / "none.jsonl")
    (tmp_path / "latin.jsonl").write_bytes(b'{"a": "\xe9"}')
    with pytest.raises(ValueError, match=r"latin\.jsonl: must be UTF-8, byte 7 is not"):
        read_items(tmp_path / "latin.jsonl")


@pytest.mark.parametrize(
    ("rows", "format"),
    [
        ([ALPACA], "alpaca"),
        ([SHAREGPT], "sharegpt"),
        ([CHAT], "chat"),
        ([ALPACA | {"facts": {}}], "entry"),
        ([CHAT, ALPACA, ALPACA], "alpaca"),
        ([7, {"instuction": ""}, CHAT], "chat"),
    ],
    ids=["alpaca", "sharegpt", "chat", "entry", "most", "first-wrong"],
)
def test_the_format_is_that_of_most_lines(rows: list[Any], format: str) -> None:
    assert detect([Item(number, row) for number, row in enumerate(rows)], "a.jsonl") == format


def test_a_file_of_no_format_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^a\.jsonl: the format must be told by a key, .*, got no example with any$"):
        detect([Item(1, {"text": ""}), Item(2, None, "bad")], "a.jsonl")


@pytest.mark.parametrize(
    ("format", "row", "input"),
    [
        ("alpaca", ALPACA, "debt: $5"),
        ("alpaca", ALPACA | {"input": "", "instruction": "Write.\n\ndebt: $5"}, "debt: $5"),
        ("sharegpt", SHAREGPT, "debt: $5\n\nrate: 2%"),
        ("chat", CHAT, "debt: $5"),
    ],
    ids=["alpaca", "alpaca-without-input", "sharegpt", "chat"],
)
def test_the_prompt_is_cut_into_instruction_and_input(format: str, row: dict[str, Any], input: str) -> None:
    assert exchange(format, row) == Exchange("Write.", input, "Debt is $5.")


def test_a_conversation_without_an_answer_is_refused() -> None:
    turns = {"messages": [{"role": "assistant", "content": "Hi"}, {"role": "user", "content": "Write."}]}
    with pytest.raises(ValueError, match=r"^must be prompts, each with its answer .*, got \['assistant', 'user'\]$"):
        exchange("chat", turns)


def test_a_second_prompt_is_no_document() -> None:
    turns = CHAT["messages"] * 2
    with pytest.raises(ValueError, match=r"^must be one prompt and its answer, got 2$"):
        exchange("chat", {"messages": turns})


@pytest.mark.parametrize(
    ("format", "row", "expected"),
    [
        ("alpaca", ALPACA, Conversation("a:3", (Turn("Write.", "debt: $5", "Debt is $5."),))),
        (
            "alpaca",
            ALPACA | {"id": "ner-7", "source": "ner"},
            Conversation("ner-7", (Turn("Write.", "debt: $5", "Debt is $5."),)),
        ),
        (
            "sharegpt",
            SHAREGPT,
            Conversation("a:3", (Turn("Write.\n\ndebt: $5\n\nrate: 2%", "", "Debt is $5."),), "Be brief."),
        ),
        (
            "chat",
            {"messages": CHAT["messages"] * 2},
            Conversation("a:3", (Turn("Write.\ndebt: $5", "", "Debt is $5."),) * 2),
        ),
    ],
    ids=["alpaca", "mixture", "system", "two-turns"],
)
def test_a_line_is_learned_with_all_its_turns(
    format: str, row: dict[str, Any], expected: Conversation, tmp_path: Path
) -> None:
    assert conversation(format, row, "a:3") == expected
    (tmp_path / "a.jsonl").write_text("\n\n" + json.dumps(row) + "\n")
    assert read_conversations(tmp_path / "a.jsonl") == [expected]


def test_our_own_files_are_learned_with_their_ids(tmp_path: Path) -> None:
    entries = make_documents(2, seed=1, split="train")
    write_jsonl(tmp_path / "documents.jsonl", entries)
    assert read_conversations(tmp_path / "documents.jsonl") == [entry.conversation for entry in entries]
    write_rows(tmp_path / "mixture.jsonl", [MixtureRow("tfns-1", "tfns", "What?", "up", "positive", "positive")])
    assert read_conversations(tmp_path / "mixture.jsonl") == [
        Conversation("tfns-1", (Turn("What?", "up", "positive"),))
    ]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "a.jsonl: must hold at least one entry, got none"),
        ([ALPACA, 7], "a.jsonl:2: expected a JSON object, got int"),
        ([ALPACA, {"instruction": "x"}], "a.jsonl:2: output: expected a string, got 'nothing'"),
        ([ALPACA | {"input": 3}], "a.jsonl:1: input: expected a string, got 3"),
        ([CHAT, {"messages": "hi"}], "a.jsonl:2: messages: must be a list of objects, got 'hi'"),
        ([{"messages": [{"role": "user"}]}], "a.jsonl:1: content: expected a string, got 'nothing'"),
        ([{"messages": CHAT["messages"][:1]}], r"a.jsonl:1: must be prompts, each with .*, got \['user'\]"),
        ([{"facts": {}}], "a.jsonl:1: id: expected"),
    ],
)
def test_a_line_that_cannot_be_learned_is_named(lines: list[Any], message: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    with pytest.raises(ValueError, match=message) as error:
        read_conversations(tmp_path / "a.jsonl")
    assert "\n" not in str(error.value)
