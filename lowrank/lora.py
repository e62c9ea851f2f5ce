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

from .kernels import ops
from .kernels.noise import dropout
from .kernels.shared_input import linears
from .noise import Noise
from .qlinear import QuantLinear
from .shared_input import adapted, together


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


Mix = tuple[tuple[str, float], ...]
Stack = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class PerRow:
    """A mix for each row of a batch: that of row b is mixes[index[b]], and each different one is held once.

    index   int64 [B]
    stacks  what layers have stacked of the mixes, for as long as this choice lives
    """

    mixes: tuple[Mix, ...]
    index: Tensor
    stacks: dict["LoRALinear", tuple[object, Stack]] = field(default_factory=dict, compare=False, repr=False)


Choice = Mix | PerRow

# What layers wear in this thread or task, whatever they wear elsewhere.
_HERE: ContextVar[Mapping["LoRALinear", Choice]] = ContextVar("_HERE")
_lock = threading.Lock()
_contexts = 0  # how many `wearing` blocks are open, anywhere


@contextmanager
def wearing(choices: Mapping["LoRALinear", Choice]) -> Iterator[None]:
    """Layers add what is chosen for them, inside the block and in this thread or task only."""
    global _contexts
    outer = _HERE.set({**_HERE.get({}), **choices})
    with _lock:
        _contexts += 1
    try:
        yield
    finally:
        with _lock:
            _contexts -= 1
        _HERE.reset(outer)


def worn_here() -> Mapping["LoRALinear", Choice] | None:
    """What the `wearing` blocks around this call choose: another object for another choice."""
    return _HERE.get(None)


class LoRALinear(nn.Module):
    """y = x W^T + scaling * (drop(x) A) B        delta W = scaling * (A B)^T    (arXiv 2106.09685, equation 3)

    x [*, K], y [*, N]; W [N, K] belongs to the wrapped layer and is never written to.
    A [K, r] starts uniform in +-1/sqrt(K) and B [r, N] at zero, so that y starts as x W^T.
    Gradients: dB = scaling * (x A)^T dY,  dA = scaling * x^T (dY B^T),  dX = dY W + scaling * (dY B^T) A^T.

    Several adapters can be held; `active` says which are added, each with a weight, or which for each row of a batch.
    Inside `wearing` the thread's own choice takes its place. They are stored as PEFT's files have them, lora_A [r, K]
    and lora_B [N, r]; `A` and `B` are views of those.

    On a GPU the products of a single adapter ride in the one with W, where nothing that `apart` names is in the way.
    """

    def __init__(self, base: nn.Module, in_features: int, out_features: int) -> None:
        super().__init__()
        self.base = base
        self.in_features = in_features
        self.out_features = out_features
        self.lora_A = nn.ParameterDict()
        self.lora_B = nn.ParameterDict()
        self.configs: dict[str, AdapterConfig] = {}
        self.active: Choice = ()
        self.noise: Noise | None = None  # of the dropout; None: torch's own generator

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

    def worn(self) -> Choice:
        """What is added here and now: the choice of `wearing` for this layer, else `active`.

        Raises RuntimeError while torch.compile looks at it and a `wearing` block is open: a compiled layer would keep
        what it saw.
        """
        if not torch.compiler.is_compiling():
            here = worn_here()
            choice = self.active if here is None else here.get(self, self.active)
        elif _contexts:
            raise RuntimeError("torch.compile does not see using_adapter: choose with use_adapter")
        else:
            choice = self.active
        if isinstance(choice, PerRow) or all(name in self.configs for name, _ in choice):
            return choice
        return tuple(part for part in choice if part[0] in self.configs)

    def apart(self, x: Tensor) -> str:
        """Why the adapters' products are taken apart from the one with W; nothing if they ride in it."""
        worn = self.worn()
        if isinstance(worn, PerRow):
            return "each row of the batch wears a hat of its own"
        if len(worn) != 1:
            return f"{len(worn)} adapters are active, one can ride"
        ((name, _),) = worn
        if self.training and self.configs[name].dropout:
            return "with dropout the adapter sees another x than W does"
        if not isinstance(self.base, QuantLinear):
            return "W is not quantized, so it is not laid out anew for the product"
        return ops.apart(x, self.base.stored_as)

    def forward(self, x: Tensor) -> Tensor:
        worn = self.worn()
        if isinstance(worn, PerRow):
            return self._per_row(x, worn)
        if not self.apart(x):
            assert isinstance(self.base, QuantLinear)
            ((name, weight),) = worn
            scaling = self.configs[name].scaling * weight
            return ops.lora_linear(x, self.base.quantized, self.lora_A[name], self.lora_B[name], scaling)
        if worn and (part := adapted(self, x)) is not None:
            return linears(x, [part])[0]
        y: Tensor = self.base(x)
        for name, weight in worn:
            config, A, B = self.configs[name], self.A[name], self.B[name]
            dropped = self._dropout(x, config.dropout).to(A.dtype)
            y = y + (weight * config.scaling * (dropped @ A) @ B).to(y.dtype)
        return y

    def together(self, x: Tensor, layers: Sequence[nn.Module]) -> tuple[Tensor, ...]:
        """The outputs of layers that share x, this one among them (`model.llama.shared_input`)."""
        return together(x, layers)

    def _dropout(self, x: Tensor, share: float) -> Tensor:
        if self.noise is None or not (share and self.training):
            return F.dropout(x, share, self.training)
        return dropout(x, share, self.noise.seed)

    def _per_row(self, x: Tensor, worn: PerRow) -> Tensor:
        """y[b] = x[b] W^T + (drop(x[b]) A[index[b]]) B[index[b]]: each row's matrices gathered, two batched products

        x [B, *, K]. A mix of several adapters is one of all their ranks: A their columns side by side, B their rows,
        each times its weight and scaling. Shorter ones are filled up with zeros to R.
        """
        if len(worn.index) != len(x):
            raise ValueError(f"use_adapter named a hat for each of {len(worn.index)} rows, the batch has {len(x)}")
        y: Tensor = self.base(x)
        mixes = [[(name, weight) for name, weight in mix if name in self.configs] for mix in worn.mixes]
        if not any(mixes):
            return y
        lora_A, lora_B = self._stack(mixes, worn)
        rows = self._dropped(x.reshape(len(x), -1, self.in_features), mixes, worn.index).to(lora_A.dtype)
        added = rows @ lora_A[worn.index].mT @ lora_B[worn.index].mT
        return y + added.view(y.shape).to(y.dtype)

    def _stack(self, mixes: list[list[tuple[str, float]]], worn: PerRow) -> Stack:
        """lora_A [n, R, K] and lora_B [n, N, R] of the mixes, the second with weights and scaling.

        Without gradients they are stacked once for a choice, and again when a matrix has changed.
        """
        matrices = [(self.lora_A[name], self.lora_B[name]) for mix in mixes for name, _ in mix]
        kept = not torch.is_grad_enabled() and not torch.compiler.is_compiling()
        kept = kept and not any(matrix.is_inference() for pair in matrices for matrix in pair)
        key = [(id(matrix), matrix._version) for pair in matrices for matrix in pair] if kept else None
        if kept and self in worn.stacks and worn.stacks[self][0] == key:
            return worn.stacks[self][1]
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
            worn.stacks[self] = key, stack
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
