"""A quantized weight as the tensors of a file, in bitsandbytes' names and shapes: written, planned and read.

N out_features, K in_features. Keys are given by their end: "layers.0.attention.wq" + ".weight.absmax".
"""

import json
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..kernels.weights.codebooks import CODEBOOKS, dynamic8
from ..kernels.weights.quantized_weight import (
    BLOCKSIZES,
    NESTED_BLOCKSIZE,
    Blockwise4bit,
    NestedAbsmax,
    QuantizedWeight,
    RowwiseInt8,
    check_stored,
    parts,
)
from ..kernels.weights.repack import to_file_layout
from ..model.tensor_file import Layout

# The end of the key of each part (`quantized_weight.parts`); the offset of the nested maxima is a number in the JSON.
SUFFIXES = {
    "codes": ".weight",
    "scale": ".SCB",
    "absmax": ".weight.absmax",
    "nested_absmax": ".weight.nested_absmax",
    "nested_levels": ".weight.nested_quant_map",
    "levels": ".weight.quant_map",
}
STATE_SUFFIX = ".weight.quant_state.bitsandbytes__"  # and "nf4" or "fp4"
# Bytes of the JSON where its tensor is planned before its digits are known: filled up with spaces.
STATE_BYTES = 256
# How far a level may be from ours. bitsandbytes takes a midpoint of two edges, whose last bits depend on the processor,
# times a power of ten: up to one ulp from the edges, and another from rounding the midpoint and the product.
LEVEL_ULPS = 2


def to_stored(weight: QuantizedWeight, *, padded: bool = False) -> dict[str, Tensor]:
    """The tensors of a quantized weight as bitsandbytes names and shapes them, by the end of their key.

    4 bit   `.weight` uint8 [ceil(N*K / 2), 1], `.weight.absmax`, `.weight.quant_map` float32 [16], and JSON as uint8:
            format, blocksizes, shape, and the offset of the nested maxima
    int8    `.weight` int8 [N, K], `.SCB` float32 [N]
    padded  the JSON filled up to STATE_BYTES, as `stored_layouts` plans it
    """
    weight = to_file_layout(weight)
    tensors = weight.tensors()
    if isinstance(weight, RowwiseInt8):
        return {SUFFIXES[name]: tensor for name, tensor in tensors.items()}
    state: dict[str, object] = {
        "quant_type": weight.format,
        "blocksize": weight.blocksize,
        "dtype": "float32",  # the type to which bitsandbytes rounds W when it dequantizes: float32 is no rounding
        "shape": list(weight.shape),
    }
    tensors |= {"codes": weight.codes[:, None], "levels": weight.codebook.clone()}
    if isinstance(weight.absmax, NestedAbsmax):
        tensors["nested_levels"] = weight.absmax.codebook.clone()
        state |= {
            "nested_blocksize": weight.absmax.nested_blocksize,
            "nested_dtype": "float32",
            "nested_offset": tensors.pop("offset").item(),
        }
    text = json.dumps(state).encode()
    if padded:
        assert len(text) <= STATE_BYTES, text
        text = text.ljust(STATE_BYTES)
    stored = {SUFFIXES[name]: tensor for name, tensor in tensors.items()}
    return stored | {STATE_SUFFIX + weight.format: torch.tensor(list(text), dtype=torch.uint8)}


def stored_layouts(shape: tuple[int, ...], name: str) -> dict[str, Layout]:
    """Shapes and dtypes of `to_stored(weight, padded=True)` for a weight [N, K] quantized here in the format `name`."""
    planned = parts(shape, name, levels=True, nested_levels=True)
    planned.pop("offset", None)
    layouts = {SUFFIXES[part]: Layout.of(shape, dtype) for part, (shape, dtype) in planned.items()}
    if name == "int8":
        return layouts
    return layouts | {
        ".weight": Layout.of((*planned["codes"].shape, 1), torch.uint8),
        STATE_SUFFIX + name.removesuffix("-dq"): Layout.of((STATE_BYTES,), torch.uint8),
    }


def from_stored(tensors: dict[str, Tensor], where: str) -> QuantizedWeight:
    """The inverse of `to_stored`, for our files and bitsandbytes' own.

    A file's levels may differ from ours in the last bit, if another processor computed them: these are used as stored.
    Raises ValueError naming `where` for a part that is missing, another codebook, or a shape that does not fit.
    """
    if ".SCB" in tensors:
        codes, scale = tensors[".weight"], tensors[".SCB"]
        _require(codes.dtype == torch.int8 and codes.dim() == 2, f"{where}: .weight must be int8 [N, K] beside .SCB")
        _require(scale.shape == codes.shape[:1], f"{where}: .SCB must hold {len(codes)} scales, got {scale.numel()}")
        return _checked(RowwiseInt8(codes, scale), where)
    state = _quant_state(tensors, where)
    format, shape, blocksize = state["quant_type"], tuple(state["shape"]), state["blocksize"]
    nested_blocksize = state.get("nested_blocksize", NESTED_BLOCKSIZE)
    name = f"{format}-dq" if "nested_offset" in state else format
    expected = parts(shape, name, blocksize, nested_blocksize)
    codes = tensors[".weight"].flatten().view(torch.uint8)
    code_bytes = expected["codes"].nbytes
    _require_count(tensors, ".weight.absmax", expected["absmax"].shape[0], where)
    levels = _own_levels(tensors, ".weight.quant_map", CODEBOOKS[format](), where)
    _require(codes.numel() == code_bytes, f"{where}: shape {list(shape)} needs {code_bytes} bytes of codes")
    absmax: Tensor | NestedAbsmax = tensors[".weight.absmax"]
    if "nested_offset" in state:
        _require_count(tensors, ".weight.nested_absmax", expected["nested_absmax"].shape[0], where)
        absmax = NestedAbsmax(
            tensors[".weight.absmax"],
            tensors[".weight.nested_absmax"],
            torch.tensor(state["nested_offset"], dtype=torch.float32),
            nested_blocksize,
            _own_levels(tensors, ".weight.nested_quant_map", dynamic8(), where),
        )
    return _checked(Blockwise4bit(codes, absmax, format, blocksize, shape, levels), where)


W = TypeVar("W", RowwiseInt8, Blockwise4bit)


def _checked(weight: W, where: str) -> W:
    """The weight.  Raises ValueError naming `where` for a part of another type, or a statistic that is not finite."""
    try:
        check_stored(weight)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    for name, tensor in weight.tensors().items():
        if tensor.is_floating_point() and not all(bound.isfinite() for bound in tensor.aminmax()):
            raise ValueError(f"{where}: {name} must be finite, holds NaN or infinity")
    return weight


def _quant_state(tensors: dict[str, Tensor], where: str) -> dict[str, Any]:
    """The JSON that bitsandbytes packs beside the codes, with its numbers checked."""
    states = [suffix for suffix in tensors if ".quant_state." in suffix]
    _require(len(states) == 1, f"{where}: a 4-bit weight needs one quant_state, got {sorted(tensors)}")
    try:
        state: dict[str, Any] = json.loads(bytes(tensors[states[0]].tolist()))
        is_known = state["quant_type"] in CODEBOOKS and state["blocksize"] in BLOCKSIZES
        is_known = is_known and state.get("nested_blocksize", NESTED_BLOCKSIZE) in BLOCKSIZES
        is_known = is_known and isinstance(state.get("nested_offset", 0.0), int | float)
        is_known = is_known and state["shape"] and all(type(size) is int and size > 0 for size in state["shape"])
    except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{where}: {states[0]} does not hold what bitsandbytes writes: {error}") from None
    _require(is_known, f"{where}: {states[0]} names no 4-bit format that is known here: {state}")
    return state


def _require_count(tensors: dict[str, Tensor], suffix: str, count: int, where: str) -> None:
    got = tensors[suffix].numel() if suffix in tensors else 0
    _require(got == count, f"{where}: {suffix} must hold {count} numbers, got {got}")


def _own_levels(tensors: dict[str, Tensor], suffix: str, levels: Tensor, where: str) -> Tensor | None:
    """The file's levels, where their last bits differ from the format's `levels`; None if none does.

    Raises ValueError for levels that are missing, or more than LEVEL_ULPS away.
    """
    _require_count(tensors, suffix, len(levels), where)
    stored = tensors[suffix].float().flatten()
    if torch.equal(stored.cpu(), levels):
        return None
    ulps = _ordinals(stored.cpu()) - _ordinals(levels)
    if not ulps.any():  # -0 for 0
        return None
    worst = int(ulps.abs().argmax())
    rule = f"{where}: {suffix} must hold the {len(levels)} levels of the format, each within {LEVEL_ULPS} ulp"
    _require(
        ulps.abs().max() <= LEVEL_ULPS,
        f"{rule}: level {worst} is {stored[worst]:.9g}, {ulps[worst]:+d} ulp off {levels[worst]:.9g}",
    )
    return stored


def _ordinals(x: Tensor) -> Tensor:
    """The rank of each float32 among all of them, int64: neighbours differ by one, and -0 and 0 have the same."""
    bits = x.view(torch.int32).long()
    return torch.where(bits < 0, -(bits & 0x7FFFFFFF), bits)


def _require(rule: object, otherwise: str) -> None:
    if not rule:
        raise ValueError(otherwise)
