"""One training run: a base, a hat, entries to learn, and a folder with the hat, the log and the checkpoints.

It has two phases: `Trainer` sets up everything, new or from a checkpoint; `Trainer.run` trains and writes.
"""

import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lowrank.adapters import adapter_parameters, layer_configs, use_adapter
from lowrank.adapters.starts import as_active, start_parameters
from lowrank.atomic_io import write_json
from lowrank.data.encoding.batching import Example
from lowrank.layers.recompute import SelectiveOps
from lowrank.model.llama import Llama

from .assemble import (
    new_adapter,
    new_objective,
    new_optimizer,
    parameters_sha256,
    path_differences,
    paths_of,
    save_trained_adapter,
    single_process,
)
from .batch_schedule import BatchSchedule, StepBatches
from .checkpoint import Checkpoints, Cursor
from .config import TrainConfig
from .merge_aware import MergeAware
from .monitor import HeldOut, NullMonitor, Watch
from .parallel.single import SingleProcess
from .prepared_model import PreparedModel
from .resume.folder import ADAPTER, BEST, CONFIG, Resume, clear, is_asked_to_stop, is_going_on, locked
from .resume.identity import check_same_run, identity
from .resume.phases import Phase, phases_of_checkpoint
from .resume.signals import RunStopped, StopSignals
from .step import StepState, accumulate, finish, first_non_finite, step_units

Row = dict[str, Any]
Monitor = Watch | NullMonitor


def train(
    model: Llama,
    examples: Sequence[Example],
    config: TrainConfig,
    *,
    resume: Resume = False,
    overwrite: bool = False,
    notes: dict[str, Any] | None = None,
    held_out: HeldOut | None = None,
    progress: bool = True,
    limit_tflops: float | None = None,
    team: SingleProcess | None = None,
    is_locked: bool = False,
) -> list[Row]:
    """Trains the hat that `config` describes on a frozen base, and leaves it in use; returns the rows of the log.

    Writes OUT/train.jsonl, OUT/checkpoints/, OUT/config.json and the hat in OUT/hat, with `notes` in its provenance;
    where something is held out, also OUT/held_out.jsonl and the best hat in OUT/hat-best. `resume` goes on from the
    newest checkpoint: losses and weights are bit for bit those of a run that was not stopped; "auto" begins where there
    is none. limit_tflops: of this machine, for the share of it that is shown. team: the processes that train together.
    is_locked: the caller has the lock of the folder (`resume.folder.locked`).
    Raises ValueError for nothing to resume, a run in OUT that is neither to be resumed nor overwritten, or another
    process that trains into it; FloatingPointError naming the layer where too many steps in a row were not finite;
    OSError for a full disk; RunStopped after a signal, with a checkpoint of that moment.
    """
    team, out = team or single_process(config), Path(config.run.out)
    with nullcontext() if is_locked or not team.is_first else locked(out):
        resumed = is_going_on(out, resume, overwrite)
        run = Trainer(
            model,
            examples,
            config,
            resume="auto" if resume == "auto" and resumed else resumed,
            notes=notes,
            held_out=held_out,
            team=team,
        )
        run.begin()
        watching = Watch if team.is_first else NullMonitor
        with (
            StopSignals() as signals,
            run.prepared(),
            watching(out, config, run.steps, model.config, run.log, progress, limit_tflops) as watch,
        ):
            run.run(watch, signals)
        run.save_adapter_to(ADAPTER)
    return run.log


class Trainer:
    """A run, set up: what a checkpoint holds, and the objects that it is put back into.

    resume: True or "auto" for its newest checkpoint, of which "auto" passes over those that are damaged.
    Raises ValueError for a checkpoint that is damaged or of another run.
    """

    def __init__(
        self,
        model: Llama,
        examples: Sequence[Example],
        config: TrainConfig,
        *,
        resume: Resume = False,
        notes: dict[str, Any] | None = None,
        held_out: HeldOut | None = None,
        team: SingleProcess | None = None,
    ) -> None:
        self.model, self.config, self.held_out = model, config, held_out
        self.notes = notes or {}
        self.out = Path(config.run.out)
        self.team = team or single_process(config)
        self.schedule = BatchSchedule.of(examples, config)
        self.phases = [Phase.of(config, 0, self.schedule.steps)]
        self.checkpoints = Checkpoints(self.out, config.run.keep, self.team)
        self.is_resumed = bool(resume)
        torch.manual_seed(config.run.seed)
        self.paths = paths_of(model, config)
        self.identity = identity(model, examples, config)
        self.counter = new_adapter(model, config)
        self.objective = new_objective(config)
        if config.adapter.from_:
            self.identity["adapter.from"] = parameters_sha256(adapter_parameters(model, config.adapter.name))
        self.team.shard_model(model)
        self.parameters = adapter_parameters(model, config.adapter.name)
        self.merge_aware: MergeAware | None = None
        if config.adapter.merge_aware:
            table = config.adapter
            self.merge_aware = MergeAware(model, table.name, table.merge_aware, table.requantize_every)
        self.optimizer = new_optimizer(self.parameters, config, self.team)
        self.log: list[Row] = []
        self.cursor, self.under_way = Cursor(), StepState()
        self.skipped = 0  # steps in a row
        self.best: tuple[float, int] | None = None  # held-out loss, and after how many steps
        self.saved = time.monotonic()
        self.early_reason = ""  # of an end before the last step
        if resume:
            self._restore(*self.checkpoints.load(pass_over_damaged=resume == "auto"))

    @property
    def steps(self) -> int:
        """Steps after which the run ends, unless it is ended before."""
        return self.phases[-1].end

    # Training

    def prepared(self) -> PreparedModel:
        """The model as it trains, for a `with` block."""
        return PreparedModel(self.model, self.config.run.recompute)

    def run(self, watch: Monitor, signals: StopSignals) -> None:
        """Trains to the end, or until it is asked to stop, after `begin`; the model must be `prepared`.

        Raises RunStopped after a signal.
        """
        if self.cursor.step:
            self.early_reason = self._find_early_reason()
        for number, batches in self.schedule.from_step(self.cursor.step):
            if self.is_ended():
                break
            self.step(number, batches, watch, signals)
        if self.early_reason and self.team.is_first:
            print(f"{self.out}: ends after {self.cursor.step:,} of {self.steps:,} steps: {self.early_reason}")

    def begin(self) -> None:
        """Clears the folder for a run that begins, and writes its config."""
        self.team.wait()  # all have seen what was there
        if self.team.is_first:
            if not self.is_resumed:
                clear(self.out)
            self.out.mkdir(parents=True, exist_ok=True)
            write_json(self.out / CONFIG, self.config.to_dict())
        self.team.wait()

    def step(self, number: int, batches: StepBatches, watch: Monitor, signals: StopSignals | None = None) -> None:
        """One step, from where it is under way."""
        signals = signals or StopSignals()
        units = step_units(self.objective, batches)
        recompute = self.model.norm.ops
        kept = recompute.hooks if isinstance(recompute, SelectiveOps) else nullcontext
        while self.under_way.batch < len(batches):
            self.begin_batch(number)
            batch = batches[self.under_way.batch]
            with kept():
                accumulate(self.model, batch, units, self.under_way, self.team, self.objective)
            if self.under_way.batch < len(batches):
                self.pause(signals, is_due=False)
        self.end_step(number, batches, watch, signals)

    def activate(self) -> None:
        """Makes its hat the active one, where there are others: in a sweep."""
        use_adapter(self.model, as_active(self.config.adapter.name, self.config.adapter.start))

    def begin_batch(self, number: int) -> None:
        """Tells the dropout which batch of the run comes next, of step `number`."""
        batch = number * self.config.run.accumulate + self.under_way.batch
        self.counter.batch = batch * self.team.size + self.team.rank

    def end_step(self, number: int, batches: StepBatches, watch: Monitor, signals: StopSignals) -> None:
        """The update of a step whose batches are done, its row of the log, and what is then due."""
        rate = self.phases[-1].rate(number)
        clip = self.config.optimizer.clip
        measured = finish(batches, self.under_way, self.optimizer, rate, clip, self.team, self.objective)
        self.log.append({"step": number + 1, "lr": rate, **measured})
        self._skip(batches, measured)
        if self.merge_aware is not None:
            is_measured = self.held_out is not None and self.held_out.is_due(number + 1, self.steps)
            self.merge_aware.after_step(number + 1, number + 1 == self.steps or is_measured)
        self.cursor, self.under_way = Cursor(number + 1), StepState()
        improved = self._measure(watch)
        watch.step(self.log[-1])
        self.early_reason = self._find_early_reason()
        is_due = (number + 1) % self.config.run.checkpoint_every == 0
        self.pause(signals, is_due=self.is_ended() or improved or is_due)

    def pause(self, signals: StopSignals, is_due: bool) -> None:
        """Between two batches: a checkpoint if one is due, by the count, the clock, or a signal to any process.

        Raises RunStopped after a signal, but for a run that is at its end.
        """
        minutes = self.config.run.checkpoint_minutes
        is_late = self.team.is_first and minutes > 0 and time.monotonic() - self.saved >= 60 * minutes
        received, late = (count > 0 for count in self.team.sum([float(bool(signals.received)), float(is_late)]))
        if is_due or received or late:
            self.save()
        if received and not self.is_ended():
            batch = f" and {self.under_way.batch} batches" if self.under_way.batch else ""
            raise RunStopped(
                f"{self.out}: stopped by {signals.received or 'a signal to another process'} after "
                f"{self.cursor.step:,} of {self.steps:,} steps{batch}, with a checkpoint"
            )

    def is_ended(self) -> bool:
        """True between steps if none follows: all are done, or the run is to end here with its hat."""
        return not self.under_way.batch and (self.cursor.step >= self.steps or bool(self.early_reason))

    def _find_early_reason(self) -> str:
        """Why the run ends after this step, which is not its last; "" if it does not."""
        if self.cursor.step >= self.steps:
            return ""
        patience = self.config.watch.patience
        if patience and self.best is not None:
            tried = sum("held_out_loss" in row for row in self.log[self.best[1] :])
            if tried >= patience:
                return f"no better held-out loss than after step {self.best[1]:,} (watch.patience = {patience})"
        return "asked to stop" if self.team.broadcast_bool(is_asked_to_stop(self.out)) else ""

    def _skip(self, batches: StepBatches, measured: Row) -> None:
        """Counts a step that was skipped, and stops the run after too many in a row."""
        if "skipped" not in measured:
            self.skipped = 0
            return
        self.skipped += 1
        if self.skipped > self.config.optimizer.max_skipped:
            self.activate()
            source = first_non_finite(self.model, batches, self.parameters, self.team, self.objective)
            raise FloatingPointError(
                f"step {self.log[-1]['step']}: {source} is not finite, {self.skipped} steps in a row (optimizer."
                f"max_skipped = {self.config.optimizer.max_skipped}): the hat is as it was before them"
            )
        for parameter in self.parameters.values():
            parameter.grad = None

    def _measure(self, watch: Monitor) -> bool:
        """The held-out loss, where it is time; whether it is the best so far, whose hat is then kept."""
        if self.held_out is None or not self.held_out.is_due(self.cursor.step, self.steps):
            return False
        self.activate()
        row = self.held_out.measure(self.model, self.cursor.step, self.team, self.objective)
        self.log[-1]["held_out_loss"] = row["loss"]
        watch.held_out(row)
        improved = self.best is None or row["loss"] < self.best[0]
        if improved:
            self.best = (row["loss"], self.cursor.step)
            self.save_adapter_to(BEST)
        return improved

    # Its files

    def save_adapter_to(self, folder: str) -> None:
        """The hat as it is now, with its provenance, in a folder of the run."""
        save_trained_adapter(self.model, self.config.adapter.name, self.out / folder, self._record(), self.team)

    def _record(self) -> dict[str, Any]:
        notes = {**self.notes, "training": self.config.to_dict(), "steps": self.cursor.step}
        if len(self.phases) > 1:
            notes["phases"] = [phase.to_json() for phase in self.phases]
        if self.early_reason:
            notes["ended_early"] = {"of_steps": self.steps, "reason": self.early_reason}
        return notes

    def save(self) -> None:
        """A checkpoint of this moment."""
        cursor = Cursor(self.cursor.step, self.under_way.batch)
        best = None if self.best is None else Cursor(self.best[1])
        self.checkpoints.save(cursor, self._state(), self._tensors(), self._gradients(), best)
        self.saved = time.monotonic()

    def _state(self) -> dict[str, Any]:
        half = self.under_way
        options = layer_configs(self.model, self.config.adapter.name)
        return {
            "identity": self.identity,
            "phases": [phase.to_json() for phase in self.phases],
            "paths": self.paths,
            "optimizer_steps": self.optimizer.steps,
            "under_way": {"seconds": half.seconds, "each": self.team.all_gather(half.sums)},
            "log": self.log,
            "skipped": self.skipped,
            "best": self.best,
            "config": self.config.to_dict(),
            "source": self.model.source,
            "layers": {path: asdict(one) for path, one in options.items()},
            "notes": self._record(),
        }

    def _tensors(self) -> dict[str, Tensor]:
        """Every tensor of a checkpoint as it is held, to be written, or to be written over."""
        tensors = {f"adapter.{name}": parameter.detach() for name, parameter in self.parameters.items()}
        start = start_parameters(self.model, self.config.adapter.name)
        tensors |= {f"start.{name}": parameter.detach() for name, parameter in start.items()}
        tensors |= {} if self.merge_aware is None else self.merge_aware.tensors()
        kept = {name: self.team.as_sharded(*pair) for name, pair in self.optimizer.saved().items()}
        return {**tensors, **kept}

    def _gradients(self) -> dict[str, Tensor]:
        """The gradients of a step that is half done: this process's own where each has the whole model."""
        return {f"gradient.{name}": p.grad for name, p in self.parameters.items() if p.grad is not None}

    def _restore(self, state: dict[str, Any], path: Path) -> None:
        """Half a step is saved as each process had it: as many go on bit for bit, others from sums of what there is."""
        check_same_run(state["identity"], self.identity, path)
        self.cursor = Cursor(state["cursor"][0])
        (planned,) = self.phases
        self.phases, note = phases_of_checkpoint(state, planned, self.cursor.step, str(path))
        if note and self.team.is_first:
            print(f"resume: {note}")
        if self.team.is_first and (other := path_differences(state.get("paths", self.paths), self.paths)):
            print(f"resume: {path.name} was computed on other paths, so bits will differ: {other}")
        each, seconds = state["under_way"]["each"], state["under_way"]["seconds"]
        columns = zip([0.0] * len(each[0]), *self.team.share(each), strict=True)
        self.under_way = StepState(state["cursor"][1], seconds=seconds).with_sums([sum(column) for column in columns])
        self.log, self.skipped, self.best = state["log"], state["skipped"], state["best"]
        self.optimizer.steps = state["optimizer_steps"]
        if self.under_way.batch:
            for parameter in self.parameters.values():
                parameter.grad = torch.zeros_like(parameter)
        tensors = self._tensors()
        self.checkpoints.fill(state, path, tensors, self._gradients())
        self.optimizer.take(tensors)
        if self.merge_aware is not None:
            self.merge_aware.round_then()
