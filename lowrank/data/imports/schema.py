"""Problems of a line of data by JSON Schema (Draft 2020-12); the schemas are in `schemas/`, one a format."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ...extras import need
from .formats import Item

SCHEMAS = Path(__file__).parent / "schemas"
SHOWN = 60  # characters of a value


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: in which line, at which JSON path, by which rule, and the value found, if it has one."""

    line: int
    path: str
    rule: str
    value: str

    def __str__(self) -> str:
        return f"{self.line}: {self.path}: {self.rule}{self.value and f', got {self.value}'}"


def problems(format: str, item: Item) -> list[Problem]:
    """Everything that is wrong with an example by the schema of its format, in the order of the paths.

    Raises ValueError if jsonschema is not installed.
    """
    if item.error is not None:
        return [Problem(item.line, "$", "must be JSON", item.error)]
    errors = sorted(_validator(format).iter_errors(item.data), key=lambda error: str(error.json_path))
    broken = (Problem(item.line, error.json_path, _rule(error), shown(_value(error))) for error in errors)
    return list(dict.fromkeys(broken))  # two keys missing from one object are two errors with the same words


def problem_of(line: int, error: ValueError) -> Problem:
    """A problem that no schema can tell, from the one line of its error: "$: key: rule, got value"."""
    rule, _, value = str(error).removeprefix("$: ").partition(", got ")
    return Problem(line, "$", rule, value)


@cache
def _validator(format: str) -> Any:
    jsonschema = need("jsonschema", "checking by a schema")
    return jsonschema.Draft202012Validator(json.loads((SCHEMAS / f"{format}.json").read_text(encoding="utf-8")))


def _rule(error: Any) -> str:
    if error.validator == "additionalProperties":
        return f"no key but {', '.join(error.schema['properties'])}"
    if error.validator == "required":
        return f"required {', '.join(error.validator_value)}"
    return f"{error.validator} {json.dumps(error.validator_value, ensure_ascii=False)}"


def _value(error: Any) -> Any:
    """The value that broke the rule; of an object with keys missing or unknown, only which keys it has too many of."""
    if error.validator == "additionalProperties":
        return [key for key in error.instance if key not in error.schema["properties"]]
    if error.validator == "required":
        return list(error.instance)
    return error.instance


def shown(value: Any) -> str:
    """A value as JSON in one line, cut after SHOWN characters."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
