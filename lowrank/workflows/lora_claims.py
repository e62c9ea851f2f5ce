"""Claims of three works on LoRA and full fine-tuning, each beside a figure of the runs here, and a verdict by one rule.

A claim is an open range that a figure should lie in. The figure has a value for each seed, paired where two methods are
compared, and an interval of 95 % (Student's t). The verdict:

    agrees           the whole interval lies in the range
    does not         none of it does
    cannot be told   neither, or there is no figure: a best rate at an end of its grid, one seed

Each work is held to its own alpha: "LoRA Without Regret" has 32 at every rank, the other two have 2 r.

"Roughly equal" is a difference below `MARGIN`, a twentieth of what there is to learn; a factor that is said is met
within two of it on either side, unless the work itself says how far.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..eval.metrics.bootstrap import Interval
from ..eval.metrics.rank_correlation import rank_correlation
from ..eval.metrics.student import mean_interval
from .lora_plan import ALPHA, ATTENTION, FEW, FULL, LARGE, MANY, MLP, Method, Plan
from .lora_results import CannotTell, Results, measured

AGREES, DOES_NOT, CANNOT_TELL = "agrees", "does not", "cannot be told"
MARGIN = 0.05 * math.log(10)  # nats a digit
SOME = 0.01  # of the singular vectors that are looked at: fewer intruders are "almost never"

REGRET = "LoRA Without Regret"
LEARNS_LESS = "LoRA Learns Less and Forgets Less"
ILLUSION = "LoRA vs Full Fine-tuning"

Values = Callable[[Results], Sequence[float]]  # of each seed; raises CannotTell


@dataclass(frozen=True)
class Claim:
    """A sentence of a work, and its place.

    figure     what is measured here, in words
    low, high  the range that it should lie in
    values     of each seed; of a ratio their logarithms, while `low` and `high` are ratios
    """

    work: str
    where: str
    says: str
    figure: str
    low: float
    high: float
    values: Values
    is_ratio: bool = False


@dataclass(frozen=True)
class Judged:
    """A claim beside its figure; `interval` is None, and `why` says it, where there is none."""

    claim: Claim
    interval: Interval | None
    verdict: str
    why: str = ""


def decide(interval: Interval, low: float, high: float) -> str:
    """The rule above."""
    if low < interval.low and interval.high < high:
        return AGREES
    if interval.high <= low or interval.low >= high:
        return DOES_NOT
    return CANNOT_TELL


def judge(claim: Claim, results: Results) -> Judged:
    """The verdict of the runs on a claim."""
    try:
        interval = mean_interval(claim.values(results))
    except CannotTell as reason:
        return Judged(claim, None, CANNOT_TELL, str(reason))
    if claim.is_ratio:
        interval = Interval(*(math.exp(value) for value in (interval.difference, interval.low, interval.high)))
    return Judged(claim, interval, decide(interval, claim.low, claim.high))


def claims(plan: Plan) -> list[Claim]:
    """Every claim that a plan of this kind can look into."""
    return [*_rates(plan), *_learning(plan), *_linears(plan), *_batch(plan), *_forgetting(plan), *_intruders(plan)]


def _rates(plan: Plan) -> Iterator[Claim]:
    typical, first, second, last = _ranks(plan)
    best = "Optimal learning rates for LoRA vs. FullFT"
    ratio = f"best rate of {typical.title} over that of full fine-tuning, many facts"
    yield Claim(LEARNS_LESS, "section 4.7", "LoRA's best rates are one order of magnitude above those of full "
                "fine-tuning", ratio, 5, 20, _ratio(MANY, typical, FULL), True)  # fmt: skip
    yield Claim(REGRET, best, "the best rate of LoRA is 10 times that of full fine-tuning", ratio, 5, 20,
                _ratio(MANY, typical, FULL), True)  # fmt: skip
    yield Claim(REGRET, "Learning rates in short and long runs", "about 15 times in runs of under about 100 steps",
                ratio, 7.5, 30, _ratio(MANY, typical, FULL), True)  # fmt: skip
    yield Claim(REGRET, "LoRA rank", "the best rate changes by less than a factor of 2 between rank 4 and rank 512",
                f"best rate of {last.title} over that of {second.title}, many facts", 1 / 2, 2,
                _ratio(MANY, last, second), True)  # fmt: skip
    yield Claim(REGRET, "LoRA rank", "rank 1 has a lower best rate than higher ranks",
                f"best rate of {first.title} over that of {typical.title}, many facts", 0, 1,
                _ratio(MANY, first, typical), True)  # fmt: skip


def _learning(plan: Plan) -> Iterator[Claim]:
    typical, first, _, last = _ranks(plan)
    high, more, less = plan.doubled, math.inf, -math.inf
    yield Claim(REGRET, "LoRA rank", "LoRA of a high rank learns as full fine-tuning does, on data below its capacity",
                f"loss of {last.title} less that of full fine-tuning, few facts", -MARGIN, MARGIN,
                _difference(FEW, last, FULL, "loss"))  # fmt: skip
    yield Claim(REGRET, "Discussion", "where its capacity suffices, LoRA of a low rank learns as well",
                f"loss of {first.title} less that of {last.title}, few facts", -MARGIN, MARGIN,
                _difference(FEW, first, last, "loss"))  # fmt: skip
    yield Claim(REGRET, "LoRA rank", "full fine-tuning and LoRA of high ranks have similar learning curves",
                f"loss of {last.title} less that of full fine-tuning, many facts", -MARGIN, MARGIN,
                _difference(MANY, last, FULL, "loss"))  # fmt: skip
    yield Claim(REGRET, "LoRA rank", "low ranks fall behind high ones where there is more to learn",
                f"loss of {first.title} less that of {last.title}, many facts", 0, more,
                _difference(MANY, first, last, "loss"))  # fmt: skip
    yield Claim(LEARNS_LESS, "section 4.1", "LoRA at low ranks underperforms full fine-tuning",
                f"loss of {typical.title} less that of full fine-tuning, many facts", 0, more,
                _difference(MANY, typical, FULL, "loss"))  # fmt: skip
    yield Claim(LEARNS_LESS, "section 4.1", "high ranks are required to close the gap with full fine-tuning",
                f"loss of {high.title}, less that of {typical.title}, many facts", less, 0,
                _difference(MANY, high, typical, "loss"))  # fmt: skip
    yield Claim(LEARNS_LESS, "section 4.1", "high ranks do close it",
                f"loss of {high.title}, less that of full fine-tuning, many facts", -MARGIN, MARGIN,
                _difference(MANY, high, FULL, "loss"))  # fmt: skip
    yield Claim(LEARNS_LESS, "section 4.7", "alpha = 2 r is crucial for high ranks",
                f"loss of {high.title}, less that of alpha {ALPHA:g}, many facts", less, 0,
                _difference(MANY, high, last, "loss"))  # fmt: skip


def _linears(plan: Plan) -> Iterator[Claim]:
    attention, mlp = plan.targeted(ATTENTION), plan.targeted(MLP)
    layers = "Layers where LoRA is applied"
    yield Claim(REGRET, layers, "LoRA on attention alone underperforms LoRA on MLPs alone, with as many parameters",
                f"loss of {attention.title}, less that of {mlp.title}, many facts", 0, math.inf,
                _difference(MANY, attention, mlp, "loss"))  # fmt: skip
    yield Claim(LEARNS_LESS, "section 4.7", "LoRA on attention alone underperforms LoRA on all linears",
                f"loss of {attention.title}, less that of rank {plan.typical} on all, many facts", 0, math.inf,
                _difference(MANY, attention, Method(plan.typical), "loss"))  # fmt: skip
    yield Claim(REGRET, layers, "attention beside MLPs brings nothing more than MLPs alone",
                f"loss of rank {mlp.rank} on all linears less that of {mlp.title}, many facts", -MARGIN, MARGIN,
                _difference(MANY, Method(mlp.rank), mlp, "loss"))  # fmt: skip


def _batch(plan: Plan) -> Iterator[Claim]:
    typical = Method(plan.typical)

    def grown(results: Results) -> list[float]:
        gaps = [_difference(part, typical, FULL, "loss")(results) for part in (LARGE, MANY)]
        return [large - small for large, small in zip(*gaps, strict=True)]

    sizes = f"{plan.part(LARGE).batch} against {plan.part(MANY).batch} facts a step"
    yield Claim(REGRET, "Batch size effects", "LoRA pays more for large batches than full fine-tuning",
                f"loss of {typical.title} less that of full fine-tuning, {sizes}", 0, math.inf, grown)  # fmt: skip


def _forgetting(plan: Plan) -> Iterator[Claim]:
    typical, _, _, last = _ranks(plan)
    kept = "nats a token on what the base was taught"
    yield Claim(LEARNS_LESS, "section 4.2", "LoRA forgets less than full fine-tuning",
                f"{kept}: {typical.title} less full fine-tuning, many facts", -math.inf, 0,
                _difference(MANY, typical, FULL, "forgotten"))  # fmt: skip
    yield Claim(LEARNS_LESS, "section 4.2", "higher ranks forget more",
                f"{kept}: {plan.doubled.title}, less {typical.title}, many facts", 0, math.inf,
                _difference(MANY, plan.doubled, typical, "forgotten"))  # fmt: skip
    yield Claim(ILLUSION, "section 4", "LoRA forgets less also where both fit the task equally well",
                f"{kept}: {last.title} less full fine-tuning, few facts, at the rates that forget least of those that "
                f"come below {MARGIN:.3f} nats a digit", -math.inf, 0, _at_equal_fit(last, FULL))  # fmt: skip


def _intruders(plan: Plan) -> Iterator[Claim]:
    typical, _, _, last = _ranks(plan)
    share = "share of leading singular vectors that intrude"
    yield Claim(ILLUSION, "section 3", "full fine-tuning almost never has intruder dimensions",
                f"{share}: full fine-tuning, many facts", -math.inf, SOME,
                _at_best(MANY, FULL, "intruder share"))  # fmt: skip
    yield Claim(ILLUSION, "section 3", "LoRA has intruder dimensions, full fine-tuning has not",
                f"{share}: {typical.title} less full fine-tuning, many facts", 0, math.inf,
                _difference(MANY, typical, FULL, "intruder share"))  # fmt: skip
    yield Claim(ILLUSION, "section 3", "intruder dimensions become fewer as the rank rises past a threshold",
                f"{share}: {plan.doubled.title}, less {typical.title}, many facts", -math.inf, 0,
                _difference(MANY, plan.doubled, typical, "intruder share"))  # fmt: skip
    yield Claim(ILLUSION, "section 4", "alpha = 2 r makes fewer intruder dimensions than one alpha at every rank",
                f"{share}: {plan.doubled.title}, less alpha {ALPHA:g}, many facts", -math.inf, 0,
                _difference(MANY, plan.doubled, last, "intruder share"))  # fmt: skip
    yield Claim(ILLUSION, "section 4", "the more intruder dimensions, the more is forgotten",
                "rank correlation of both over the LoRA runs on many facts", 0, math.inf, _correlation)  # fmt: skip


def _ranks(plan: Plan) -> tuple[Method, Method, Method, Method]:
    """LoRA of the typical rank, the lowest, the next and the highest."""
    ranks = plan.ranks
    return Method(plan.typical), Method(ranks[0]), Method(ranks[1]), Method(ranks[-1])


def _ratio(part: str, one: Method, other: Method) -> Values:
    """ln of the ratio of the best rates, a seed each."""

    def values(results: Results) -> list[float]:
        pairs = zip(results.log_best_rates(part, one), results.log_best_rates(part, other), strict=True)
        return [above - below for above, below in pairs]

    return values


def _at_best(part: str, method: Method, key: str) -> Values:
    return lambda results: results.at_best(part, method, key)


def _difference(part: str, one: Method, other: Method, key: str) -> Values:
    """A measurement of one method less that of another, both at their best, a seed each."""

    def values(results: Results) -> list[float]:
        pairs = zip(results.at_best(part, one, key), results.at_best(part, other, key), strict=True)
        return [first - second for first, second in pairs]

    return values


def _at_equal_fit(one: Method, other: Method) -> Values:
    """Forgetting on few facts by one method less that by another, both as little as their rates allow."""

    def values(results: Results) -> list[float]:
        pairs = zip(*(results.least_forgotten(FEW, method, MARGIN) for method in (one, other)), strict=True)
        return [first - second for first, second in pairs]

    return values


def _correlation(results: Results) -> list[float]:
    """The rank correlation of intruders with forgetting, over every LoRA run of a seed that came to its end."""
    found = []
    for seed in results.seeds:
        rows = [
            row for row in results.rows if row["part"] == MANY and row["seed"] == seed and row["rank"] and "loss" in row
        ]
        if len(rows) < 3:
            raise CannotTell(f"fewer than 3 LoRA runs of seed {seed} came to their end")
        found.append(
            rank_correlation(*(np.array([measured(row, key) for row in rows]) for key in ("intruders", "forgotten")))
        )
    if any(math.isnan(rho) for rho in found):
        raise CannotTell("every LoRA run of a seed has as many intruders")
    return found
