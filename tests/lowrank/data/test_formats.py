"""Files of others: lines and arrays, which format they are in, and the prompt and answer of each."""

import json
from pathlib import Path
from typing import Any

import pytest

from lowrank.data.formats import Exchange, Item, detect, exchange, read_items

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
    with pytest.raises(ValueError, match=r"^must hold a prompt and its answer .*, got \['assistant', 'user'\]$"):
        exchange("chat", turns)
