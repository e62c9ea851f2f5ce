"""`adapter_config.json`, PEFT's options: read, refused by name, or written. See docs/adapters.md for the table.

A module is named as in Hugging Face's Llama: "model.layers.0.self_attn.q_proj".
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from ..layers.lora import AdapterConfig
from ..model.config_json import read_json
from ..model.param_names import LINEARS, to_hf
from .folder import CONFIG_FILE as CONFIG_FILE
from .options import check_range

# A key that is neither honoured, harmless nor in FIXED may change the mathematics: it has to be left empty.
HONOURED = (
    "r",
    "lora_alpha",
    "lora_dropout",
    "use_rslora",
    "target_modules",
    "exclude_modules",
    "layers_to_transform",
    "layers_pattern",
    "rank_pattern",
    "alpha_pattern",
    "use_dora",
    "modules_to_save",
    "trainable_token_indices",
)
FIXED: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none",),
    "init_lora_weights": (True, False, "gaussian", "eva", "orthogonal"),  # or of REWRITING; MiCA freezes B
}
# Starts that rewrite the base as well: the matrices of such a hat belong to what they left of it.
REWRITING = {
    "pissa": "the residual base that PiSSA left, W without its leading singular vectors",
    "olora": "the residual base that OLoRA left, W without a part of its QR decomposition",
    "corda": "the residual base that CorDA left",
    "lora_ga": "the residual base that LoRA-GA left",
    "loftq": "the base that LoftQ quantized, with codes of its own",
}
HARMLESS = (
    "auto_mapping",
    "base_model_name_or_path",
    "corda_config",  # these three say how a start was made, and matter with init_lora_weights alone
    "eva_config",
    "fan_in_fan_out",  # of a transposed linear, which a Llama has not: PEFT sets it back to false
    "lora_ga_config",
    "loftq_config",
    "ensure_weight_tying",  # of modules_to_save, which say themselves what they hold
    "inference_mode",
    "megatron_core",  # of megatron_config, which is refused
    "peft_version",
    "qalora_group_size",  # of use_qalora, which is refused
    "revision",
    "runtime_config",
    "task_type",
)
OUTSIDE = ("model.embed_tokens", "lm_head")  # other modules that a pattern may match, and PEFT would then adapt


T = TypeVar("T")


@dataclass(frozen=True)
class PeftConfig:
    """The options of a folder, checked one by one; `where` names the file in errors.

    saved       modules of which all rows come with the adapter, in Meta's names: "tok_embeddings", "output"
    token_rows  those of which some rows do, and which
    """

    where: str
    rank: int
    alpha: float
    dropout: float
    rslora: bool
    targets: str | list[str]
    excluded: str | list[str]
    layers: list[int] | None
    containers: list[str]
    rank_pattern: dict[str, int]
    alpha_pattern: dict[str, float]
    dora: bool = False
    saved: tuple[str, ...] = ()
    token_rows: dict[str, list[int]] = field(default_factory=dict)

    def layer_configs(self, n_layers: int) -> dict[str, AdapterConfig]:
        """rank, alpha and scaling of every linear that the adapter covers, by its path in Meta's names

        Raises ValueError if it covers none, or the embedding or the output head.
        """
        for module in OUTSIDE:
            if self._is_covered(module):
                raise ValueError(f"{self.where}: target_modules must not take in {module}: that is not done here")
        paths = [f"layers.{layer}.{linear}" for layer in range(n_layers) for linear in LINEARS]
        covered = [path for path in paths if self._is_covered(to_hf(path))]
        if not covered:
            raise ValueError(f"{self.where}: target_modules must match a linear of {n_layers} layers, matches none")
        names = {path.split(".", 2)[2] for path in covered}
        targets = tuple(linear for linear in LINEARS if linear in names)
        return {path: self._config(to_hf(path), targets) for path in covered}

    def _is_covered(self, module: str) -> bool:
        """PEFT's rule: what is excluded, then a pattern or full name, then the end of a name in the layers named."""
        if isinstance(self.excluded, str):
            if self.excluded and re.fullmatch(self.excluded, module):
                return False
        elif _has_suffix(module, self.excluded):
            return False
        if isinstance(self.targets, str):
            if self.targets.lower() == "all-linear":
                return module not in OUTSIDE
            return re.fullmatch(self.targets, module) is not None
        if not _has_suffix(module, self.targets):
            return False
        return module in self.targets or self.layers is None or self._layer(module) in self.layers

    def _layer(self, module: str) -> int | None:
        """The number of a module's layer, in the container that `layers_pattern` names if it names any."""
        for container in self.containers or [r"[^.]*"]:
            if match := re.match(rf"(?:^|.*?\.){container}\.(?P<layer>\d+)\.", module):
                return int(match["layer"])
        return None

    def _config(self, module: str, targets: tuple[str, ...]) -> AdapterConfig:
        rank = _first_match(self.rank_pattern, module, self.rank)
        alpha = _first_match(self.alpha_pattern, module, self.alpha)
        return AdapterConfig(rank, alpha, targets, self.dropout, self.rslora, self.dora)


def read_peft_config(path: Path, *, force: bool = False) -> PeftConfig:
    """The options of a PEFT folder.

    force  lets a hat pass whose start rewrote the base: what it is put on is that base then
    Raises ValueError naming the file and the key for one that is missing, out of range, or not done here.
    """
    values, where = read_json(path), str(path)
    for key, value in values.items():
        if key == "init_lora_weights" and (left := base_left_by(value)):
            if force:
                continue
            named = values.get("base_model_name_or_path")
            itself = f"{named!r} itself" if named else "the base itself"
            raise ValueError(
                f"{where}: init_lora_weights is {value!r}, so the hat belongs to {left}, not to {itself}: let PEFT "
                "convert it (save_pretrained with path_initial_model_for_weight_conversion), or name that base "
                "(force=True to insist); pissa and olora are converted by lowrank export --format peft --base BASE"
            )
        if key in FIXED:
            if value not in FIXED[key]:
                raise ValueError(f"{where}: {key} must be {FIXED[key][0]!r}, got {value!r}: it is not done here")
        elif key not in HONOURED and key not in HARMLESS and value not in (None, False, [], {}):
            raise ValueError(f"{where}: {key} must be left empty, got {value!r}: it is not done here")
    for key in ("r", "lora_alpha", "target_modules"):
        if key not in values:
            raise ValueError(f"{where}: key {key!r} is missing")
    targets = _names(values, "target_modules", where)
    if not targets:
        raise ValueError(f"{where}: target_modules must be a list of names or a pattern, got {targets!r}")
    layers = values.get("layers_to_transform")
    layers = [layers] if type(layers) is int else layers or None
    if layers is not None and not (isinstance(layers, list) and all(type(layer) is int for layer in layers)):
        raise ValueError(f"{where}: layers_to_transform must be a number or a list of numbers, got {layers!r}")
    if layers is not None and isinstance(targets, str):
        raise ValueError(f"{where}: layers_to_transform must be left empty beside a target_modules that is a pattern")
    containers = _names(values, "layers_pattern", where)
    config = PeftConfig(
        where,
        rank=values["r"],
        alpha=values["lora_alpha"],
        dropout=values.get("lora_dropout", 0.0),
        rslora=values.get("use_rslora", False),
        targets=targets,
        excluded=_names(values, "exclude_modules", where),
        layers=layers,
        containers=[containers] if isinstance(containers, str) else containers,
        rank_pattern=_pattern(values, "rank_pattern", where),
        alpha_pattern=_pattern(values, "alpha_pattern", where),
        dora=values.get("use_dora") or False,
        saved=_saved(values, where),
        token_rows=_token_rows(values, where),
    )
    _check_numbers(config)
    return config


def to_peft_config(
    configs: Mapping[str, AdapterConfig],
    n_layers: int,
    base_name: str | None = None,
    rows: Mapping[str, Sequence[int] | None] | None = None,
) -> dict[str, Any]:
    """The adapter_config.json that PEFT reads as these configs (by the path of their layer, in Meta's names).

    rows  modules whose rows come with the adapter: all of them (None), or those that are named
    Few keys, since older PEFT refuses those it does not know. The commonest rank and alpha are the adapter's, others
    are in a pattern by the full name of their module.
    """
    any_config = next(iter(configs.values()))
    rank = _commonest(config.rank for config in configs.values())
    alpha = _commonest(config.alpha for config in configs.values())
    everywhere = {f"layers.{layer}.{target}" for layer in range(n_layers) for target in any_config.targets}
    if set(configs) == everywhere:
        targets = [to_hf(f"layers.0.{target}").rpartition(".")[2] for target in any_config.targets]
    else:
        targets = [to_hf(path) for path in configs]
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_name,
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": any_config.dropout,
        "target_modules": sorted(targets),
        "bias": "none",
        "fan_in_fan_out": False,
        "use_rslora": any_config.rslora,
        "use_dora": any_config.dora,
        "rank_pattern": {to_hf(path): config.rank for path, config in configs.items() if config.rank != rank},
        "alpha_pattern": {to_hf(path): config.alpha for path, config in configs.items() if config.alpha != alpha},
        "layers_to_transform": None,
        "modules_to_save": [_short(path) for path, index in (rows or {}).items() if index is None] or None,
        "inference_mode": True,
        "init_lora_weights": True,
        **_token_indices(rows or {}),
    }


def _token_indices(rows: Mapping[str, Sequence[int] | None]) -> dict[str, Any]:
    """PEFT's option for rows of single tokens, and no key where there are none: older PEFT does not know it."""
    named = {_short(path): list(index) for path, index in rows.items() if index is not None}
    return {"trainable_token_indices": named} if named else {}


def _short(path: str) -> str:
    """ "tok_embeddings" -> "embed_tokens" """
    return to_hf(path).rpartition(".")[2]


def base_left_by(start: Any) -> str:
    """The base to which a hat belongs that was started so, where that is not the base itself."""
    if not isinstance(start, str):
        return ""
    return next((left for name, left in REWRITING.items() if start == name or start.startswith(f"{name}_")), "")


def _saved(values: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """modules_to_save, in Meta's names.  Raises ValueError for one that is no embedding and no output head."""
    names = values.get("modules_to_save") or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{where}: modules_to_save must be a list of names, got {names!r}")
    return tuple(_outside(name, "modules_to_save", where) for name in names)


def _token_rows(values: Mapping[str, Any], where: str) -> dict[str, list[int]]:
    """trainable_token_indices: rows by the module that they are of; a bare list is of the embedding."""
    indices = values.get("trainable_token_indices") or {}
    rows = {"embed_tokens": indices} if isinstance(indices, list) else indices
    if not isinstance(rows, dict):
        raise ValueError(f"{where}: trainable_token_indices must be a list or a list a module, got {indices!r}")
    for index in rows.values():
        valid = isinstance(index, list) and all(type(row) is int and row >= 0 for row in index)
        if not valid or len(set(index)) < len(index):
            raise ValueError(f"{where}: trainable_token_indices must be different whole numbers, got {index!r}")
    return {_outside(name, "trainable_token_indices", where): index for name, index in rows.items()}


def _outside(name: str, key: str, where: str) -> str:
    """ "model.embed_tokens" or "embed_tokens" -> "tok_embeddings"; the head likewise."""
    for path in ("tok_embeddings", "output"):
        if name in (to_hf(path), _short(path)):
            return path
    raise ValueError(f"{where}: {key} must be of embed_tokens and lm_head, got {name!r}: it is not done here")


def _has_suffix(module: str, names: Iterable[str]) -> bool:
    return any(module == name or module.endswith(f".{name}") for name in names)


def _first_match(pattern: Mapping[str, T], module: str, default: T) -> T:
    """PEFT's rule: the first key that matches the end of the name, from one of its dots on."""
    return next((value for key, value in pattern.items() if re.match(rf"(.*\.)?({key})$", module)), default)


def _commonest(values: Iterable[T]) -> T:
    return Counter(values).most_common(1)[0][0]


def _names(values: Mapping[str, Any], key: str, where: str) -> str | list[str]:
    """A list of names as it is, a pattern if it compiles; nothing is an empty list."""
    value = values.get(key) or []
    if isinstance(value, str):
        _check_pattern(value, key, where)
        return value
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        return value
    raise ValueError(f"{where}: {key} must be a list of names or a pattern, got {value!r}")


def _pattern(values: Mapping[str, Any], key: str, where: str) -> dict[str, Any]:
    value = values.get(key) or {}
    if not isinstance(value, dict):
        raise ValueError(f"{where}: {key} must give a number for each pattern, got {value!r}")
    for pattern in value:
        _check_pattern(pattern, key, where)
    return value


def _check_pattern(pattern: str, key: str, where: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{where}: {key}: {pattern!r} must be a regular expression: {error}") from None


def _check_numbers(config: PeftConfig) -> None:
    """Every rank and every alpha of the adapter, under the name of the key in which it stands."""
    default = AdapterConfig(config.rank, config.alpha, (), config.dropout, config.rslora, config.dora)
    called = {"rank": "r", "alpha": "lora_alpha", "dropout": "lora_dropout", "rslora": "use_rslora", "dora": "use_dora"}
    check_range(default, config.where, called)
    for rank in config.rank_pattern.values():
        check_range(AdapterConfig(rank, config.alpha, ()), config.where, {"rank": "rank_pattern"})
    for alpha in config.alpha_pattern.values():
        check_range(AdapterConfig(config.rank, alpha, ()), config.where, {"alpha": "alpha_pattern"})
