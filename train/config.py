"""A training run as a TOML file: seven tables, every key known or refused."""

import math
import re
import typing
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from lowrank.adapters import check_range, resolve_targets
from lowrank.adapters.files import read_adapter
from lowrank.adapters.starts import DEFAULT as DEFAULT_START
from lowrank.adapters.starts import LOFTQ, STARTS
from lowrank.checkpoints.load import DEQUANT, WEIGHTS
from lowrank.data.encoding.template import NAMES
from lowrank.kernels.weights.quantized_weight import DENSE_DTYPES, QUANTIZED_NAMES
from lowrank.layers.lora import AdapterConfig
from lowrank.model.config import PRESETS

from .adam_state import StateKind
from .optim import LRSchedule
from .toml_tables import key_of, known, read_table, read_toml, toml_value

RECIPES = Path(__file__).parent / "recipes"
Recompute = Literal["none", "selective", "full"]
MAX_SEED = 2**63 - 1


@dataclass(frozen=True)
class BaseConfig:
    """path: a folder of weights, or "embedded". weights, dtype, device: as `lowrank.load` takes them ("" = default).

    shape: "7b", "13b" or "70b", which the folder must then be of; a plan needs no folder with it.
    """

    path: str = "embedded"
    shape: str = ""
    weights: str = ""
    dtype: str = ""
    device: str = "cpu"


@dataclass(frozen=True)
class AdapterTable:
    """The hat: see `lowrank.add_adapter`. from: the folder of a hat to start from, whose shape it then has.

    start: one of `lowrank.adapters.starts.STARTS`, the numbers that a new hat begins with. merge_aware: the 4- or 8-bit
    format that the hat is to be merged into, in which the linears then compute; requantize_every: steps between its
    roundings.
    """

    name: str = "hat"
    rank: int = 8
    alpha: float = 16.0
    targets: str | list[str] = "all"
    dropout: float = 0.0
    rslora: bool = False
    dora: bool = False
    start: str = DEFAULT_START
    from_: str = ""
    merge_aware: str = ""
    requantize_every: int = 4


@dataclass(frozen=True)
class DataConfig:
    """train: a file in one of `data.imports.formats`, "documents" for our own 100, or a list of these.

    max_tokens: longer entries are left out. weights: how often an epoch has the entries of each file, 0.5 is half of
    them. validation: what is held out of them, a share below 1 or a number of entries. seed: of both draws. skip_bad:
    rows that cannot be learned are left out. kinds: files of kinds of document, which the hat then stores.

    group_by_length: batches of rows of much the same length. pack: tokens of a row that holds several entries, 0 = off.
    entries, tokens, supervised: what one epoch holds, as a recipe states it; a plan takes them where the data are not
    at hand, a run says where the data differ. 0 = not stated. estimated: whether they were counted on no data.
    """

    train: str | list[str] = "documents"
    weights: list[float] = field(default_factory=list)
    validation: float = 0.0
    seed: int = 0
    skip_bad: bool = False
    kinds: list[str] = field(default_factory=list)
    template: str = "alpaca"
    max_tokens: int = 1024
    group_by_length: bool = False
    pack: int = 0
    entries: int = 0
    tokens: int = 0
    supervised: int = 0
    estimated: bool = False

    @property
    def sources(self) -> list[str]:
        """The files, one or several."""
        return [self.train] if isinstance(self.train, str) else self.train


@dataclass(frozen=True)
class PreferenceConfig:
    """loss: "" learns answers; "dpo" learns to prefer one of two (`preference`).

    beta: the strength of the pull back to the reference, the model as it is before the run. answers: the weight of
    the chosen answer's own loss, nats a token, beside it.
    """

    loss: Literal["", "dpo"] = ""
    beta: float = 0.1
    answers: float = 0.0


@dataclass(frozen=True)
class OptimizerConfig:
    """lr: peak rate. schedule: "constant", "linear" or "cosine", the last two down to floor * lr.

    warmup: steps; warmup_ratio: the same as a share of all steps, rounded up. clip: largest gradient norm, 0 = none.
    lora_plus: the rate of lora_B over that of lora_A. states: where and how the moments are kept (`states`).
    max_skipped: steps in a row that may be skipped because loss or gradient is not finite.
    """

    lr: float = 2e-4
    lora_plus: float = 1.0
    schedule: LRSchedule = "constant"
    floor: float = 0.0
    warmup: int = 0
    warmup_ratio: float = 0.0
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    weight_decay: float = 0.0
    clip: float = 0.3
    states: StateKind = "fp32"
    max_skipped: int = 3


@dataclass(frozen=True)
class RunConfig:
    """A step takes `accumulate` batches of `batch` rows, over all processes together.

    epochs: 0.5 ends in the middle of the first. max_steps: the run ends after so many steps at the latest, 0 = off.
    checkpoint_every: in steps; checkpoint_minutes: also when so long has passed, after any batch (0 = off); the end is
    always kept. keep: of the newest checkpoints, the best beside them. recompute: what of the forward pass is computed
    again backward. parallel: what several processes have of the model, a whole each or a part.
    """

    out: str = "runs/hat"
    epochs: int | float = 3
    max_steps: int = 0
    batch: int = 8
    accumulate: int = 1
    seed: int = 0
    checkpoint_every: int = 50
    checkpoint_minutes: float = 0.0
    keep: int = 2
    recompute: Recompute = "none"
    parallel: Literal["replicas", "shards"] = "replicas"


@dataclass(frozen=True)
class WatchConfig:
    """held_out: entries that are never trained on, a file, "documents" or "" for none; every: in steps, 0 = off.

    patience: measurements without a better held-out loss after which the run ends, 0 = off.
    samples: how many of them are written out by the model each time. trackers: "tensorboard", "wandb", "trackio".
    """

    held_out: str = ""
    every: int = 0
    patience: int = 0
    samples: int = 2
    trackers: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class TrainConfig:
    """All of a run. `read` takes it from a file, `to_dict` gives it back as plain values."""

    base: BaseConfig = field(default_factory=BaseConfig)
    adapter: AdapterTable = field(default_factory=AdapterTable)
    data: DataConfig = field(default_factory=DataConfig)
    preference: PreferenceConfig = field(default_factory=PreferenceConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    run: RunConfig = field(default_factory=RunConfig)
    watch: WatchConfig = field(default_factory=WatchConfig)

    @classmethod
    def read(cls, path: str | Path, overrides: Sequence[str] = ()) -> Self:
        """The config of a recipe's name or a TOML file, with "table.key=value" overrides put over it.

        Raises ValueError naming file (or override), table and key for what is unknown or of another type.
        """
        path = recipe_path(path)
        values = read_toml(path)
        for override in overrides:
            name, equals, text = override.partition("=")
            table, dot, key = name.strip().partition(".")
            if not (equals and dot):
                raise ValueError(f"{override!r}: an override is table.key=value, such as run.epochs=3")
            if isinstance(own := values.setdefault(table, {}), dict):  # another is refused below
                own[key] = toml_value(text.strip())
        return cls.from_dict(values, str(path))

    @classmethod
    def from_dict(cls, values: dict[str, Any], where: str = "config") -> Self:
        """The config of plain values, checked like a file."""
        tables = typing.get_type_hints(cls)
        fields = {f"{table}.{key_of(name)}" for table, kind in tables.items() for name in typing.get_type_hints(kind)}
        known(values, tables, where, fields)
        if (
            isinstance(adapter := values.get("adapter"), dict)
            and isinstance(adapter.get("from"), str)
            and adapter["from"]
        ):
            values = {**values, "adapter": shape_of_start(adapter, where)}
        config = cls(**{name: read_table(tables[name], table, f"{where}: {name}") for name, table in values.items()})
        config.check(where)
        return config

    def to_dict(self) -> dict[str, Any]:
        """Tables of plain values: the inverse of `from_dict`."""
        return {
            table: {key_of(name): value for name, value in values.items()} for table, values in asdict(self).items()
        }

    def check(self, where: str) -> None:
        """Raises ValueError for a value out of range, naming table and key."""
        for name, (rule, is_valid) in RULES.items():
            table, key = name.split(".")
            value = getattr(getattr(self, table), key)
            if not (math.isfinite(value) and is_valid(value)):
                raise ValueError(f"{where}: {name} must be {rule}, got {value}")
        data, optimizer, betas = self.data, self.optimizer, self.optimizer.betas
        self._check_base(where)
        self._check_adapter(where)
        _one_of(data.template, NAMES, f"{where}: data.template")
        for tracker in self.watch.trackers:
            _one_of(tracker, TRACKERS, f"{where}: watch.trackers")
        if data.pack and data.pack < data.max_tokens:
            raise ValueError(
                f"{where}: data.pack must be 0 or at least data.max_tokens, got {data.pack} and {data.max_tokens}"
            )
        if data.pack and data.group_by_length:
            raise ValueError(
                f"{where}: data.group_by_length must be false with data.pack: packed rows are full already"
            )
        if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"{where}: optimizer.betas must be two numbers in [0, 1), got {betas}")
        if optimizer.warmup and optimizer.warmup_ratio:
            raise ValueError(
                f"{where}: optimizer.warmup_ratio must be 0 beside optimizer.warmup = {optimizer.warmup}: both say how "
                f"long the warm-up is, got {optimizer.warmup_ratio}"
            )
        if not self.run.out.strip():
            raise ValueError(f"{where}: run.out must name a folder, got {self.run.out!r}")
        if self.adapter.dora and self.run.parallel == "shards":
            raise ValueError(
                f"{where}: adapter.dora must be false with run.parallel = 'shards': its norms need all of W"
            )
        _check_start(self, where)
        _check_preference(self, where)
        _check_merge_aware(self, where)
        _check_sources(data, where)
        if self.watch.every and not self.watch.held_out and not data.validation:
            raise ValueError(
                f"{where}: watch.every needs data.validation, or watch.held_out: a file of entries, or 'documents'"
            )
        if data.validation and (self.watch.held_out or not self.watch.every):
            raise ValueError(f"{where}: data.validation needs watch.every, and no watch.held_out beside it")
        if self.watch.patience and not self.watch.every:
            raise ValueError(f"{where}: watch.patience needs watch.every: the steps after which the loss is measured")

    def _check_base(self, where: str) -> None:
        base = self.base
        _one_of(base.shape, ("", *PRESETS), f"{where}: base.shape")
        _one_of(base.dtype, ("", *DENSE_DTYPES), f"{where}: base.dtype")
        formats = ("", *WEIGHTS, *(DEQUANT + name for name in QUANTIZED_NAMES))
        _one_of(base.weights, formats, f"{where}: base.weights")
        if not re.fullmatch(r"cpu(:\d+)?|cuda(:\d+)?", base.device):
            raise ValueError(f"{where}: base.device must be cpu, cuda or cuda:NUMBER, got {base.device!r}")

    def _check_adapter(self, where: str) -> None:
        table = self.adapter
        try:
            targets = resolve_targets(table.targets)
        except ValueError as error:
            raise ValueError(f"{where}: adapter.{error}") from None
        adapter = AdapterConfig(table.rank, table.alpha, targets, table.dropout, table.rslora, table.dora)
        check_range(adapter, where, {key: f"adapter.{key}" for key in ("rank", "alpha", "dropout", "rslora", "dora")})


Rule = tuple[str, Callable[[float], bool]]


def _at_least(least: int) -> Rule:
    return f"at least {least}", lambda value: value >= least


ABOVE_0: Rule = ("above 0", lambda value: value > 0)
SHARE: Rule = ("in [0, 1)", lambda value: 0 <= value < 1)
RULES: dict[str, Rule] = {
    "run.epochs": ABOVE_0,
    "run.max_steps": _at_least(0),
    "run.batch": _at_least(1),
    "run.accumulate": _at_least(1),
    "run.seed": ("from 0 to 2^63 - 1", lambda value: 0 <= value <= MAX_SEED),
    "run.checkpoint_every": _at_least(1),
    "run.checkpoint_minutes": _at_least(0),
    "run.keep": _at_least(1),
    "data.max_tokens": _at_least(2),
    "data.validation": _at_least(0),
    "preference.beta": ABOVE_0,
    "preference.answers": _at_least(0),
    "adapter.requantize_every": _at_least(1),
    "optimizer.lr": ABOVE_0,
    "optimizer.lora_plus": ABOVE_0,
    "optimizer.floor": ("in [0, 1]", lambda value: 0 <= value <= 1),
    "optimizer.warmup": _at_least(0),
    "optimizer.warmup_ratio": SHARE,
    "optimizer.weight_decay": _at_least(0),
    "optimizer.clip": ("finite and at least 0, where 0 is no clipping", lambda value: value >= 0),
    "optimizer.max_skipped": _at_least(0),
    "watch.every": _at_least(0),
    "watch.patience": _at_least(0),
    "watch.samples": _at_least(0),
}
TRACKERS = ("tensorboard", "wandb", "trackio")


def recipe_names() -> list[str]:
    """The recipes that come with the package."""
    return sorted(path.stem for path in RECIPES.glob("*.toml"))


def recipe_path(name: str | Path) -> Path:
    """The file of a recipe, or the path itself.  Raises ValueError if neither is there."""
    path = Path(name)
    if path.is_file():
        return path
    if str(name) in recipe_names():
        return RECIPES / f"{name}.toml"
    raise ValueError(f"{path}: no such file, and no recipe: {', '.join(recipe_names())}")


def _check_merge_aware(config: TrainConfig, where: str) -> None:
    """Refuses what a hat that is to be merged has no place for."""
    adapter, weights = config.adapter, config.base.weights
    if not adapter.merge_aware:
        return
    _one_of(adapter.merge_aware, QUANTIZED_NAMES, f"{where}: adapter.merge_aware")
    beside = f"with adapter.merge_aware = {adapter.merge_aware!r}"
    for name, is_default, value in (
        ("adapter.dropout", not adapter.dropout, adapter.dropout),
        ("adapter.dora", not adapter.dora, adapter.dora),
        ("adapter.start", adapter.start == DEFAULT_START, adapter.start),
        ("preference.loss", not config.preference.loss, config.preference.loss),
        ("run.parallel", config.run.parallel == "replicas", config.run.parallel),
    ):
        if not is_default:
            raise ValueError(f"{where}: {name} must be left at its default {beside}, got {value!r}")
    if weights and weights not in QUANTIZED_NAMES:
        raise ValueError(f"{where}: base.weights must be a 4- or 8-bit format {beside}, got {weights!r}")


def _check_start(config: TrainConfig, where: str) -> None:
    """Refuses what a start has no place for."""
    adapter, start = config.adapter, config.adapter.start
    _one_of(start, STARTS, f"{where}: adapter.start")
    if start == DEFAULT_START:
        return
    beside = f"with adapter.start = {start!r}"
    for name, is_default, value in (
        ("adapter.from", not adapter.from_, adapter.from_),
        ("adapter.dora", not adapter.dora, adapter.dora),
        ("run.parallel", config.run.parallel == "replicas", config.run.parallel),
    ):
        if not is_default:
            raise ValueError(f"{where}: {name} must be left at its default {beside}, got {value!r}")
    if not adapter.alpha > 0:
        raise ValueError(f"{where}: adapter.alpha must be above 0 {beside}, got {adapter.alpha:g}")
    if start == LOFTQ and config.base.weights in DENSE_DTYPES:
        raise ValueError(
            f"{where}: base.weights must be of 4 or 8 bits {beside}, which is of their error: got {config.base.weights}"
        )
    if start == LOFTQ and config.preference.loss:
        raise ValueError(
            f"{where}: preference.loss must be empty {beside}: the hat would not begin as its reference, the base"
        )


def _check_preference(config: TrainConfig, where: str) -> None:
    """Refuses what a preference loss has no place for."""
    if not config.preference.loss:
        return
    loss = f"preference.loss = {config.preference.loss!r}"
    if config.data.pack:
        raise ValueError(f"{where}: data.pack must be 0 with {loss}: the two of a pair stand in rows of their own")
    if config.run.parallel == "shards":
        raise ValueError(f"{where}: run.parallel must be 'replicas' with {loss}, got 'shards': it is not done here")


def _check_sources(data: DataConfig, where: str) -> None:
    sources = data.sources
    if not sources or not all(isinstance(source, str) and source for source in sources):
        raise ValueError(f"{where}: data.train must be a file or a list of files, got {data.train!r}")
    weights = data.weights
    if weights and (len(weights) != len(sources) or not all(_is_positive(weight) for weight in weights)):
        raise ValueError(
            f"{where}: data.weights must be a number above 0 for each of {len(sources)} files, got {weights!r}"
        )
    if data.validation >= 1 and data.validation != int(data.validation):
        raise ValueError(
            f"{where}: data.validation must be a share below 1 or a whole number of entries, got {data.validation}"
        )


def _is_positive(value: Any) -> bool:
    return type(value) in (int, float) and value > 0 and math.isfinite(value)


def shape_of_start(table: dict[str, Any], where: str) -> dict[str, Any]:
    """An adapter's table with the shape of the hat that it starts from.

    Where its linears differ, the largest rank.  Raises ValueError for a key that is given otherwise.
    """
    try:
        configs = list(read_adapter(table["from"]).configs.values())
    except ValueError as error:
        raise ValueError(f"{where}: adapter.from: {error}") from None
    largest = max(configs, key=lambda config: config.rank)
    shape = {
        "rank": largest.rank,
        "alpha": float(largest.alpha),
        "targets": list(largest.targets),
        "rslora": largest.rslora,
        "dora": largest.dora,
    }
    for key, value in shape.items():
        given = table.get(key, value)
        if key == "targets" and given != value:
            try:
                given = list(resolve_targets(given))
            except ValueError:
                continue  # refused below, with its place
        if given != value:
            raise ValueError(
                f"{where}: adapter.{key} must be left out or {value!r}, that of adapter.from, got {given!r}"
            )
    return {"dropout": largest.dropout, **table, **shape}


def _one_of(value: str, names: Any, where: str) -> None:
    if value not in names:
        raise ValueError(f"{where} must be one of {', '.join(name or repr(name) for name in names)}, got {value!r}")
