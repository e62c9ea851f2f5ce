"""A training run as a TOML file: seven tables, every key known or refused."""

import math
import re
import typing
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from lowrank.adapters import check_range, resolve_targets
from lowrank.checkpoints.load import DEQUANT, WEIGHTS
from lowrank.data.encoding.template import NAMES
from lowrank.kernels.weights.quantized_weight import DENSE_DTYPES, QUANTIZED_NAMES
from lowrank.layers.lora import AdapterConfig
from lowrank.model.config import PRESETS

from .config_rules import (
    RULES,
    TRACKERS,
    check_merge_aware,
    check_numerics,
    check_preference,
    check_sources,
    check_start,
    one_of,
    shape_of_start,
)
from .config_tables import (
    AdapterTable,
    BaseConfig,
    DataConfig,
    OptimizerConfig,
    PreferenceConfig,
    RunConfig,
    WatchConfig,
)
from .toml_tables import key_of, known, read_table, read_toml, toml_value

RECIPES = Path(__file__).parent / "recipes"


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
            if isinstance(keys := values.setdefault(table, {}), dict):  # another is refused below
                keys[key] = toml_value(text.strip())
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
        one_of(data.template, NAMES, f"{where}: data.template")
        for tracker in self.watch.trackers:
            one_of(tracker, TRACKERS, f"{where}: watch.trackers")
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
        check_start(self, where)
        check_preference(self, where)
        check_merge_aware(self, where)
        check_numerics(self, where)
        check_sources(data, where)
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
        one_of(base.shape, ("", *PRESETS), f"{where}: base.shape")
        one_of(base.dtype, ("", *DENSE_DTYPES), f"{where}: base.dtype")
        formats = ("", *WEIGHTS, *(DEQUANT + name for name in QUANTIZED_NAMES))
        one_of(base.weights, formats, f"{where}: base.weights")
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
