"""A linear layer whose weight is quantized, and the tensors that it is saved as.

N out_features, K in_features.
"""

import json
import math
from collections.abc import Callable
from operator import is_
from typing import Any, Self

import torch
from torch import Tensor, nn

from ..kernels import ops
from ..kernels.lora.lora_linear import lora_linears
from ..kernels.weights import codebooks
from ..kernels.weights.linear_with_adapter import LinearWithAdapter
from ..kernels.weights.quantized_weight import (
    BLOCKSIZES,
    DENSE_DTYPES,
    Blockwise4bit,
    NestedAbsmax,
    QuantizedWeight,
    Repacked4bit,
    RowwiseInt8,
)
from ..kernels.weights.repack import repack, to_file_layout
from .fused_projections import fused_projections

# How far a level may be from ours. bitsandbytes takes a midpoint of two edges, whose last bits depend on the processor,
# times a power of ten: up to one ulp from the edges, and another from rounding the midpoint and the product.
LEVEL_ULPS = 2


class QuantLinear(nn.Module):
    """y = x W^T, W [N, K] stored in 4 or 8 bits and dequantized to the dtype of x where it is used

    x [*, K] -> [*, N]. W has no gradient; dX = dY W. The stored tensors are buffers, so `.to(device)` moves them. In
    whichever layout W is held, `state_dict` and `to_stored` have that of files.
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

    def forward(self, x: Tensor) -> Tensor:
        return ops.linear(x, self.quantized)

    fused_projections = staticmethod(fused_projections)  # of `model.llama.fused_projections`

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """`.to(...)` moves the stored tensors and never casts them: their dtypes are the format's, not the model's."""
        for name, tensor in self.named_buffers():
            self._buffers[name] = tensor.to(fn(tensor).device)
        return self

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        """In the layout of files, whichever W is held in: a state of one device is a state of another."""
        for name, tensor in to_file_layout(self.quantized).tensors().items():
            destination[prefix + name] = tensor

    def _load_from_state_dict(self, *arguments: Any) -> None:
        """The inverse: W is laid out anew if it was before."""
        repacked = isinstance(self.stored_weight, Repacked4bit)
        self.hold(to_file_layout(self.quantized))
        super()._load_from_state_dict(*arguments)
        if repacked:
            weight = self.quantized
            assert isinstance(weight, Blockwise4bit)
            self.hold(repack(weight))

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


def quantize(w: Tensor, format: str = "nf4", *, blocksize: int = 64, double_quant: bool = False) -> QuantLinear:
    """W [N, K] in "nf4", "fp4" or "int8", as a layer: its codes and statistics, `dequantize()`, and x W^T

    blocksize: weights that share a maximum, a power of two from 32 to 4096. double_quant: the maxima in 8 bits
    ("nf4-dq" says the same).  Raises ValueError for another format or blocksize, NaN or infinity.
    """
    return QuantLinear(ops.quantize(w, format, blocksize=blocksize, double_quant=double_quant))


def to_stored(weight: QuantizedWeight) -> dict[str, Tensor]:
    """The tensors of a quantized weight as bitsandbytes names and shapes them, by the end of their key.

    4 bit: `.weight` uint8 [n/2, 1], `.weight.absmax`, `.weight.quant_map`, and a JSON in bytes that holds what is no
    tensor (the offset of the nested maxima among it). int8: `.weight` int8 [N, K], `.SCB` float32 [N].
    """
    weight = to_file_layout(weight)
    if isinstance(weight, RowwiseInt8):
        return {".weight": weight.codes, ".SCB": weight.scale}
    state: dict[str, object] = {
        "quant_type": weight.format,
        "blocksize": weight.blocksize,
        "dtype": "float32",  # what bitsandbytes rounds W to when it dequantizes: here, not at all
        "shape": list(weight.shape),
    }
    stored = {".weight": weight.codes[:, None], ".weight.quant_map": weight.codebook.clone()}
    if isinstance(weight.absmax, NestedAbsmax):
        nested = weight.absmax
        stored[".weight.absmax"] = nested.codes
        stored[".weight.nested_absmax"] = nested.nested_absmax
        stored[".weight.nested_quant_map"] = nested.codebook.clone()
        state |= {
            "nested_blocksize": nested.nested_blocksize,
            "nested_dtype": "float32",
            "nested_offset": nested.offset.item(),
        }
    else:
        stored[".weight.absmax"] = weight.absmax
    packed = json.dumps(state).encode()
    stored[f".weight.quant_state.bitsandbytes__{weight.format}"] = torch.tensor(list(packed), dtype=torch.uint8)
    return stored


def from_stored(tensors: dict[str, Tensor], where: str) -> QuantizedWeight:
    """The inverse of `to_stored`, for our files and bitsandbytes' own.

    A file's levels may differ from ours in the last bit, if another processor computed them: these are used as stored.
    Raises ValueError naming `where` for a part that is missing, another codebook, or a shape that does not fit.
    """
    if ".SCB" in tensors:
        codes, scale = tensors[".weight"], tensors[".SCB"]
        _require(codes.dtype == torch.int8 and codes.dim() == 2, f"{where}: .weight must be int8 [N, K] beside .SCB")
        _require(scale.shape == codes.shape[:1], f"{where}: .SCB must hold {len(codes)} scales, got {scale.numel()}")
        return RowwiseInt8(codes, scale)
    state = _quant_state(tensors, where)
    format, shape, blocksize = state["quant_type"], tuple(state["shape"]), state["blocksize"]
    count = math.prod(shape)
    blocks = -(-count // blocksize)
    codes = tensors[".weight"].flatten().view(torch.uint8)
    _check_part(tensors, ".weight.absmax", blocks, where)
    levels = _own_levels(tensors, ".weight.quant_map", codebooks.CODEBOOKS[format](), where)
    _require(codes.numel() == (count + 1) // 2, f"{where}: shape {list(shape)} needs {(count + 1) // 2} bytes of codes")
    absmax: Tensor | NestedAbsmax = tensors[".weight.absmax"]
    if "nested_offset" in state:
        _check_part(tensors, ".weight.nested_absmax", -(-blocks // state["nested_blocksize"]), where)
        absmax = NestedAbsmax(
            tensors[".weight.absmax"],
            tensors[".weight.nested_absmax"],
            torch.tensor(state["nested_offset"], dtype=torch.float32),
            state["nested_blocksize"],
            _own_levels(tensors, ".weight.nested_quant_map", codebooks.dynamic8(), where),
        )
    return Blockwise4bit(codes, absmax, format, blocksize, shape, levels)


def _quant_state(tensors: dict[str, Tensor], where: str) -> dict[str, Any]:
    """The JSON that bitsandbytes packs beside the codes, with its numbers checked."""
    states = [suffix for suffix in tensors if ".quant_state." in suffix]
    _require(len(states) == 1, f"{where}: a 4-bit weight needs one quant_state, got {sorted(tensors)}")
    try:
        state: dict[str, Any] = json.loads(bytes(tensors[states[0]].tolist()))
        known = state["quant_type"] in codebooks.CODEBOOKS and state["blocksize"] in BLOCKSIZES and state["shape"]
        nested = state.get("nested_blocksize", 256) in BLOCKSIZES
    except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{where}: {states[0]} does not hold what bitsandbytes writes: {error}") from None
    _require(known and nested, f"{where}: {states[0]} names no 4-bit format that is known here: {state}")
    return state


def _check_part(tensors: dict[str, Tensor], suffix: str, count: int, where: str) -> None:
    got = tensors[suffix].numel() if suffix in tensors else 0
    _require(got == count, f"{where}: {suffix} must hold {count} numbers, got {got}")


def _own_levels(tensors: dict[str, Tensor], suffix: str, levels: Tensor, where: str) -> Tensor | None:
    """The file's levels, where their last bits differ from the format's `levels`; nothing if none does.

    Raises ValueError for levels that are missing, or more than LEVEL_ULPS away.
    """
    _check_part(tensors, suffix, len(levels), where)
    own = tensors[suffix].float().flatten()
    away = _places(own.cpu()) - _places(levels)
    if not away.any():
        return None
    worst = int(away.abs().argmax())
    rule = f"{where}: {suffix} must hold the {len(levels)} levels of the format, each within {LEVEL_ULPS} ulp"
    _require(
        away.abs().max() <= LEVEL_ULPS,
        f"{rule}: level {worst} is {own[worst]:.9g}, {away[worst]:+d} ulp off {levels[worst]:.9g}",
    )
    return own


def _places(x: Tensor) -> Tensor:
    """The place of each float32 in the order of all, int64: neighbours differ by one, and -0 and 0 have the same."""
    bits = x.view(torch.int32).long()
    return torch.where(bits < 0, -(bits & 0x7FFFFFFF), bits)


def _require(rule: object, otherwise: str) -> None:
    if not rule:
        raise ValueError(otherwise)
