"""What tests of kernels share: the instruction sets of this processor, levels that are integers, memory that is NaN."""

from collections.abc import Callable, Iterator
from platform import machine
from typing import Any

import pytest
import torch
from torch import Tensor

from lowrank.kernels import codebook, reference
from lowrank.kernels.cpu import binding


def choose(name: str) -> Iterator[str]:
    """Uses an instruction set until the test is over."""
    if reason := binding.absence():
        pytest.skip(reason)
    before = binding.instruction_set()
    try:
        if binding.library().lowrank_choose(name.encode()):
            pytest.skip(f"this processor has no {name}")
        yield name
    finally:
        binding.library().lowrank_choose(before.encode())


SETS = {"x86_64": ["avx512", "avx2", "portable"], "aarch64": ["neon", "portable"]}


@pytest.fixture(params=SETS.get(machine(), ["portable"]))
def instruction_set(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each instruction set that the C library is compiled for here, if the processor has it."""
    yield from choose(request.param)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """In `make check` tests run with one instruction set: the one in use on this processor."""
    best = "" if binding.absence() else binding.instruction_set()
    tested = SETS.get(machine(), ["portable"])
    chosen = best if best in tested else tested[0]
    for item in items:
        parameters = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        if parameters.get("instruction_set", chosen) != chosen:
            item.add_marker(pytest.mark.slow)


@pytest.fixture
def matrix_unit() -> Iterator[str]:
    """The matrix unit, if the processor has one."""
    yield from choose(binding.MATRIX_UNIT)


@pytest.fixture
def integer_levels(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Codes -8 .. 7 in place of the NF4 levels: every product of small integers is then exact in float32."""
    monkeypatch.setitem(codebook.CODEBOOKS, "nf4", lambda: torch.arange(-8.0, 8.0))
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
