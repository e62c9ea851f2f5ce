"""Tables of a TOML file as dataclasses: every key is of the type that its field declares, or refused by name."""

import difflib
import tomllib
import typing
from typing import Any


def read_table(kind: type, values: Any, where: str) -> Any:
    """A table's dataclass out of plain values.  Raises ValueError naming `where` for a key or value that it has not."""
    if not isinstance(values, dict):
        raise ValueError(f"{where} must be a table, got {values!r}")
    hints = typing.get_type_hints(kind)
    known(values, hints, where)
    return kind(**{key: _typed(value, hints[key], f"{where}.{key}") for key, value in values.items()})


def _typed(value: Any, hint: Any, where: str) -> Any:
    """The value if it is of the type that the field declares; a whole number will do for a float."""
    origin = typing.get_origin(hint)
    if origin is typing.Literal:
        if value not in typing.get_args(hint):
            raise ValueError(f"{where} must be one of {', '.join(typing.get_args(hint))}, got {value!r}")
        return value
    if hint is float and type(value) is int:
        return float(value)
    allowed = typing.get_args(hint) if origin is not list and typing.get_args(hint) else (hint,)
    if type(value) not in tuple(typing.get_origin(kind) or kind for kind in allowed):
        names = " or ".join(getattr(kind, "__name__", str(kind)) for kind in allowed)
        raise ValueError(f"{where} must be of type {names}, got {value!r}")
    return value


def known(values: dict[str, Any], names: dict[str, Any], where: str) -> None:
    """Raises ValueError for a key that is none of the names, with the nearest."""
    for key in values:
        if key not in names:
            near = difflib.get_close_matches(key, names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}"
            raise ValueError(f"{where}: unknown key {key!r}: {hint}")


def toml_value(text: str) -> Any:
    """The value as TOML reads it; a bare word is a string."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
