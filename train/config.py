"""A training run as a TOML file: five tables, every key known or refused."""

import difflib
import tomllib
import typing
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from lowrank.data.template import TEMPLATES

from .optim import Schedule


@dataclass(frozen=True)
class BaseConfig:
    """path: a folder of weights, or "embedded". weights, dtype, device: as `lowrank.load` takes them ("" = default)."""

    path: str = "embedded"
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


@dataclass(frozen=True)
class DataConfig:
    """train: a file in one of `data.formats`, or "documents" for our own 100. Longer entries are left out.

    group_by_length: batches of rows of much the same length. pack: tokens of a row that holds several entries, 0 = off.
    """

    train: str = "documents"
    template: str = "alpaca"
    max_tokens: int = 1024
    group_by_length: bool = False
    pack: int = 0


@dataclass(frozen=True)
class OptimizerConfig:
    """lr: peak rate. schedule: "constant" or "cosine". warmup: steps. clip: largest gradient norm."""

    lr: float = 2e-4
    schedule: Schedule = "constant"
    warmup: int = 0
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    weight_decay: float = 0.0
    clip: float = 0.3


@dataclass(frozen=True)
class RunConfig:
    """A step takes `accumulate` batches of `batch` rows. checkpoint_every: in steps; the end is always kept."""

    out: str = "runs/hat"
    epochs: int = 3
    batch: int = 8
    accumulate: int = 1
    seed: int = 0
    checkpoint_every: int = 50
    gradient_checkpointing: bool = False


@dataclass(frozen=True)
class TrainConfig:
    """All of a run. `read` takes it from a file, `to_dict` gives it back as plain values."""

    base: BaseConfig = field(default_factory=BaseConfig)
    adapter: AdapterTable = field(default_factory=AdapterTable)
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    run: RunConfig = field(default_factory=RunConfig)

    @classmethod
    def read(cls, path: str | Path, overrides: Sequence[str] = ()) -> Self:
        """The config of a TOML file, with "table.key=value" overrides put over it.

        Raises ValueError naming file (or override), table and key for what is unknown or of another type.
        """
        path = Path(path)
        if not path.is_file():
            raise ValueError(f"{path}: no such file")
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except tomllib.TOMLDecodeError as error:
            raise ValueError(f"{path}: not TOML: {error}") from None
        for override in overrides:
            name, equals, text = override.partition("=")
            table, dot, key = name.partition(".")
            if not (equals and dot):
                raise ValueError(f"{override!r}: an override is table.key=value, such as run.epochs=3")
            values.setdefault(table, {})[key] = _toml_value(text)
        return cls.from_dict(values, str(path))

    @classmethod
    def from_dict(cls, values: dict[str, Any], where: str = "config") -> Self:
        """The config of plain values, checked like a file."""
        tables = typing.get_type_hints(cls)
        _known(values, tables, where)
        config = cls(**{name: _table(tables[name], table, f"{where}: {name}") for name, table in values.items()})
        config.check(where)
        return config

    def to_dict(self) -> dict[str, Any]:
        """Tables of plain values: the inverse of `from_dict`."""
        return asdict(self)

    def check(self, where: str) -> None:
        """Raises ValueError for a number out of range."""
        for table, key in (("run", "epochs"), ("run", "batch"), ("run", "accumulate"), ("run", "checkpoint_every")):
            if getattr(getattr(self, table), key) < 1:
                raise ValueError(f"{where}: {table}.{key} must be at least 1, got {getattr(getattr(self, table), key)}")
        data = self.data
        if data.template not in TEMPLATES:
            raise ValueError(f"{where}: data.template must be one of {', '.join(TEMPLATES)}, got {data.template!r}")
        if data.pack and data.pack < data.max_tokens:
            raise ValueError(
                f"{where}: data.pack must be 0 or at least data.max_tokens, got {data.pack} and {data.max_tokens}"
            )
        if data.pack and data.group_by_length:
            raise ValueError(
                f"{where}: data.group_by_length must be false with data.pack: packed rows are full already"
            )
        betas = self.optimizer.betas
        if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"{where}: optimizer.betas must be two numbers in [0, 1), got {betas}")
        if not (self.optimizer.lr > 0 and self.optimizer.clip > 0):
            raise ValueError(
                f"{where}: optimizer.lr and optimizer.clip must be above 0, got "
                f"{self.optimizer.lr} and {self.optimizer.clip}"
            )


def _table(kind: type, values: Any, where: str) -> Any:
    if not isinstance(values, dict):
        raise ValueError(f"{where} must be a table, got {values!r}")
    hints = typing.get_type_hints(kind)
    _known(values, hints, where)
    return kind(**{key: _typed(value, hints[key], f"{where}.{key}") for key, value in values.items()})


def _typed(value: Any, hint: Any, where: str) -> Any:
    """The value if it is of the type that the field declares; a whole number will do for a float."""
    origin = typing.get_origin(hint)
    if origin is typing.Literal:
        if value not in typing.get_args(hint):
            raise ValueError(f"{where} must be one of {', '.join(typing.get_args(hint))}, got {value!r}")
        return value
    if hint is float and type(value) is int:
        return float(value)
    allowed = typing.get_args(hint) if origin is not list and typing.get_args(hint) else (hint,)
    if type(value) not in tuple(typing.get_origin(kind) or kind for kind in allowed):
        names = " or ".join(getattr(kind, "__name__", str(kind)) for kind in allowed)
        raise ValueError(f"{where} must be of type {names}, got {value!r}")
    return value


def _known(values: dict[str, Any], names: dict[str, Any], where: str) -> None:
    for key in values:
        if key not in names:
            near = difflib.get_close_matches(key, names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}"
            raise ValueError(f"{where}: unknown key {key!r}: {hint}")


def _toml_value(text: str) -> Any:
    """The value as TOML reads it; a bare word is a string."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
