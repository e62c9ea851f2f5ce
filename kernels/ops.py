"""The one door to the number formats: quantize, dequantize, and the linear product with its gradient.

A path is chosen here and nowhere else, by device and format:

    dequantize   4 bit on a CUDA device    `dequantize`, Triton
                 anything else             `reference`, plain torch
    quantize     everything                `reference`
    linear       everything                dequantize to the dtype of x, then x W^T as one matrix product

N out_features, K in_features; x [*, K], W [N, K], y [*, N].
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from . import reference
from .formats import QUANTIZED_NAMES, Blockwise4bit, QuantizedWeight


def quantize(
    w: Tensor, format: str, *, blocksize: int = 64, double_quant: bool = False, name: str = "w"
) -> QuantizedWeight:
    """W [N, K] in the number format "nf4", "fp4" or "int8"; "-dq" after a 4-bit one means double_quant.

    `name` stands for the tensor in errors.  Raises ValueError for another format, NaN or infinity.
    """
    if format not in QUANTIZED_NAMES:
        raise ValueError(f"{name}: format must be one of {', '.join(QUANTIZED_NAMES)}, got {format!r}")
    if format == "int8":
        return reference.quantize_int8(w, name)
    four_bit, _, suffix = format.partition("-")
    nested = double_quant or suffix == "dq"
    return reference.quantize_4bit(w, "nf4" if four_bit == "nf4" else "fp4", blocksize, nested, name)


def dequantize(weight: QuantizedWeight, dtype: torch.dtype = torch.float32) -> Tensor:
    """W [N, K] in `dtype`: computed in float32, then rounded once."""
    if isinstance(weight, Blockwise4bit):
        if weight.codes.is_cuda:
            from .dequantize import dequantize_4bit  # imported here: Triton exists on Linux only

            return dequantize_4bit(weight, dtype)
        return reference.dequantize_4bit(weight, dtype)
    return reference.dequantize_int8(weight, dtype)


def linear(x: Tensor, weight: QuantizedWeight) -> Tensor:
    """y = x W^T, with W dequantized to the dtype of x.    Gradient: dX = dY W; W is frozen and has none.

    x [*, K] -> [*, N] in the dtype of x.  Raises ValueError if x does not end in K.
    """
    if x.shape[-1] != weight.shape[1]:
        raise ValueError(f"x must end in in_features {weight.shape[1]}, got shape {tuple(x.shape)}")
    y: Tensor = _QuantizedLinear.apply(x, weight)  # type: ignore[no-untyped-call]
    return y


class _QuantizedLinear(torch.autograd.Function):
    """Dequantizes in the forward pass and again in the backward pass: W is never kept between the two."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: QuantizedWeight) -> Tensor:
        ctx.weight = weight
        return x @ dequantize(weight, x.dtype).T

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None]:
        return dy @ dequantize(ctx.weight, dy.dtype), None


@dataclass(frozen=True)
class Choice:
    """Which path takes an op, and why."""

    op: str
    path: str
    reason: str


def explain(
    m: int, n: int, k: int, *, dtype: torch.dtype, device: torch.device, format: str = "nf4-dq", blocksize: int = 64
) -> list[Choice]:
    """The path of each op at x [m, k] and W [n, k] in `format`, as the functions above choose it."""
    if device.type == "cuda" and format != "int8":
        dequantize = Choice("dequantize", "dequantize, Triton", "4 bit on a CUDA device: one launch")
    else:
        why = "int8 has no kernel" if format == "int8" else "Triton has no CPU"
        dequantize = Choice("dequantize", "reference, plain torch", why)
    name = str(dtype).removeprefix("torch.")
    product = f"{dequantize.path}, then a {name} matrix product"
    no_fused = "there is no fused kernel, at any M"
    return [
        Choice("quantize", "reference, plain torch", "there is no kernel for it"),
        dequantize,
        Choice("forward", product, no_fused),
        Choice("dX", product, no_fused),
    ]
