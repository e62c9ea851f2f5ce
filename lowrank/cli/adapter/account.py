"""The account of a new hat that the verbs below `lowrank adapter` print."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ...adapters.algebra.worked import Worked


def print_worked(adapter: "Worked", as_json: bool, more: Mapping[str, Any] | None = None) -> None:
    """A row a linear and the sum, or every figure as JSON."""
    if as_json:
        print(json.dumps({**adapter.to_json(), **(more or {})}, indent=2))
        return
    print(adapter.table())
    print(f"all of the hat: error {adapter.error:.2e}; {adapter.parameters:,} parameters")
    print(f"{adapter.folder}: read back and compared tensor by tensor")
