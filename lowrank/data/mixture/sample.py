"""Which of the clean rows are taken: fixed counts a data set, drawn by part and label in natural proportion.

    share_i = total * w_i / sum(w), rounded by largest remainder
    drawn   = the first by sha256(f"{seed}|{id}")

The draw is a function of the seed and a row's id alone: no order of rows, no generator's version can change it.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from .rows import MixtureRow
from .sources import DATA_SETS, NER, DataSet


def shares(total: int, weights: Mapping[str, int]) -> dict[str, int]:
    """`total` split by weight into whole numbers; what rounding down leaves goes to the largest remainders."""
    weight_sum = sum(weights.values())
    if not weight_sum:
        return dict.fromkeys(weights, 0)
    result = {name: total * weight // weight_sum for name, weight in weights.items()}
    by_remainder = sorted(weights, key=lambda name: (-(total * weights[name] % weight_sum), name))
    for name in by_remainder[: total - sum(result.values())]:
        result[name] += 1
    return result


def allot(what: str, total: int, weights: Mapping[str, int], limits: Mapping[str, int]) -> dict[str, int]:
    """`shares`, none above its limit: what one cannot give, the others give in proportion.

    Raises ValueError with the figures if all of them together cannot give `total`.
    """
    if sum(limits.values()) < total:
        figures = ", ".join(f"{name} {limit:,}" for name, limit in limits.items())
        raise ValueError(f"{what}: {total:,} rows wanted, {sum(limits.values()):,} can be had ({figures})")
    full: dict[str, int] = {}
    while True:
        left = {name: weight for name, weight in weights.items() if name not in full}
        result = shares(total - sum(full.values()), left)
        over = [name for name in left if result[name] > limits[name]]
        if not over:
            return {name: full.get(name, result.get(name, 0)) for name in weights}
        full |= {name: limits[name] for name in over}


def data_set_counts(total: int, available: Mapping[str, int]) -> dict[str, int]:
    """Data set -> rows to take of it. NER gives its share or all it has; what it lacks, the others give."""
    limits = {data.name: total for data in DATA_SETS} | {NER.name: available[NER.name]}
    return allot("mixture", total, {data.name: data.rows for data in DATA_SETS}, limits)


def wanted(total: int) -> dict[str, int]:
    """Part -> rows of a set of `total` where every part has enough."""
    counts = shares(total, {data.name: data.rows for data in DATA_SETS})
    return {part: count for data in DATA_SETS for part, count in shares(counts[data.name], data.parts).items()}


def draw(rows: Sequence[MixtureRow], total: int, seed: int) -> list[MixtureRow]:
    """`total` of the rows, in an order of their own; see `sources` for the counts.

    Raises ValueError with the figures if a data set has too few.
    """
    pools = _grouped(rows)
    available = {
        data.name: sum(len(pool) for (part, _), pool in pools.items() if part in data.parts) for data in DATA_SETS
    }
    counts = data_set_counts(total, available)
    taken = []
    for data in DATA_SETS:
        for key, number in _allotted(data, counts[data.name], pools).items():
            taken += sorted(pools[key], key=lambda row: _lot(seed, row.id))[:number]
    return sorted(taken, key=lambda row: _lot(seed, f"order|{row.id}"))


def _grouped(rows: Sequence[MixtureRow]) -> dict[tuple[str, str], list[MixtureRow]]:
    """(part, label) -> rows; a row without a label has the label ""."""
    pools = defaultdict(list)
    for row in rows:
        pools[row.source, row.label or ""].append(row)
    return {key: pools[key] for key in sorted(pools)}


def _allotted(
    data: DataSet, count: int, pools: Mapping[tuple[str, str], Sequence[MixtureRow]]
) -> dict[tuple[str, str], int]:
    """(part, label) -> rows to take, `count` together."""
    sizes: dict[str, Counter[str]] = {part: Counter() for part in data.parts}
    for (part, label), pool in pools.items():
        if part in data.parts:
            sizes[part][label] = len(pool)
    by_part = allot(data.name, count, data.parts, {part: size.total() for part, size in sizes.items()})
    return {
        (part, label): number
        for part, size in sizes.items()
        for label, number in allot(part, by_part[part], size, _limits(part, by_part[part], size)).items()
    }


def _limits(part: str, count: int, sizes: Mapping[str, int]) -> dict[str, int]:
    """Label -> rows that may be taken. Two thirds of TFNS are neutral; at most half of what is taken of it is."""
    if part != "tfns":
        return dict(sizes)
    return {label: min(size, count // 2) if label == "neutral" else size for label, size in sizes.items()}


def _lot(seed: int, text: str) -> bytes:
    return hashlib.sha256(f"{seed}|{text}".encode()).digest()
