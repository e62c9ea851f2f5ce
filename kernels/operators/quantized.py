"""The operators `torch.ops.lowrank.*`: what torch.compile and CUDA graphs see of a quantized weight.

    quantize(w, format, blocksize, name) -> the stored tensors
    dequantize(tensors, spec, shape, dtype) -> W
    linear(x, tensors, spec, shape), linear_backward(dy, tensors, spec, shape) -> y = x W^T, dX = dY W

Each has a fake implementation (shape and dtype of its result) and, where x has a gradient, its formula. To a compiler
it is one node; `dispatch` chooses the kernel behind it at run time. An operator takes tensors, numbers and strings
only, so a weight is passed as its stored tensors, a `WeightSpec` written as one string, and the shape of W, whose sizes
can be symbols in compiled code that quantizes.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

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
from .register import operator

FOUR_BIT_LAYOUTS = {layout.__name__: layout for layout in (Blockwise4bit, Repacked4bit)}


class WeightSpec(NamedTuple):
    """All of a quantized weight but its tensors and its shape.

    layout            name of the class: "Blockwise4bit", "Repacked4bit" or "RowwiseInt8"
    format            "int8", "nf4", "nf4-dq", "fp4" or "fp4-dq"
    blocksize         in weights; 0 for int8
    nested_blocksize  in maxima; 0 without nested maxima
    names             of the stored tensors, in their order
    """

    layout: str
    format: str
    blocksize: int
    nested_blocksize: int
    names: tuple[str, ...]


def quantize(w: Tensor, format: str, blocksize: int, name: str) -> QuantizedWeight:
    nested_blocksize = NESTED_BLOCKSIZE if format.endswith("-dq") else 0
    layout = "RowwiseInt8" if format == "int8" else "Blockwise4bit"
    names = tuple(parts((1, 1), format))
    spec = WeightSpec(layout, format, blocksize, nested_blocksize, names)
    return _weight(_quantize(w, format, blocksize, name), spec, w.shape)


def dequantize(weight: QuantizedWeight, dtype: torch.dtype) -> Tensor:
    w: Tensor = _dequantize(*arguments(weight), dtype)
    return w


def linear(x: Tensor, weight: QuantizedWeight) -> Tensor:
    y: Tensor = _linear(x, *arguments(weight))
    return y


def arguments(weight: QuantizedWeight) -> tuple[list[Tensor], str, list[int]]:
    """The stored tensors of a weight, its spec and its shape, as the operators take them.

    The spec is the fields of `WeightSpec` with colons between them, as
    "Blockwise4bit:nf4-dq:64:256:codes,absmax,nested_absmax,offset".
    """
    blocksize = nested_blocksize = 0
    if not isinstance(weight, RowwiseInt8):
        blocksize = weight.blocksize
        if isinstance(weight.absmax, NestedAbsmax):
            nested_blocksize = weight.absmax.nested_blocksize
    tensors = weight.tensors()
    spec = f"{type(weight).__name__}:{weight.name}:{blocksize}:{nested_blocksize}:{','.join(tensors)}"
    return list(tensors.values()), spec, list(weight.shape)


@lru_cache(maxsize=256)  # parsed at every call; a model has one or two
def parse_spec(spec: str) -> WeightSpec:
    """The inverse of the string that `arguments` writes."""
    layout, format, blocksize, nested_blocksize, names = spec.split(":")
    return WeightSpec(layout, format, int(blocksize), int(nested_blocksize), tuple(names.split(",")))


def _weight(tensors: Sequence[Tensor], spec: WeightSpec, shape: Sequence[int]) -> QuantizedWeight:
    stored = dict(zip(spec.names, tensors, strict=True))
    if spec.layout == "RowwiseInt8":
        return RowwiseInt8(stored["codes"], stored["scale"])
    absmax: Tensor | NestedAbsmax = stored["absmax"]
    if spec.nested_blocksize:
        statistics = stored["nested_absmax"], stored["offset"]
        absmax = NestedAbsmax(stored["absmax"], *statistics, spec.nested_blocksize, stored.get("nested_levels"))
    four_bit: FourBit = "nf4" if spec.format.startswith("nf4") else "fp4"
    layout = FOUR_BIT_LAYOUTS[spec.layout]
    return layout(stored["codes"], absmax, four_bit, spec.blocksize, tuple(shape), stored.get("levels"))


def _fake_quantize(w: Tensor, format: str, blocksize: int, name: str) -> list[Tensor]:
    return [w.new_empty(part.shape, dtype=part.dtype) for part in parts(w.shape, format, blocksize).values()]


@operator("quantize", _fake_quantize)
def _quantize(w: Tensor, format: str, blocksize: int, name: str) -> list[Tensor]:
    return list(run.quantize(w, format, blocksize, name).tensors().values())


def _fake_dequantize(tensors: list[Tensor], spec: str, shape: list[int], dtype: torch.dtype) -> Tensor:
    return tensors[0].new_empty(shape, dtype=dtype)


@operator("dequantize", _fake_dequantize)
def _dequantize(tensors: list[Tensor], spec: str, shape: list[int], dtype: torch.dtype) -> Tensor:
    return run.dequantize(_weight(tensors, parse_spec(spec), shape), dtype)


def _product(name: str, product: Callable[[Tensor, QuantizedWeight], Tensor], dim: int) -> Callable[..., Tensor]:
    """The operator of a product of x and W, whose result ends in dimension `dim` of W."""

    def fake(x: Tensor, tensors: list[Tensor], spec: str, shape: list[int]) -> Tensor:
        return x.new_empty((*x.shape[:-1], shape[dim]))

    @operator(name, fake)
    def body(x: Tensor, tensors: list[Tensor], spec: str, shape: list[int]) -> Tensor:
        return product(x, _weight(tensors, parse_spec(spec), shape)).contiguous()

    return body


def _save_weight(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, tensors, ctx.spec, ctx.shape = inputs
    ctx.save_for_backward(*tensors)  # no copies: the layer has the same 4 bits a weight


def _register_gradient(name: str, transposed: Callable[..., Tensor]) -> None:
    """The gradient of a product with W is the product with W transposed; W has none."""

    def backward(ctx: Any, dy: Tensor) -> tuple[Any, ...]:
        tensors = list(ctx.saved_tensors)
        return transposed(dy, tensors, ctx.spec, ctx.shape), [None] * len(tensors), None, None

    torch.library.register_autograd(f"lowrank::{name}", backward, setup_context=_save_weight)


_linear = _product("linear", run.linear, 0)
_linear_backward = _product("linear_backward", run.linear_backward, 1)
_register_gradient("linear", _linear_backward)
_register_gradient("linear_backward", _linear)
