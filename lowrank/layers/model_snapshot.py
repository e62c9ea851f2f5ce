"""A model as it was, to tell whether a description of it still holds."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from operator import is_
from typing import Any

from torch import Tensor, nn

from ..model.llama import Llama
from .adapter_selection import changes, context_selection

OF_EVERY_MODULE = frozenset(vars(nn.Module()))

_looked_at: ContextVar[list["ModelSnapshot"] | None] = ContextVar("looked_at", default=None)


@contextmanager
def unchanged() -> Iterator[None]:
    """A block in which the caller changes no module between two calls: what they have, and where, is compared once.

    Adapters and hooks are looked at every time all the same. Comparing the rest takes up to a tenth of a token's time
    in a small model. A tensor that is moved all the same, by another thread, say, is read where it lay.
    """
    outer = _looked_at.set([])
    try:
        yield
    finally:
        _looked_at.reset(outer)


class ModelSnapshot:
    """Whatever a description of a model's blocks could depend on, as it was when that was made.

    Every attribute, submodule, parameter and buffer of every module, where the tensors lie, hooks, and which adapters
    are active. It is asked for every token, after weights have gone through the caches: so it is a few lists that are
    compared in C, and the longest of them once a text where the caller says that nothing changes
    (`unchanged`).
    """

    def __init__(self, model: Llama, x: Tensor) -> None:
        self._model, self._selection, self._kind = model, context_selection(), (x.shape, x.dtype)
        self._read: tuple[list[Any], list[Any], list[Any]] = ([], [], [])  # dictionaries, a key of each, its value
        self._submodules: list[dict[str, Any]] = []
        self._hooks: list[dict[int, Any]] = []
        self._watch(vars(model), "config")
        self._watch(model._modules, "layers", "norm")
        for module in (*model.layers.modules(), model.norm):
            attributes = vars(module)
            own = attributes.keys() - OF_EVERY_MODULE
            self._watch(attributes, "forward", "training", *own)
            for held in (module._modules, module._parameters, module._buffers, *map(attributes.get, own)):
                if isinstance(held, dict):
                    self._watch(held, *held)
            self._submodules.append(module._modules)
            self._hooks += [module._forward_hooks, module._forward_pre_hooks]
        self._sizes = list(map(len, self._submodules))
        self._tensors = [value for value in self._read[2] if isinstance(value, Tensor)]
        self._places = list(map(Tensor.data_ptr, self._tensors))
        self._memory = list(map(Tensor.untyped_storage, self._tensors))  # kept: what lies there is read
        self._remember()

    def _watch(self, dictionary: dict[str, Any], *keys: str) -> None:
        for key in keys:
            for kept, part in zip(self._read, (dictionary, key, dictionary.get(key)), strict=True):
                kept.append(part)

    def is_current(self, model: Llama, x: Tensor) -> bool:
        """True if nothing has changed, for an x of the same shape and dtype."""
        return (
            self._model is model
            and self._selection is context_selection()
            and self._kind == (x.shape, x.dtype)
            and not any(self._hooks)
            and self._sizes == list(map(len, self._submodules))
            and self._is_in_place()
        )

    def _is_in_place(self) -> bool:
        """True if modules have their attributes, and tensors their memory; once in an `unchanged` block.

        Once for each choice of adapters, that is: where they change, all is compared again.
        """
        seen = _looked_at.get()
        if seen is not None and any(known is self for known in seen) and self._changes == changes():
            return True
        if self._places != list(map(Tensor.data_ptr, self._tensors)) or not self._has_same_attributes():
            return False
        self._remember()
        return True

    def _remember(self) -> None:
        """Keeps that the attributes are now as they were, for the `unchanged` block around this call."""
        self._changes = changes()
        seen = _looked_at.get()
        if seen is not None:
            seen[:] = [*(known for known in seen if known is not self and known._changes == self._changes), self]

    def _has_same_attributes(self) -> bool:
        dictionaries, keys, values = self._read
        return all(map(is_, map(dict.get, dictionaries, keys), values))
