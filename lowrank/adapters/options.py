"""Options of a hat: names of linears, Meta's and Hugging Face's, and the ranges of numbers."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from ..layers.lora import AdapterConfig
from ..model.param_names import HF_LINEARS, LINEARS

ATTENTION = tuple(name for name in LINEARS if name.startswith("attention."))
IN_EXPRESSIONS = set("*+?[](){}|^$\\")  # characters that no name has
T = TypeVar("T")


def resolve_targets(targets: str | Sequence[str]) -> tuple[str, ...]:
    """Meta's names, in Meta's order, of "all", "attention", or names of either kind ("wq", "q_proj", "attention.wq").

    Raises ValueError for another name, or none.
    """
    if targets == "all":
        return LINEARS
    if targets == "attention":
        return ATTENTION
    known = {short: meta for meta in LINEARS for short in (meta, meta.partition(".")[2])}
    known |= {short: meta for hf, meta in zip(HF_LINEARS, LINEARS, strict=True) for short in (hf, hf.partition(".")[2])}
    chosen = set()
    for target in [targets] if isinstance(targets, str) else targets:
        if target not in known:
            raise ValueError(f"targets: unknown linear {target!r}: 'all', 'attention', or of {', '.join(known)}")
        chosen.add(known[target])
    if not chosen:
        raise ValueError("targets: name at least one linear, got none")
    return tuple(meta for meta in LINEARS if meta in chosen)


def names_or_pattern(targets: str | Sequence[str], option: str) -> str | list[str]:
    """Names of either kind as Hugging Face's, "self_attn.q_proj" ..., or a regular expression as it is.

    Raises ValueError for an unknown name, and an expression that is none.
    """
    if isinstance(targets, str) and IN_EXPRESSIONS & set(targets):
        try:
            re.compile(targets)
        except re.error as error:
            raise ValueError(f"{option}: {targets!r} must be a regular expression: {error}") from None
        return targets
    return [HF_LINEARS[LINEARS.index(name)] for name in resolve_targets(targets)]


def by_hf_name(pattern: Mapping[str, T]) -> dict[str, T]:
    """Keys that are a linear's name, of either kind, as Hugging Face's; expressions as they are."""
    return {
        key if IN_EXPRESSIONS & set(key) else re.escape(str(names_or_pattern([key], "pattern")[0])): value
        for key, value in pattern.items()
    }


def check_range(config: AdapterConfig, where: str, called: Mapping[str, str]) -> None:
    """Raises ValueError for options out of range; `called` maps a field to its name in the file or call at fault."""
    rules: dict[str, tuple[str, Callable[[Any], bool]]] = {
        "rank": ("at least 1 and whole", lambda rank: type(rank) is int and rank >= 1),
        "alpha": ("a finite number", lambda alpha: type(alpha) in (int, float) and math.isfinite(alpha)),
        "dropout": ("in [0, 1)", lambda share: type(share) in (int, float) and 0 <= share < 1),
        "rslora": ("true or false", lambda flag: type(flag) is bool),
        "dora": ("true or false", lambda flag: type(flag) is bool),
    }
    for field, (rule, is_valid) in rules.items():
        value = getattr(config, field)
        if not is_valid(value):
            raise ValueError(f"{where}: {called.get(field, field)} must be {rule}, got {value!r}")
