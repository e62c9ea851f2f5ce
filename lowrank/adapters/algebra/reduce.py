"""The best hat of a lower rank: the leading singular vectors of each delta W        (Eckart and Young 1936)

delta W' = sum_{i <= k} s_i u_i v_i^T,    |delta W - delta W'|^2 = sum_{i > k} s_i^2
"""

from dataclasses import replace
from pathlib import Path

from ..export import implied_layers
from ..stored import Pair, StoredAdapter
from .factored import factor, norm_of_sum, rank_for
from .worked import Worked, WorkedLinear, read_adapters, save_worked, worked


def reduce_rank(
    adapter: str | Path, out: str | Path, *, rank: int | None = None, energy: float | None = None
) -> Worked:
    """Writes the best hat of a rank, or of the least rank of each linear that keeps a share of the sum of s^2.

    rank    linears of a lower one keep theirs; or:
    energy  above 0, at most 1
    Raises ValueError unless one of the two is given, for one out of range, a DoRA, and rows of an embedding.
    """
    check_size(rank, energy)
    (read,) = read_adapters([adapter])
    stored, linears = reduced(read, rank, energy)
    save_worked(stored, out, implied_layers(read), {"by": "reduce", "rank": rank, "energy": energy}, [read])
    return worked(stored, linears, Path(out))


def reduced(stored: StoredAdapter, rank: int | None, energy: float | None) -> tuple[StoredAdapter, list[WorkedLinear]]:
    """The same in memory."""
    pairs: dict[str, Pair] = {}
    linears = []
    for path, pair in stored.pairs.items():
        factored = factor(pair)
        kept = rank if rank is not None else rank_for(factored.sigma, energy or 1.0)
        pairs[path] = factored.cut(kept).pair(pair.config)
        off = norm_of_sum([(1.0, pairs[path]), (-1.0, pair)])
        linears.append(WorkedLinear(path, pairs[path].config.rank, float(factored.sigma.norm()), off))
    return replace(stored, pairs=pairs), linears


def check_size(rank: int | None, energy: float | None) -> None:
    """Raises ValueError unless exactly one of the two is given, and in range."""
    if (rank is None) == (energy is None):
        raise ValueError(f"give rank or energy, one of the two, got rank {rank} and energy {energy}")
    if rank is not None and rank < 1:
        raise ValueError(f"rank must be at least 1, got {rank}")
    if energy is not None and not 0 < energy <= 1:
        raise ValueError(f"energy must be above 0 and at most 1, got {energy}")
