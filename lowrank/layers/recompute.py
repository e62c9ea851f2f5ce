"""Selective recompute: outputs of norms and SwiGLU are not kept for the backward pass, but computed again.

A norm's output is kept by the linears that read it, and follows from the sum that the norm keeps; SwiGLU's is kept by
w2, and follows from gate and up. Both cost a pass over memory to compute again, and no product: 2 D + F of some
8 D + 3 F numbers a position and layer (D model dim, F ffn hidden).
"""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..model.config import RopeLayout
from ..model.llama import Mask, Ops

Again = Callable[[], Tensor]


class SelectiveOps:
    """Operations that remember how their outputs came about. `hooks` is the context in which that is made use of."""

    def __init__(self, ops: Ops) -> None:
        self._ops = ops
        self._outputs: dict[int, tuple[weakref.ref[Tensor], Again]] = {}  # by the address of their memory

    def hooks(self) -> Any:
        """Inside, autograd keeps for an output the recipe in the place of the tensor."""
        return torch.autograd.graph.saved_tensors_hooks(self._pack, _unpack)

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        kept = x.detach()
        return self._remember(self._ops.rms_norm(x, weight, eps), lambda: self._ops.rms_norm(kept, weight, eps))

    def rms_norm_and_x(self, x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        y, x = self._ops.rms_norm_and_x(x, weight, eps)
        kept = x.detach()
        return self._remember(y, lambda: self._ops.rms_norm(kept, weight, eps)), x

    def add_rms_norm(self, x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        y, h = self._ops.add_rms_norm(x, residual, weight, eps)
        kept = h.detach()
        return self._remember(y, lambda: self._ops.rms_norm(kept, weight, eps)), h

    def rope_pair(self, q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, layout: RopeLayout) -> tuple[Tensor, Tensor]:
        return self._ops.rope_pair(q, k, cos, sin, layout)

    def swiglu(self, gate: Tensor, up: Tensor) -> Tensor:
        kept = gate.detach(), up.detach()
        return self._remember(self._ops.swiglu(gate, up), lambda: self._ops.swiglu(*kept))

    def attention(self, q: Tensor, k: Tensor, v: Tensor, mask: Mask) -> Tensor:
        return self._ops.attention(q, k, v, mask)

    def _remember(self, y: Tensor, again: Again) -> Tensor:
        place = y.untyped_storage().data_ptr()
        self._outputs[place] = (weakref.ref(y, lambda _: self._outputs.pop(place, None)), again)
        return y

    def _pack(self, tensor: Tensor) -> Tensor | tuple[Again, torch.Size]:
        y, again = self._outputs.get(tensor.untyped_storage().data_ptr(), (lambda: None, None))
        output = y()
        if again is None or output is None or output.numel() != tensor.numel() or not tensor.is_contiguous():
            return tensor
        return again, tensor.shape


def _unpack(packed: Tensor | tuple[Again, torch.Size]) -> Tensor:
    if isinstance(packed, Tensor):
        return packed
    again, shape = packed
    with torch.no_grad():
        return again().view(shape)


def use_ops(model: torch.nn.Module, ops: Ops) -> None:
    """Gives every part of a model the operations that it computes with."""
    for module in model.modules():
        if hasattr(module, "ops"):
            setattr(module, "ops", ops)  # noqa: B010  (to a type checker a module has no such attribute)
