"""A sweep: every hat is a run of its own (`Trainer`), and their batches are computed together.

    OUT/sweep.json                what is swept, and the points
    OUT/POINT/                    a run as `lowrank train` leaves it: hat, log, checkpoints, config
    OUT/results.json, sweep.html  the comparison

Order of the data, seed, schedule, clipping, optimizer, held-out measurements and early end are each hat's own, so a hat
is the one that its config trains by itself, to the rounding of sums that the number of rows in a product can change.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lowrank.adapters import adapter_parameters, adapter_rows, layer_configs, lora_layers, use_adapter
from lowrank.atomic_io import write_json
from lowrank.checkpoints.embedded import base_folder
from lowrank.checkpoints.load import load, load_tokenizer
from lowrank.eval.metrics.perplexity import completion_losses
from lowrank.kernels.weights.quantized_weight import DENSE_DTYPES
from lowrank.layers.dropout_seed import DropoutSeed
from lowrank.layers.recompute import SelectiveOps
from lowrank.model.config_json import read_json
from lowrank.model.llama import Llama
from lowrank.progress import ProgressBar

from ..batch_schedule import StepBatches
from ..checkpoint import Checkpoints
from ..data import RunData
from ..from_config import notes_of
from ..monitor import HeldOut, NullMonitor, Watch
from ..plan.flops import peak_bytes
from ..prepared_model import PreparedModel
from ..resume.folder import ADAPTER, locked
from ..resume.signals import RunStopped, StopSignals
from ..step import NEXT_TOKEN, accumulate, step_units
from ..trainer import Trainer
from .axes import Point, Sweep
from .plan import groups, positions_of
from .together import AdapterBatch, active_together, losses_together

SWEEP, RESULTS, PAGE = "sweep.json", "results.json", "sweep.html"
POSITIONS = 640  # that are computed together: more make no product faster, and keep more activations


@dataclass
class SweptAdapter:
    """A point, its run, and the step that it is in."""

    point: Point
    run: Trainer
    watch: Watch | NullMonitor
    steps: Iterator[tuple[int, StepBatches]]
    number: int = 0
    batches: StepBatches | None = None  # None: it has ended
    failed: str = ""

    def advance(self) -> None:
        """On to the next step, or to the end."""
        self.batches = None
        if not self.run.is_ended() and (following := next(self.steps, None)):
            self.number, self.batches = following

    @property
    def batch(self) -> list[Any]:
        """The rows that come next."""
        assert self.batches is not None
        return self.batches[self.run.under_way.batch]


def check_folder(sweep: Sweep, resume: bool, overwrite: bool) -> None:
    """Raises ValueError for a folder that holds another sweep or run, and for nothing to resume."""
    record = sweep.out / SWEEP
    if sweep.out.exists() and not sweep.out.is_dir():
        raise ValueError(f"{sweep.out}: is a file, and run.out must be a folder")
    if not record.is_file():
        if resume:
            raise ValueError(f"{record}: no such sweep, so there is nothing to resume")
        if any((sweep.out / name).exists() for name in ("config.json", ADAPTER)):
            raise ValueError(f"{sweep.out}: holds a run: name another run.out")
        return
    if not (resume or overwrite):
        raise ValueError(f"{sweep.out}: holds a sweep already: resume it, overwrite it, or name another run.out")
    stored = read_json(record).get("axes")
    if resume and stored != _record(sweep)["axes"]:
        raise ValueError(f"{record}: is a sweep of {stored}, not of {_record(sweep)['axes']}")


def train_together(
    sweep: Sweep,
    data: RunData,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
    at_once: int = POSITIONS,
) -> tuple[list[SweptAdapter], list[list[float]], dict[str, Any]]:
    """Trains every hat; returns them, the nats of each held-out entry under each hat, and what it took.

    A hat whose loss is not finite too many times in a row ends without the others, with the reason.
    Raises RunStopped after a signal, with a checkpoint of every hat; ValueError as `train` does.
    """
    check_folder(sweep, resume, overwrite)
    config, started = sweep.config, time.monotonic()
    folder = base_folder(config.base.path)
    tokenizer = load_tokenizer(folder)
    held_out = HeldOut(data.held_out, tokenizer, config.watch.every, config.watch.samples)
    with ExitStack() as stack:
        for place in (sweep.out, *(point.out for point in sweep.points)):
            stack.enter_context(locked(place))
        dtype, device = DENSE_DTYPES.get(config.base.dtype), config.base.device
        model = load(folder, config.base.weights or None, dtype, device, progress=progress)
        write_json(sweep.out / SWEEP, _record(sweep))
        adapters = []
        for point in sweep.points:
            goes_on = resume and bool(Checkpoints(point.out, 1).cursors())
            notes = notes_of(point.config, data, tokenizer)
            run = Trainer(model, data.examples, point.config, resume=goes_on, notes=notes, held_out=held_out)
            run.begin()
            for number, path in enumerate(layer_configs(model, point.config.adapter.name)):
                stream = DropoutSeed(run.counter, number)
                lora_layers(model)[path].dropout_streams[point.config.adapter.name] = stream
            watch = stack.enter_context(Watch(point.out, point.config, run.steps, model.config, run.log, False, None))
            adapters.append(SweptAdapter(point, run, watch, run.schedule.from_step(run.cursor.step)))
        if adapter_rows(model):
            raise ValueError("adapter.from: a hat with rows of the embedding or head is not swept: it is worn alone")
        signals = stack.enter_context(StopSignals())
        stack.enter_context(PreparedModel(model, config.run.recompute))
        total, done = (
            sum(adapter.run.steps for adapter in adapters),
            sum(adapter.run.cursor.step for adapter in adapters),
        )
        bar = ProgressBar(
            total=total, initial=done, desc=f"sweep of {len(adapters)} hats", unit="step", disable=not progress
        )
        stack.callback(bar.close)
        _train(sweep.out, model, adapters, signals, at_once, bar)
        figures = {
            "seconds": time.monotonic() - started,
            "peak_bytes": peak_bytes(torch.device(device)),
            "parameters": [
                sum(
                    parameter.numel()
                    for parameter in adapter_parameters(model, adapter.point.config.adapter.name).values()
                )
                for adapter in adapters
            ],
        }
    losses = []
    for adapter in adapters:
        use_adapter(model, adapter.point.config.adapter.name)
        losses.append(completion_losses(model, data.held_out) if not adapter.failed else [])
    return adapters, losses, figures


def _train(
    out: Path, model: Llama, adapters: Sequence[SweptAdapter], signals: StopSignals, at_once: int, bar: ProgressBar
) -> None:
    """Pass by pass: the next batch of every hat that has one."""
    for adapter in adapters:
        adapter.advance()
        if adapter.batches is None:
            adapter.run.save_adapter_to(ADAPTER)
    while going := [adapter for adapter in adapters if adapter.batches is not None]:
        for group in groups([positions_of(adapter.batch) for adapter in going], at_once):
            members = [going[number] for number in group]
            train_pass(model, members)
            for adapter in members:
                _after_batch(adapter, bar)
        if signals.received and (unfinished := [adapter for adapter in adapters if adapter.batches is not None]):
            for adapter in unfinished:
                adapter.run.save()
            raise RunStopped(
                f"{out}: stopped by {signals.received}: {len(unfinished)} of {len(adapters)} hats have a checkpoint of "
                "this moment, the others are done"
            )


def train_pass(model: Llama, members: Sequence[SweptAdapter]) -> None:
    """Adds the gradient of the next batch of every member (`step.accumulate` for one hat)."""
    started = time.perf_counter()
    device = model.tok_embeddings.weight.device
    members = sorted(members, key=_shape)
    if len(members) == 1:
        _pass_alone(model, members[0])
        return
    batches = [AdapterBatch.of(adapter.point.config.adapter.name, adapter.batch, device) for adapter in members]
    units = []
    for adapter in members:
        assert adapter.batches is not None
        adapter.run.begin_batch(adapter.number)
        units.append(step_units(NEXT_TOKEN, adapter.batches))
    ops = model.norm.ops
    kept = ops.hooks() if isinstance(ops, SelectiveOps) else nullcontext()
    with active_together(model, batches), kept:
        nats = losses_together(model, batches)
        torch.stack([nats_of_one / count for nats_of_one, count in zip(nats, units, strict=True)]).sum().backward()
    seconds, total = time.perf_counter() - started, sum(batch.tokens.numel() for batch in batches)
    for adapter, nats_of_one in zip(members, nats, strict=True):
        state, positions = adapter.run.under_way, positions_of(adapter.batch)
        state.nats += nats_of_one.item()
        state.positions += positions
        state.pairs += positions * max(map(len, adapter.batch))
        state.seconds += seconds * batches[members.index(adapter)].tokens.numel() / total
        state.batch += 1


def _pass_alone(model: Llama, adapter: SweptAdapter) -> None:
    """The pass of a batch that fills one: by the code, and to the bits, of a run of its own."""
    assert adapter.batches is not None
    run, name = adapter.run, adapter.point.config.adapter.name
    run.activate()
    run.begin_batch(adapter.number)
    for layer in lora_layers(model).values():
        layer.dropout_stream = layer.dropout_streams.get(name)
    units = step_units(NEXT_TOKEN, adapter.batches)
    ops = model.norm.ops
    with ops.hooks() if isinstance(ops, SelectiveOps) else nullcontext():
        accumulate(model, adapter.batch, units, run.under_way, run.team)


def _shape(adapter: SweptAdapter) -> tuple[int, ...]:
    """Hats whose batches and ranks have one shape stand together: their products are batched."""
    return adapter.point.config.adapter.rank, len(adapter.batch), max(map(len, adapter.batch))


def _after_batch(adapter: SweptAdapter, bar: ProgressBar) -> None:
    """The update, if that was the last batch of its step; the hat's files, if that was its last step."""
    assert adapter.batches is not None
    if adapter.run.under_way.batch < len(adapter.batches):
        adapter.run.pause(StopSignals(), is_due=False)
        return
    try:
        adapter.run.end_step(adapter.number, adapter.batches, adapter.watch, StopSignals())
    except FloatingPointError as error:
        adapter.failed, adapter.batches = str(error), None
        return
    bar.update()
    adapter.advance()
    if adapter.batches is None:
        adapter.run.save_adapter_to(ADAPTER)


def _record(sweep: Sweep) -> dict[str, Any]:
    """sweep.json"""
    points = [{"name": point.name, "values": dict(point.values)} for point in sweep.points]
    return {"axes": {key: list(values) for key, values in sweep.axes.items()}, "points": points}
