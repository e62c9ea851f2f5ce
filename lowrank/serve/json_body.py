"""Bodies of JSON, read strictly, and their parameters by name: what is not known is refused, never ignored."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.requests import Request

from .errors import Refusal, short

MAX_LEVELS = 32


async def read_json(request: Request) -> dict[str, Any]:
    """The JSON object of a body.  Raises Refusal for anything else."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Refusal(415, "Content-Type must be application/json")
    return read_object(await request.body())


def read_object(body: bytes, *, numbers_as_text: bool = False) -> dict[str, Any]:
    """The object of a text in JSON; with `numbers_as_text` numbers stay as they are written."""
    options: dict[str, Any] = {"parse_float": str, "parse_int": str} if numbers_as_text else {}
    try:
        value = json.loads(body.decode("utf-8"), parse_constant=_refuse_constant, **options)
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except RecursionError:
        raise Refusal(400, f"the body must be JSON of at most {MAX_LEVELS} levels") from None
    except UnicodeError:
        raise Refusal(400, "the body must be UTF-8, and have no half of a surrogate pair") from None
    except ValueError:
        raise Refusal(400, "the body must be JSON") from None
    if not isinstance(value, dict):
        raise Refusal(400, f"the body must be a JSON object, got {_kind(value)}")
    if _levels(value) > MAX_LEVELS:
        raise Refusal(400, f"the body must be JSON of at most {MAX_LEVELS} levels")
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def _levels(value: object) -> int:
    deepest, level = 0, [value]
    while level and deepest <= MAX_LEVELS:
        deepest += 1
        inner: list[object] = []
        for one in level:
            inner += one.values() if isinstance(one, dict) else one if isinstance(one, list) else ()
        level = inner
    return deepest


class Parameters:
    """The parameters of a request, each taken once: `finish` refuses what nobody has taken.

    Null is a parameter that is left out.
    """

    def __init__(self, values: Mapping[str, Any], within: str = "") -> None:
        self.values = {name: value for name, value in values.items() if value is not None}
        self.within = within

    def take(self, name: str) -> Any:
        """The value as it is, None if it is left out."""
        return self.values.pop(name, None)

    def text(self, name: str, default: str | None = None, *, longest: int = 1_000_000) -> str | None:
        """A text."""
        value = self.take(name)
        if value is None:
            return default
        if not isinstance(value, str) or len(value) > longest:
            raise self.refusal(
                name, "a text" if not isinstance(value, str) else f"at most {longest:,} characters", value
            )
        return value

    def flag(self, name: str, default: bool) -> bool:
        """True or false."""
        value = self.take(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.refusal(name, "true or false", value)
        return value

    def whole(self, name: str, default: int, low: int, high: int) -> int:
        """A whole number in [low, high]."""
        value = self.take(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.refusal(name, f"a whole number of {low:,} to {high:,}", value)
        return value

    def number(self, name: str, default: float, low: float, high: float) -> float:
        """A number in [low, high]."""
        value = self.take(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise self.refusal(name, f"a number of {low:g} to {high:g}", value)
        return float(value)

    def texts(self, name: str, *, most: int, longest: int) -> tuple[str, ...]:
        """A text, or a list of texts, none of them empty."""
        value = self.take(name)
        found: Sequence[Any] = () if value is None else (value,) if isinstance(value, str) else value
        if not isinstance(found, list | tuple) or len(found) > most:
            raise self.refusal(name, f"a text, or at most {most} of them", value)
        for one in found:
            if not isinstance(one, str) or not 0 < len(one) <= longest:
                raise self.refusal(name, f"texts of 1 to {longest} characters", one)
        return tuple(found)

    def inert(self, rules: Mapping[str, tuple[Any, ...]]) -> None:
        """Parameters that may have a value which does nothing, and no other."""
        for name, harmless in rules.items():
            value = self.take(name)
            if value is not None and not any(type(value) is type(one) and value == one for one in harmless):
                only = " or ".join(json.dumps(one) for one in harmless)
                told = f"{self.within}{name}"
                raise Refusal(
                    400,
                    f"unsupported parameter {told}: it must be left out" + (f", or {only}" if only else ""),
                    param=told,
                    code="unsupported_parameter",
                )

    def finish(self) -> None:
        """Raises Refusal for the first parameter that nobody has taken."""
        for name in self.values:
            told = f"{self.within}{name}"
            raise Refusal(400, f"unsupported parameter {short(told)}", param=told[:60], code="unsupported_parameter")

    def refusal(self, name: str, rule: str, value: object) -> Refusal:
        """The refusal of a value."""
        told = f"{self.within}{name}"
        return Refusal(400, f"{told} must be {rule}, got {short(value)}", param=told)


def _kind(value: object) -> str:
    return {list: "a list", str: "a text", bool: "true or false"}.get(type(value), "a number or null")
