"""The processes that train one hat together; by itself, a process is a team of one.

loss and gradient: sums over the processes, each of which takes rows rank, rank + size, ... of every batch
"""

from collections.abc import Iterable, Sequence
from typing import TypeVar

from torch import Tensor, nn

from lowrank.model.llama import Llama

from .optim import clip_gradients

T = TypeVar("T")


class Team:
    """A team of one: nothing is shared, nothing is sent. `distributed.Processes` is one of several."""

    rank, size = 0, 1

    shards = False

    @property
    def first(self) -> bool:
        """Whether this process writes what a run leaves."""
        return self.rank == 0

    def share(self, rows: Sequence[T]) -> list[T]:
        """The rows of a batch that this process takes."""
        return list(rows[self.rank :: self.size])

    def sum(self, values: list[float]) -> list[float]:
        """The sum over all processes."""
        return values

    def summed(self, gradients: dict[str, Tensor]) -> dict[str, Tensor]:
        """The gradients summed over all processes; the given ones are left as they are."""
        return gradients

    def clip(self, parameters: Iterable[nn.Parameter], max_norm: float) -> float:
        """Sums the gradients over all processes, and clips them; returns their norm as it was."""
        return clip_gradients(parameters, max_norm).item()

    def place(self, model: Llama) -> None:
        """Cuts the model into the parts of the processes, where it is to be cut."""

    def like(self, parameter: Tensor, value: Tensor) -> Tensor:
        """A value that is cut as a parameter is, such as its moment, as a tensor that says so."""
        return value

    def cut(self, whole: Tensor, like: Tensor) -> Tensor:
        """A whole tensor, cut as another is."""
        return whole

    def whole(self, tensor: Tensor) -> Tensor:
        """A tensor put together from all processes."""
        return tensor

    def wait(self) -> None:
        """Until all processes are here."""

    def close(self) -> None:
        """Leaves the team."""
