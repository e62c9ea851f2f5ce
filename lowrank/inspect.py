"""X-rays in Python: a function for each of `lowrank inspect`, and `summary` of a model in memory.

    lowrank.inspect.quant("embedded").table()

adapter, base, intruders, levels, linear, params, quant, sizes, summary: see `lowrank.eval.inspect.functions`, which is
imported at the first use of a name.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .eval.inspect.functions import adapter, base, intruders, levels, linear, params, quant, sizes, summary

__all__ = ["adapter", "base", "intruders", "levels", "linear", "params", "quant", "sizes", "summary"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(".eval.inspect.functions", __package__), name)


def __dir__() -> list[str]:
    return __all__
