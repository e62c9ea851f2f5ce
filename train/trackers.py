"""Where the figures of a run go besides its own files: TensorBoard, Weights & Biases, or trackio, if installed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from lowrank.extras import need

from .config import TrainConfig

Figures = dict[str, float]


class Tracker(Protocol):
    """One place that figures go to."""

    def log(self, step: int, figures: Figures) -> None:
        """The figures of a step."""

    def close(self) -> None:
        """Writes out what is left."""


class TensorBoard:
    """Event files in OUT/tensorboard."""

    def __init__(self, module: Any, config: TrainConfig, out: Path) -> None:
        self._writer = module.SummaryWriter(str(out / "tensorboard"))
        self._writer.add_text("config", str(config.to_dict()))

    def log(self, step: int, figures: Figures) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class WandbLike:
    """A run of Weights & Biases, or of trackio, which has the same three functions."""

    def __init__(self, module: Any, config: TrainConfig, out: Path) -> None:
        self._module = module
        module.init(project="lowrank", name=out.name, config=config.to_dict())

    def log(self, step: int, figures: Figures) -> None:
        self._module.log(figures, step=step)

    def close(self) -> None:
        self._module.finish()


KINDS: dict[str, tuple[str, Callable[[Any, TrainConfig, Path], Tracker]]] = {
    "tensorboard": ("torch.utils.tensorboard", TensorBoard),
    "wandb": ("wandb", WandbLike),
    "trackio": ("trackio", WandbLike),
}


def find_tracker(name: str) -> Callable[[TrainConfig, Path], Tracker]:
    """The function that opens a tracker.  Raises ValueError with the install command if it is not installed."""
    module_name, kind = KINDS[name]
    module = need(module_name, "watch.trackers")
    return lambda config, out: kind(module, config, out)
