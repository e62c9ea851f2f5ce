"""A small base in two hats, and the calls of C that decode it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

import lowrank
from lowrank.kernels.cpu.decode_step import Blocks
from lowrank.layers.lora import LoRALinear
from lowrank.model.llama import Llama


@pytest.fixture
def model(hf_folder: Path) -> Llama:
    """A small base in 4 bits with two hats, the first of them worn."""
    model = lowrank.load(hf_folder / "base", "nf4-dq")
    for seed, name in enumerate(("first", "second")):
        lowrank.add_adapter(model, name, rank=4, seed=seed)
        fill(model, name, seed)
    lowrank.use_adapter(model, "first")
    return model


def fill(model: nn.Module, name: str, seed: int, std: float = 0.3) -> None:
    generator = torch.Generator().manual_seed(seed)
    for layer in model.modules():
        if isinstance(layer, LoRALinear):
            layer.lora_B[name].data.normal_(generator=generator, std=std)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The rows of every call of C for all blocks."""
    made: list[int] = []
    run = Blocks.run
    monkeypatch.setattr(Blocks, "run", lambda self, x, *given: (made.append(len(x)), run(self, x, *given))[1])
    yield made
