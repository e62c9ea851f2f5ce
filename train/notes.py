"""Settings of a run that are allowed and that hardly anybody means, each told in a line before the work."""

from collections.abc import Iterator

from lowrank.adapters import resolve_targets
from lowrank.model.config import ModelConfig

from .config import TrainConfig
from .optim import warmup_steps


def odd_settings(config: TrainConfig, model: ModelConfig, steps: int) -> Iterator[str]:
    """A line for each; steps: of the run."""
    adapter, optimizer = config.adapter, config.optimizer
    warmup = warmup_steps(steps, optimizer.warmup, optimizer.warmup_ratio)
    if warmup >= steps:
        yield (
            f"the warm-up takes {warmup:,} steps and the run {steps:,}: the rate never comes to optimizer.lr, "
            f"{optimizer.lr:g}"
        )
    sides = {target: min(model.linear_shapes()[target]) for target in resolve_targets(adapter.targets)}
    narrowest = min(sides, key=lambda target: sides[target])
    if adapter.rank > sides[narrowest]:
        yield (
            f"adapter.rank = {adapter.rank:,} is more than {sides[narrowest]:,}, the smaller side of {narrowest}: "
            "no product of A and B has a higher rank than that"
        )
    if adapter.alpha == 0:
        yield "adapter.alpha = 0 scales the hat to nothing: it will not learn"
