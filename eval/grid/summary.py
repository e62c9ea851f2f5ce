"""A grid in sentences that follow its printed numbers: what a hat gains, and what 4 bit costs."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..html.sections import SHARES, show_adapter, show_loss, show_share

FULL_PRECISION = ("fp32", "bf16", "fp16")

Row = Mapping[str, Any]  # of eval.json


def findings(grid: Sequence[Row]) -> list[str]:
    """A sentence for each hat on what it gains, in 4 bit if that was measured, and one for each on what 4 bit costs.

    Without a hat, the second is about the base alone.
    """
    if not grid:
        return ["No cell of the grid was evaluated."]
    at = {(row["adapter"], row["weights"]): row for row in grid}
    weights = sorted(dict.fromkeys(row["weights"] for row in grid), key=lambda name: name in FULL_PRECISION)
    adapters = [adapter for adapter in dict.fromkeys(row["adapter"] for row in grid) if adapter is not None]
    sentences = []
    for adapter in adapters:
        if name := next((name for name in weights if (adapter, name) in at and (None, name) in at), None):
            sentences.append(
                _compare(f"With the hat {adapter} on {name} weights, the loss", at[None, name], at[adapter, name])
            )
    for adapter in adapters or [None]:
        full = next((name for name in FULL_PRECISION if (adapter, name) in at), None)
        four = next((name for name in weights if name not in FULL_PRECISION and (adapter, name) in at), None)
        if full and four:
            subject = f"With the base in {four} instead of {full}, the loss of {show_adapter(adapter)}"
            sentences.append(_compare(subject, at[adapter, full], at[adapter, four]))
    return sentences or ["The grid holds no two cells that differ in the hat alone or in 4 bit alone."]


def _compare(subject: str, before: Row, after: Row) -> str:
    changes = [_change(subject, show_loss(before), show_loss(after)) + f" nats per token{_per_cent(before, after)}"]
    for key in ("sections", "figure_precision", "figure_recall"):
        changes.append(_change(SHARES[key].lower(), show_share(before.get(key)), show_share(after.get(key))))
    return f"{', '.join(changes[:-1])} and {changes[-1]}."


def _per_cent(before: Row, after: Row) -> str:
    """The change of the loss where it shows at three digits."""
    if show_loss(before) == show_loss(after) or not before["loss"] > 0 or not after["loss"] > 0:
        return ""
    return f" ({(after['loss'] / before['loss'] - 1) * 100:+.1f} %)"


def _change(what: str, before: str, after: str) -> str:
    """In words, from the numbers as printed, so that the verb never contradicts them."""
    try:
        change = float(after.rstrip("%")) - float(before.rstrip("%"))
    except ValueError:
        return f"{what}: from {before} to {after}"
    plural = what.endswith("sections")
    if not change:
        return f"{what} {'stay' if plural else 'stays'} at {after}"
    verb = ("rise" if change > 0 else "fall") + ("" if plural else "s")
    return f"{what} {verb} from {before} to {after}"
