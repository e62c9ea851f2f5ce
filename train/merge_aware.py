"""Training of a hat that is to be merged into 4 bits: every linear computes with Q(W + scaling (A B)^T).

W is the 4-bit base, dequantized a linear at a time; no 16-bit copy of it is held. Q is what `lowrank merge --into
FORMAT` stores, so the merged bytes are those that were trained. Gradients pass the rounding unchanged
(`kernels.lora.straight_through`).

Every `requantize_every` steps the weights are rounded anew, and after the last; in between the linears compute with the
weights that were rounded last, and the change of A and B since then in full precision (`layers.requantized`).
"""

import torch
from torch import Tensor

from lowrank.adapters import lora_layers
from lowrank.kernels import ops
from lowrank.kernels.weights.quantized_weight import QuantizedWeight
from lowrank.layers.dora import frozen_weight
from lowrank.layers.lora import LoRALinear
from lowrank.layers.requantized import Requantized, requantized
from lowrank.model.llama import Llama


class MergeAware:
    """The rounded weights of one hat, in the layers that it covers."""

    def __init__(self, model: Llama, name: str, format: str, every: int) -> None:
        self.name, self.format, self.every = name, format, every
        self.dtype = model.norm.weight.dtype
        self.layers = {path: layer for path, layer in lora_layers(model).items() if name in layer.configs}
        self.then = {path: self._now(layer) for path, layer in self.layers.items()}
        self.round()

    def tensors(self) -> dict[str, Tensor]:
        """The matrices of the last rounding, by name, for a checkpoint; after they are written over: `round_then`."""
        return {
            f"rounded.{path}.{matrix}": tensor
            for path, pair in self.then.items()
            for matrix, tensor in zip(("lora_A", "lora_B"), pair, strict=True)
        }

    def after_step(self, step: int, is_last: bool) -> None:
        """Rounds anew if it is time after `step` steps; else the linears add what has changed."""
        if is_last or step % self.every == 0:
            self.round()
            return
        for path, layer in self.layers.items():
            assert layer.requantized is not None
            self._hold(path, layer.requantized.weight)

    @torch.no_grad()
    def round(self) -> None:
        """Rounds the sums of now."""
        for path, layer in self.layers.items():
            for then, now in zip(self.then[path], self._now(layer), strict=True):
                then.copy_(now)
            self._hold(path, self._rounded(path))

    def round_then(self) -> None:
        """Rounds the sums of the last rounding, from which A and B have moved on by now."""
        for path in self.layers:
            self._hold(path, self._rounded(path))

    def close(self) -> None:
        """Back to W, and the hat added to it."""
        for layer in self.layers.values():
            layer.requantized = None

    def _hold(self, path: str, weight: QuantizedWeight) -> None:
        layer, then = self.layers[path], self.then[path]
        has_moved = not all(map(torch.equal, then, (layer.lora_A[self.name], layer.lora_B[self.name])))
        layer.requantized = Requantized(self.name, weight, then if has_moved else None)

    def _now(self, layer: LoRALinear) -> tuple[Tensor, Tensor]:
        return layer.lora_A[self.name].detach().clone(), layer.lora_B[self.name].detach().clone()

    def _rounded(self, path: str) -> QuantizedWeight:
        layer = self.layers[path]
        scaling = layer.configs[self.name].scaling
        weight = requantized(frozen_weight(layer.base).clone(), *self.then[path], scaling, self.format, path)
        return ops.to_fast_layout(weight, self.dtype)
