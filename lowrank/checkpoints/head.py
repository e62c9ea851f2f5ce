"""The output head of a base: in which formats it may be held, and the layer that holds it."""

import torch
from torch import Tensor

from ..kernels import ops
from ..kernels.weights.quantized_weight import DENSE_DTYPES
from ..layers.quant_linear import CastLinear, QuantHead
from ..model.checkpoint import QuantizedParts, Stored
from .chunked_quantize import quantize_chunks
from .placement import Placement
from .stored_weight import from_stored

HEADS = ("bf16", "int8", "nf4")


def check_head(head: str | None, tied: bool) -> None:
    """Raises ValueError for a format of the output head that is none, or is not for one tied to the embedding."""
    if head not in (None, *HEADS):
        raise ValueError(f"head must be one of {', '.join(HEADS)}, got {head!r}")
    if head == "nf4" and tied:
        raise ValueError(
            "head must be bf16 or int8 where it is tied to the embedding, got 'nf4': 4 bits are measured for heads of "
            "their own only"
        )


def head_layer(
    value: Stored, head: str | None, dtype: torch.dtype, place: Placement, where: str
) -> QuantHead | CastLinear:
    """The output head of a model in `dtype` from its stored weight.  Raises ValueError for another stored format."""
    if isinstance(value, QuantizedParts):
        stored = from_stored(value.tensors, where)
        if head not in (None, stored.name):
            raise ValueError(f"{where}: stored as {stored.name}: head must be {stored.name!r}, got {head!r}")
        return QuantHead(place.fast(place.quantized(stored), dtype), dtype)
    if head is None or head in DENSE_DTYPES:
        return CastLinear(place.dense(value, DENSE_DTYPES[head] if head else dtype))
    return QuantHead(ops.to_fast_layout(quantize_chunks(value, head, place.device, where), dtype), dtype)


def dense_numbers(value: Stored, where: str) -> Tensor:
    """A weight as numbers, dequantized if it is stored quantized."""
    return ops.dequantize(from_stored(value.tensors, where)) if isinstance(value, QuantizedParts) else value
