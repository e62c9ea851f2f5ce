"""One step: the batches one after another, the gradient of their sum, and one update.

    loss = sum over supervised t of -log p(token[t] | tokens[< t]) / S,   S the supervised tokens of the whole step

or another objective, whose sum is divided by the units of the whole step (`preference`).

A step whose loss or gradient is not finite changes nothing; `first_non_finite` names the layer that it came from.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from lowrank.data.encoding.packing import Row, collate_rows
from lowrank.kernels.llama_ops.linear_cross_entropy import linear_cross_entropy
from lowrank.model.llama import Llama
from lowrank.model.loss import IGNORED, HeadLoss, HiddenStates, next_token_loss

from .batch_schedule import StepBatches
from .optim import AdamW, local
from .parallel.single import SingleProcess


class BatchLoss(NamedTuple):
    """The loss of a batch, still to be divided by the units of the step, and what it took.

    positions  that were computed, filling among them; pairs: the sum of T^2 over the rows
    measured   sums of the objective's `measures`, in their order
    """

    nats: Tensor
    positions: int
    pairs: int
    measured: tuple[float, ...] = ()


class Objective(Protocol):
    """A loss that is a sum over units of rows: supervised tokens, or pairs. `measures` are logged with it."""

    @property
    def measures(self) -> tuple[str, ...]: ...

    def units(self, rows: Sequence[Row]) -> int: ...

    def __call__(self, model: Llama, rows: Sequence[Row]) -> BatchLoss: ...


@dataclass(frozen=True)
class NextToken:
    """-log p of every supervised token; the units are these tokens.

    skips_unlearned: rows of which nothing is learned (`data.exclude`) are not computed, since their gradient is zero.
    """

    skips_unlearned: bool = False
    measures: tuple[str, ...] = ()

    def units(self, rows: Sequence[Row]) -> int:
        """Supervised tokens."""
        return sum(row.supervised for row in rows)

    def __call__(self, model: Llama, rows: Sequence[Row]) -> BatchLoss:
        computed = [row for row in rows if row.supervised or not self.skips_unlearned]
        nats, positions = self.batch_loss(model, computed)
        return BatchLoss(nats, positions, positions * max(map(len, computed), default=0))

    def batch_loss(self, model: Llama, rows: list[Row]) -> tuple[Tensor, int]:
        """Nats of the supervised tokens of a batch, and the positions computed for it."""
        return batch_loss(model, rows)


NEXT_TOKEN: Objective = NextToken()


@dataclass
class StepState:
    """Sums over the batches of a step so far; their gradient is in the parameters."""

    batch: int = 0
    nats: float = 0.0
    positions: int = 0
    pairs: int = 0
    seconds: float = 0.0
    measured: tuple[float, ...] = ()

    @property
    def sums(self) -> list[float]:
        """Everything that is added up over processes."""
        return [self.nats, float(self.positions), float(self.pairs), *self.measured]

    def with_sums(self, sums: Sequence[float]) -> "StepState":
        """This with other `sums`."""
        nats, positions, pairs, *measured = sums
        return replace(self, nats=nats, positions=int(positions), pairs=int(pairs), measured=tuple(measured))

    def summed(self, team: SingleProcess) -> "StepState":
        """That of all processes together."""
        return self.with_sums(team.sum(self.sums))


def step_units(objective: Objective, batches: StepBatches) -> int:
    """The units of a step; 1 where nothing of it is learned, so that its loss and gradient are 0."""
    return max(1, sum(map(objective.units, batches)))


def accumulate(
    model: Llama,
    batch: list[Row],
    units: int,
    under_way: StepState,
    team: SingleProcess,
    objective: Objective = NEXT_TOKEN,
) -> None:
    """Adds the gradient of one batch, of which this process takes its share of the rows.

    units: of the whole step
    """
    started = time.perf_counter()
    loss = objective(model, team.share(batch))
    (loss.nats / units).backward()
    under_way.nats += loss.nats.item()
    under_way.positions += loss.positions
    under_way.pairs += loss.pairs
    before = under_way.measured or (0.0,) * len(loss.measured)
    under_way.measured = tuple(map(sum, zip(before, loss.measured, strict=True)))
    under_way.batch += 1
    under_way.seconds += time.perf_counter() - started


def batch_loss(model: HiddenStates, rows: list[Row], head_loss: HeadLoss = linear_cross_entropy) -> tuple[Tensor, int]:
    """Nats of the supervised tokens of a batch, and the positions computed for it.

    A batch without rows is one token whose loss is an exact zero: processes that share a model run in step.
    """
    device = model.tok_embeddings.weight.device
    if rows:
        tokens, labels, segments = collate_rows(rows)
    else:
        tokens, labels, segments = torch.zeros(1, 2, dtype=torch.int64), torch.full((1, 2), IGNORED), None
    segments = None if segments is None else segments.to(device)
    nats, _ = next_token_loss(model, tokens.to(device), labels.to(device), segments, head_loss)
    return nats, tokens.numel() if rows else 0


def finish(
    batches: StepBatches,
    under_way: StepState,
    optimizer: AdamW,
    rate: float,
    clip: float,
    team: SingleProcess,
    objective: Objective = NEXT_TOKEN,
) -> dict[str, Any]:
    """The update, and what the step measured: nats a supervised token, gradient norm before clipping, tokens, seconds.

    Of another objective the loss is that of a unit, and its `measures` are means over units.

    `positions` are those computed, filling among them: the share of filling is 1 - tokens / positions; `pairs` are the
    sum of T^2 over rows of T positions. clip: 0 for none. A step that is not finite is "skipped": its row says so, and
    nothing has changed.
    """
    started = time.perf_counter()
    units = step_units(objective, batches)
    total = under_way.summed(team)
    norm = team.clip(optimizer.parameters.values(), clip or math.inf)
    finite = math.isfinite(total.nats) and math.isfinite(norm)
    if finite:
        optimizer.step(rate)
    row: dict[str, Any] = {
        "loss": total.nats / units if finite else None,
        **{
            name: value / units if finite else None
            for name, value in zip(objective.measures, total.measured, strict=True)
        },
        "grad_norm": norm if finite else None,
        "supervised_tokens": sum(row.supervised for batch in batches for row in batch),
        "tokens": sum(len(row) for batch in batches for row in batch),
        "positions": total.positions,
        "pairs": total.pairs,
        "seconds": under_way.seconds + time.perf_counter() - started,
    }
    return row if finite else {**row, "skipped": True}


def first_non_finite(
    model: Llama,
    batches: StepBatches,
    parameters: Mapping[str, nn.Parameter],
    team: SingleProcess,
    objective: Objective,
) -> str:
    """Where a step first stopped being finite: the first layer whose output is not, or else whose gradient is not.

    The gradients must still be there. A gradient flows from the output back, so its first layer is the last.
    """
    found: list[str] = []

    def look(name: str, output: Any) -> None:
        if isinstance(output, Tensor) and not found and not torch.isfinite(output).all():
            found.append(name)

    leaves = [(name, module) for name, module in model.named_modules() if not list(module.children()) and name]
    hooks = [
        module.register_forward_hook(lambda _m, _i, output, name=name: look(name, output)) for name, module in leaves
    ]
    try:
        with torch.no_grad():
            for batch in batches:
                objective(model, team.share(batch))
    finally:
        for hook in hooks:
            hook.remove()
    if found:
        return f"the output of {found[0].removesuffix('.base')}"
    for name, parameter in reversed(list(parameters.items())):
        if parameter.grad is not None and not torch.isfinite(local(parameter.grad)).all():
            return f"the gradient of {name}"
    return "the loss"
