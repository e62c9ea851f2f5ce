"""Programs that we are held to, imported by the first test that asks something of one, for that takes ten seconds."""

import warnings
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

NAMES = ("bitsandbytes", "lm_eval", "peft", "transformers")


class Peer:
    """A package, or a module of one, that is imported where something of it is first asked for."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what they import, and one another
            package = import_module(self._name)
        return getattr(package, attribute)


openai = Peer("openai")
peft = Peer("peft")
transformers = Peer("transformers")


class Refusal(MetaPathFinder, Loader):
    """First among the finders, it lets no peer be imported: `make check` has no time for them."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        return ModuleSpec(name, self) if name in NAMES else None

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        raise AssertionError(f"a test of `make check` imports {module.__name__}: mark it slow")
