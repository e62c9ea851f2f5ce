"""One training run: a base, a new hat, entries to learn, and a folder with the hat, the log and the checkpoints."""

import hashlib
import json
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lowrank.adapters import adapter_parameters, add_adapter, lora_layer, lora_layers, use_adapter
from lowrank.adapters.files import save_adapter
from lowrank.atomic_io import write_json
from lowrank.data.encoding.batching import Example
from lowrank.kernels.cpu import library
from lowrank.kernels.dispatch.explain import paths_in_use
from lowrank.kernels.llama_ops.cpu import CPU_OPS
from lowrank.layers.dropout_seed import BatchCounter, DropoutSeed
from lowrank.layers.quant_linear import QuantLinear
from lowrank.layers.recompute import SelectiveOps, use_ops
from lowrank.model.llama import Llama

from .batch_schedule import BatchSchedule, StepBatches
from .checkpoint import Checkpoints, Cursor
from .config import TrainConfig
from .monitor import HeldOut, NullMonitor, Watch
from .optim import AdamW, learning_rate
from .parallel.single import SingleProcess
from .step import StepState, accumulate, finish, first_non_finite

HAT, BEST = "hat", "hat-best"

Row = dict[str, Any]

# What may differ between a run and the one that goes on with it: nothing that is computed depends on it.
NOT_IN_IDENTITY = (
    *("run.out", "run.checkpoint_every", "run.checkpoint_minutes", "run.keep", "run.parallel"),
    *("base.path", "base.shape", "watch.trackers", "data.entries", "data.tokens", "data.supervised", "data.estimated"),
)


def train(
    model: Llama,
    examples: Sequence[Example],
    config: TrainConfig,
    *,
    resume: bool = False,
    overwrite: bool = False,
    notes: dict[str, Any] | None = None,
    held_out: HeldOut | None = None,
    progress: bool = True,
    limit_tflops: float | None = None,
    team: SingleProcess | None = None,
) -> list[Row]:
    """Trains the hat that `config` describes on a frozen base, and leaves it in use; returns the rows of the log.

    Writes OUT/train.jsonl, OUT/checkpoints/, OUT/config.json and the hat in OUT/hat, with `notes` in its provenance;
    where something is held out, also OUT/held_out.jsonl and the best hat in OUT/hat-best. `resume` goes on from the
    newest checkpoint: losses and weights are bit for bit those of a run that was not stopped.
    limit_tflops: of this machine, for the share of it that is shown. team: the processes that train together.
    Raises ValueError for nothing to resume, or a run in OUT that is neither to be resumed nor overwritten;
    FloatingPointError naming the layer where too many steps in a row were not finite; OSError for a full disk.
    """
    run = Trainer(model, examples, config, notes=notes, held_out=held_out, team=team)
    run.begin(resume, overwrite)
    watching = Watch if run.team.first else NullMonitor
    with watching(run.out, config, run.schedule, model.config, run.log, progress, limit_tflops) as watch:
        for number, batches in run.schedule.from_step(run.cursor.step):
            run.step(number, batches, watch)
    run.end()
    return run.log


class Trainer:
    """The state of a run: what a checkpoint holds, and the objects that it is put back into."""

    def __init__(
        self,
        model: Llama,
        examples: Sequence[Example],
        config: TrainConfig,
        *,
        notes: dict[str, Any] | None = None,
        held_out: HeldOut | None = None,
        team: SingleProcess | None = None,
    ) -> None:
        self.model, self.config, self.held_out = model, config, held_out
        self.notes = notes or {}
        self.out = Path(config.run.out)
        self.schedule = BatchSchedule.of(examples, config)
        self.team = team or SingleProcess()
        self.checkpoints = Checkpoints(self.out, config.run.keep, self.team)
        self.identity = identity(model, examples, config)
        self.log: list[Row] = []
        self.cursor, self.under_way = Cursor(), StepState()
        self.skipped = 0  # steps in a row
        self.best: tuple[float, int] | None = None  # held-out loss, and after how many steps
        self.saved = time.monotonic()

    def begin(self, resume: bool, overwrite: bool) -> None:
        """The hat, new or as the newest checkpoint has it."""
        if self.checkpoints.cursors() and not (resume or overwrite):
            raise ValueError(f"{self.out}: holds a run already: resume it, overwrite it, or name another run.out")
        torch.manual_seed(self.config.run.seed)
        self.paths = products_of(self.model)
        self.counter = new_adapter(self.model, self.config)
        self.team.place(self.model)
        self.parameters = adapter_parameters(self.model, self.config.adapter.name)
        self.optimizer = new_optimizer(self.parameters, self.config, self.team)
        if resume:
            self._restore(*self.checkpoints.load(self.identity))
        elif self.team.first:
            self.checkpoints.clear()
        if self.team.first:
            self.out.mkdir(parents=True, exist_ok=True)
            write_json(self.out / "config.json", self.config.to_dict())
        self.team.wait()
        self._prepare()

    def _prepare(self) -> None:
        """The model as it trains: on a CPU with operations that keep less, and with what is to be computed again."""
        self.model.gradient_checkpointing = self.config.run.recompute == "full"
        self._ops = self.model.norm.ops
        ops = self._ops
        if self.model.tok_embeddings.weight.device.type == "cpu":
            ops = CPU_OPS
            library.keep_freed_memory(True)  # every step asks for the same again
        if self.config.run.recompute == "selective":
            ops = SelectiveOps(ops)
        use_ops(self.model, ops)
        self.kept = ops.hooks if isinstance(ops, SelectiveOps) else nullcontext
        self.model.train()

    def step(self, number: int, batches: StepBatches, watch: "Watch | NullMonitor") -> None:
        """One step, from where it is under way."""
        run = self.config.run
        supervised = sum(row.supervised for batch in batches for row in batch)
        while self.under_way.batch < len(batches):
            batch = self.under_way.batch
            self.counter.batch = (number * run.accumulate + batch) * self.team.size + self.team.rank
            with self.kept():
                accumulate(self.model, batches[batch], supervised, self.under_way, self.team)
            if self.under_way.batch < len(batches) and self._overdue():
                self.save()
        optimizer = self.config.optimizer
        rate = learning_rate(number, self.schedule.steps, optimizer.lr, optimizer.warmup, optimizer.schedule)
        measured = finish(batches, self.under_way, self.optimizer, rate, optimizer.clip, self.team)
        self.log.append({"step": number + 1, "lr": rate, **measured})
        self._skip(batches, measured)
        self.cursor, self.under_way = Cursor(number + 1), StepState()
        improved = self._measure(watch)
        watch.step(self.log[-1])
        last = number + 1 == self.schedule.steps
        if last or improved or (number + 1) % run.checkpoint_every == 0 or self._overdue():
            self.save()

    def save(self) -> None:
        """A checkpoint of this moment."""
        cursor = Cursor(self.cursor.step, self.under_way.batch)
        best = None if self.best is None else Cursor(self.best[1])
        self.checkpoints.save(cursor, self._state(), self._tensors(), self._gradients(), best)
        self.saved = time.monotonic()

    def end(self) -> None:
        """The hat, in files."""
        self.model.eval()
        self.model.gradient_checkpointing = False
        use_ops(self.model, self._ops)
        for layer in lora_layers(self.model).values():
            layer.noise = None
        library.keep_freed_memory(False)
        self._save_hat(HAT)

    def _state(self) -> dict[str, Any]:
        half = self.under_way
        return {
            "identity": self.identity,
            "paths": self.paths,
            "optimizer_steps": self.optimizer.steps,
            "under_way": {"seconds": half.seconds, "each": self.team.each([half.nats, half.positions, half.pairs])},
            "log": self.log,
            "skipped": self.skipped,
            "best": self.best,
        }

    def _tensors(self) -> dict[str, Tensor]:
        """Every tensor of a checkpoint as it is held, to be written, or to be written over."""
        held = {f"adapter.{name}": parameter.detach() for name, parameter in self.parameters.items()}
        kept = {name: self.team.like(*pair) for name, pair in self.optimizer.saved().items()}
        return {**held, **kept}

    def _gradients(self) -> dict[str, Tensor]:
        """The gradients of a step that is half done: this process's own where each has the whole model."""
        return {f"gradient.{name}": p.grad for name, p in self.parameters.items() if p.grad is not None}

    def _restore(self, state: dict[str, Any], path: Path) -> None:
        """Half a step is saved as each process had it: as many go on bit for bit, others from sums of what there is."""
        if self.team.first and (other := differences(state.get("paths", self.paths), self.paths)):
            print(f"resume: {path.name} was computed on other paths, so bits will differ: {other}")
        self.cursor = Cursor(state["cursor"][0])
        mine = self.team.share(state["under_way"]["each"])
        nats, positions, pairs = (sum(column) for column in zip([0.0, 0.0, 0.0], *mine, strict=True))
        seconds = state["under_way"]["seconds"]
        self.under_way = StepState(state["cursor"][1], nats, int(positions), int(pairs), seconds)
        self.log, self.skipped, self.best = state["log"], state["skipped"], state["best"]
        self.optimizer.steps = state["optimizer_steps"]
        if self.under_way.batch:
            for parameter in self.parameters.values():
                parameter.grad = torch.zeros_like(parameter)
        tensors = self._tensors()
        self.checkpoints.fill(state, path, tensors, self._gradients())
        self.optimizer.take(tensors)

    def _overdue(self) -> bool:
        """True if a checkpoint is due by the clock of the first process, so that all agree."""
        minutes = self.config.run.checkpoint_minutes
        return minutes > 0 and self.team.agreed(time.monotonic() - self.saved >= 60 * minutes)

    def _skip(self, batches: StepBatches, measured: Row) -> None:
        """Counts a step that was skipped, and stops the run after too many in a row."""
        if "skipped" not in measured:
            self.skipped = 0
            return
        self.skipped += 1
        if self.skipped > self.config.optimizer.max_skipped:
            source = first_non_finite(self.model, batches, self.parameters, self.team)
            raise FloatingPointError(
                f"step {self.log[-1]['step']}: {source} is not finite, {self.skipped} steps in a row (optimizer."
                f"max_skipped = {self.config.optimizer.max_skipped}): the hat is as it was before them"
            )
        for parameter in self.parameters.values():
            parameter.grad = None

    def _measure(self, watch: "Watch | NullMonitor") -> bool:
        """The held-out loss, where it is time; whether it is the best so far, whose hat is then kept."""
        if self.held_out is None or not self.held_out.due(self.cursor.step, self.schedule.steps):
            return False
        row = self.held_out.measure(self.model, self.cursor.step, self.team)
        self.log[-1]["held_out_loss"] = row["loss"]
        watch.held_out(row)
        improved = self.best is None or row["loss"] < self.best[0]
        if improved:
            self.best = (row["loss"], self.cursor.step)
            self._save_hat(BEST)
        return improved

    def _save_hat(self, folder: str) -> None:
        notes = {**self.notes, "training": self.config.to_dict(), "steps": self.cursor.step}
        save_trained_adapter(self.model, self.config.adapter.name, self.out / folder, notes, self.team)


def new_adapter(model: Llama, config: TrainConfig) -> BatchCounter:
    """Puts the hat that a config describes on a base, in use; returns the clock of its dropout."""
    table, counter = config.adapter, BatchCounter(config.run.seed)
    add_adapter(
        model,
        table.name,
        rank=table.rank,
        alpha=table.alpha,
        targets=table.targets,
        dropout=table.dropout,
        rslora=table.rslora,
        dora=table.dora,
        seed=config.run.seed,
    )
    use_adapter(model, table.name)
    for number, layer in enumerate(lora_layers(model).values()):
        layer.noise = DropoutSeed(counter, number)
    return counter


def save_trained_adapter(model: Llama, name: str, folder: Path, notes: dict[str, Any], team: SingleProcess) -> None:
    """The hat's files, from the first process; one that is cut is put together on a base that holds nothing else."""
    if team.shards:
        with torch.device("meta"):
            holder = Llama(model.config)
        holder.source = model.source
        for path, layer in lora_layers(model).items():
            matrices = (team.whole(layer.lora_A[name].detach()).cpu(), team.whole(layer.lora_B[name].detach()).cpu())
            lora_layer(holder, path).add(name, layer.configs[name], *matrices, trainable=False)
        model = holder
    if team.first:
        save_adapter(model, name, folder, notes=notes)
    team.wait()


def new_optimizer(parameters: dict[str, nn.Parameter], config: TrainConfig, team: SingleProcess) -> AdamW:
    """AdamW as the config has it; with LoRA+ lora_B has a rate of its own."""
    table = config.optimizer
    b1, b2 = table.betas
    rates = {name: table.lora_plus for name in parameters if name.endswith(".lora_B")}
    parts = {name: team.part(parameter) for name, parameter in parameters.items()}
    return AdamW(parameters, (b1, b2), weight_decay=table.weight_decay, states=table.states, rates=rates, parts=parts)


def products_of(model: Llama) -> dict[str, str]:
    """The paths of products with the model's quantized weights (`paths_in_use`)."""
    weights = [module.quantized for module in model.modules() if isinstance(module, QuantLinear)]
    return paths_in_use(weights, model.norm.weight.dtype)


def differences(before: dict[str, str], now: dict[str, str]) -> str:
    """The paths that changed, in one line; empty if none did."""
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    return "; ".join(f"{name}: {before.get(name, 'none')}, now {now.get(name, 'none')}" for name in names)


def identity(model: Llama, examples: Sequence[Example], config: TrainConfig) -> dict[str, Any]:
    """The identity of a run: the config's keys that a result depends on, the base's fingerprint, the data's sha256."""
    keys = {f"{table}.{key}": value for table, values in config.to_dict().items() for key, value in values.items()}
    data = hashlib.sha256(json.dumps([[example.tokens, example.labels] for example in examples]).encode())
    return {
        **{key: value for key, value in keys.items() if key not in NOT_IN_IDENTITY},
        "base.fingerprint": model.source.get("fingerprint"),
        "data.sha256": data.hexdigest(),
    }
