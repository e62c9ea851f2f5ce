"""The findings of `lowrank doctor`, as a page or as one object."""

from dataclasses import dataclass, field
from typing import Any

Facts = dict[str, Any]


@dataclass
class Report:
    """The page: facts by topic, what is not done or slow because of them, and what has to be repaired."""

    facts: dict[str, Facts] = field(default_factory=dict)
    limits: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """The same as one object; sizes in bytes."""
        return {**self.facts, "limits": self.limits, "broken": self.broken}

    def text(self) -> str:
        """The same in lines; sizes in GB."""
        lines = []
        for topic, facts in self.facts.items():
            width = max((len(_label(name)) for name in facts), default=0)
            lines += [topic.replace("_", " ")]
            lines += [f"  {_label(name):<{width}}  {_shown(name, value)}" for name, value in facts.items()]
            lines += [] if facts else ["  nothing is set"]
        for title, entries in (("therefore", self.limits), ("broken", self.broken)):
            lines += [title, *([f"  - {line}" for line in entries] or ["  nothing"])]
        return "\n".join(lines)


def _label(name: str) -> str:
    """A fact's name in words; a variable of the environment keeps its own."""
    return name if name.isupper() else name.removesuffix("_bytes").replace("_", " ")


def _shown(name: str, value: Any) -> str:
    if name.endswith("bytes") and isinstance(value, int):
        return f"{value / 1e9:.1f} GB"
    if isinstance(value, dict):
        parts = {key: "missing" if part is None else _shown(key, part) for key, part in value.items()}
        return ", ".join(f"{_label(key)} {part}" for key, part in parts.items())
    if isinstance(value, list):
        return ", ".join(_shown("", part) for part in value) or "none"
    if value is None:
        return "-"
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
