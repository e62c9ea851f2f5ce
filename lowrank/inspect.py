"""X-rays in Python: a function for each of `lowrank inspect`, and `summary` of a model in memory.

    lowrank.inspect.quant("embedded").table()

adapter, base, intruders, levels, linear, params, quant, sizes, summary: see `lowrank.eval.inspect.functions`; data, the
influence of training documents: `lowrank.train.influence.trace`. Either is imported at the first use of a name.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .eval.inspect.functions import adapter, base, intruders, levels, linear, params, quant, sizes, summary
    from .train.influence.trace import data

__all__ = ["adapter", "base", "data", "intruders", "levels", "linear", "params", "quant", "sizes", "summary"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    room = ".train.influence.trace" if name == "data" else ".eval.inspect.functions"
    return getattr(import_module(room, __package__), name)


def __dir__() -> list[str]:
    return __all__
