"""When linears that share their input are computed together: see `kernels.lora.lora_linear` for what that saves.

Each must carry the same kind of adapter: one that is active, with one weight for the whole batch. Without gradients
there may also be none.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..kernels import ops
from ..kernels.lora.lora_linear import linears
from ..kernels.weights.linear_with_adapter import LinearWithAdapter
from ..kernels.weights.quantized_weight import QuantizedWeight


def fused_projections(x: Tensor, layers: Sequence[nn.Module]) -> tuple[Tensor, ...]:
    """The outputs of the layers for x, from one pass over it where all of them allow that."""
    parts = [as_linear_with_adapter(layer, x) for layer in layers]
    taken = [part for part in parts if part is not None and (part.lora_A is not None or not torch.is_grad_enabled())]
    return linears(x, taken) if len(taken) == len(layers) else tuple(layer(x) for layer in layers)


def as_linear_with_adapter(layer: Any, x: Tensor) -> LinearWithAdapter | None:
    """A layer as a part of `linears`, or None if it is none: it has several adapters, or one for each row

    A product that an adapter can ride in is left to it, and so is everything that torch.compile traces.
    """
    if torch.compiler.is_compiling():
        return None
    active_adapters: Any = layer.active_adapters() if hasattr(layer, "active_adapters") else ()
    base = getattr(layer, "base", layer)
    weight = _weight(base)
    if (
        not isinstance(active_adapters, tuple)
        or len(active_adapters) > 1
        or weight is None
        or is_hooked(layer)
        or is_hooked(base)
    ):
        return None
    if not active_adapters:
        return LinearWithAdapter(weight)
    ((name, share),) = active_adapters
    config = layer.configs[name]
    drop = None
    if layer.training and config.dropout:
        if layer.noise is None:
            return None
        drop = (config.dropout, layer.noise.seed)
    elif not isinstance(weight, Tensor) and not ops.not_fused_reason(x, weight):
        return None
    return LinearWithAdapter(weight, layer.lora_A[name], layer.lora_B[name], config.scaling * share, drop)


def is_hooked(module: nn.Module) -> bool:
    """Whether something besides the module wants to see what it is given, or gives."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _weight(base: nn.Module) -> QuantizedWeight | Tensor | None:
    quantized: QuantizedWeight | None = getattr(base, "quantized", None)
    if quantized is not None:
        return quantized
    if isinstance(base, nn.Linear) and base.bias is None and not base.weight.requires_grad:
        return base.weight
    return None
