"""The one door to the number formats: quantize, dequantize, and the linear product with its gradient.

Which path computes what is in the table of `dispatch`; `explain` reads it out. In eager mode a call goes straight to
its path. A compiler that traces the call meets an operator of `library` in its place, takes it whole, and runs the same
path behind it; in eager mode the operators would only add their bookkeeping, 55 us a call on a CPU.

N out_features, K in_features; x [*, K], W [N, K], y [*, N].
"""

from typing import Any

import torch
from torch import Tensor

from .cpu import library as binding
from .dispatch import run
from .dispatch.explain import Choice as Choice
from .dispatch.explain import explain as explain
from .dispatch.table import PLAIN, SCRATCH, choice_reason, choose, is_repacked
from .lora.lora_linear import autocast_input, lora_linears
from .operators import quantized as operators
from .weights.linear_with_adapter import LinearWithAdapter
from .weights.quantized_weight import QUANTIZED_NAMES, Blockwise4bit, QuantizedWeight
from .weights.repack import repack


def quantize(
    w: Tensor, format: str, *, blocksize: int = 64, double_quant: bool = False, name: str = "w"
) -> QuantizedWeight:
    """W [N, K] in the number format "nf4", "fp4" or "int8"; "-dq" after a 4-bit one means double_quant.

    `name` stands for the tensor in errors.  Raises ValueError for another format, what is no dense tensor of a floating
    dtype with a number in it, NaN or infinity.
    """
    check_weight(w, name)
    if format not in QUANTIZED_NAMES:
        raise ValueError(f"{name}: format must be one of {', '.join(QUANTIZED_NAMES)}, got {format!r}")
    if double_quant and format in ("nf4", "fp4"):
        format += "-dq"
    if torch.compiler.is_compiling():
        return operators.quantize(w, format, blocksize, name)
    return run.quantize(w, format, blocksize, name)


def check_tensor(x: object, name: str) -> None:
    """Raises ValueError for an array, a list or a number: `torch.as_tensor` says what becomes of its type."""
    if not isinstance(x, Tensor):
        raise ValueError(f"{name} must be a tensor (see torch.as_tensor), got {type(x).__module__}.{type(x).__name__}")


def check_weight(w: object, name: str) -> None:
    """Raises ValueError unless w is a dense tensor of a floating dtype with a number in it."""
    check_tensor(w, name)
    assert isinstance(w, Tensor)
    if not w.is_floating_point() or w.dtype.itemsize < 2:
        raise ValueError(f"{name} must be of a floating dtype of 16 bits or more, got {w.dtype}")
    if w.layout != torch.strided or w.numel() == 0:
        raise ValueError(f"{name} must be dense and hold a number, got {w.layout} {tuple(w.shape)}")


def can_quantize_in_place(w: Tensor, format: str, device: torch.device) -> bool:
    """True if `quantize` on a device reads W a block at a time; plain torch makes float32 copies of all of it."""
    return choose(run.quantize_case(w, format)._replace(device=device)).name != PLAIN


def to_fast_layout(weight: QuantizedWeight, dtype: torch.dtype) -> QuantizedWeight:
    """The weight in the layout that the fastest paths of its device read, for x in `dtype`: the same bytes, moved once

    On a GPU 4-bit codes are repacked where they can be; anything else is returned as it is. `repack.to_file_layout` is
    the way back. On a CPU the codes stay where they are, and large ones are put in pages of 2 MB if the system has
    them.
    """
    if isinstance(weight, Blockwise4bit):
        about = (weight.shape, weight.blocksize, weight.name, dtype, weight.codes.device)
        if weight.levels is None and is_repacked(*about):
            return repack(weight)
        if weight.codes.device.type == "cpu" and not binding.unavailable_reason():
            binding.prefer_huge_pages([weight.codes])
    return weight


def dequantize(weight: QuantizedWeight, dtype: torch.dtype = torch.float32) -> Tensor:
    """W [N, K] in `dtype`: computed in float32, then rounded once.  Raises ValueError for what is not quantized."""
    _check_quantized(weight)
    if torch.compiler.is_compiling():
        return operators.dequantize(weight, dtype)
    return run.dequantize(weight, dtype)


def linear(x: Tensor, weight: QuantizedWeight) -> Tensor:
    """y = x W^T, with W dequantized to the dtype of x.    Gradient: dX = dY W; W is frozen and has none.

    x [*, K] -> [*, N] in the dtype of x, or under torch.autocast in its own.
    Raises ValueError if x is no tensor, does not end in K, is not of a floating dtype, or is on another device than W.
    """
    _check(x, weight)
    x = autocast_input(x)
    if torch.compiler.is_compiling():
        return operators.linear(x, weight)
    if not (torch.is_grad_enabled() and x.requires_grad):
        return run.linear(x, weight)
    y: Tensor = _Linear.apply(x, weight)  # type: ignore[no-untyped-call]
    return y


def not_fused_reason(x: Tensor, weight: QuantizedWeight) -> str:
    """Why an adapter's products do not ride in x W^T; nothing if they do."""
    if torch.compiler.is_compiling():
        return "torch.compile takes the product with W whole, and arranges those of the adapter itself"
    case = run.linear_case(x, weight)
    path = choose(case)
    return "" if path.name == SCRATCH else f"the product with W takes the path {path.name!r}: {choice_reason(case)}"


def lora_linear(x: Tensor, weight: QuantizedWeight, lora_A: Tensor, lora_B: Tensor, scaling: float) -> Tensor:
    """y = x W^T + scaling * (x lora_A^T) lora_B^T

    x [*, K], W [N, K], lora_A [r, K], lora_B [N, r], y [*, N] in the dtype of x. Gradients of x, lora_A and lora_B.
    """
    _check(x, weight)
    return lora_linears(x, [LinearWithAdapter(weight, lora_A, lora_B, scaling)])[0]


def _check_quantized(weight: object) -> None:
    if not isinstance(weight, QuantizedWeight):
        raise ValueError(f"the weight must be one of `quantize`, got {type(weight).__module__}.{type(weight).__name__}")


def _check(x: Tensor, weight: QuantizedWeight) -> None:
    """Raises ValueError unless W is [N, K] and x a floating tensor on its device that ends in K."""
    check_tensor(x, "x")
    _check_quantized(weight)
    if len(weight.shape) != 2:
        raise ValueError(f"W must be a matrix to be multiplied with, got shape {tuple(weight.shape)}")
    if x.shape[-1] != weight.shape[1]:
        raise ValueError(f"x must end in in_features {weight.shape[1]}, got shape {tuple(x.shape)}")
    if not x.is_floating_point():
        raise ValueError(f"x must be of a floating dtype, got {x.dtype}")
    if x.device != weight.codes.device:
        raise ValueError(f"x must be on {weight.codes.device}, where the weight is, got {x.device}")


class _Linear(torch.autograd.Function):
    """y = x W^T. W is dequantized forward and again backward, and never kept between the two."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: QuantizedWeight) -> Tensor:
        ctx.weight = weight
        return run.linear(x, weight)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None]:
        return _LinearDX.apply(dy, ctx.weight), None  # type: ignore[no-untyped-call]


class _LinearDX(torch.autograd.Function):
    """dX = dY W, whose gradient is the product that it is the gradient of."""

    @staticmethod
    def forward(ctx: Any, dy: Tensor, weight: QuantizedWeight) -> Tensor:
        ctx.weight = weight
        return run.linear_backward(dy, weight)

    @staticmethod
    def backward(ctx: Any, ddx: Tensor) -> tuple[Tensor, None]:
        return _Linear.apply(ddx, ctx.weight), None  # type: ignore[no-untyped-call]
