"""The values that a config may have, key by key, and those that have no place beside each other."""

import math
from collections.abc import Callable
from typing import Any, Protocol

from lowrank.adapters import resolve_targets
from lowrank.adapters.files import read_adapter
from lowrank.adapters.starts import DEFAULT as DEFAULT_START
from lowrank.adapters.starts import LOFTQ, STARTS
from lowrank.kernels.weights.quantized_weight import DENSE_DTYPES, QUANTIZED_NAMES

from .config_tables import AdapterTable, BaseConfig, DataConfig, PreferenceConfig, RunConfig

MAX_SEED = 2**63 - 1


class Tables(Protocol):
    """The tables that are looked at beside each other (`config.TrainConfig`)."""

    @property
    def base(self) -> BaseConfig: ...

    @property
    def adapter(self) -> AdapterTable: ...

    @property
    def data(self) -> DataConfig: ...

    @property
    def preference(self) -> PreferenceConfig: ...

    @property
    def run(self) -> RunConfig: ...


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


def check_merge_aware(config: Tables, where: str) -> None:
    """Refuses what a hat that is to be merged has no place for."""
    adapter, weights = config.adapter, config.base.weights
    if not adapter.merge_aware:
        return
    one_of(adapter.merge_aware, QUANTIZED_NAMES, f"{where}: adapter.merge_aware")
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


def check_numerics(config: Tables, where: str) -> None:
    """Refuses what would not have the same bits on every processor."""
    if config.run.numerics == "fast":
        return
    adapter, base, beside = config.adapter, config.base, "with run.numerics = 'exact'"
    if base.device.partition(":")[0] != "cpu":
        raise ValueError(f"{where}: base.device must be cpu {beside}, got {base.device!r}")
    if base.dtype not in ("", "fp32"):
        raise ValueError(f"{where}: base.dtype must be fp32 {beside}, got {base.dtype!r}")
    for name, is_default, value in (
        ("adapter.dropout", not adapter.dropout, adapter.dropout),
        ("adapter.dora", not adapter.dora, adapter.dora),
        ("adapter.start", adapter.start == DEFAULT_START, adapter.start),
        ("adapter.merge_aware", not adapter.merge_aware, adapter.merge_aware),
        ("preference.loss", not config.preference.loss, config.preference.loss),
        ("run.parallel", config.run.parallel == "replicas", config.run.parallel),
    ):
        if not is_default:
            raise ValueError(f"{where}: {name} must be left at its default {beside}, got {value!r}")
    if config.run.recompute == "selective":
        raise ValueError(f"{where}: run.recompute must be 'none' or 'full' {beside}, got 'selective'")


def check_start(config: Tables, where: str) -> None:
    """Refuses what a start has no place for."""
    adapter, start = config.adapter, config.adapter.start
    one_of(start, STARTS, f"{where}: adapter.start")
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


def check_preference(config: Tables, where: str) -> None:
    """Refuses what a preference loss has no place for."""
    if not config.preference.loss:
        return
    loss = f"preference.loss = {config.preference.loss!r}"
    if config.data.pack:
        raise ValueError(f"{where}: data.pack must be 0 with {loss}: the two of a pair stand in rows of their own")
    if config.data.exclude:
        raise ValueError(
            f"{where}: data.exclude must be empty with {loss}: pairs have no weight, got {config.data.exclude}"
        )
    if config.run.parallel == "shards":
        raise ValueError(f"{where}: run.parallel must be 'replicas' with {loss}, got 'shards': it is not done here")


def check_sources(data: DataConfig, where: str) -> None:
    """Refuses files, weights and a validation split that are none."""
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
        setting = table.get(key, value)
        if key == "targets" and setting != value:
            try:
                setting = list(resolve_targets(setting))
            except ValueError:
                continue  # refused below, with its place
        if setting != value:
            raise ValueError(
                f"{where}: adapter.{key} must be left out or {value!r}, that of adapter.from, got {setting!r}"
            )
    return {"dropout": largest.dropout, **table, **shape}


def one_of(value: str, names: Any, where: str) -> None:
    """Raises ValueError for a value that is none of the names."""
    if value not in names:
        raise ValueError(f"{where} must be one of {', '.join(name or repr(name) for name in names)}, got {value!r}")
