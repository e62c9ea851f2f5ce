"""Files of others: which format they are in, and the prompt and answer of each row."""

import json
from pathlib import Path
from typing import Any

import pytest

from lowrank.data.documents.document import make_documents, write_jsonl
from lowrank.data.encoding.template import Conversation, Turn
from lowrank.data.imports.examples import read_conversations
from lowrank.data.imports.formats import Exchange, conversation, detect, exchange, unwrap
from lowrank.data.imports.item import Item
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
    assert detect([Item(number, str(number), row) for number, row in enumerate(rows)], "a.jsonl") == format


def test_a_file_of_no_format_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^a\.jsonl: the format must be told by its keys, one of .*, got 'txt', 'b'$"):
        detect([Item(1, "1", {"txt": "", "b": 1}), Item(2, "2", {"txt": ""}), Item(3, "3", None, "bad")], "a.jsonl")
    with pytest.raises(ValueError, match=r"^a\.jsonl:3: bad \(and 1 more row\)$"):
        detect([Item(3, "3", None, "bad"), Item(4, "4", None, "worse")], "a.jsonl")


def test_the_rows_of_the_one_list_of_an_object_are_the_rows_of_the_file(tmp_path: Path) -> None:
    rows = unwrap([Item(1, "1", {"version": 2, "tags": ["x"], "data": [ALPACA, 7]})], tmp_path)
    assert rows == [Item(1, "[1]", ALPACA), Item(2, "[2]", 7)]
    assert unwrap([Item(1, "1", CHAT)], tmp_path) == [Item(1, "1", CHAT)]
    with pytest.raises(ValueError, match=r"must hold one list of entries, got 'train', 'test'$"):
        unwrap([Item(1, "1", {"train": [ALPACA], "test": [ALPACA]})], tmp_path)


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
    with pytest.raises(ValueError, match=r"^messages: must be prompts, each with its answer .*, got assistant user$"):
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
        ([ALPACA, 7], "a.jsonl:2: must be an object, got 7"),
        ([ALPACA, {"instruction": "x"}], "a.jsonl:2: output: must be a text, got nothing"),
        ([ALPACA | {"input": 3}], "a.jsonl:1: input: must be a text, got 3"),
        ([CHAT, {"messages": "hi"}], "a.jsonl:2: messages: must be a list of messages, got 'hi'"),
        ([{"messages": [{"role": "user"}]}], r"a.jsonl:1: messages\[1\].content: must be a text, got nothing"),
        ([{"messages": CHAT["messages"][:1]}], "a.jsonl:1: messages: must be prompts, each with .*, got user$"),
        ([{"facts": {}, "kind": "x"}], "a.jsonl:1: id: expected a string, got nothing"),
        ([ALPACA, *[ALPACA | {"output": 3}] * 3], r"a.jsonl:2: output: .*, got 3 \(and 2 more of 4 rows\)$"),
    ],
)
def test_a_line_that_cannot_be_learned_is_named(lines: list[Any], message: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    with pytest.raises(ValueError, match=message) as error:
        read_conversations(tmp_path / "a.jsonl")
    assert "\n" not in str(error.value)
