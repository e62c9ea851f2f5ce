"""From products of gradients to the loss that a test document would have had without a training document.

Step t of a run goes by r_t, the sum over its documents j, and the hat's numbers:

    G = sum_j g_j / S,    S = sum_j S_j supervised tokens,    theta = theta - r_t D G

Without document i, which keeps its place with a loss of weight 0 (`data.exclude`), G becomes (S G - g_i) / (S - S_i),
and to first order the nats of a test document z change by

    effect[z, i] = sum over steps t that have i of r_t (g_z^T D g_i - S_i g_z^T D G) / (S - S_i)

above 0 where i helped z. The gradients are those at the kept checkpoint nearest to the end of the step (TracInCP, arXiv
2002.08484, with the mean over tokens as the run takes it). What later steps make of a change is left out.

    sgd    D = the rates of LoRA+, 1 without;   r_t = the rate of the step
    adam   D = these over sqrt(v / (1 - b2^n)) + eps, of the checkpoint's n steps (LESS, arXiv 2402.04333);
           r_t = sum over steps s >= t of rate_s (1 - b1) b1^(s - t) / (1 - b1^(s + 1)): the momentum carries t on

both times the share that clipping left of the step's gradient.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from lowrank.data.encoding.batching import Example
from lowrank.eval.metrics.metric import Array

from ..batch_schedule import BatchSchedule
from ..config import TrainConfig
from .gradients import Products

Method = Literal["adam", "sgd"]
METHODS: tuple[Method, ...] = ("adam", "sgd")


@dataclass(frozen=True)
class StepUse:
    """A step that changed the hat.

    checkpoint  steps of the kept checkpoint that stands for it
    rates       r_t, times the share that clipping left, by method
    documents   places of its documents among those of the run
    """

    checkpoint: int
    rates: Mapping[Method, float]
    documents: tuple[int, ...]


def steps_taken(
    documents: Sequence[Example],
    examples: Sequence[Example],
    config: TrainConfig,
    log: Sequence[Mapping[str, Any]],
    kept: Sequence[int],
) -> list[StepUse]:
    """The steps of a run that were not skipped

    documents  the examples, each once;  examples: as the run has them, some twice or more
    log        a row a step: lr, grad_norm, skipped;  kept: steps of each kept checkpoint
    """
    places = {example: place for place, example in enumerate(documents)}
    taken = [
        (number, tuple(places[one] for batch in batches for row in batch for one in row.examples))
        for number, batches in BatchSchedule.of(examples, config).from_step(0)
        if number < len(log) and "skipped" not in log[number]
    ]
    rates = np.array([log[number]["lr"] for number, _ in taken])
    b1, clip = config.optimizer.betas[0], config.optimizer.clip
    carried = rates * (1 - b1) / (1 - b1 ** np.arange(1, len(taken) + 1))
    for place in reversed(range(len(taken) - 1)):
        carried[place] = carried[place] if b1 == 0 else carried[place] + b1 * carried[place + 1]
    uses = []
    for place, (number, members) in enumerate(taken):
        left = min(1.0, clip / (log[number]["grad_norm"] + 1e-6)) if clip else 1.0
        nearest = _nearest(kept, number + 1)
        by_method: dict[Method, float] = {"adam": left * carried[place], "sgd": left * rates[place]}
        uses.append(StepUse(nearest, by_method, members))
    return uses


def _nearest(kept: Sequence[int], steps: int) -> int:
    return min(kept, key=lambda one: abs(one - steps))


def effects(
    steps: Sequence[StepUse], products: Mapping[int, Products], tokens: Sequence[int], method: Method
) -> tuple[Array, Array]:
    """(effect [M, N], self-influence [N]) in nats

    products  by the steps of the checkpoint;  tokens: S_i of every training document
    The self-influence of a document is sum over its steps of r_t g_i^T D g_i / S: what it taught of itself.
    """
    first = next(iter(products.values()))
    found, own = np.zeros_like(first.between), np.zeros_like(first.own)
    supervised = np.array(tokens, dtype=np.float64)
    for step in steps:
        at, members = products[step.checkpoint], np.array(step.documents)
        total, rate = supervised[members].sum(), step.rates[method]
        if not total:
            continue
        mean = at.between[:, members].sum(1) / total
        for place in members:
            rest = total - supervised[place]
            alone = at.between[:, place] - supervised[place] * mean
            found[:, place] += rate * (alone / rest if rest else mean)
            own[place] += rate * at.own[place] / total
    return found, own
