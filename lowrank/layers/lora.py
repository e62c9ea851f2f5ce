"""LoRA (arXiv 2106.09685): a frozen linear layer and the small products that are added to it.

K in_features (d), N out_features, r rank, B rows of a batch, R ranks of all adapters that a call adds.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ..kernels import ops
from ..kernels.lora.dropout import dropout
from ..kernels.lora.lora_linear import autocast_input, lora_delta, lora_linears, with_gain
from ..kernels.lora.straight_through import straight_through_linears
from ..kernels.weights.linear_with_adapter import LinearWithAdapter
from .adapter_selection import (
    AdapterMix,
    AdapterSelection,
    PerRow,
    SelectingModule,
    StackedMatrices,
    effective,
    selection_of,
)
from .dora import WORN_ALONE, RowNorms, dora_delta, frozen_weight, product_with, row_norms
from .dropout_seed import DropoutSeed
from .fused_projections import AdapterSpan, fused_projections, linears_of_spans, lora_plan, straight_through_plan
from .quant_linear import QuantLinear
from .requantized import Requantized


@dataclass(frozen=True)
class AdapterConfig:
    """scaling = alpha / rank, or alpha / sqrt(rank) for rank-stabilised LoRA (arXiv 2312.03732)

    targets are Meta's names of the linears of a block, such as "attention.wq". dora: see `layers.dora`.
    """

    rank: int
    alpha: float
    targets: tuple[str, ...]
    dropout: float = 0.0
    rslora: bool = False
    dora: bool = False
    scaling: float = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        scaling = math.nan  # of numbers that `adapters.check_range` is still to refuse
        if type(self.rank) is int and self.rank > 0 and isinstance(self.alpha, int | float):
            scaling = self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)
        object.__setattr__(self, "scaling", scaling)


class LoRALinear(SelectingModule):
    """y = x W^T + scaling * (drop(x) A) B        delta W = scaling * (A B)^T    (arXiv 2106.09685, equation 3)

    x [*, K], y [*, N]; W [N, K] belongs to the wrapped layer and is never written to.
    A [K, r] starts uniform in +-1/sqrt(K) and B [r, N] at zero, so that y starts as x W^T.
    Gradients: dB = scaling * (x A)^T dY,  dA = scaling * x^T (dY B^T),  dX = dY W + scaling * (dY B^T) A^T.

    A layer stores several adapters; `active` says which are added, each with a weight, or which for each row of a
    batch. Inside `adapter_context` the thread's own selection takes its place. They are stored as PEFT's files have
    them, lora_A [r, K] and lora_B [N, r]; `A` and `B` are views of those.

    A call makes one plan (`lora_plan`) and runs it (`kernels.lora.lora_linear`): the same adapter gives the same bits,
    whichever way it was selected. A DoRA (`dora`) multiplies what the plan gives. Where W is not ours to read (its
    module has hooks, say), and for torch.compile, the module is called and the adapter's product is added to what it
    gives.
    """

    def __init__(self, base: nn.Module, in_features: int, out_features: int) -> None:
        super().__init__()
        self.base = base
        self.in_features = in_features
        self.out_features = out_features
        self.lora_A = nn.ParameterDict()
        self.lora_B = nn.ParameterDict()
        self.lora_magnitude_vector = nn.ParameterDict()  # m [N] of those that are DoRA
        self._norms = RowNorms()
        self.configs: dict[str, AdapterConfig] = {}
        self.dropout_stream: DropoutSeed | None = None  # of the dropout; None: torch's own generator
        self.dropout_streams: dict[str, DropoutSeed] = {}  # of each adapter's own, in spans
        self.requantized: Requantized | None = None  # in the place of W and an adapter, in training for a merge
        self.spans: tuple[AdapterSpan, ...] = ()  # which rows wear what, in the place of `active`

    def add(
        self,
        name: str,
        config: AdapterConfig,
        lora_A: Tensor,
        lora_B: Tensor,
        trainable: bool,
        magnitude: Tensor | None = None,
    ) -> None:
        """Adds an adapter under a name: lora_A [r, K], lora_B [N, r]; magnitude [N] of a DoRA, else that of W."""
        if config.dora:
            if magnitude is None:
                magnitude = row_norms(frozen_weight(self.base)).to(lora_A.dtype)
            self.lora_magnitude_vector[name] = nn.Parameter(magnitude, requires_grad=trainable)
        self.configs[name] = config
        self.lora_A[name] = nn.Parameter(lora_A, requires_grad=trainable)
        self.lora_B[name] = nn.Parameter(lora_B, requires_grad=trainable)

    def drop(self, name: str) -> None:
        """Removes an adapter."""
        del self.configs[name], self.lora_A[name], self.lora_B[name]
        if name in self.lora_magnitude_vector:
            del self.lora_magnitude_vector[name]
        self._norms.forget(name)

    @property
    def A(self) -> dict[str, Tensor]:
        """A [K, r] of each adapter, a view of its lora_A."""
        return {name: lora_A.T for name, lora_A in self.lora_A.items()}

    @property
    def B(self) -> dict[str, Tensor]:
        """B [r, N] of each adapter, a view of its lora_B."""
        return {name: lora_B.T for name, lora_B in self.lora_B.items()}

    def delta(self, name: str) -> Tensor:
        """delta W = scaling * (A B)^T = scaling * lora_B lora_A;  [N, K]; of a DoRA W' - W (`dora.dora_delta`)"""
        added = self.configs[name].scaling * (self.A[name] @ self.B[name]).T
        if not self.configs[name].dora:
            return added
        return dora_delta(frozen_weight(self.base), added, self.lora_magnitude_vector[name])

    def dora_gain(self, name: str, share: float = 1.0) -> Tensor:
        """m / |W + scaling (A B)^T|, a row each, in which the norm is a constant to autograd;  [N]

        Raises ValueError for a share of the adapter other than 1: its norms would be of another sum.
        """
        if share != 1.0:
            raise ValueError(f"adapter {name!r} is a DoRA: {WORN_ALONE}, got a weight of {share}")
        lora_A, lora_B = self.lora_A[name], self.lora_B[name]
        norms = self._norms.of(name, self.base, lora_A, lora_B, self.configs[name].scaling)
        gain: Tensor = self.lora_magnitude_vector[name] / norms.to(lora_A.dtype)
        return gain

    def active_adapters(self) -> AdapterSelection:
        """The adapters that this call adds, from `adapter_context` or `active`; those of weight zero are left out.

        Raises RuntimeError while torch.compile traces it and an `adapter_context` block is open: a compiled layer
        would keep what it saw.
        """
        return effective(selection_of(self), self.configs)

    def not_fused_reason(self, x: Tensor) -> str:
        """Why the adapter's products do not ride in the one with W on a GPU; nothing if they do."""
        selection = self.active_adapters()
        if not selection:
            return "no adapter is active"
        mixes = selection.mixes if isinstance(selection, PerRow) else (selection,)
        if self.training and any(self.configs[name].dropout for mix in mixes for name, _ in mix):
            return "with dropout the adapter sees another x than W does"
        if not isinstance(self.base, QuantLinear):
            return "W is not quantized, so it is not laid out anew for the product"
        return ops.not_fused_reason(x, self.base.stored_weight)

    def with_adapter(self, part: LinearWithAdapter, name: str) -> LinearWithAdapter:
        """The product with W and what an adapter adds to it, as it is where this layer does not have the adapter."""
        if name not in self.configs:
            return part
        config = self.configs[name]
        drop = (config.dropout, self.dropout_streams[name].seed) if config.dropout and self.training else None
        return LinearWithAdapter(part.weight, self.lora_A[name], self.lora_B[name], config.scaling, drop)

    def forward(self, x: Tensor) -> Tensor:
        if self.spans:
            return linears_of_spans(x, (self,), self.spans)[0]
        if self.requantized is not None and torch.is_grad_enabled() and (straight := straight_through_plan((self,))):
            return straight_through_linears(x, straight)[0]
        plan = None if torch.compiler.is_compiling() else lora_plan(x, (self,), hooks_run=True)
        if plan is not None and not (torch.is_grad_enabled() and plan[0].lora_A is None):
            return lora_linears(x, plan)[0]
        x = autocast_input(x)
        y: Tensor = self.base(x)
        lora_A, lora_B, scaling, drop, rank_mask, gain = self.combined(selection_of(self), x)
        if lora_A is None or lora_B is None:
            return y
        if gain is None:
            return y + lora_delta(x, lora_A, lora_B, scaling, drop, rank_mask)
        if drop is None:
            return with_gain(y + lora_delta(x, lora_A, lora_B, scaling, None, None), gain)
        dropped = dropout(x.reshape(-1, x.shape[-1]), *drop).view(x.shape)
        bare = product_with(dropped, self.base)
        added = lora_delta(dropped, lora_A, lora_B, scaling, None, None)
        return y + (with_gain(bare + added, gain) - bare)

    fused_projections = staticmethod(fused_projections)  # of `model.llama.fused_projections`

    def dropout_seed(self) -> int:
        """The seed of this call's mask: of `dropout_stream`, or drawn from torch's own generator."""
        return int(torch.randint(2**62, ())) if self.dropout_stream is None else self.dropout_stream.seed

    def combined(
        self, selection: AdapterSelection, x: Tensor
    ) -> tuple[
        Tensor | None, Tensor | None, float, tuple[float | Tensor, int | None] | None, Tensor | None, Tensor | None
    ]:
        """A selection as one adapter: lora_A [R, K], lora_B [N, R], and the rest of a `LinearWithAdapter`

        A mix of several is one of all their ranks: the rows of their lora_A, and the columns of their lora_B, each
        times its weight and scaling. With a mix for each row of x [B, *, K] it is one of the ranks of all different
        mixes, and rank_mask [B, R] says which of them a row uses.
        Raises ValueError for a batch of another number of rows, for a DoRA among others, and in training for a mix of
        different dropouts.
        """
        if isinstance(selection, PerRow) and selection.index.shape[0] != x.shape[0]:
            raise ValueError(f"use_adapter named a hat for each of {len(selection.index)} rows, the batch has {len(x)}")
        selection = effective(selection, self.configs)
        mixes = selection.mixes if isinstance(selection, PerRow) else (selection,)
        if not any(mixes):
            return None, None, 1.0, None, None, None
        drop = self._drop(mixes, selection.index if isinstance(selection, PerRow) else None)
        if isinstance(selection, tuple) and len(selection) == 1:
            ((name, weight),) = selection
            config = self.configs[name]
            gain = self.dora_gain(name, weight) if config.dora else None
            return self.lora_A[name], self.lora_B[name], config.scaling * weight, drop, None, gain
        for name in (name for mix in mixes for name, _ in mix):
            if self.configs[name].dora:
                raise ValueError(f"adapter {name!r} is a DoRA: {WORN_ALONE}, got {selection}")
        lora_A, lora_B = self._stack(mixes, selection)
        if not isinstance(selection, PerRow):
            return lora_A, lora_B, 1.0, drop, None, None
        ranks = torch.tensor([sum(self.configs[name].rank for name, _ in mix) for mix in mixes], device=x.device)
        mix_of_rank = torch.arange(len(mixes), device=x.device).repeat_interleave(ranks, output_size=lora_A.shape[0])
        return lora_A, lora_B, 1.0, drop, selection.index[:, None] == mix_of_rank, None

    def _stack(self, mixes: Sequence[AdapterMix], selection: AdapterSelection) -> StackedMatrices:
        """lora_A [R, K] and lora_B [N, R] of all mixes one behind another, the second with weights and scaling.

        Without gradients those of a `PerRow` are stacked once, and again when a matrix has changed.
        """
        names = [name for mix in mixes for name, _ in mix]
        matrices = [matrix for name in names for matrix in (self.lora_A[name], self.lora_B[name])]
        kept = isinstance(selection, PerRow) and not torch.is_grad_enabled() and not torch.compiler.is_compiling()
        kept = kept and not any(matrix.is_inference() for matrix in matrices)
        made_of = (mixes, [(id(m), m.data_ptr(), m._version) for m in matrices]) if kept else None
        if kept and isinstance(selection, PerRow):
            known = selection.stacks.get(self)
            if known is not None and known[0] == made_of:
                return known[1]
        scaled = [weight * self.configs[name].scaling * self.lora_B[name] for mix in mixes for name, weight in mix]
        stack = torch.cat([self.lora_A[name] for name in names]), torch.cat(scaled, dim=1)
        if kept and isinstance(selection, PerRow):
            selection.stacks[self] = made_of, stack, matrices  # which stay alive, so that no id is used again
        return stack

    def _drop(self, mixes: Sequence[AdapterMix], index: Tensor | None) -> tuple[float | Tensor, int | None] | None:
        """The dropout of mixes, one for all rows or, with their index [B], one a row; None where none drops."""
        shares = [{self.configs[name].dropout for name, _ in mix} for mix in mixes]
        if not self.training or not any(map(any, shares)):
            return None
        if any(len(share) > 1 for share in shares):
            raise ValueError("in training, the hats that one row mixes must have one dropout")
        seed = None if torch.compiler.is_compiling() and self.dropout_stream is None else self.dropout_seed()
        each = [max(share, default=0.0) for share in shares]
        return (each[0] if index is None else torch.tensor(each, device=index.device)[index]), seed


def initial_matrices(
    in_features: int, out_features: int, rank: int, generator: torch.Generator, device: torch.device
) -> tuple[Tensor, Tensor]:
    """lora_A [r, K] uniform in +-1/sqrt(K) (kaiming_uniform with a = sqrt(5)), lora_B [N, r] zero; float32

    Drawn on the CPU, and to the same bits by every processor, so that a seed gives the same adapter everywhere; on
    "meta" nothing is drawn.
    """
    lora_B = torch.zeros(out_features, rank, device=device)
    if device.type == "meta":
        return torch.empty(rank, in_features, device=device), lora_B
    # `uniform_(-bound, bound)` with one rounding, as it has where there is a fused multiply-add: only the product could
    # differ between processors, and it is exact in float64.
    bound = torch.tensor(1 / math.sqrt(in_features), dtype=torch.float32).double()
    uniform = torch.rand(rank, in_features, generator=generator, dtype=torch.float32).double()
    return (uniform * (2 * bound) - bound).float().to(device), lora_B
