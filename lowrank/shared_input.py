"""When linears that share their input are computed together: see `kernels.shared_input` for what that saves.

Each must carry the same kind of adapter: one that is active, with one weight for the whole batch.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .kernels import ops
from .kernels.formats import QuantizedWeight
from .kernels.shared_input import Adapted, linears
from .qlinear import QuantLinear


def together(x: Tensor, layers: Sequence[nn.Module]) -> tuple[Tensor, ...]:
    """The outputs of the layers for x, from one pass over it where all of them allow that."""
    parts = [adapted(layer, x) for layer in layers]
    if any(part is None for part in parts):
        return tuple(layer(x) for layer in layers)
    return linears(x, [part for part in parts if part is not None])


def adapted(layer: Any, x: Tensor) -> Adapted | None:
    """A layer as a part of `linears`, or None if it is none: it has no adapter, several, or one for each row

    A product that an adapter can ride in is left to it, and so is everything that torch.compile traces.
    """
    if torch.compiler.is_compiling():
        return None
    worn: Any = layer.worn() if hasattr(layer, "worn") else ()
    if not isinstance(worn, tuple) or len(worn) != 1:
        return None
    ((name, share),) = worn
    weight = _weight(layer.base)
    if weight is None or layer._forward_hooks or layer.base._forward_hooks:
        return None
    config = layer.configs[name]
    drop = None
    if layer.training and config.dropout:
        if layer.noise is None:
            return None
        drop = (config.dropout, layer.noise.seed)
    if drop is None and isinstance(layer.base, QuantLinear) and not ops.apart(x, layer.base.stored_as):
        return None
    return Adapted(weight, layer.lora_A[name], layer.lora_B[name], config.scaling * share, drop)


def _weight(base: nn.Module) -> QuantizedWeight | Tensor | None:
    if isinstance(base, QuantLinear):
        return base.quantized
    if isinstance(base, nn.Linear) and base.bias is None and not base.weight.requires_grad:
        return base.weight
    return None
