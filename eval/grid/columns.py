"""The columns of a grid: a base on a precision, wearing a hat or none."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from lowrank.adapters import use_adapter
from lowrank.adapters.files import load_adapter
from lowrank.checkpoints.load import load
from lowrank.model.llama import Llama


@dataclass(frozen=True)
class Column:
    """The setting of a cell: a hat (None: the base alone) on a precision, with free or grounded figures.

    temperature  of the draws; 0 takes the likeliest token
    Another axis is another field.
    """

    adapter: str | None
    weights: str
    grounded: bool = False
    temperature: float = 0.0

    @property
    def setting(self) -> str:
        """All but the hat: "nf4-dq", or "nf4-dq, temperature 0.8, grounded"."""
        drawn = f", temperature {self.temperature:g}" if self.temperature else ""
        return self.weights + drawn + ", grounded" * self.grounded

    @property
    def name(self) -> str:
        """In a table's head: "finance, nf4-dq"."""
        return f"{self.adapter or 'base'}, {self.setting}"


def load_with_adapters(
    base: Path, adapters: Mapping[str, Path], weights: str, dtype: torch.dtype | None, device: str, force: bool
) -> Llama:
    """A base with every hat attached and none active.

    Raises ValueError for a hat of another base and a base that holds NaN or infinity (unless `force`).
    """
    model = load(base, weights, dtype, device, force=force)
    for name, path in adapters.items():
        load_adapter(model, name, path, force=force)
    return model


def each_column(
    base: Path,
    adapters: Mapping[str, Path],
    weights: Sequence[str],
    dtype: torch.dtype | None = None,
    device: str = "cpu",
    force: bool = False,
) -> Iterator[tuple[Column, Llama]]:
    """Every column with its model, the hat on; each precision is loaded once."""
    for precision in weights:
        model = load_with_adapters(base, adapters, precision, dtype, device, force)
        for adapter in (None, *adapters):
            use_adapter(model, adapter)
            yield Column(adapter, precision), model
