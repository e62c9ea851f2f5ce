"""LoRA (arXiv 2106.09685): a frozen linear layer and the small products that are added to it.

K in_features (d), N out_features, r rank, B rows of a batch.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

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


Mix = tuple[tuple[str, float | Tensor], ...]


class LoRALinear(nn.Module):
    """y = x W^T + scaling * (drop(x) A) B        delta W = scaling * (A B)^T    (arXiv 2106.09685, equation 3)

    x [*, K], y [*, N]; W [N, K] belongs to the wrapped layer and is never written to.
    A [K, r] starts uniform in +-1/sqrt(K) and B [r, N] at zero, so that y starts as x W^T.
    Gradients: dB = scaling * (x A)^T dY,  dA = scaling * x^T (dY B^T),  dX = dY W + scaling * (dY B^T) A^T.

    Several adapters can be held; `active` says which are added, each with a weight: one number, or one a row.
    They are stored as PEFT's files have them, lora_A [r, K] and lora_B [N, r]; `A` and `B` are views of those.

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
        self.active: Mix = ()
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

    def apart(self, x: Tensor) -> str:
        """Why the adapters' products are taken apart from the one with W; nothing if they ride in it."""
        if len(self.active) != 1:
            return f"{len(self.active)} adapters are active, one can ride"
        ((name, weight),) = self.active
        if isinstance(weight, Tensor):
            return "each row of the batch has a weight of its own"
        if self.training and self.configs[name].dropout:
            return "with dropout the adapter sees another x than W does"
        if not isinstance(self.base, QuantLinear):
            return "W is not quantized, so it is not laid out anew for the product"
        return ops.apart(x, self.base.stored_as)

    def forward(self, x: Tensor) -> Tensor:
        if not self.apart(x):
            assert isinstance(self.base, QuantLinear)
            ((name, weight),) = self.active
            scaling = self.configs[name].scaling * float(weight)
            return ops.lora_linear(x, self.base.quantized, self.lora_A[name], self.lora_B[name], scaling)
        if (part := adapted(self, x)) is not None:
            return linears(x, [part])[0]
        y: Tensor = self.base(x)
        for name, weight in self.active:
            config, A, B = self.configs[name], self.A[name], self.B[name]
            dropped = self._dropout(x, config.dropout).to(A.dtype)
            added = config.scaling * (dropped @ A) @ B
            if isinstance(weight, Tensor):  # one number a row of the batch
                if len(weight) != len(x):
                    raise ValueError(f"use_adapter named a hat for each of {len(weight)} rows, the batch has {len(x)}")
                weight = weight.view(-1, *[1] * (x.dim() - 1))
            y = y + (weight * added).to(y.dtype)
        return y

    def together(self, x: Tensor, layers: Sequence[nn.Module]) -> tuple[Tensor, ...]:
        """The outputs of layers that share x, this one among them (`model.llama.shared_input`)."""
        return together(x, layers)

    def _dropout(self, x: Tensor, share: float) -> Tensor:
        if self.noise is None or not (share and self.training):
            return F.dropout(x, share, self.training)
        return dropout(x, share, self.noise.seed)


def initial_matrices(
    in_features: int, out_features: int, rank: int, generator: torch.Generator, device: torch.device
) -> tuple[Tensor, Tensor]:
    """lora_A [r, K] uniform in +-1/sqrt(K) (kaiming_uniform with a = sqrt(5)), lora_B [N, r] zero; float32

    Drawn on the CPU, so that a seed gives the same adapter on every device; on "meta" nothing is drawn.
    """
    lora_B = torch.zeros(out_features, rank, device=device)
    if device.type == "meta":
        return torch.empty(rank, in_features, device=device), lora_B
    bound = 1 / math.sqrt(in_features)
    lora_A = torch.empty(rank, in_features).uniform_(-bound, bound, generator=generator)
    return lora_A.to(device), lora_B
