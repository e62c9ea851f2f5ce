"""The parser of `lowrank adapter`; each of its verbs is in a file of its name."""

from typing import Any

from ..arguments import add_verb
from . import extract, mitigate, mix, reduce

ROOMS = (mix, reduce, extract, mitigate)


def add(verbs: Any) -> None:
    """The arguments of the verb."""
    parser = add_verb(
        verbs,
        "adapter",
        "new hats out of hats: several as one, of a lower rank, out of two checkpoints, without intruders",
        "lowrank adapter mix OUT runs/finance/hat=0.7 runs/letters/hat=0.3",
    )
    work = parser.add_subparsers(title="what to do", metavar="WHAT", required=True)
    for room in ROOMS:
        room.add(work)
