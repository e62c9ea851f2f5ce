"""The plan of `lowrank reproduce --lora`: facts learned by heart, fully and by LoRA, over ranks, linears and rates.

    many         facts in small batches: every method
    few          a part of them: full fine-tuning, the lowest rank and the highest
    large batch  the many facts in larger batches, as often as before: full fine-tuning and the typical rank

Every method has a geometric grid of rates of its own in each part; every seed draws other facts, another order and
another start of A. Methods are compared on the same facts in the same order.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

MANY, FEW, LARGE = "many", "few", "large batch"
FULL_NAME, ALL, ATTENTION, MLP = "full", "all", "attention", "mlp"
LINEARS: dict[str, str | list[str]] = {ALL: "all", ATTENTION: "attention", MLP: ["w1", "w2", "w3"]}
ALPHA = 32.0  # at every rank, as in "LoRA Without Regret", but for one method; twice the typical rank
SEEDS = 3


@dataclass(frozen=True)
class Method:
    """LoRA of a rank on some of the linears, a key of `LINEARS`; rank 0: every weight of the base is trained."""

    rank: int = 0
    targets: str = ALL
    alpha: float = ALPHA

    @property
    def name(self) -> str:
        """ "full", "all-16", "all-64-alpha-128" """
        if not self.rank:
            return FULL_NAME
        return f"{self.targets}-{self.rank}" + ("" if self.alpha == ALPHA else f"-alpha-{self.alpha:g}")

    @property
    def title(self) -> str:
        """The name in words: "full", "rank 16", "rank 22, attention", "rank 64, alpha 128" """
        if not self.rank:
            return FULL_NAME
        targets = "" if self.targets == ALL else f", {self.targets}"
        return f"rank {self.rank}{targets}" + ("" if self.alpha == ALPHA else f", alpha {self.alpha:g}")


FULL = Method()


@dataclass(frozen=True)
class Part:
    """facts, batch: in a set, and in a step;  epochs: passes over the set;  grids: the rates of each method."""

    name: str
    facts: int
    batch: int
    epochs: int
    grids: tuple[tuple[Method, tuple[float, ...]], ...]

    @property
    def steps(self) -> int:
        """Steps of a run."""
        return self.facts * self.epochs // self.batch


@dataclass(frozen=True)
class Run:
    """One training."""

    part: Part
    method: Method
    rate: float
    seed: int

    @property
    def name(self) -> str:
        """The name of its file."""
        return f"{self.part.name.replace(' ', '-')}-{self.method.name}-{self.rate:g}-{self.seed}"


@dataclass(frozen=True)
class Plan:
    """digits: of a fact;  kept: texts of what the base was taught;  typical: the rank that stands for LoRA."""

    parts: tuple[Part, ...]
    digits: int
    kept: int
    typical: int

    def part(self, name: str) -> Part:
        """The part of this name."""
        return next(part for part in self.parts if part.name == name)

    @property
    def ranks(self) -> list[int]:
        """The ranks of LoRA on all linears with one alpha, ascending."""
        methods = [method for method, _ in self.part(MANY).grids]
        return sorted(method.rank for method in methods if method.rank and method == Method(method.rank))

    @property
    def doubled(self) -> Method:
        """The method whose alpha is twice its rank, which is the highest."""
        return next(method for method, _ in self.part(MANY).grids if method.alpha != ALPHA)

    def targeted(self, targets: str) -> Method:
        """The method whose adapter is on these linears alone."""
        return next(method for method, _ in self.part(MANY).grids if method.targets == targets)

    def runs(self, seeds: int) -> Iterator[Run]:
        """Every run, one seed after another: what is finished first can be compared first."""
        for seed in range(seeds):
            for part in self.parts:
                for method, rates in part.grids:
                    for rate in rates:
                        yield Run(part, method, rate, seed)

    def settings(self) -> dict[str, Any]:
        """Everything that decides a run, by name."""
        found: dict[str, Any] = {"digits": self.digits, "kept": self.kept}
        for part in self.parts:
            found |= {f"{part.name}: {key}": getattr(part, key) for key in ("facts", "batch", "epochs")}
            found |= {f"{part.name}: rates of {method.name}": list(rates) for method, rates in part.grids}
        return found


def geometric(first: float, factor: float, count: int) -> tuple[float, ...]:
    """first, first * factor, ... to four digits"""
    return tuple(float(f"{first * factor**power:.4g}") for power in range(count))
