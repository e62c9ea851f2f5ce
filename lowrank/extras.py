"""Libraries that only some of the work needs: each is in an extra of the package, and imported when it is used."""

import importlib
from types import ModuleType


def need(module: str, extra: str, what: str) -> ModuleType:
    """The module of that name. Raises ValueError naming what needs it, and the extra, if it is not installed."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0]:
            raise
        raise ValueError(f"{what}: {error.name} is missing: needs pip install 'lowrank[{extra}]'") from None
