"""The operators `torch.ops.lowrank.*`: what torch.compile and CUDA graphs see of a quantized weight.

Each has a fake implementation (what its result looks like) and, where x has a gradient, its formula: a compiler takes
it whole, looks into neither paths nor kernels, and runs what `dispatch` chooses for the sizes of the day. An operator
takes tensors and numbers only, so a weight goes in as its stored tensors and a description of them.
"""

from typing import Any

import torch
from torch import Tensor

from ..dispatch import run
from ..weights.quantized_weight import (
    NESTED_BLOCKSIZE,
    Blockwise4bit,
    FourBit,
    NestedAbsmax,
    QuantizedWeight,
    Repacked4bit,
    RowwiseInt8,
    parts,
)

FOUR_BIT_LAYOUTS = {layout.__name__: layout for layout in (Blockwise4bit, Repacked4bit)}


def quantize(w: Tensor, format: str, blocksize: int, name: str) -> QuantizedWeight:
    nested_blocksize = NESTED_BLOCKSIZE if format.endswith("-dq") else 0
    layout = "RowwiseInt8" if format == "int8" else "Blockwise4bit"
    stored = _quantize(w, format, blocksize, name)
    return _assembled(stored, layout, format, blocksize, nested_blocksize, w.shape)


def dequantize(weight: QuantizedWeight, dtype: torch.dtype) -> Tensor:
    w: Tensor = _dequantize(*_taken_apart(weight), dtype)
    return w


def linear(x: Tensor, weight: QuantizedWeight) -> Tensor:
    y: Tensor = _linear(x, *_taken_apart(weight))
    return y


def _taken_apart(weight: QuantizedWeight) -> tuple[list[Tensor], str, str, int, int, list[int]]:
    """The stored tensors of a weight, and layout, format, blocksizes and shape."""
    blocksize = nested_blocksize = 0
    if not isinstance(weight, RowwiseInt8):
        blocksize = weight.blocksize
        if isinstance(weight.absmax, NestedAbsmax):
            nested_blocksize = weight.absmax.nested_blocksize
    stored = list(weight.tensors().values())
    return stored, type(weight).__name__, weight.name, blocksize, nested_blocksize, list(weight.shape)


def _assembled(
    stored: list[Tensor],
    layout: str,
    format: str,
    blocksize: int,
    nested_blocksize: int,
    shape: tuple[int, ...] | list[int],
) -> QuantizedWeight:
    """The inverse of `_taken_apart`."""
    if layout == "RowwiseInt8":
        return RowwiseInt8(*stored)
    codes, absmax = stored[:2]
    own = {len(levels): levels for levels in stored[4 if nested_blocksize else 2 :]}  # of the file, 16 or 256
    statistics: Tensor | NestedAbsmax = absmax
    if nested_blocksize:
        statistics = NestedAbsmax(absmax, stored[2], stored[3], nested_blocksize, own.get(256))
    four_bit: FourBit = "nf4" if format.startswith("nf4") else "fp4"
    make = FOUR_BIT_LAYOUTS[layout]
    return make(codes, statistics, four_bit, blocksize, tuple(shape), own.get(16))


@torch.library.custom_op("lowrank::quantize", mutates_args=())
def _quantize(w: Tensor, format: str, blocksize: int, name: str) -> list[Tensor]:
    return list(run.quantize(w, format, blocksize, name).tensors().values())


@_quantize.register_fake
def _(w: Tensor, format: str, blocksize: int, name: str) -> list[Tensor]:
    return [w.new_empty(part.shape, dtype=part.dtype) for part in parts(w.shape, format, blocksize).values()]


@torch.library.custom_op("lowrank::dequantize", mutates_args=())
def _dequantize(
    stored: list[Tensor],
    layout: str,
    format: str,
    blocksize: int,
    nested_blocksize: int,
    shape: list[int],
    dtype: torch.dtype,
) -> Tensor:
    return run.dequantize(_assembled(stored, layout, format, blocksize, nested_blocksize, shape), dtype)


@_dequantize.register_fake
def _(
    stored: list[Tensor],
    layout: str,
    format: str,
    blocksize: int,
    nested_blocksize: int,
    shape: list[int],
    dtype: torch.dtype,
) -> Tensor:
    return stored[0].new_empty(shape, dtype=dtype)


@torch.library.custom_op("lowrank::linear", mutates_args=())
def _linear(
    x: Tensor, stored: list[Tensor], layout: str, format: str, blocksize: int, nested_blocksize: int, shape: list[int]
) -> Tensor:
    return run.linear(x, _assembled(stored, layout, format, blocksize, nested_blocksize, shape)).contiguous()


@torch.library.custom_op("lowrank::linear_dx", mutates_args=())
def _linear_dx(
    dy: Tensor, stored: list[Tensor], layout: str, format: str, blocksize: int, nested_blocksize: int, shape: list[int]
) -> Tensor:
    return run.linear_dx(dy, _assembled(stored, layout, format, blocksize, nested_blocksize, shape)).contiguous()


@_linear.register_fake
def _(
    x: Tensor, stored: list[Tensor], layout: str, format: str, blocksize: int, nested_blocksize: int, shape: list[int]
) -> Tensor:
    return x.new_empty((*x.shape[:-1], shape[0]))


@_linear_dx.register_fake
def _(
    dy: Tensor, stored: list[Tensor], layout: str, format: str, blocksize: int, nested_blocksize: int, shape: list[int]
) -> Tensor:
    return dy.new_empty((*dy.shape[:-1], shape[1]))


def _keep_the_weight(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, stored, *ctx.description = inputs
    ctx.save_for_backward(*stored)  # as they are: 4 bits a weight, which the layer holds anyhow


def _gradient_is(product: Any) -> Any:
    def backward(ctx: Any, dy: Tensor) -> tuple[Any, ...]:
        stored = list(ctx.saved_tensors)
        return product(dy, stored, *ctx.description), [None] * len(stored), *[None] * len(ctx.description)

    return backward


_linear.register_autograd(_gradient_is(_linear_dx), setup_context=_keep_the_weight)
_linear_dx.register_autograd(_gradient_is(_linear), setup_context=_keep_the_weight)
