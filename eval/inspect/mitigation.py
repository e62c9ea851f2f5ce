"""A hat with its intruder dimensions scaled down           (Shuttleworth et al., arXiv 2410.21228, section 6)

    delta W' = delta W + (keep - 1) sum_j s_j u_j v_j^T

over the singular triplets (u_j, s_j, v_j) of W + delta W that intrude: see `intruders`. Their k vectors make it a hat
of rank r + k, exactly; `rank` cuts it. PEFT's `reduce_intruder_dimension` (0.21) cuts to r, and looks at the left
vectors of a linear with more outputs than inputs too, where those of W are no basis.

N out_features, K in_features, r rank.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from lowrank.adapters.algebra.factored import factor, factor_sum
from lowrank.adapters.algebra.worked import Worked, WorkedLinear, read_adapters, save_worked, worked
from lowrank.adapters.stored import Pair
from lowrank.checkpoints import fingerprint
from lowrank.checkpoints.load import bytes_bar
from lowrank.checkpoints.open_base import open_base
from lowrank.layers.lora import AdapterConfig
from lowrank.model.rope_layout import reorder_rope_rows

from .adapter import IntruderSearch, dense_weight
from .intruders import Directions, Intruders, find_directions


@dataclass(frozen=True)
class Mitigated:
    """The new hat, and what was found in each linear of the old one, by its path."""

    adapter: Worked
    intruders: dict[str, Intruders]

    @property
    def found(self) -> int:
        """Intruders in all linears: those that were scaled."""
        return sum(intruders.found for intruders in self.intruders.values())


def mitigate_intruders(
    adapter: str | Path,
    base: str | Path,
    out: str | Path,
    *,
    keep: float = 0.75,
    search: IntruderSearch | None = None,
    rank: int | None = None,
    force: bool = False,
    progress: bool = False,
) -> Mitigated:
    """Writes the hat with `keep` times the singular value of every intruder; 1 is the hat itself, 0 is without them.

    rank  at most, of each linear; None: as many as it takes
    Raises ValueError for a `keep` outside [0, 1], a hat of another base (unless `force`), a DoRA, and rows of an
    embedding.
    """
    if not 0 <= keep <= 1:
        raise ValueError(f"keep must be from 0 to 1, got {keep}")
    if rank is not None and rank < 1:
        raise ValueError(f"rank must be at least 1, got {rank}")
    search = search or IntruderSearch()
    search.check()
    (stored,) = read_adapters([adapter])
    opened = open_base(base)
    if not force:
        fingerprint.check_same_base({"fingerprint": fingerprint.fingerprint_of(opened)}, stored.record, str(adapter))
    if unknown := [path for path in stored.pairs if f"{path}.weight" not in opened.config.parameter_shapes()]:
        raise ValueError(f"{adapter}: {unknown[0]} is no linear of {base}")
    parameters = [part for part in opened.parameters() if part.name.removesuffix(".weight") in stored.pairs]
    pairs, found, linears = dict(stored.pairs), {}, []
    layout = opened.config.rope_layout
    with bytes_bar("mitigate", parameters, progress) as bar:
        for parameter in parameters:
            path = parameter.name.removesuffix(".weight")
            pair = stored.reorder_rope_rows(path, opened.config)
            w = dense_weight(parameter, str(base))
            directions = find_directions(w, factor(pair), search.count, search.threshold, search.exact)
            del w  # before the next is read: two would be held otherwise
            found[path] = directions.intruders
            after, linear = _scaled(path, pair, directions, keep, rank)
            pairs[path] = after._replace(
                lora_B=reorder_rope_rows(after.lora_B, path, opened.config, layout, "half").contiguous()
            )
            linears.append(linear)
            bar.update(parameter.nbytes)
    made = {"by": "mitigate", "keep": keep, "count": search.count, "threshold": search.threshold, "rank": rank}
    new = replace(stored, pairs=pairs)
    save_worked(new, out, opened.config.n_layers, made, [stored])
    return Mitigated(worked(new, linears, Path(out)), found)


def _scaled(path: str, pair: Pair, directions: Directions, keep: float, rank: int | None) -> tuple[Pair, WorkedLinear]:
    """One linear; without an intruder it stays as it is, to the byte."""
    intruding = torch.tensor([bound < directions.intruders.threshold for bound in directions.intruders.at_most])
    if not intruding.any() and (rank is None or rank >= pair.config.rank):
        return pair, WorkedLinear(path, pair.config.rank, float(factor(pair).sigma.norm()), 0.0)
    sigma = torch.tensor(directions.intruders.sigma, dtype=torch.float64)[intruding] * (keep - 1)
    count = max(1, int(intruding.sum()))
    lora_A, lora_B = directions.right[:, intruding].T, directions.left[:, intruding] * sigma
    terms = [(1.0, pair)]
    if intruding.any():
        terms.append((1.0, Pair(AdapterConfig(count, float(count), ()), lora_A, lora_B)))
    total = factor_sum(terms)
    cut = total.cut(rank or total.rank or 1)
    return cut.pair(pair.config), WorkedLinear(
        path, len(cut.sigma), float(total.sigma.norm()), float(total.sigma[len(cut.sigma) :].norm())
    )
