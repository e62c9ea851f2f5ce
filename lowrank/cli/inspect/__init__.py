"""The parser of `lowrank inspect`; each of its verbs is in a file of its name."""

from typing import Any

from ..arguments import add_verb
from . import adapter, base, data, forgetting, formats, linear, mixed, params, quant, sizes

ROOMS = (adapter, data, forgetting, quant, formats, mixed, base, linear, params, sizes)


def add(verbs: Any) -> None:
    """The arguments of the verb."""
    parser = add_verb(
        verbs,
        "inspect",
        "x-rays of hats, bases and number formats; parameters and bytes",
        "lowrank inspect adapter runs/quickstart/hat embedded",
    )
    what = parser.add_subparsers(title="what to look at", metavar="WHAT", required=True)
    for room in ROOMS:
        room.add(what)
