"""DoRA (arXiv 2402.09353): the direction of each row of W is learned by LoRA, its length on its own.

    W' = m V / |V|          V = W + scaling (A B)^T, |.| the 2-norm of a row            (equation 5)
    y  = gain (x W^T + scaling (x A) B),   gain = m / |V|

The norm |V| is a constant to autograd (section 4.3), so that dm = sum over rows of dY y / m, and A and B have LoRA's
gradients of gain dY. m starts as |W|: with B at zero gain is 1 exactly.

With dropout d, as PEFT has it, the base sees x and everything else d(x):

    y  = x W^T + (gain - 1) d(x) W^T + gain scaling (d(x) A) B

x [*, K], W [N, K], A [K, r], B [r, N], m [N]. The product is LoRA's, whatever path that takes, and its outputs are
multiplied. The norms need all of W dequantized; they are kept until A, B or W change.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..kernels import ops
from .quant_linear import QuantLinear

WORN_ALONE = "it is worn alone, at weight 1, by all rows of a batch"
ROWS = 1024  # of W that are added to and squared at a time


def _uncompiled(base: nn.Module) -> nn.Module:
    """A linear, out of the wrapper that torch.compile may have put around it."""
    return base._modules.get("_orig_mod") or base


def frozen_weight(base: nn.Module) -> Tensor:
    """W [N, K] of a linear, dequantized; float32 or wider.  Raises ValueError for a layer that has none, or a bias."""
    layer = _uncompiled(base)
    if isinstance(layer, QuantLinear):
        return layer.dequantize(torch.float32)
    if not isinstance(layer, nn.Linear) or layer.bias is not None:
        raise ValueError(f"a DoRA is of linears without a bias, got {layer}")
    weight: Tensor = layer.weight.detach()
    return weight.to(torch.promote_types(weight.dtype, torch.float32))


def product_with(x: Tensor, base: nn.Module) -> Tensor:
    """x W^T, past the hooks of the linear;  [*, K] -> [*, N]"""
    layer = _uncompiled(base)
    if isinstance(layer, QuantLinear):
        return ops.linear(x, layer.quantized)
    assert isinstance(layer, nn.Linear), layer
    y: Tensor = F.linear(x, layer.weight.to(x.dtype))
    return y


def row_norms(w: Tensor) -> Tensor:
    """|w| of each row, [N]"""
    norms: Tensor = torch.linalg.vector_norm(w, dim=1)
    return norms


def dora_delta(w: Tensor, added: Tensor, magnitude: Tensor) -> Tensor:
    """W' - W, with added = scaling (A B)^T;  [N, K]"""
    adapted = w + added
    return (magnitude / row_norms(adapted))[:, None] * adapted - w


class RowNorms:
    """The norms of V of each adapter of a layer, kept while nothing in V changes.

    The matrices are compared with copies, number by number; W is frozen, and compared by its memory and version.
    """

    def __init__(self) -> None:
        self._kept: dict[str, tuple[object, Tensor, Tensor, Tensor]] = {}

    def __reduce__(self) -> tuple[type["RowNorms"], tuple[()]]:
        return RowNorms, ()  # a copy of a layer has other tensors

    def of(self, name: str, base: nn.Module, lora_A: Tensor, lora_B: Tensor, scaling: float) -> Tensor:
        """|W + scaling lora_B lora_A|, [N], without a gradient"""
        lora_A, lora_B = lora_A.detach(), lora_B.detach()
        if torch.compiler.is_compiling() or lora_A.is_meta:
            return _norms(frozen_weight(base), lora_A, lora_B, scaling)
        made_of = (scaling, *[(t.data_ptr(), -1 if t.is_inference() else t._version) for t in _tensors(base)])
        kept = self._kept.get(name)
        if kept is None or kept[0] != made_of or not (torch.equal(kept[1], lora_A) and torch.equal(kept[2], lora_B)):
            norms = _norms(frozen_weight(base), lora_A, lora_B, scaling)
            kept = self._kept[name] = made_of, lora_A.clone(), lora_B.clone(), norms
        return kept[3].clone() if kept[3].is_inference() else kept[3]  # autograd does not take those

    def forget(self, name: str) -> None:
        """Drops the norms of an adapter."""
        self._kept.pop(name, None)


def _tensors(base: nn.Module) -> list[Tensor]:
    return [*base.parameters(), *base.buffers()]


def _norms(w: Tensor, lora_A: Tensor, lora_B: Tensor, scaling: float) -> Tensor:
    A = (scaling * lora_A).to(w.dtype)
    parts = [row_norms(rows + b.to(w.dtype) @ A) for rows, b in zip(w.split(ROWS), lora_B.split(ROWS), strict=True)]
    return torch.cat(parts)
