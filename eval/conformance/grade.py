"""Answers beside the kit, and a verdict that names the rule that broke.

A rule is kept, broken, or not judged: no answer to any of its checks. The first broken one, in the order of the rules,
is the one to look at; what comes after it may follow from it.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lowrank.text_table import table

from .kit import read_tensor, to_bytes
from .rules import BY_NAME, RULES

KEPT, BROKEN, NOT_JUDGED = "kept", "BROKEN", "not judged"


@dataclass(frozen=True)
class Break:
    """One output that breaks a rule: how many of its numbers, and the first of them."""

    case: str
    output: str
    wrong: int
    of: int
    first: str


@dataclass(frozen=True)
class Finding:
    """One rule: kept, broken or not judged. as_found: which of several accepted outputs it was."""

    rule: str
    state: str
    breaks: tuple[Break, ...] = ()
    as_found: str = ""


@dataclass(frozen=True)
class Verdict:
    """All rules, in their order."""

    findings: tuple[Finding, ...]

    @property
    def broken(self) -> tuple[str, ...]:
        """The names of the rules that broke."""
        return tuple(finding.rule for finding in self.findings if finding.state == BROKEN)

    def sentence(self) -> str:
        """The verdict in words: the first rule that broke, where, and what that usually is."""
        judged = [finding for finding in self.findings if finding.state != NOT_JUDGED]
        if not judged:
            return "no rule is judged: there is no answer to any case"
        kept = sum(finding.state == KEPT for finding in judged)
        if not self.broken:
            return f"keeps all {kept} rules that are judged of {len(self.findings)}"
        first = next(finding for finding in judged if finding.state == BROKEN)
        rule, at = BY_NAME[first.rule], first.breaks[0]
        return (
            f"breaks the rule {first.rule!r}: {rule.says}. {at.case}: {at.wrong} of {at.of} {at.output} differ, first "
            f"{at.first}. Usually: {rule.usually}. {kept} of {len(judged)} judged rules are kept"
        )

    def table(self) -> str:
        """A row a rule, in plain text."""
        rows = []
        for finding in self.findings:
            first_break = "; ".join(
                f"{one.case}: {one.wrong} of {one.of} {one.output}, {one.first}" for one in finding.breaks[:1]
            )
            rows.append((finding.rule, finding.state, first_break or finding.as_found, BY_NAME[finding.rule].says))
        return table(rows, ("rule", "", "", "what holds"))

    def to_json(self) -> dict[str, Any]:
        """Every figure."""
        return {"verdict": self.sentence(), "findings": [asdict(finding) for finding in self.findings]}


def grade(kit: str | Path, answers: str | Path) -> Verdict:
    """The verdict on a folder of answers.  Raises ValueError for a folder that is no kit, or that is not there."""
    kit, answers = Path(kit), Path(answers)
    if not (kit / "manifest.json").is_file():
        raise ValueError(f"{kit}: holds no manifest.json, so it is no kit: `lowrank conformance kit` writes one")
    if not answers.is_dir():
        raise ValueError(f"{answers}: no such folder of answers")
    manifest = json.loads((kit / "manifest.json").read_text(encoding="utf-8"))
    broken: dict[str, list[Break]] = {}
    judged: dict[str, set[str]] = {}
    for case in manifest["cases"]:
        refused = (answers / f"{case['name']}.refused").exists()
        for check in case["checks"]:
            path = answers / f"{case['name']}.{check['output']}.bin"
            if check["compare"] == "not-finite":
                if refused or path.exists():
                    judged.setdefault(check["rule"], set())
                    if not refused and torch.isfinite(read_tensor(path, "float32")).all():
                        found = Break(
                            case["name"], check["output"], 0, 0, "nothing is refused, and every number is finite"
                        )
                        broken.setdefault(check["rule"], []).append(found)
                continue
            if not path.exists() and not refused:
                continue
            accepted = {name: (kit / tensor["file"], tensor["dtype"]) for name, tensor in check["accepted"].items()}
            judged.setdefault(check["rule"], set())
            if refused:
                broken.setdefault(check["rule"], []).append(
                    Break(case["name"], check["output"], 0, 0, "the call is refused")
                )
                continue
            dtype = next(iter(accepted.values()))[1]
            expected = {name: read_tensor(file, dtype) for name, (file, _) in accepted.items()}
            as_found, fault = COMPARE[check["compare"]](read_tensor(path, dtype), expected)
            if fault is None:
                judged[check["rule"]].add(as_found)
            else:
                broken.setdefault(check["rule"], []).append(Break(case["name"], check["output"], *fault))
    return Verdict(tuple(_finding(rule.name, judged, broken) for rule in RULES))


def _finding(rule: str, judged: Mapping[str, set[str]], broken: Mapping[str, list[Break]]) -> Finding:
    if rule in broken:
        return Finding(rule, BROKEN, tuple(broken[rule]))
    names = sorted(judged.get(rule, set()) - {"", "reference"})
    return Finding(rule, KEPT if rule in judged else NOT_JUDGED, (), f"as {' or '.join(names)}" if names else "")


Fault = tuple[int, int, str] | None
Compared = tuple[str, Fault]


def _bytes(answer: Tensor, expected: Mapping[str, Tensor]) -> Compared:
    for name, tensor in expected.items():
        if to_bytes(answer) == to_bytes(tensor):
            return name, None
    first = next(iter(expected.values()))
    return "", _differ(answer, first, lambda a, b: _bits(a) != _bits(b))


def _steps(answer: Tensor, expected: Mapping[str, Tensor]) -> Compared:
    codes = [tensor.int() for tensor in expected.values()]
    far = lambda a, b: torch.stack([(a.int() - one).abs() > 1 for one in codes]).all(dim=0)  # noqa: E731
    return "", _differ(answer, next(iter(expected.values())), far)


def _within(answer: Tensor, expected: Mapping[str, Tensor]) -> Compared:
    exact, bound = expected["exact"], expected["bound"].double()
    return "", _differ(answer, exact, lambda a, b: ~((a.double() - b.double()).abs() <= bound))


def _differ(answer: Tensor, expected: Tensor, is_wrong: Callable[[Tensor, Tensor], Tensor]) -> Fault:
    if answer.numel() != expected.numel():
        return expected.numel(), expected.numel(), f"{answer.numel()} numbers for {expected.numel()}"
    wrong = is_wrong(answer, expected).nonzero().flatten().tolist()
    if not wrong:
        return None
    at = wrong[0]
    return len(wrong), expected.numel(), f"[{at}]: {answer[at].item():.9g} for {expected[at].item():.9g}"


def _bits(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.uint8 else tensor.view(torch.int32 if tensor.itemsize == 4 else torch.int16)


COMPARE: dict[str, Callable[[Tensor, Mapping[str, Tensor]], Compared]] = {
    "bytes": _bytes,
    "steps": _steps,
    "within": _within,
}
