"""The libraries that only building the instruction set needs: the package's extra `data`."""

import importlib
from types import ModuleType


def need(name: str) -> ModuleType:
    """The module of that name. Raises ValueError saying how to get it if it is not installed."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name.partition(".")[0]:
            raise
        raise ValueError(f"data mixture: {error.name} is missing: needs pip install 'lowrank[data]'") from None
