"""Linears that share their input, computed together by one LoRA plan: see `kernels.lora.lora_linear`."""

from collections.abc import Sequence
from operator import is_
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from ..kernels.lora.lora_linear import lora_linears
from ..kernels.lora.span_linears import Span, span_linears
from ..kernels.lora.straight_through import straight_through_linears
from ..kernels.weights.linear_with_adapter import LinearWithAdapter
from .adapter_selection import CONTEXT_SELECTION, effective, selection_of


class AdapterSpan(NamedTuple):
    """Rows begin .. end - 1 of x, flattened, and the adapter that they wear"""

    begin: int
    end: int
    name: str


def fused_projections(x: Tensor, layers: Sequence[nn.Module]) -> tuple[Tensor, ...]:
    """The outputs of layers that share x: of one plan where all of them allow that, else of one layer after another.

    With gradients each must have an adapter: x would be kept for the others without need.
    """
    if not torch.compiler.is_compiling():
        spans = layers[0].__dict__.get("spans")
        if spans and all(layer.__dict__.get("spans") is spans for layer in layers):
            return linears_of_spans(x, layers, spans)
        is_rounded = layers[0].__dict__.get("requantized") is not None and torch.is_grad_enabled()
        if is_rounded and (straight := straight_through_plan(layers)):
            return straight_through_linears(x, straight)
        plan = lora_plan(x, layers)
        if plan is not None and not (torch.is_grad_enabled() and any(part.lora_A is None for part in plan)):
            return lora_linears(x, plan)
    return tuple([layer(x) for layer in layers])


def linears_of_spans(x: Tensor, layers: Sequence[Any], spans: Sequence[AdapterSpan]) -> tuple[Tensor, ...]:
    """The outputs of LoRA layers that share x, of which each span of rows wears an adapter of its own.

    An adapter that one of the layers does not have adds nothing there.
    """
    bases = [layer._modules["base"] for layer in layers]
    bare = lora_plan(x, bases)
    assert bare is not None, "spans are for linears whose weight is ours to read"
    planned = []
    for begin, end, name in spans:
        if any(name in layer.configs for layer in layers):
            plan = [layer.with_adapter(part, name) for layer, part in zip(layers, bare, strict=True)]
            planned.append(Span(begin, end, tuple(plan)))
    return span_linears(x, planned) if planned else tuple([base(x) for base in bases])


def straight_through_plan(layers: Sequence[Any]) -> list[LinearWithAdapter]:
    """The products of layers whose rounded weights hold their adapter (`layers.requantized`), for a gradient.

    Empty unless that is so of all of them, and nothing has moved since the rounding.
    """
    plan = []
    for layer in layers:
        rounded = layer.__dict__.get("requantized")
        if rounded is None or rounded.since is not None or not _is_active_alone(layer, rounded.name):
            return []
        pair = layer.lora_A[rounded.name], layer.lora_B[rounded.name]
        plan.append(LinearWithAdapter(rounded.weight, *pair, layer.configs[rounded.name].scaling))
    return plan


def _is_active_alone(layer: Any, name: str) -> bool:
    return bool(effective(selection_of(layer), layer.configs) == ((name, 1.0),))


def lora_plan(x: Tensor, layers: Sequence[Any], *, hooks_run: bool = False) -> list[LinearWithAdapter] | None:
    """The products of the layers with x: weight, matrices, scaling and dropout of each, chosen once for this call.

    None for a DoRA with dropout, if one of the layers has hooks (unless hooks_run says that they run around this call),
    if there are hooks of every module, or for a weight that is not ours to read: its module has hooks, a bias or a
    gradient, or is of another kind.

    One function without calls in the usual case, one adapter or none a layer: it runs for every product of every
    token, and calls of Python would be most of its time. It reads the dictionaries of modules for the same reason.
    """
    if torch_module._global_forward_hooks or torch_module._global_forward_pre_hooks:
        return None
    if torch_module._global_backward_hooks or torch_module._global_backward_pre_hooks:
        return None
    selections, plan = CONTEXT_SELECTION.get(), []
    for layer in layers:
        configs = layer.__dict__.get("configs")
        base = layer if configs is None else layer._modules["base"]
        for module in () if base is layer and hooks_run else (base,) if base is layer or hooks_run else (base, layer):
            if module._forward_hooks or module._forward_pre_hooks:
                return None
            if module._backward_hooks or module._backward_pre_hooks:
                return None
        stored = base.__dict__.get("_stored")  # of a QuantLinear
        if stored is not None:
            weight, names, tensors = stored
            if not all(map(is_, map(base._buffers.get, names), tensors)):
                weight = base.quantized
        elif not isinstance(base, nn.Linear) or base._parameters["bias"] is not None or base.weight.requires_grad:
            return None
        else:
            weight = base.weight
        selection = () if configs is None else layer.active
        if configs is not None and selections is not None:
            selection = selections.get(layer, selection)
        lora_A, lora_B, scaling, drop, rank_mask, gain = None, None, 1.0, None, None, None
        if configs is not None and (selection.__class__ is not tuple or selection):
            if selection.__class__ is tuple and len(selection) == 1 and selection[0][0] in configs and selection[0][1]:
                ((name, share),) = selection
                config = configs[name]
                lora_A, lora_B = layer._modules["lora_A"]._parameters[name], layer._modules["lora_B"]._parameters[name]
                scaling = config.scaling * share
                if config.dropout and layer.training:
                    drop = (config.dropout, layer.dropout_seed())
                if layer.requantized is not None and layer.requantized.name == name and share == 1.0:
                    weight = layer.requantized.weight
                    lora_A, lora_B = layer.requantized.matrices(lora_A, lora_B)
                if config.dora:
                    gain = layer.dora_gain(name, share)
            else:
                lora_A, lora_B, scaling, drop, rank_mask, gain = layer.combined(selection, x)
            if gain is not None and drop is not None:
                return None
        # As LinearWithAdapter(...), whose constructor is a function of Python.
        plan.append(tuple.__new__(LinearWithAdapter, (weight, lora_A, lora_B, scaling, drop, rank_mask, gain)))
    return plan
