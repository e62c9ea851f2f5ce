"""The processes that train one hat together; by itself, a process is a team of one.

loss and gradient: sums over the processes, each of which takes rows rank, rank + size, ... of every batch
"""

from collections.abc import Iterable, Sequence
from typing import Self, TypeVar

from torch import Tensor, nn

from lowrank.model.llama import Llama

from ..adam_state import Part
from ..optim import clip_gradients

T = TypeVar("T")


class SingleProcess:
    """A team of one: nothing is shared, nothing is sent. `distributed.TorchrunGroup` is one of several."""

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

    def each(self, values: Sequence[float]) -> list[list[float]]:
        """The values of every process."""
        return [[float(value) for value in values]]

    def agreed(self, answer: bool) -> bool:
        """The first process's answer, so that all do the same."""
        return answer

    def clip(self, parameters: Iterable[nn.Parameter], max_norm: float) -> float:
        """Sums the gradients over all processes, and clips them; returns their norm as it was."""
        return clip_gradients(parameters, max_norm).item()

    def keep(self, layer: nn.Module) -> None:
        """Lets go of what others have of a linear that has just been loaded."""

    def place(self, model: Llama) -> None:
        """Cuts the model into the parts of the processes, where it is to be cut."""

    def like(self, parameter: Tensor, value: Tensor) -> Tensor:
        """A value that is cut as a parameter is, such as its moment, as a tensor that says so."""
        return value

    def part(self, parameter: Tensor) -> Part:
        """What this process holds of a parameter."""
        return Part(parameter.numel())

    def cut(self, whole: Tensor, like: Tensor) -> Tensor:
        """A whole tensor, cut as another is."""
        return whole

    def whole(self, tensor: Tensor) -> Tensor:
        """A tensor put together from all processes."""
        return tensor

    def wait(self) -> None:
        """Until all processes are here."""

    def close(self) -> None:
        """Leaves the team, when all are done."""

    def fail(self, error: BaseException) -> None:
        """Leaves the team, and ends the others with the error."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if error is None:
            self.close()
        else:
            self.fail(error)
