"""X-rays in Python: a function for each of `lowrank inspect`, and `summary` of a model in memory.

    lowrank.inspect.quant("embedded").table()

Each is imported at its first use: formats and mixed from `lowrank.eval.formats.functions`; data, the influence of
training documents, from `lowrank.train.influence.trace`; the others from `lowrank.eval.inspect.functions`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .eval.formats.functions import formats, mixed
    from .eval.inspect.functions import (
        adapter,
        base,
        forgetting,
        intruders,
        levels,
        linear,
        params,
        quant,
        sizes,
        summary,
    )
    from .train.influence.trace import data

__all__ = [
    "adapter",
    "base",
    "data",
    "forgetting",
    "formats",
    "intruders",
    "levels",
    "linear",
    "mixed",
    "params",
    "quant",
    "sizes",
    "summary",
]
_ROOMS = {"data": ".train.influence.trace"} | dict.fromkeys(("formats", "mixed"), ".eval.formats.functions")


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_ROOMS.get(name, ".eval.inspect.functions"), __package__), name)


def __dir__() -> list[str]:
    return __all__
