"""The schemas: right examples pass, and each kind of mistake is told by its path, its rule and its value."""

import re
import sys
from typing import Any

import pytest

from lowrank.data.documents.document import make_documents, make_entry
from lowrank.data.facts.fact import TEXT_TYPES, UNITS
from lowrank.data.imports import schema
from lowrank.data.imports.formats import FORMATS, Item
from lowrank.data.imports.schema import Problem, problem_of, problems, shown

ENTRY = make_entry("covenant_certificate", 0, seed=7, split="test").to_json()
TURN = {"from": "human", "value": "Hi"}


def with_fact(**fact: Any) -> dict[str, Any]:
    return ENTRY | {"facts": {"debt": fact}}


def told(format: str, data: Any) -> list[str]:
    return [f"{problem.path}: {problem.rule}, got {problem.value}" for problem in problems(format, Item(1, data))]


def test_our_entries_are_valid() -> None:
    for entry in make_documents(20, seed=7, split="test"):
        assert problems("entry", Item(1, entry.to_json())) == []


def test_the_schema_of_an_entry_knows_its_keys_and_types() -> None:
    document = schema._validator("entry").schema
    assert set(document["properties"]) == set(ENTRY)
    pattern = re.compile(document["$defs"]["fact"]["properties"]["t"]["pattern"])
    assert all(map(pattern.match, (*TEXT_TYPES, *UNITS, "points", "eur", "eur_m")))
    assert not pattern.match("euros")


@pytest.mark.parametrize("format", FORMATS)
def test_a_schema_is_a_valid_one(format: str) -> None:
    validator = schema._validator(format)
    validator.check_schema(validator.schema)


@pytest.mark.parametrize(
    ("format", "data", "message"),
    [
        ("alpaca", 7, '$: type "object", got 7'),
        ("alpaca", {"instruction": "x"}, '$: required instruction, output, got ["instruction"]'),
        ("alpaca", {}, "$: required instruction, output, got []"),
        ("alpaca", {"instruction": "", "output": "y"}, '$.instruction: minLength 1, got ""'),
        ("alpaca", {"instruction": "x", "output": None}, '$.output: type "string", got null'),
        ("sharegpt", {"conversations": [TURN]}, '$.conversations: minItems 2, got [{"from": "human", "value": "Hi"}]'),
        (
            "sharegpt",
            {"conversations": [TURN, {"from": "gpt", "text": "y"}]},
            '$.conversations[1]: required from, value, got ["from", "text"]',
        ),
        (
            "chat",
            {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": ["y"]}]},
            '$.messages[1].content: type "string", got ["y"]',
        ),
        ("entry", with_fact(v="1"), '$.facts.debt: required v, t, got ["v"]'),
        ("entry", with_fact(v=1, t="usd"), '$.facts.debt.v: type "string", got 1'),
        ("entry", with_fact(v="much", t="usd"), '$.facts.debt.v: pattern "^[+-]?[0-9]+(\\\\.[0-9]+)?$", got "much"'),
        (
            "entry",
            with_fact(v="1/2/25", t="date"),
            '$.facts.debt.v: pattern "^[0-9]{4}-[0-9]{2}-[0-9]{2}$", got "1/2/25"',
        ),
        (
            "entry",
            with_fact(v="1", t="usd", unit="m"),
            '$.facts.debt: no key but v, t, print, label, from, required, got ["unit"]',
        ),
        ("entry", ENTRY | {"seed": True}, '$.seed: type "integer", got true'),
        ("entry", ENTRY | {"facts": {}}, "$.facts: minProperties 1, got {}"),
    ],
    ids=lambda value: "row" if isinstance(value, dict | int) else value[:24],
)
def test_a_mistake_is_told_by_path_rule_and_value(format: str, data: Any, message: str) -> None:
    assert told(format, data) == [message]


def test_extra_keys_of_an_alpaca_example_are_let_pass() -> None:
    assert told("alpaca", {"id": 3, "instruction": "x", "output": "y", "label": None}) == []


def test_a_chat_role_that_is_none() -> None:
    (problem,) = told("chat", {"messages": [{"role": "user", "content": "x"}, {"role": "bot", "content": "y"}]})
    assert problem.startswith('$.messages[1].role: enum ["system", ') and problem.endswith(', got "bot"')


def test_a_line_that_is_no_json() -> None:
    assert [str(problem) for problem in problems("chat", Item(4, None, "Expecting value at column 2"))] == [
        "4: $: must be JSON, got Expecting value at column 2"
    ]


def test_every_mistake_of_a_line_is_told_once() -> None:
    assert told("alpaca", {"input": 3}) == [
        '$: required instruction, output, got ["input"]',
        '$.input: type "string", got 3',
    ]


def test_a_long_value_is_cut() -> None:
    assert shown("é" * 100) == '"' + "é" * 59 + "..."


def test_an_error_becomes_a_problem() -> None:
    assert problem_of(3, ValueError("$: sha256: expected ab, got 'cd'")) == Problem(
        3, "$", "sha256: expected ab", "'cd'"
    )
    assert str(problem_of(3, ValueError("facts.a: from: divides by zero"))) == "3: $: facts.a: from: divides by zero"


def test_without_jsonschema_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    schema._validator.cache_clear()
    monkeypatch.setitem(sys.modules, "jsonschema", None)
    with pytest.raises(ValueError, match=r"^checking by a schema: jsonschema is missing: pip install jsonschema$"):
        problems("chat", Item(1, {}))
