"""The weights of a model's blocks as a call takes them that computes all of a block, or of all blocks, at once.

They are given only where every module is as it came: no hook, no forward of its own, no other operations. Anywhere else
the modules must run one after another.
"""

from typing import TypeGuard, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from ..kernels.weights.linear_with_adapter import BlockWeights
from ..model.llama import Attention, FeedForward, Llama, Ops, RMSNorm, TransformerBlock, is_hooked
from .fused_projections import lora_plan
from .lora import LoRALinear

Kind = TypeVar("Kind", bound=nn.Module)


def block_weights(model: Llama, x: Tensor, ops: Ops) -> list[BlockWeights] | None:
    """Weights of the norms and linears of every block, or None if one of their modules was changed.

    ops: the operations that every module must compute with
    """
    blocks = []
    for layer, block in enumerate(model.layers):
        if not is_as_it_came(block, TransformerBlock):
            return None
        attention, feed_forward = block.attention, block.feed_forward
        if not (is_as_it_came(attention, Attention) and attention.ops is ops and attention.layer == layer):
            return None
        if not (is_as_it_came(feed_forward, FeedForward) and feed_forward.ops is ops):
            return None
        linears = [attention.wq, attention.wk, attention.wv, attention.wo]
        linears += [feed_forward.w1, feed_forward.w3, feed_forward.w2]
        norms = [norm_weight(norm, model, x, ops) for norm in (block.attention_norm, block.ffn_norm)]
        if norms[0] is None or norms[1] is None or not all(map(_is_read_in_place, linears)):
            return None
        plan = lora_plan(x, linears)
        if plan is None or any(part.drop is not None or part.gain is not None for part in plan):
            return None
        blocks.append(BlockWeights(norms[0], norms[1], tuple(plan)))
    return blocks


def _is_read_in_place(linear: nn.Module) -> bool:
    """True if its matrices are those of one adapter, or of none: those of several are copied into one."""
    if is_hooked(linear):
        return False
    selection = linear.active_adapters() if isinstance(linear, LoRALinear) else ()
    return isinstance(selection, tuple) and len(selection) < 2


def norm_weight(module: nn.Module, model: Llama, x: Tensor, ops: Ops) -> Tensor | None:
    """Its weight, if it is a norm as all the others are, in the dtype of x."""
    if not is_as_it_came(module, RMSNorm) or module.ops is not ops or module.eps != model.config.norm_eps:
        return None
    return module.weight if module.weight.dtype == x.dtype and module.weight.is_contiguous() else None


def is_plain_inference(x: Tensor) -> bool:
    """True without gradients, compiler, autocast on the device of x, and hooks of every module."""
    return not (
        torch.is_grad_enabled()
        or torch.compiler.is_compiling()
        or torch.is_autocast_enabled(x.device.type)
        or _has_any_global_hook()
    )


def is_as_it_came(module: nn.Module, kind: type[Kind]) -> TypeGuard[Kind]:
    """True if the module is of that class, without hooks or a forward of its own."""
    return type(module) is kind and not is_hooked(module) and "forward" not in vars(module)
