"""For scripts of checks, outside of pytest: memory that is NaN, and an interpreter that rounds as a GPU does."""

import os
from collections.abc import Callable
from typing import Any

import numpy
import torch
import triton.language as tl
from torch import Tensor
from triton.runtime import interpreter


def patch() -> None:
    """An element that is not written is seen; with TRITON_INTERPRET=1 the interpreter's bfloat16 is a GPU's."""
    torch.empty, torch.empty_like = filled_with_nan(torch.empty), filled_with_nan(torch.empty_like)
    if os.environ.get("TRITON_INTERPRET") == "1":
        _correct_interpreter()


def filled_with_nan(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`torch.empty`, or its like, whose floats are NaN."""

    def filled(*arguments: Any, **options: Any) -> Tensor:
        made = make(*arguments, **options)
        return made.fill_(float("nan")) if made.is_floating_point() else made

    return filled


def _correct_interpreter() -> None:
    """It cuts float32 off where it makes a bfloat16, and multiplies the bit patterns of bfloat16 matrices."""
    convert, dot = interpreter._convert_float, interpreter.InterpreterBuilder.create_dot

    def rounded(data: Any, source: Any, target: Any, mode: Any) -> Any:
        if (source, target) == (tl.float32, tl.bfloat16):
            return torch.from_numpy(numpy.ascontiguousarray(data)).bfloat16().view(torch.int16).numpy()
        return convert(data, source, target, mode)

    def widened(tile: Any) -> Any:
        if tile.dtype.scalar != tl.bfloat16:
            return tile
        values = torch.from_numpy(tile.data.view(numpy.int16)).view(torch.bfloat16).float().numpy()
        return interpreter.TensorHandle(values, tl.float32)

    def of_numbers(builder: Any, a: Any, b: Any, *rest: Any) -> Any:
        return dot(builder, widened(a), widened(b), *rest)

    interpreter._convert_float, interpreter.InterpreterBuilder.create_dot = rounded, of_numbers
