"""A format for each linear under a budget of bits: the linears whose rounding costs most get more of them.

    s(l, f) = 1/2 sum_i E[g_i^2] (w_i - Q_f(w)_i)^2       the sensitivity of linear l to format f, in nats a token

g is the gradient of a document's summed loss over the root of its tokens. If the gradients of tokens are independent,
the mean of its square is the diagonal of a token's empirical Fisher matrix, in place of the Hessian (Dong et al.,
HAWQ, arXiv 1905.03696; Kim et al., SqueezeLLM, arXiv 2306.07629). The plan is

    minimise sum_l s(l, f_l)  subject to  sum_l n_l bits(f_l) <= budget sum_l n_l

solved as a multiple-choice knapsack by dynamic programming over the bits that the smallest plan leaves, in UNITS parts,
each linear's rounded up: the budget is kept, and no plan that leaves one part a linear unused is better.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor

from lowrank.checkpoints.load import load
from lowrank.data.encoding.batching import Example, collate
from lowrank.kernels import ops
from lowrank.kernels.weights.quantized_weight import QUANTIZED_NAMES, stored_bytes
from lowrank.model.loss import next_token_loss
from lowrank.progress import ProgressBar

from ..html.page import Rows
from ..metrics.bootstrap import Interval, paired_interval
from .beside import LOSS, block_linears, measure, nats

CHOICES = ("nf4-dq", "int8")
UNITS = 20_000
RANDOM_PLANS = 3


@dataclass(frozen=True)
class Sensitivity:
    """One linear: its weights, and of each format the bits it takes in all and what its rounding costs."""

    weights: int
    bits: dict[str, float]
    cost: dict[str, float]


@dataclass(frozen=True)
class Plan:
    """A format for each linear; bits a weight over all of them, and the sum of their sensitivities."""

    formats: dict[str, str]
    bits: float
    cost: float

    def to_json(self) -> dict[str, Any]:
        """As `lowrank quantize --plan` reads it."""
        return {"plan": "lowrank mixed precision", **asdict(self)}

    def rows(self) -> Rows:
        """(head, rows): a row a layer, a column a projection."""
        layers: dict[str, dict[str, str]] = {}
        for path, format in self.formats.items():
            _, layer, linear = path.split(".", 2)
            layers.setdefault(layer, {})[linear.partition(".")[2]] = format
        columns = list(dict.fromkeys(name for row in layers.values() for name in row))
        return ("layer", *columns), [
            (layer, *(row.get(name, "-") for name in columns)) for layer, row in layers.items()
        ]


@dataclass(frozen=True)
class MixedXray:
    """The best plan for a budget, what it comes from, its curve, and measured costs of it and of others by name.

    documents  whose gradients were taken; and those on which `measured` was
    """

    base: str
    budget: float
    documents: tuple[int, int]
    plan: Plan
    sensitivities: dict[str, Sensitivity]
    curve: tuple[Plan, ...]
    measured: dict[str, Interval]

    def to_json(self) -> dict[str, Any]:
        """Every figure; `lowrank quantize --plan` reads it too."""
        return {
            **self.plan.to_json(),
            "base": self.base,
            "budget": self.budget,
            "documents": list(self.documents),
            "sensitivities": {path: asdict(one) for path, one in self.sensitivities.items()},
            "curve": [[point.bits, point.cost] for point in self.curve],
            "measured": {name: asdict(cost) for name, cost in self.measured.items()},
        }


def inspect_mixed(
    base: str | Path,
    budget: float,
    examples: Sequence[Example],
    choices: Sequence[str] = CHOICES,
    *,
    others: Sequence[Example] = (),
    progress: bool = False,
) -> MixedXray:
    """The best plan of `budget` bits a weight, by the gradients of examples.

    others  documents on which the plan, each of its formats alone and RANDOM_PLANS of its size are measured; none: not
    Raises ValueError as `sensitivities` and `solve` do.
    """
    found = sensitivities(base, examples, choices, progress=progress)
    plan = solve(found, budget)
    plans = {name: Plan(dict.fromkeys(found, name), 0.0, 0.0) for name in next(iter(found.values())).bits}
    plans[f"the plan, {plan.bits:.3f} bits"] = plan
    plans |= {f"random plan {seed}": control(found, plan.bits, seed) for seed in range(RANDOM_PLANS)}
    measured = measure_plans(base, plans, others, progress=progress) if others else {}
    return MixedXray(str(base), budget, (len(examples), len(others)), plan, found, tuple(curve(found)), measured)


def sensitivities(
    base: str | Path,
    examples: Sequence[Example],
    choices: Sequence[str] = CHOICES,
    *,
    progress: bool = False,
) -> dict[str, Sensitivity]:
    """s(l, f) of every block linear, from the gradients of each example by itself

    The model in float32, and a square of each weight's gradient, are held.
    Raises ValueError for no example, a format that is none, and a base that is stored quantized.
    """
    if not examples:
        raise ValueError("sensitivities need one document or more, got none")
    if unknown := [choice for choice in choices if choice not in QUANTIZED_NAMES]:
        raise ValueError(f"a plan chooses among {', '.join(QUANTIZED_NAMES)}, got {unknown[0]!r}")
    model = load(base, "fp32")
    linears = block_linears(model)
    squares = {path: torch.zeros_like(linear.weight) for path, linear in linears.items()}
    for linear in linears.values():
        linear.weight.requires_grad_(True)
    for example in ProgressBar(examples, "gradients", len(examples), unit="document", disable=not progress):
        loss, count = next_token_loss(model, *collate([example]))
        loss.backward()
        for path, linear in linears.items():
            assert linear.weight.grad is not None, path
            squares[path] += linear.weight.grad.square() / (count * len(examples))
            linear.weight.grad = None
    found = {}
    for path, linear in linears.items():
        w = linear.weight.detach()
        bits: dict[str, float] = {}
        cost: dict[str, float] = {}
        for choice in choices:
            stored = ops.quantize(w, choice, name=path)
            bits[choice] = 8.0 * stored_bytes(stored)
            cost[choice] = 0.5 * float((squares[path] * (w - ops.dequantize(stored)).square()).double().sum())
        found[path] = Sensitivity(w.numel(), bits, cost)
    return found


def solve(sensitive: Mapping[str, Sensitivity], budget: float) -> Plan:
    """The plan of least cost whose bits a weight are at most `budget`.  Raises ValueError if no plan is so small."""
    if not isinstance(budget, int | float):
        raise ValueError(f"budget must be a number of bits, got {budget!r}")
    total = sum(one.weights for one in sensitive.values())
    least = sum(min(one.bits.values()) for one in sensitive.values())
    spare = budget * total - least
    if spare < -1e-9 * least:
        lowest = math.ceil(1000 * least / total) / 1000
        raise ValueError(f"budget must be at least {lowest:g} bits a weight, got {budget:g}")
    cheapest = {path: min(one.cost, key=lambda name: one.cost[name]) for path, one in sensitive.items()}
    if sum(sensitive[path].bits[name] for path, name in cheapest.items()) <= budget * total * (1 + 1e-9):
        return _plan(sensitive, cheapest)
    unit = max(spare, 0.0) / UNITS
    best = torch.zeros(UNITS + 1, dtype=torch.float64)  # the least cost so far, by the parts of `spare` in use
    best[1:] = torch.inf
    steps = []
    for one in sensitive.values():
        parts = {name: _parts(bits - min(one.bits.values()), unit) for name, bits in one.bits.items()}
        moved = [_moved(best, parts[name], one.cost[name]) for name in parts]
        best, choice = torch.stack(moved).min(dim=0)
        steps.append((parts, choice))
    at = int(best.argmin())
    formats: list[str] = []
    for parts, choice in reversed(steps):
        name = list(parts)[int(choice[at])]
        formats.append(name)
        at -= parts[name]
    chosen = dict(zip(sensitive, reversed(formats), strict=True))
    return _plan(sensitive, chosen)


def _plan(sensitive: Mapping[str, Sensitivity], chosen: dict[str, str]) -> Plan:
    total = sum(one.weights for one in sensitive.values())
    bits = sum(sensitive[path].bits[name] for path, name in chosen.items())
    return Plan(chosen, bits / total, sum(sensitive[path].cost[name] for path, name in chosen.items()))


def _parts(extra: float, unit: float) -> int:
    """Bits above a linear's smallest format, in parts, rounded up; more than there are where there is nothing spare."""
    if extra == 0:
        return 0
    return min(math.ceil(extra / unit), UNITS + 1) if unit else UNITS + 1


def _moved(best: Tensor, parts: int, cost: float) -> Tensor:
    moved = torch.full_like(best, torch.inf)
    moved[parts:] = best[: max(0, len(best) - parts)] + cost
    return moved


def measure_plans(
    base: str | Path, plans: Mapping[str, Plan], examples: Sequence[Example], *, progress: bool = False
) -> dict[str, Interval]:
    """The cost of each plan in nats a token, with its interval over documents, beside the base in float32."""
    model = load(base, "fp32")
    before = nats(model, examples)
    found: dict[str, Interval] = {}
    for name, plan in ProgressBar(plans.items(), "plans", len(plans), unit="plan", disable=not progress):

        def change(path: str, w: Tensor, plan: Plan = plan) -> Tensor:
            return ops.dequantize(ops.quantize(w, plan.formats[path], name=path))

        _, after = measure(model, change, examples)
        found[name] = paired_interval(LOSS, before, after)
    return found


def control(sensitive: Mapping[str, Sensitivity], budget: float, seed: int) -> Plan:
    """A plan of the same budget that knows nothing: linears in a random order get the larger format, if it fits."""
    total, order = sum(one.weights for one in sensitive.values()), list(sensitive)
    Random(seed).shuffle(order)
    chosen = {path: min(one.bits, key=lambda name: one.bits[name]) for path, one in sensitive.items()}
    bits = sum(sensitive[path].bits[name] for path, name in chosen.items())
    for path in order:
        one = sensitive[path]
        largest = max(one.bits, key=lambda name: one.bits[name])
        more = one.bits[largest] - one.bits[chosen[path]]
        if bits + more <= budget * total:
            bits, chosen[path] = bits + more, largest
    return _plan(sensitive, chosen)


def curve(sensitive: Mapping[str, Sensitivity], points: int = 9) -> list[Plan]:
    """Plans from the fewest bits to the most, evenly spaced."""
    total = sum(one.weights for one in sensitive.values())
    ends = [sum(pick(one.bits.values()) for one in sensitive.values()) / total for pick in (min, max)]
    return [solve(sensitive, ends[0] + (ends[1] - ends[0]) * at / (points - 1)) for at in range(points)]
