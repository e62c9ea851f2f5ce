"""LoRA (arXiv 2106.09685): a frozen linear layer and the small products that are added to it.

K in_features (d), N out_features, r rank, B rows of a batch, n different mixes among them, R the largest rank of one.
"""

import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..kernels import ops
from ..kernels.lora.dropout import dropout
from ..kernels.lora.lora_linear import linears
from .dropout_seed import DropoutSeed
from .fused_projections import as_linear_with_adapter, fused_projections
from .quant_linear import QuantLinear


@dataclass(frozen=True)
class AdapterConfig:
    """scaling = alpha / rank, or alpha / sqrt(rank) for rank-stabilised LoRA (arXiv 2312.03732)

    targets are Meta's names of the linears of a block, such as "attention.wq".
    """

    rank: int
    alpha: float
    targets: tuple[str, ...]
    dropout: float = 0.0
    rslora: bool = False

    @property
    def scaling(self) -> float:
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)


AdapterMix = tuple[tuple[str, float], ...]
StackedMatrices = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class PerRow:
    """A mix for each row of a batch: that of row b is mixes[index[b]], and each different one is held once.

    index   int64 [B]
    stacks  what layers have stacked of the mixes, for as long as this choice lives
    """

    mixes: tuple[AdapterMix, ...]
    index: Tensor
    stacks: dict["LoRALinear", tuple[object, StackedMatrices]] = field(default_factory=dict, compare=False, repr=False)


AdapterSelection = AdapterMix | PerRow

# What layers wear in this thread or task, whatever they wear elsewhere.
_SELECTION: ContextVar[Mapping["LoRALinear", AdapterSelection]] = ContextVar("_SELECTION")
_lock = threading.Lock()
_open_contexts = 0  # how many `adapter_context` blocks are open, anywhere


@contextmanager
def adapter_context(choices: Mapping["LoRALinear", AdapterSelection]) -> Iterator[None]:
    """Layers add what is chosen for them, inside the block and in this thread or task only."""
    global _open_contexts
    outer = _SELECTION.set({**_SELECTION.get({}), **choices})
    with _lock:
        _open_contexts += 1
    try:
        yield
    finally:
        with _lock:
            _open_contexts -= 1
        _SELECTION.reset(outer)


def context_selection() -> Mapping["LoRALinear", AdapterSelection] | None:
    """What the `adapter_context` blocks around this call choose: another object for another choice."""
    return _SELECTION.get(None)


class LoRALinear(nn.Module):
    """y = x W^T + scaling * (drop(x) A) B        delta W = scaling * (A B)^T    (arXiv 2106.09685, equation 3)

    x [*, K], y [*, N]; W [N, K] belongs to the wrapped layer and is never written to.
    A [K, r] starts uniform in +-1/sqrt(K) and B [r, N] at zero, so that y starts as x W^T.
    Gradients: dB = scaling * (x A)^T dY,  dA = scaling * x^T (dY B^T),  dX = dY W + scaling * (dY B^T) A^T.

    Several adapters can be held; `active` says which are added, each with a weight, or which for each row of a batch.
    Inside `adapter_context` the thread's own choice takes its place. They are stored as PEFT's files have them, lora_A
    [r, K] and lora_B [N, r]; `A` and `B` are views of those.

    On a GPU the products of a single adapter ride in the one with W, where nothing that `not_fused_reason` names is in
    the way.
    """

    def __init__(self, base: nn.Module, in_features: int, out_features: int) -> None:
        super().__init__()
        self.base = base
        self.in_features = in_features
        self.out_features = out_features
        self.lora_A = nn.ParameterDict()
        self.lora_B = nn.ParameterDict()
        self.configs: dict[str, AdapterConfig] = {}
        self.active: AdapterSelection = ()
        self.noise: DropoutSeed | None = None  # of the dropout; None: torch's own generator

    def add(self, name: str, config: AdapterConfig, lora_A: Tensor, lora_B: Tensor, trainable: bool) -> None:
        """Holds an adapter under a name: lora_A [r, K], lora_B [N, r]."""
        self.configs[name] = config
        self.lora_A[name] = nn.Parameter(lora_A, requires_grad=trainable)
        self.lora_B[name] = nn.Parameter(lora_B, requires_grad=trainable)

    def drop(self, name: str) -> None:
        """Forgets an adapter."""
        del self.configs[name], self.lora_A[name], self.lora_B[name]

    @property
    def A(self) -> dict[str, Tensor]:
        """A [K, r] of each adapter, a view of its lora_A."""
        return {name: lora_A.T for name, lora_A in self.lora_A.items()}

    @property
    def B(self) -> dict[str, Tensor]:
        """B [r, N] of each adapter, a view of its lora_B."""
        return {name: lora_B.T for name, lora_B in self.lora_B.items()}

    def delta(self, name: str) -> Tensor:
        """delta W = scaling * (A B)^T = scaling * lora_B lora_A;  [N, K]"""
        return self.configs[name].scaling * (self.A[name] @ self.B[name]).T

    def active_adapters(self) -> AdapterSelection:
        """What is added here and now: the choice of `adapter_context` for this layer, else `active`.

        Raises RuntimeError while torch.compile looks at it and a `adapter_context` block is open: a compiled layer
        would keep what it saw.
        """
        if not torch.compiler.is_compiling():
            here = context_selection()
            choice = self.active if here is None else here.get(self, self.active)
        elif _open_contexts:
            raise RuntimeError("torch.compile does not see using_adapter: choose with use_adapter")
        else:
            choice = self.active
        if isinstance(choice, PerRow) or all(name in self.configs for name, _ in choice):
            return choice
        return tuple(part for part in choice if part[0] in self.configs)

    def not_fused_reason(self, x: Tensor) -> str:
        """Why the adapters' products are taken apart from the one with W; nothing if they ride in it."""
        active_adapters = self.active_adapters()
        if isinstance(active_adapters, PerRow):
            return "each row of the batch wears a hat of its own"
        if len(active_adapters) != 1:
            return f"{len(active_adapters)} adapters are active, one can ride"
        ((name, _),) = active_adapters
        if self.training and self.configs[name].dropout:
            return "with dropout the adapter sees another x than W does"
        if not isinstance(self.base, QuantLinear):
            return "W is not quantized, so it is not laid out anew for the product"
        return ops.not_fused_reason(x, self.base.stored_weight)

    def forward(self, x: Tensor) -> Tensor:
        active_adapters = self.active_adapters()
        if isinstance(active_adapters, PerRow):
            return self._per_row(x, active_adapters)
        if not self.not_fused_reason(x):
            assert isinstance(self.base, QuantLinear)
            ((name, weight),) = active_adapters
            scaling = self.configs[name].scaling * weight
            return ops.lora_linear(x, self.base.quantized, self.lora_A[name], self.lora_B[name], scaling)
        if active_adapters and (part := as_linear_with_adapter(self, x)) is not None:
            return linears(x, [part])[0]
        y: Tensor = self.base(x)
        for name, weight in active_adapters:
            config, A, B = self.configs[name], self.A[name], self.B[name]
            dropped = self._dropout(x, config.dropout).to(A.dtype)
            y = y + (weight * config.scaling * (dropped @ A) @ B).to(y.dtype)
        return y

    def fused_projections(self, x: Tensor, layers: Sequence[nn.Module]) -> tuple[Tensor, ...]:
        """The outputs of layers that share x, this one among them (`model.llama.fused_projections`)."""
        return fused_projections(x, layers)

    def _dropout(self, x: Tensor, share: float) -> Tensor:
        if self.noise is None or not (share and self.training):
            return F.dropout(x, share, self.training)
        return dropout(x, share, self.noise.seed)

    def _per_row(self, x: Tensor, active_adapters: PerRow) -> Tensor:
        """y[b] = x[b] W^T + (drop(x[b]) A[index[b]]) B[index[b]]: each row's matrices gathered, two batched products

        x [B, *, K]. A mix of several adapters is one of all their ranks: A their columns side by side, B their rows,
        each times its weight and scaling. Shorter ones are filled up with zeros to R.
        """
        if len(active_adapters.index) != len(x):
            raise ValueError(
                f"use_adapter named a hat for each of {len(active_adapters.index)} rows, the batch has {len(x)}"
            )
        y: Tensor = self.base(x)
        mixes = [[(name, weight) for name, weight in mix if name in self.configs] for mix in active_adapters.mixes]
        if not any(mixes):
            return y
        lora_A, lora_B = self._stack(mixes, active_adapters)
        rows = self._dropped(x.reshape(len(x), -1, self.in_features), mixes, active_adapters.index).to(lora_A.dtype)
        added = rows @ lora_A[active_adapters.index].mT @ lora_B[active_adapters.index].mT
        return y + added.view(y.shape).to(y.dtype)

    def _stack(self, mixes: list[list[tuple[str, float]]], active_adapters: PerRow) -> StackedMatrices:
        """lora_A [n, R, K] and lora_B [n, N, R] of the mixes, the second with weights and scaling.

        Without gradients they are stacked once for a choice, and again when a matrix has changed.
        """
        matrices = [(self.lora_A[name], self.lora_B[name]) for mix in mixes for name, _ in mix]
        kept = not torch.is_grad_enabled() and not torch.compiler.is_compiling()
        kept = kept and not any(matrix.is_inference() for pair in matrices for matrix in pair)
        key = [(id(matrix), matrix._version) for pair in matrices for matrix in pair] if kept else None
        if kept and self in active_adapters.stacks and active_adapters.stacks[self][0] == key:
            return active_adapters.stacks[self][1]
        widest = max(sum(self.configs[name].rank for name, _ in mix) for mix in mixes)
        some_A, some_B = matrices[0]
        stacked_A, stacked_B = [], []
        for mix in mixes:
            A = torch.cat([some_A.new_zeros(0, self.in_features), *(self.lora_A[name] for name, _ in mix)])
            scaled = [weight * self.configs[name].scaling * self.lora_B[name] for name, weight in mix]
            B = torch.cat([some_B.new_zeros(self.out_features, 0), *scaled], dim=1)
            stacked_A.append(F.pad(A, (0, 0, 0, widest - len(A))))
            stacked_B.append(F.pad(B, (0, widest - B.shape[1])))
        stack = torch.stack(stacked_A), torch.stack(stacked_B)
        if kept:
            active_adapters.stacks[self] = key, stack
        return stack

    def _dropped(self, rows: Tensor, mixes: list[list[tuple[str, float]]], index: Tensor) -> Tensor:
        """rows [B, T, K], in training with each row's own dropout.

        Raises ValueError for a row that mixes adapters of different dropouts.
        """
        shares = [{self.configs[name].dropout for name, _ in mix} for mix in mixes]
        if not self.training or not any(map(any, shares)):
            return rows
        if any(len(share) > 1 for share in shares):
            raise ValueError("in training, the hats that one row mixes must have one dropout")
        share = rows.new_tensor([max(share, default=0.0) for share in shares])[index, None, None]
        return rows * (torch.rand_like(rows) >= share) / (1 - share)


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
