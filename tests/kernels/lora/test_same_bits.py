"""The same bits, whichever way the same adapter is chosen: forward and backward, on every instruction set."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import lowrank
from lowrank.adapters import adapter_parameters
from lowrank.kernels.dispatch import table
from lowrank.model.llama import Llama

pytestmark = pytest.mark.usefixtures("instruction_set", "paths_are_chosen_anew")

# Ways to choose the adapter "a" for a batch of B rows.
WAYS: dict[str, Any] = {
    "a mix of one": lambda batch: {"a": 1.0},
    "a mix with a weight of zero": lambda batch: {"b": 0.0, "a": 1.0},
    "an adapter a row": lambda batch: ["a"] * batch,
    "a mix a row": lambda batch: [{"a": 1.0, "b": 0.0}, *["a"] * (batch - 1)],
}
EVERY_DTYPE = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
EVERY_FORMAT = pytest.mark.parametrize("weights", ["nf4-dq", "int8", "bf16"])
SHAPES = ((1, 1), (1, 7), (3, 1), (3, 9))  # rows of the batch, tokens


@pytest.fixture
def paths_are_chosen_anew() -> Iterator[None]:
    """The table remembers what it chose for the instruction set that was in use."""
    table.choose.cache_clear()
    yield
    table.choose.cache_clear()


def model_with_adapters(folder: Path, weights: str, dtype: torch.dtype) -> Llama:
    """A small base with the adapters "a" (every linear) and "b" (attention), of different ranks."""
    model = lowrank.load(folder / "base", weights, dtype=dtype)
    lowrank.add_adapter(model, "a", rank=4)
    lowrank.add_adapter(model, "b", rank=3, targets="attention")
    generator = torch.Generator().manual_seed(0)
    for name in "ab":
        for parameter in adapter_parameters(model, name).values():
            parameter.data.normal_(std=0.1, generator=generator)
    return model


def tokens(batch: int, length: int) -> Tensor:
    return torch.randint(3, 60, (batch, length), generator=torch.Generator().manual_seed(1))


@pytest.mark.slow
@EVERY_DTYPE
@EVERY_FORMAT
def test_logits(weights: str, dtype: torch.dtype, hf_folder: Path) -> None:
    model = model_with_adapters(hf_folder, weights, dtype)
    for shape, context in itertools.product(SHAPES, (torch.enable_grad, torch.no_grad, torch.inference_mode)):
        rows = tokens(*shape)

        def logits(use: Any, rows: Tensor = rows, context: Any = context) -> Tensor:
            lowrank.use_adapter(model, use)
            with context():
                return model(rows)

        single = logits("a")
        assert not torch.equal(single, logits(None))
        for way, use in WAYS.items():
            assert torch.equal(single, logits(use(shape[0]))), (way, shape, context)


@pytest.mark.slow
@EVERY_DTYPE
@EVERY_FORMAT
def test_gradients(weights: str, dtype: torch.dtype, hf_folder: Path) -> None:
    model = model_with_adapters(hf_folder, weights, dtype)
    matrices = adapter_parameters(model, "a").values()
    for shape in SHAPES:
        rows = tokens(*shape)

        def gradients(use: Any, rows: Tensor = rows) -> tuple[Tensor, ...]:
            lowrank.use_adapter(model, use)
            return torch.autograd.grad(model(rows).square().sum(), matrices)

        single = gradients("a")
        assert sum(bool(gradient.any()) for gradient in single) > len(single) / 2  # q and k of one token have none
        for way, use in WAYS.items():
            ours = gradients(use(shape[0]))
            assert all(map(torch.equal, ours, single)), (way, shape)


def test_an_adapter_of_weight_zero_has_no_part_in_a_call(hf_folder: Path) -> None:
    model = model_with_adapters(hf_folder, "nf4-dq", torch.float32)
    lowrank.use_adapter(model, {"a": 1.0, "b": 0.0})
    model(tokens(2, 5)).sum().backward()
    assert all(parameter.grad is None for parameter in adapter_parameters(model, "b").values())
