"""Each format's error on the linears of a base, and what it costs in loss, with an interval over documents.

error = sum |W - Q(W)|^2 / sum |W|^2 over all block linears
cost  = nats a token with Q(W) - with W, both in float32 on the same documents    (`metrics.bootstrap`)
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lowrank.checkpoints.load import load
from lowrank.data.encoding.batching import Example
from lowrank.layers.quant_linear import CastLinear
from lowrank.model.llama import Llama
from lowrank.progress import ProgressBar
from lowrank.text_table import table

from ..metrics.bootstrap import Interval, paired_interval
from ..metrics.metric import Array, Measure
from ..metrics.perplexity import completion_losses
from .simulated import SimulatedFormat

LOSS = Measure("loss", "loss", better="lower", unit="nats a token")


@dataclass(frozen=True)
class FormatCost:
    """One format: bits a weight, SNR in dB, and the cost in nats a token; None where no loss was measured."""

    name: str
    bits: float
    snr_db: float
    cost: Interval | None


@dataclass(frozen=True)
class FormatStudy:
    """All formats on one base; loss is that of full precision."""

    base: str
    documents: int
    loss: float | None
    formats: tuple[FormatCost, ...]

    def table(self) -> str:
        """A row a format, in plain text; intervals of 95 %."""
        rows = []
        for one in sorted(self.formats, key=lambda one: one.bits):
            cost = one.cost
            shown_cost = f"{cost.difference:+.4f} [{cost.low:+.4f}, {cost.high:+.4f}]" if cost else "-"
            rows.append((one.name, f"{one.bits:.3f}", f"{one.snr_db:.2f}", shown_cost))
        return table(rows, ("format", "bits", "SNR, dB", "cost, nats a token"))

    def to_json(self) -> dict[str, Any]:
        """Every figure."""
        return asdict(self)


def study_formats(
    base: str | Path, formats: Mapping[str, SimulatedFormat], examples: Sequence[Example], *, progress: bool = False
) -> FormatStudy:
    """The error and the cost of every format on the block linears of a base in full precision

    examples  documents whose answers are scored; none: errors alone
    The model in float32 and one linear more are held.  Raises ValueError for a base that is stored quantized.
    """
    model = load(base, "fp32")
    before = nats(model, examples) if examples else None
    found = []
    for name, format in ProgressBar(formats.items(), "formats", len(formats), unit="format", disable=not progress):

        def change(_: str, w: Tensor, format: SimulatedFormat = format) -> Tensor:
            return format.apply(w)

        snr_db, cost = measure(model, change, examples, before)
        found.append(FormatCost(name, format.bits, snr_db, cost))
    loss = None if before is None else float(LOSS.value(before))
    return FormatStudy(str(base), len(examples), loss, tuple(found))


def measure(
    model: Llama, change: Callable[[str, Tensor], Tensor], examples: Sequence[Example], before: Array | None
) -> tuple[float, Interval | None]:
    """(SNR in dB, cost) of a model whose block linears are changed, which are then as they were

    change  (path, W) -> Q(W)
    before  nats and tokens of each example as the model is; None: no loss is measured
    """
    linears = block_linears(model)
    kept: dict[str, Tensor] = {}
    off = energy = 0.0
    for path, linear in linears.items():
        w = linear.weight.data
        changed = change(path, w)
        off += float((w - changed).double().square().sum())
        energy += float(w.double().square().sum())
        if before is not None:
            kept[path], linear.weight.data = w, changed
    cost = None if before is None else paired_interval(LOSS, before, nats(model, examples))
    for path, w in kept.items():
        linears[path].weight.data = w
    return 10 * math.log10(energy / off), cost


def block_linears(model: Llama) -> dict[str, CastLinear]:
    """The dense linears of the blocks by their path."""
    return {
        path: module
        for path, module in model.named_modules()
        if path.startswith("layers.") and isinstance(module, CastLinear)
    }


def nats(model: Llama, examples: Sequence[Example]) -> Array:
    """[documents, 2]: nats and tokens"""
    with torch.inference_mode():
        losses = completion_losses(model, examples, batch_size=4)
    return np.array([[loss, example.supervised] for loss, example in zip(losses, examples, strict=True)])
