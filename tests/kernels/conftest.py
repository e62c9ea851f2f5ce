"""Shared by tests of kernels: the instruction sets of this processor, integer levels, memory that is NaN."""

import os
from collections.abc import Callable, Iterator
from platform import machine
from typing import Any

import pytest
import torch
from torch import Tensor

from lowrank.kernels.cpu import library
from lowrank.kernels.reference import weights as reference
from lowrank.kernels.weights import codebooks


def choose(name: str) -> Iterator[str]:
    """Uses an instruction set until the test is over."""
    if reason := library.unavailable_reason():
        pytest.skip(reason)
    before = library.instruction_set()
    try:
        if library.library().lowrank_choose(name.encode()):
            pytest.skip(f"this processor has no {name}")
        yield name
    finally:
        library.library().lowrank_choose(before.encode())


NAMED = os.environ.get(library.ISA)  # of a machine that is emulated (`make test-machines`)
SETS = {"x86_64": ["avx512bf16", "avx512", "avx2", "portable"], "aarch64": ["neon", "portable"]}


@pytest.fixture(params=[NAMED] if NAMED else SETS.get(machine(), ["portable"]))
def instruction_set(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each instruction set that the C library is compiled for here, if the processor has it; or the one named."""
    yield from choose(request.param)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """In `make check` tests run with one instruction set: the one in use on this processor."""
    best = "" if library.unavailable_reason() else library.instruction_set()
    tested = SETS.get(machine(), ["portable"])
    chosen = best if best in tested else tested[0]
    for item in items:
        parameters = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        if parameters.get("instruction_set", chosen) != chosen:
            item.add_marker(pytest.mark.slow)


@pytest.fixture
def matrix_unit() -> Iterator[str]:
    """The matrix unit, if the processor has one, and the one that is emulated too."""
    if NAMED and NAMED != library.MATRIX_UNIT:
        pytest.skip(f"{library.ISA} is {NAMED!r}")
    yield from choose(library.MATRIX_UNIT)


@pytest.fixture
def bf16_dots() -> Iterator[str]:
    """The dot products of bfloat16 pairs, if the processor has them."""
    yield from choose(library.BF16_DOTS)


@pytest.fixture(params=[library.MATRIX_UNIT, library.BF16_DOTS])
def bf16_products(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each instruction set that multiplies in bfloat16, if the processor has it."""
    yield from choose(request.param)


@pytest.fixture
def integer_levels(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Codes -8 .. 7 in place of the NF4 levels: every product of small integers is then exact in float32."""
    monkeypatch.setitem(codebooks.CODEBOOKS, "nf4", lambda: torch.arange(-8.0, 8.0))
    reference._byte_to_pair.cache_clear()
    yield
    reference._byte_to_pair.cache_clear()


@pytest.fixture
def unwritten_is_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.empty and torch.empty_like hold NaN, or where a dtype has none, 85."""

    def filling(empty: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def filled(*given: Any, **options: Any) -> Tensor:
            tensor = empty(*given, **options)
            return tensor.fill_(torch.nan if tensor.is_floating_point() else 85)

        return filled

    monkeypatch.setattr(torch, "empty", filling(torch.empty))
    monkeypatch.setattr(torch, "empty_like", filling(torch.empty_like))


@pytest.fixture
def threads() -> Iterator[Any]:
    """`torch.set_num_threads`, which is taken back."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
