"""Linear layers with a frozen weight: quantized, or dense in a dtype of its own.

N out_features, K in_features.
"""

import json
from collections.abc import Callable
from operator import is_
from typing import Any, Self

import torch
from torch import Tensor, nn

from ..kernels import ops
from ..kernels.lora.lora_linear import lora_linears
from ..kernels.ops import check_weight
from ..kernels.reference import codes
from ..kernels.weights.linear_with_adapter import LinearWithAdapter
from ..kernels.weights.quantized_weight import (
    DENSE_DTYPES,
    Blockwise4bit,
    NestedAbsmax,
    QuantizedWeight,
    Repacked4bit,
    RowwiseInt8,
)
from ..kernels.weights.repack import repack, to_file_layout
from .fused_projections import fused_projections

STATE_KEY = "quant_state"  # in a state_dict: format, shape and blocksizes as JSON, uint8 [bytes]


class QuantLinear(nn.Module):
    """y = x W^T, W [N, K] stored in 4 or 8 bits and dequantized to the dtype of x where it is used

    x [*, K] -> [*, N]. W has no gradient; dX = dY W. The stored tensors are buffers, so `.to(device)` moves them. In
    whichever layout W is held, `state_dict` has that of files.
    """

    def __init__(self, weight: QuantizedWeight) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.hold(weight)

    def hold(self, weight: QuantizedWeight) -> None:
        """Stores W anew, in another layout, say.  Raises ValueError for one of another shape."""
        if tuple(weight.shape) != (self.out_features, self.in_features):
            raise ValueError(f"W must be {(self.out_features, self.in_features)}, got shape {tuple(weight.shape)}")
        self.stored_weight = weight
        self._buffers.clear()
        for name, tensor in weight.tensors().items():
            self.register_buffer(name, tensor)

    @property
    def format(self) -> str:
        """The number format, as `weights=` names it."""
        return self.stored_weight.name

    @property
    def quantized(self) -> QuantizedWeight:
        """The weight as its stored tensors: the same object as long as these are."""
        weight, names, stored = self._stored
        if all(map(is_, map(self._buffers.get, names), stored)):
            return weight
        tensors = {name: getattr(self, name) for name in names}
        if all(map(is_, tensors.values(), stored)):
            return weight
        moved = weight.with_tensors(tensors)
        if self._buffers.keys() >= tensors.keys():  # parameters are gathered for a moment and must not be kept
            self.stored_weight = moved
        return moved

    @property
    def stored_weight(self) -> QuantizedWeight:
        """The weight as it was stored last, for its format, layout and shape: its tensors may have moved since."""
        return self._stored[0]

    @stored_weight.setter
    def stored_weight(self, weight: QuantizedWeight) -> None:
        tensors = weight.tensors()
        self._stored = weight, tuple(tensors), tuple(tensors.values())

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """W [N, K] in `dtype`."""
        return ops.dequantize(self.quantized, dtype)

    @property
    def codebook(self) -> Tensor:
        """The levels by their code, float32: 16, or the 255 of int8."""
        return codes.levels_of(self.quantized)

    def unpacked_codes(self) -> Tensor:
        """The code of each weight: uint8 [N, K], 0 to 15; of int8, int8 [N, K] from -127 to 127."""
        return codes.codes_of(self.quantized)

    def absmax_float(self) -> Tensor:
        """The maxima of the blocks, out of 8 bits if they are in 8 bits: float32 [blocks]; of int8, of the rows [N]."""
        return codes.absmax_of(self.quantized)

    def code_counts(self) -> Tensor:
        """The histogram of the codes: int64 [16], or [255] from -127 to 127."""
        return codes.code_counts(self.quantized)

    def entropy_bits(self) -> float:
        """The entropy of the codes, in bits a weight: what an ideal coder would make of them."""
        return codes.entropy_bits(self.code_counts())

    def error(self, w: Tensor) -> codes.WeightError:
        """The error of W [N, K]: mean square, largest, SNR in dB.  Raises ValueError for a W that does not fit."""
        check_weight(w, "w")
        return codes.error_of(self.quantized, w)

    def forward(self, x: Tensor) -> Tensor:
        return ops.linear(x, self.quantized)

    fused_projections = staticmethod(fused_projections)  # of `model.llama.fused_projections`

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """`.to(...)` moves the stored tensors and never casts them: their dtypes are the format's, not the model's."""
        for name, tensor in self.named_buffers():
            self._buffers[name] = tensor.to(fn(tensor).device)
        return self

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        """In the layout of files, whichever W is held in, and what these tensors are: `STATE_KEY`."""
        destination[prefix + STATE_KEY] = torch.tensor(list(self._description()), dtype=torch.uint8)
        for name, tensor in to_file_layout(self.quantized).tensors().items():
            destination[prefix + name] = tensor

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """The inverse: W is laid out anew if it was before. A state of another format or shape is an error of torch's.

        The tensors of NF4 and FP4, or of [64, 128] and [128, 64], have the same names and sizes, so they do not tell.
        """
        stored = state_dict.pop(prefix + STATE_KEY, None)
        if stored is None and strict:
            missing_keys.append(prefix + STATE_KEY)
        elif stored is not None and (theirs := bytes(stored.tolist())) != (ours := self._description()):
            error_msgs.append(f"{prefix}{STATE_KEY}: W must be {ours.decode()}, got {theirs.decode(errors='replace')}")
            for name in self.quantized.tensors():
                state_dict.pop(prefix + name, None)
            return
        repacked = isinstance(self.stored_weight, Repacked4bit)
        self.hold(to_file_layout(self.quantized))
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
        if repacked:
            weight = self.quantized
            assert isinstance(weight, Blockwise4bit)
            self.hold(repack(weight))

    def _description(self) -> bytes:
        """Format, shape and blocksizes of W as JSON."""
        weight = self.stored_weight
        described: dict[str, object] = {"format": weight.name, "shape": list(weight.shape)}
        if not isinstance(weight, RowwiseInt8):
            described["blocksize"] = weight.blocksize
            if isinstance(weight.absmax, NestedAbsmax):
                described["nested_blocksize"] = weight.absmax.nested_blocksize
        return json.dumps(described).encode()

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, weights={self.format}"


class CastLinear(nn.Linear):
    """y = x W^T with a full-precision W kept in its own dtype and cast to that of x where it is used"""

    def __init__(self, weight: Tensor) -> None:
        super().__init__(weight.shape[1], weight.shape[0], bias=False, device="meta")
        self.weight = nn.Parameter(weight, requires_grad=False)

    @property
    def format(self) -> str:
        """The number format, as `weights=` names it."""
        return next(name for name, dtype in DENSE_DTYPES.items() if dtype == self.weight.dtype)

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return nn.functional.linear(x, self.weight.to(x.dtype))
        return lora_linears(x, [LinearWithAdapter(self.weight)])[0]


class QuantHead(QuantLinear):
    """An output head in 4 or 8 bits: logits = x W^T

    W has a row for each token. What needs all of W at once, a loss or an adapter's rows, takes it as `weight`.
    dtype  of the model: that of x
    """

    def __init__(self, weight: QuantizedWeight, dtype: torch.dtype) -> None:
        super().__init__(weight)
        self.dtype = dtype

    @property
    def weight(self) -> Tensor:
        """W [V, D] in `dtype`, dequantized anew each time that it is asked for."""
        return self.dequantize(self.dtype)


def quantize(w: Tensor, format: str = "nf4", *, blocksize: int = 64, double_quant: bool = False) -> QuantLinear:
    """W [N, K] in "nf4", "fp4" or "int8", as a layer: its codes and statistics, `dequantize()`, and x W^T

    blocksize: weights that share a maximum, a power of two from 32 to 4096. double_quant: the maxima in 8 bits
    ("nf4-dq" says the same).  Raises ValueError for another format or blocksize, NaN or infinity.
    """
    return QuantLinear(ops.quantize(w, format, blocksize=blocksize, double_quant=double_quant))
