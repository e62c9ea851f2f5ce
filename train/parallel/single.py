"""The interface of the processes that train one adapter together, and its version for a single process.

loss and gradient: sums over the processes, each of which takes rows rank, rank + size, ... of every batch
"""

from collections.abc import Iterable, Sequence
from typing import Self, TypeVar

from torch import Tensor, nn

from lowrank.model.llama import Llama

from ..adam_state import MomentShard
from ..optim import clip_gradients

T = TypeVar("T")


class SingleProcess:
    """A single process: every operation is the identity. `torchrun.TorchrunGroup` is the one of several processes."""

    rank, size = 0, 1

    shards = False

    @property
    def is_first(self) -> bool:
        """True if this process writes the files of the run."""
        return self.rank == 0

    def share(self, rows: Sequence[T]) -> list[T]:
        """The rows of a batch that this process takes."""
        return list(rows[self.rank :: self.size])

    def sum(self, values: list[float]) -> list[float]:
        """The sum over all processes."""
        return values

    def all_gather(self, values: Sequence[float]) -> list[list[float]]:
        """The values of every process."""
        return [[float(value) for value in values]]

    def broadcast_bool(self, answer: bool) -> bool:
        """The boolean of the first process, broadcast to all."""
        return answer

    def clip(self, parameters: Iterable[nn.Parameter], max_norm: float) -> float:
        """Sums the gradients over all processes, and clips them; returns their norm as it was."""
        return clip_gradients(parameters, max_norm).item()

    def keep_shard(self, layer: nn.Module) -> None:
        """Drops the shards of a newly loaded linear that belong to other ranks."""

    def shard_model(self, model: Llama) -> None:
        """Shards the model over the processes, if the config asks for it."""

    def as_sharded(self, parameter: Tensor, value: Tensor) -> Tensor:
        """A local value, such as a moment, as a tensor sharded like its parameter."""
        return value

    def shard_of(self, parameter: Tensor) -> MomentShard:
        """The shard of a parameter that this process stores."""
        return MomentShard(parameter.numel())

    def shard_like(self, full: Tensor, like: Tensor) -> Tensor:
        """The local shard of a full tensor, sharded like another."""
        return full

    def gather(self, tensor: Tensor) -> Tensor:
        """The full tensor, gathered from all processes."""
        return tensor

    def wait(self) -> None:
        """A barrier."""

    def close(self) -> None:
        """Leaves the group after all processes are done."""

    def fail(self, error: BaseException) -> None:
        """Leaves the group, and ends the other processes with the error."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if error is None:
            self.close()
        else:
            self.fail(error)
