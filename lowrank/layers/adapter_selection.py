"""Which adapters a layer adds: a weighted mix for the whole batch, or a mix for each of its rows.

A selection is of a layer (`LoRALinear.active`), for every thread, or of the contexts around a call
(`adapter_context`), for this thread or task only.

B rows of a batch, n different mixes among them, R ranks of all of them together, K in_features, N out_features.
"""

import copy
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor, nn

AdapterMix = tuple[tuple[str, float], ...]
StackedMatrices = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class PerRow:
    """A mix for each row of a batch: that of row b is mixes[index[b]], and each different one is held once.

    index   int64 [B]
    stacks  of each layer: what lora_A [R, K] and lora_B [N, R] of the mixes were made of, and they
    """

    mixes: tuple[AdapterMix, ...]
    index: Tensor
    stacks: dict[nn.Module, tuple[object, StackedMatrices, object]] = field(
        default_factory=dict, compare=False, repr=False
    )


AdapterSelection = AdapterMix | PerRow


_changes = 0


def changes() -> int:
    """The number of attributes that layers with adapters were given so far: it grows with any change of a selection."""
    return _changes


class SelectingModule(nn.Module):
    """A layer that stores adapters, of which `active` are added; a copy of it adds what it does where it is made."""

    def __init__(self) -> None:
        super().__init__()
        self.active: AdapterSelection = ()

    def __setattr__(self, name: str, value: Any) -> None:
        global _changes
        _changes += 1
        super().__setattr__(name, value)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        copied = type(self).__new__(type(self))
        memo[id(self)] = copied
        copied.__dict__.update(copy.deepcopy(self.__dict__, memo))
        selections = CONTEXT_SELECTION.get()
        while selections is not None:  # in every block that is open, until it ends
            if self in selections:
                selections[copied] = selections[self]
            selections = selections.outer
        return copied


class ContextSelections(dict[SelectingModule, AdapterSelection]):
    """The selections of an `adapter_context` block and of those around it, whose own are `outer`."""

    outer: "ContextSelections | None" = None


CONTEXT_SELECTION: ContextVar[ContextSelections | None] = ContextVar("lora", default=None)
_lock = threading.Lock()
_open_contexts = 0  # `adapter_context` blocks that are open, in any thread


@contextmanager
def adapter_context(selections: Mapping[SelectingModule, AdapterSelection]) -> Iterator[None]:
    """Layers add what is selected for them, inside the block and in this thread or task only."""
    global _open_contexts
    inner = ContextSelections({**(CONTEXT_SELECTION.get() or {}), **selections})
    inner.outer = CONTEXT_SELECTION.get()
    outer = CONTEXT_SELECTION.set(inner)
    with _lock:
        _open_contexts += 1
    try:
        yield
    finally:
        with _lock:
            _open_contexts -= 1
        CONTEXT_SELECTION.reset(outer)


def context_selection() -> Mapping[SelectingModule, AdapterSelection] | None:
    """The selections of the `adapter_context` blocks around this call: another object for other selections."""
    return CONTEXT_SELECTION.get()


def selection_of(layer: SelectingModule) -> AdapterSelection:
    """The selection of `adapter_context` for a layer, else its `active`.

    Raises RuntimeError while torch.compile traces it and an `adapter_context` block is open: a compiled layer would
    keep what it saw.
    """
    if torch.compiler.is_compiling():
        if _open_contexts:
            raise RuntimeError("torch.compile does not see using_adapter: choose with use_adapter")
        return layer.active
    selections = CONTEXT_SELECTION.get()
    return layer.active if selections is None else selections.get(layer, layer.active)


def effective(selection: AdapterSelection, names: Collection[str]) -> AdapterSelection:
    """The selection without weights of zero and adapters that are not of `names`; rows that are all equal are a mix.

    So the same adapter is the same selection, and gives the same bits, whichever way it was selected.
    """
    if not isinstance(selection, PerRow):
        return _effective_mix(selection, names)
    mixes = tuple([_effective_mix(mix, names) for mix in selection.mixes])
    if len(set(mixes)) == 1:
        return mixes[0]
    return selection if mixes == selection.mixes else PerRow(mixes, selection.index, selection.stacks)


def _effective_mix(mix: AdapterMix, names: Collection[str]) -> AdapterMix:
    return tuple([(name, weight) for name, weight in mix if weight and name in names])
