"""Each format's error on the linears of a base, and what it costs in loss, with an interval over documents.

error = sum |W - Q(W)|^2 / sum |W|^2 over all block linears
cost  = nats a token with Q(W) - with W, both in float32 on the same documents    (`metrics.bootstrap`)
"""

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import lowrank
from lowrank.checkpoints.load import load
from lowrank.data.encoding.batching import Example
from lowrank.layers.quant_linear import CastLinear
from lowrank.model.llama import Llama
from lowrank.progress import ProgressBar

from ..grid.cache import CellState, base_sha256
from ..metrics.bootstrap import Interval, paired_interval
from ..metrics.metric import Array, Measure
from ..metrics.perplexity import completion_losses
from .simulated import SimulatedFormat

LOSS = Measure("loss", "loss", better="lower", unit="nats a token")


@dataclass(frozen=True)
class FormatCost:
    """One format: bits a weight, SNR in dB (None where nothing is lost), and the cost in nats a token (None if not
    measured)."""

    name: str
    bits: float
    snr_db: float | None
    cost: Interval | None


@dataclass(frozen=True)
class FormatStudy:
    """All formats on one base; loss is that of full precision."""

    base: str
    documents: int
    loss: float | None
    formats: tuple[FormatCost, ...]

    def ordered(self) -> list[FormatCost]:
        """By their bits."""
        return sorted(self.formats, key=lambda one: one.bits)

    def to_json(self) -> dict[str, Any]:
        """Every figure."""
        return asdict(self)


def study_formats(
    base: str | Path,
    formats: Mapping[str, SimulatedFormat],
    examples: Sequence[Example],
    *,
    state: Path | None = None,
    progress: bool = False,
) -> FormatStudy:
    """The error and the cost of every format on the block linears of a base in full precision

    examples  documents whose answers are scored; none: errors alone
    state     a folder that keeps each format as soon as it is measured: a study that was interrupted goes on there
    The model in float32 and one linear more are held.  Raises ValueError for a base that is stored quantized.
    """
    bench = _Bench(base, examples, state)
    before = bench.side(None).parts if examples else None
    found = []
    for name, format in ProgressBar(formats.items(), "formats", len(formats), unit="format", disable=not progress):
        side = bench.side(format)
        cost = None if before is None else paired_interval(LOSS, before, side.parts)
        found.append(FormatCost(name, format.bits, side.snr_db, cost))
    loss = None if before is None else float(LOSS.value(before))
    return FormatStudy(str(base), len(examples), loss, tuple(found))


@dataclass(frozen=True)
class _Side:
    """The measurement of a format: SNR in dB (None where nothing is lost), and nats and tokens [documents, 2]."""

    snr_db: float | None
    parts: Array


class _Bench:
    """A base and its documents; a format that is in `state` is read back, and the model loaded for the first that is
    not."""

    def __init__(self, base: str | Path, examples: Sequence[Example], state: Path | None) -> None:
        self.base, self.examples, self.state = base, examples, state

    @cached_property
    def _model(self) -> Llama:
        return load(self.base, "fp32")

    @cached_property
    def _identity(self) -> dict[str, Any]:
        documents = [[example.tokens, example.labels] for example in self.examples]
        return {
            "study": "formats",
            "lowrank": lowrank.__version__,
            "torch": torch.__version__,
            "base": base_sha256(Path(self.base)),
            "documents": hashlib.sha256(json.dumps(documents).encode()).hexdigest(),
        }

    def side(self, format: SimulatedFormat | None) -> _Side:
        """A format's; of None, full precision's."""
        if self.state is None:
            return self._measured(format)
        cell = CellState(self.state, {**self._identity, "format": format.name if format else "fp32"})
        rows = cell.read(0)
        if rows is None:
            side = self._measured(format)
            rows = [{"snr_db": side.snr_db}, *({"nats": nats, "tokens": int(tokens)} for nats, tokens in side.parts)]
            cell.write(0, rows)
        parts = np.array([[row["nats"], row["tokens"]] for row in rows[1:]], dtype=float).reshape(-1, 2)
        return _Side(rows[0]["snr_db"], parts)

    def _measured(self, format: SimulatedFormat | None) -> _Side:
        if format is None:
            return _Side(None, nats(self._model, self.examples))
        return _Side(*measure(self._model, lambda _, w: format.apply(w), self.examples))


def measure(
    model: Llama, change: Callable[[str, Tensor], Tensor], examples: Sequence[Example]
) -> tuple[float | None, Array]:
    """(SNR in dB, nats and tokens of each example) of a model whose block linears are changed, which are then as before

    The SNR is None where nothing is lost.
    change  (path, W) -> Q(W)
    """
    linears = block_linears(model)
    kept: dict[str, Tensor] = {}
    off = energy = 0.0
    for path, linear in linears.items():
        w = linear.weight.data
        changed = change(path, w)
        off += float((w - changed).double().square().sum())
        energy += float(w.double().square().sum())
        if examples:
            kept[path], linear.weight.data = w, changed
    parts = nats(model, examples)
    for path, w in kept.items():
        linears[path].weight.data = w
    return (10 * math.log10(energy / off) if off else None), parts


def block_linears(model: Llama) -> dict[str, CastLinear]:
    """The dense linears of the blocks by their path."""
    return {
        path: module
        for path, module in model.named_modules()
        if path.startswith("layers.") and isinstance(module, CastLinear)
    }


def nats(model: Llama, examples: Sequence[Example]) -> Array:
    """[documents, 2]: nats and tokens"""
    order = sorted(range(len(examples)), key=lambda index: len(examples[index]))  # little padding in a batch
    parts = np.zeros((len(examples), 2))
    with torch.inference_mode():
        parts[order, 0] = completion_losses(model, [examples[index] for index in order], batch_size=4)
    parts[:, 1] = [example.supervised for example in examples]
    return parts
