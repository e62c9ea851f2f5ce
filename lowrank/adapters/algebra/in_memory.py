"""A hat added to the weights of a model in memory, and taken off again to the byte.

    merged:  y = x F(W + sum_i w_i delta W_i)^T,   F the rounding of the format in which the sum is held

The base's tensors are never written to: merged linears stand in the model in their place, and `unmerge` puts the old
modules back. Nothing is subtracted, so nothing is rounded. The cost is the memory of the merged linears.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ...kernels import ops
from ...kernels.weights.quantized_weight import DENSE_DTYPES, QUANTIZED_NAMES
from ...layers.adapter_selection import PerRow
from ...layers.dora import frozen_weight
from ...layers.lora import LoRALinear
from ...layers.quant_linear import CastLinear, QuantLinear
from ...model.llama import Llama
from .. import adapter_rows, lora_layers, resolve, unwrapped
from ..survival import Survival, survival_of


@dataclass
class MergedAdapter:
    """A model with a hat in its weights; while it is, the model holds no hats by name.

    survival  how much of the hat each linear keeps: F(W + delta W) - F(W) beside delta W
    """

    model: Llama
    survival: list[Survival]
    _taken_out: dict[str, LoRALinear] = field(repr=False)

    def unmerge(self) -> None:
        """Puts the base back as it was, and its hats with it.

        Raises ValueError if that was done, and for a hat that was added to the merged model and is still there.
        """
        if not self._taken_out:
            raise ValueError("the hat is unmerged already")
        if added := lora_layers(self.model):
            raise ValueError(f"{next(iter(added))} has a hat that was added to the merged model: drop it first")
        for path, layer in self._taken_out.items():
            self.model.set_submodule(path, layer)
        self._taken_out = {}


def merge_adapter(model: Llama, use: str | Mapping[str, float], *, into: str | None = None) -> MergedAdapter:
    """Adds a hat, or a weighted mix, to the weights of a model; `unmerge` of what it returns takes it off

    into  the format of the merged linears: "fp32", "bf16", "fp16", or one of 4 or 8 bits, which loses part of the hat;
          None for that of a base in full precision
    No hat can be used by name until then: those of the model are put aside with the linears that carry them.
    Raises ValueError for an unknown name or format, a hat a row, a hat with rows of the embedding, a quantized base
    without `into`, and a sum that is not finite in its format.
    """
    model = unwrapped(model)
    mix = resolve(model, use)
    if isinstance(mix, PerRow) or not mix:
        raise ValueError(f"merge one hat or one mix {{name: weight}}, got {use!r}")
    if into is not None and into not in (*DENSE_DTYPES, *QUANTIZED_NAMES):
        raise ValueError(f"into must be one of {', '.join((*DENSE_DTYPES, *QUANTIZED_NAMES))}, got {into!r}")
    if rows := adapter_rows(model):
        raise ValueError(
            f"a hat with rows of {next(iter(rows))} is not merged in memory: `lowrank merge` writes a folder"
        )
    layers, merged, survival = lora_layers(model), {}, []
    for path, layer in layers.items():
        names = [(name, weight) for name, weight in mix if name in layer.configs]
        form = into or _dense_format(layer.base, path)
        if not names:
            merged[path] = layer.base
            continue
        with torch.no_grad():
            weight = frozen_weight(layer.base).float()
            delta = sum(share * layer.delta(name) for name, share in names)
            assert isinstance(delta, Tensor)
            merged[path] = _linear(weight + delta, form, path)
            bare = _linear(weight, form, path)
            survival.append(survival_of(path, frozen_weight(merged[path]).float() - frozen_weight(bare).float(), delta))
    for path, linear in merged.items():
        model.set_submodule(path, linear.train(model.training))
    return MergedAdapter(model, survival, layers)


@contextmanager
def merged_adapter(model: Llama, use: str | Mapping[str, float], *, into: str | None = None) -> Iterator[MergedAdapter]:
    """`merge_adapter` for a `with` block: the base is as it was behind it."""
    handle = merge_adapter(model, use, into=into)
    try:
        yield handle
    finally:
        handle.unmerge()


def _dense_format(base: nn.Module, path: str) -> str:
    weight = getattr(base, "weight", None)
    if isinstance(base, QuantLinear) or not isinstance(weight, Tensor):
        raise ValueError(f"{path}: is stored in 4 or 8 bits: into must name the format of the sum, such as 'fp32'")
    return next(name for name, dtype in DENSE_DTYPES.items() if dtype == weight.dtype)


def _linear(weight: Tensor, form: str, path: str) -> nn.Module:
    """A linear of W [N, K] in a format."""
    if form in QUANTIZED_NAMES:
        return QuantLinear(ops.quantize(weight, form, name=path))
    narrow = weight.to(DENSE_DTYPES[form])
    if not torch.isfinite(narrow).all():
        raise ValueError(f"{path}: must be finite in {form}, the sum holds up to {weight.abs().max().item():.3g}")
    return CastLinear(narrow)
