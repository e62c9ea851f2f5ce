"""Where kernels run under Triton's interpreter: it rounds as a GPU does, and memory that is not written is seen."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import triton.language as tl
from torch import Tensor
from triton.runtime import interpreter

from lowrank.kernels.dispatch import table as dispatch


@pytest.fixture(autouse=True)
def rounds_to_even(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter cuts a float32 off where it makes a bfloat16 of it; a GPU rounds to even, as torch does."""
    convert = interpreter._convert_float

    def rounded(data: Any, source: Any, target: Any, mode: Any) -> Any:
        if (source, target) == (tl.float32, tl.bfloat16):
            return torch.from_numpy(np.ascontiguousarray(data)).bfloat16().view(torch.int16).numpy()
        return convert(data, source, target, mode)

    monkeypatch.setattr(interpreter, "_convert_float", rounded)


@pytest.fixture(autouse=True)
def multiplies_bfloat16_as_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter holds a bfloat16 as its 16 bits, and its tl.dot takes those for whole numbers."""
    dot = interpreter.InterpreterBuilder.create_dot

    def widened(handle: Any) -> Any:
        if handle.dtype.scalar != tl.bfloat16:
            return handle
        bits = np.ascontiguousarray(handle.data).astype(np.uint32) << 16
        return interpreter.TensorHandle(bits.view(np.float32), tl.float32)

    def of_numbers(builder: Any, a: Any, b: Any, *rest: Any) -> Any:
        return dot(builder, widened(a), widened(b), *rest)

    monkeypatch.setattr(interpreter.InterpreterBuilder, "create_dot", of_numbers)


@pytest.fixture(autouse=True)
def divides_by_zero_without_a_word() -> Iterator[None]:
    """A lane that numpy warns of is a lane that a mask takes out, or an infinity that is looked for."""
    with np.errstate(all="ignore"):
        yield


@pytest.fixture(autouse=True)
def nothing_is_left_unwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.empty holds NaN, or where a dtype has none, 85."""
    empty = torch.empty

    def filled(*size: Any, **options: Any) -> Tensor:
        tensor = empty(*size, **options)
        return tensor.fill_(torch.nan if tensor.is_floating_point() else 85)

    monkeypatch.setattr(torch, "empty", filled)


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The table without what is for a CPU or in CUDA C, and without the rule that keeps a CPU from Triton's kernels."""
    table = [
        replace(path, rules=tuple(rule for rule in path.rules if rule is not dispatch.no_triton_reason))
        for path in dispatch.TABLE
        if dispatch.no_c_library_reason not in path.rules and path.name != dispatch.PAIRS
    ]
    monkeypatch.setattr(dispatch, "TABLE", table)
    for remembered in (dispatch.choose, dispatch.choice_reason):
        remembered.cache_clear()
    yield
    for remembered in (dispatch.choose, dispatch.choice_reason):
        remembered.cache_clear()
