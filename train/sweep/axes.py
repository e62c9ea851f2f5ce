"""The points of a sweep: a recipe, and at each point one value of every setting that is swept.

adapter.rank=4,8 optimizer.lr=1e-4,3e-4 seed=0,1        2 x 2 x 2 points; a value without a comma is for all of them
"""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from lowrank.adapters.starts import DEFAULT

from ..config import TrainConfig
from ..toml_tables import toml_value

SWEPT = (
    *("adapter.rank", "adapter.alpha", "adapter.targets", "adapter.dropout", "adapter.rslora"),
    *("optimizer.lr", "optimizer.lora_plus", "optimizer.schedule", "optimizer.floor", "optimizer.warmup"),
    *("optimizer.warmup_ratio", "optimizer.betas", "optimizer.weight_decay", "optimizer.clip", "optimizer.states"),
    *("run.seed", "run.epochs", "run.max_steps", "run.batch", "run.accumulate"),
    *("data.group_by_length", "data.pack"),
)
SEED = "run.seed"
SHORT = {"seed": SEED}
AT_THE_END = 10**9  # watch.every of a sweep that names none: the last step is always measured
VALIDATION = 0.1


@dataclass(frozen=True)
class Point:
    """One hat: its name, which is that of its folder, its values of the swept settings, and its config."""

    name: str
    values: Mapping[str, Any]
    config: TrainConfig

    @property
    def out(self) -> Path:
        return Path(self.config.run.out)


@dataclass(frozen=True)
class Sweep:
    """axes: every swept setting and its values, in the order in which they were named."""

    out: Path
    axes: Mapping[str, Sequence[Any]]
    points: Sequence[Point]
    notes: Sequence[str] = ()

    @property
    def config(self) -> TrainConfig:
        """Base, data and watch, which all points have in common."""
        return self.points[0].config

    @classmethod
    def read(cls, recipe: str | Path, words: Sequence[str]) -> Self:
        """The points of a recipe and "table.key=value,value" words.

        Raises ValueError, one line, for what may not be swept or is in no sweep, a value that is named twice, and no
        setting with several values.
        """
        fixed, axes = [], dict[str, list[Any]]()
        for word in words:
            key, equals, text = (part.strip() for part in word.partition("="))
            key = SHORT.get(key, key)
            values = split_values(text) if equals else []
            if len(values) < 2:
                fixed.append(f"{key}={text}" if equals else word)
                continue
            if key not in SWEPT:
                raise ValueError(
                    f"{key} cannot be swept, got {text}: one base, one set of data and one watch serve all "
                    f"hats; swept may be {', '.join(SWEPT)}"
                )
            axes[key] = [toml_value(value) for value in values]
            if repeated := next((one for one, value in enumerate(axes[key]) if value in axes[key][:one]), 0):
                raise ValueError(f"{key}: every value must be named once, got {axes[key][repeated]!r} twice")
        if not axes:
            raise ValueError("name a setting with several values, such as adapter.rank=4,8,16")
        shared = TrainConfig.read(recipe, fixed)
        _check_shared(shared, str(recipe))
        tables, notes = _measured(shared)
        points = [
            _point(tables, dict(zip(axes, values, strict=True)), str(recipe))
            for values in itertools.product(*axes.values())
        ]
        return cls(Path(shared.run.out), axes, _named(points), notes)


def split_values(text: str) -> list[str]:
    """The values between commas that stand in no brackets and no quotes: "4,8" -> ["4", "8"]; "[0.9, 0.99]" is one."""
    return [part.strip() for part in re.findall(r"(?:\[[^\]]*\]|\"[^\"]*\"|'[^']*'|[^,\[\"'])+", text)]


def _check_shared(config: TrainConfig, where: str) -> None:
    if config.adapter.dora:
        raise ValueError(
            f"{where}: adapter.dora must be false in a sweep: a DoRA is worn alone, by all rows of a batch"
        )
    if config.preference.loss:
        raise ValueError(f"{where}: preference.loss must be empty in a sweep, got {config.preference.loss!r}")
    if config.adapter.merge_aware:
        raise ValueError(f"{where}: adapter.merge_aware must be empty in a sweep, got {config.adapter.merge_aware!r}")
    if config.adapter.start != DEFAULT:
        raise ValueError(f"{where}: adapter.start must be {DEFAULT!r} in a sweep, got {config.adapter.start!r}")
    if config.run.numerics != "fast":
        raise ValueError(f"{where}: run.numerics must be 'fast' in a sweep, got {config.run.numerics!r}")
    if config.run.parallel == "shards":
        raise ValueError(f"{where}: run.parallel must be 'replicas' in a sweep, which is one process")


def _measured(config: TrainConfig) -> tuple[dict[str, Any], list[str]]:
    """The tables of a config that holds something out, and what was chosen where it named nothing."""
    tables, watch = config.to_dict(), config.watch
    if config.data.validation or (watch.held_out and watch.every):
        return tables, []
    tables["watch"]["every"] = AT_THE_END
    if watch.held_out:
        return tables, ["watch.every is 0: the held-out loss is measured at the end"]
    tables["data"]["validation"] = VALIDATION
    return tables, [f"nothing is held out: data.validation={VALIDATION:g} is, and is measured at the end"]


def _point(
    tables: Mapping[str, Any], values: Mapping[str, Any], where: str
) -> tuple[dict[str, Any], dict[str, Any], str]:
    """Tables, values, and a name made of the values."""
    point = {table: dict(keys) for table, keys in tables.items()}
    for name, value in values.items():
        table, _, key = name.partition(".")
        point[table][key] = value
    word = "_".join(f"{name.partition('.')[2]}-{value}" for name, value in values.items())
    return point, dict(values), re.sub(r"[^\w.+-]+", "-", word).strip("-")


def _named(points: Sequence[tuple[dict[str, Any], dict[str, Any], str]]) -> list[Point]:
    """Points with names of their own. A hat's name while it trains is "hat" and its number."""
    found = []
    names = [name for _, _, name in points]
    for number, (tables, values, name) in enumerate(points):
        unique = name if names.count(name) == 1 else f"{name}_{number}"
        settings = {
            **tables,
            "adapter": {**tables["adapter"], "name": f"hat{number}"},
            "run": {**tables["run"], "out": str(Path(tables["run"]["out"]) / unique)},
        }
        found.append(Point(unique, values, TrainConfig.from_dict(settings, unique)))
    return found
