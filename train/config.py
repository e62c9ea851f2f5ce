"""A training run as a TOML file: six tables, every key known or refused."""

import math
import tomllib
import typing
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from lowrank.data.encoding.template import TEMPLATES
from lowrank.model.config import PRESETS

from .adam_state import StateKind
from .optim import LRSchedule
from .toml_tables import known, read_table, toml_value

RECIPES = Path(__file__).parent / "recipes"
Recompute = Literal["none", "selective", "full"]


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
    """The hat: see `lowrank.add_adapter`."""

    name: str = "hat"
    rank: int = 8
    alpha: float = 16.0
    targets: str | list[str] = "all"
    dropout: float = 0.0
    rslora: bool = False
    dora: bool = False


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
class OptimizerConfig:
    """lr: peak rate. schedule: "constant" or "cosine". warmup: steps. clip: largest gradient norm.

    lora_plus: the rate of lora_B over that of lora_A. states: where and how the moments are kept (`states`).
    max_skipped: steps in a row that may be skipped because loss or gradient is not finite.
    """

    lr: float = 2e-4
    lora_plus: float = 1.0
    schedule: LRSchedule = "constant"
    warmup: int = 0
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    weight_decay: float = 0.0
    clip: float = 0.3
    states: StateKind = "fp32"
    max_skipped: int = 3


@dataclass(frozen=True)
class RunConfig:
    """A step takes `accumulate` batches of `batch` rows, over all processes together.

    checkpoint_every: in steps; checkpoint_minutes: also when so long has passed, after any batch (0 = off); the end is
    always kept. keep: of the newest checkpoints, the best beside them. recompute: what of the forward pass is computed
    again backward. parallel: what several processes have of the model, a whole each or a part.
    """

    out: str = "runs/hat"
    epochs: int = 3
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

    samples: how many of them are written out by the model each time. trackers: "tensorboard", "wandb", "trackio".
    """

    held_out: str = ""
    every: int = 0
    samples: int = 2
    trackers: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class TrainConfig:
    """All of a run. `read` takes it from a file, `to_dict` gives it back as plain values."""

    base: BaseConfig = field(default_factory=BaseConfig)
    adapter: AdapterTable = field(default_factory=AdapterTable)
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    run: RunConfig = field(default_factory=RunConfig)
    watch: WatchConfig = field(default_factory=WatchConfig)

    @classmethod
    def read(cls, path: str | Path, overrides: Sequence[str] = ()) -> Self:
        """The config of a recipe's name or a TOML file, with "table.key=value" overrides put over it.

        Raises ValueError naming file (or override), table and key for what is unknown or of another type.
        """
        path = recipe_path(path)
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except tomllib.TOMLDecodeError as error:
            raise ValueError(f"{path}: not TOML: {error}") from None
        for override in overrides:
            name, equals, text = override.partition("=")
            table, dot, key = name.partition(".")
            if not (equals and dot):
                raise ValueError(f"{override!r}: an override is table.key=value, such as run.epochs=3")
            values.setdefault(table, {})[key] = toml_value(text)
        return cls.from_dict(values, str(path))

    @classmethod
    def from_dict(cls, values: dict[str, Any], where: str = "config") -> Self:
        """The config of plain values, checked like a file."""
        tables = typing.get_type_hints(cls)
        known(values, tables, where)
        config = cls(**{name: read_table(tables[name], table, f"{where}: {name}") for name, table in values.items()})
        config.check(where)
        return config

    def to_dict(self) -> dict[str, Any]:
        """Tables of plain values: the inverse of `from_dict`."""
        return asdict(self)

    def check(self, where: str) -> None:
        """Raises ValueError for a number out of range, naming table and key."""
        for name, least in MINIMUM.items():
            table, key = name.split(".")
            value = getattr(getattr(self, table), key)
            if not (value >= least and math.isfinite(value)):
                raise ValueError(f"{where}: {name} must be at least {least}, got {value}")
        for name in ("optimizer.lr", "optimizer.lora_plus", "optimizer.clip"):
            table, key = name.split(".")
            value = getattr(getattr(self, table), key)
            if not (value > 0 and math.isfinite(value)):
                raise ValueError(f"{where}: {name} must be above 0, got {value}")
        data, betas = self.data, self.optimizer.betas
        _one_of(data.template, TEMPLATES, f"{where}: data.template")
        _one_of(self.base.shape, ("", *PRESETS), f"{where}: base.shape")
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
        if self.adapter.dora and self.run.parallel == "shards":
            raise ValueError(
                f"{where}: adapter.dora must be false with run.parallel = 'shards': its norms need all of W"
            )
        _check_sources(data, where)
        if self.watch.every and not self.watch.held_out and not data.validation:
            raise ValueError(
                f"{where}: watch.every needs data.validation, or watch.held_out: a file of entries, or 'documents'"
            )
        if data.validation and (self.watch.held_out or not self.watch.every):
            raise ValueError(f"{where}: data.validation needs watch.every, and no watch.held_out beside it")


MINIMUM = {
    "run.epochs": 1,
    "run.batch": 1,
    "run.accumulate": 1,
    "run.checkpoint_every": 1,
    "run.checkpoint_minutes": 0,
    "run.keep": 1,
    "data.max_tokens": 2,
    "data.validation": 0,
    "optimizer.warmup": 0,
    "optimizer.weight_decay": 0,
    "optimizer.max_skipped": 0,
    "watch.every": 0,
    "watch.samples": 0,
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


def _one_of(value: str, names: Any, where: str) -> None:
    if value not in names:
        raise ValueError(f"{where} must be one of {', '.join(name or repr(name) for name in names)}, got {value!r}")
