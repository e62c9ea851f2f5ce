"""A hat out of two checkpoints: the best product of a rank for what training has added to each linear.

    delta W = W_tuned - W_base,    A, B from its leading singular vectors

The SVD of a linear of Llama 2 7B takes half a minute or more on two cores. `sketch` finds the leading vectors from
products with a few random ones instead (Halko, Martinsson and Tropp, arXiv 0909.4061, algorithms 4.4 and 5.1):

    Q = orth((delta W delta W^T)^q delta W G),    G random [K, k + 8],    SVD of Q^T delta W

Either way the error that is told is that of the matrices as they are written, |delta W - B A|.
N out_features, K in_features, k rank.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ...checkpoints import fingerprint
from ...checkpoints.open_base import open_base
from ...checkpoints.stored_weight import from_stored
from ...kernels import ops
from ...layers.lora import AdapterConfig
from ...model.checkpoint import Checkpoint, Parameter, QuantizedParts
from ...model.param_names import LINEARS, is_block_linear
from ...model.rope_layout import reorder_rope_rows
from ...progress import ProgressBar
from ..stored import Pair, StoredAdapter
from .factored import Factored, factor_dense, rank_for
from .reduce import check_size
from .worked import Worked, WorkedLinear, save_worked, worked

SPARE, POWERS = 8, 4


@dataclass(frozen=True)
class Extracted:
    """The hat, and what it cannot hold: |difference| / |base| of every other parameter that is not equal."""

    adapter: Worked
    left_out: dict[str, float]


def extract_adapter(
    base: str | Path,
    tuned: str | Path,
    out: str | Path,
    *,
    rank: int | None = None,
    energy: float | None = None,
    sketch: bool = False,
    progress: bool = False,
) -> Extracted:
    """Writes the hat that makes of a base, as near as its rank comes to it, what training made of it.

    rank, energy  as in `reduce_rank`; sketch: random products in place of SVDs, with a rank
    Two weights are held at a time. Linears that are equal are left out of the hat; either folder may be in Meta's
    layout or Hugging Face's, and in any format.
    Raises ValueError for bases of different shapes, and where no linear differs.
    """
    check_size(rank, energy)
    if sketch and rank is None:
        raise ValueError("sketch needs a rank: without all singular values their energy is not known")
    ours, theirs = open_base(base), open_base(tuned)
    if ours.config.parameter_shapes() != theirs.config.parameter_shapes():
        raise ValueError(f"{tuned}: has other shapes than {base}: a hat is the difference of two weights of one shape")
    partner = {parameter.name: parameter for parameter in theirs.parameters()}
    pairs: dict[str, Pair] = {}
    linears, left_out = [], {}
    parameters = ours.parameters()
    for parameter in ProgressBar(parameters, "extract", len(parameters), unit="tensor", disable=not progress):
        before = _dense(parameter, ours)
        change = _dense(partner[parameter.name], theirs).sub_(before)
        size = float(torch.linalg.vector_norm(change.double()))
        if size == 0:
            continue
        path = parameter.name.removesuffix(".weight")
        if not is_block_linear(parameter.name):
            left_out[path] = size / float(torch.linalg.vector_norm(before.double()))
            continue
        del before
        found = _leading(change, rank, energy, sketch)
        pairs[path] = found.pair(AdapterConfig(len(found.sigma), float(len(found.sigma)), ()))
        off = float(torch.linalg.vector_norm((change - pairs[path].delta()).double()))
        linears.append(WorkedLinear(path, len(found.sigma), size, off))
    if not pairs:
        raise ValueError(f"{tuned}: its linears are those of {base}: there is nothing to extract")
    stored = StoredAdapter(Path(tuned), Path(tuned), _with_targets(pairs), {})
    made = {"by": "extract", "tuned": str(tuned), "rank": rank, "energy": energy, "sketch": sketch}
    source = {"fingerprint": fingerprint.fingerprint_of(ours), "rope_layout": ours.config.rope_layout}
    save_worked(stored, out, ours.config.n_layers, made, [], base=source)
    return Extracted(worked(stored, linears, Path(out)), left_out)


def sketched(matrix: Tensor, rank: int) -> Factored:
    """The leading singular vectors of a matrix [N, K], from a few products with it; float32, seeded"""
    width = min(rank + SPARE, *matrix.shape)
    start = torch.randn(matrix.shape[1], width, generator=torch.Generator().manual_seed(0))
    basis = torch.linalg.qr(matrix @ start)[0]
    for _ in range(POWERS):
        basis = torch.linalg.qr(matrix @ torch.linalg.qr(matrix.T @ basis)[0])[0]
    left, sigma, right = torch.linalg.svd((basis.T @ matrix).double(), full_matrices=False)
    return Factored(basis.double() @ left, sigma, right.T).cut(rank)


def _leading(change: Tensor, rank: int | None, energy: float | None, sketch: bool) -> Factored:
    if rank is not None and sketch:
        return sketched(change, rank)
    factored = factor_dense(change)
    return factored.cut(rank if rank is not None else rank_for(factored.sigma, energy or 1.0))


def _dense(parameter: Parameter, of: Checkpoint) -> Tensor:
    """A weight in float32, in memory of its own, rows in halves."""
    value = parameter.read()
    if isinstance(value, QuantizedParts):
        value = ops.dequantize(from_stored(value.tensors, f"{of.folder}: {parameter.name}"))
    path = parameter.name.removesuffix(".weight")
    dense = value.to(torch.float32, copy=True)
    return reorder_rope_rows(dense, path, of.config, of.config.rope_layout, "half") if dense.dim() == 2 else dense


def _with_targets(pairs: dict[str, Pair]) -> dict[str, Pair]:
    """Configs that name all linears of the hat as their targets."""
    names = {path.split(".", 2)[2] for path in pairs}
    targets = tuple(linear for linear in LINEARS if linear in names)
    return {
        path: pair._replace(config=AdapterConfig(pair.config.rank, pair.config.alpha, targets))
        for path, pair in pairs.items()
    }
