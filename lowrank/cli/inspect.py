"""The parser of `lowrank inspect`, whose verbs are the rooms inspect_*"""

from typing import Any

from . import inspect_adapter, inspect_base, inspect_linear, inspect_params, inspect_quant, inspect_sizes
from .arguments import add_verb

ROOMS = (inspect_adapter, inspect_quant, inspect_base, inspect_linear, inspect_params, inspect_sizes)


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
