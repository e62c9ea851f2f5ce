"""Quantized weights of which the stored tensors, and not W, are made for a test."""

from typing import TypeVar

import torch
from torch import Tensor

from lowrank.kernels.weights.quantized_weight import Blockwise4bit, RowwiseInt8

Weight = TypeVar("Weight", Blockwise4bit, RowwiseInt8)


def begun_anywhere(weight: Weight) -> Weight:
    """The same weight, each of whose tensors begins an element into its memory, with others around it."""

    def moved(tensor: Tensor) -> Tensor:
        memory = torch.full((tensor.numel() + 3,), 77, dtype=tensor.dtype)
        return memory[1:-2].copy_(tensor.flatten()).view(tensor.shape)

    return weight.with_tensors({name: moved(tensor) for name, tensor in weight.tensors().items()})


def small_integers(n: int, k: int, generator: torch.Generator) -> tuple[Blockwise4bit, Tensor]:
    """A weight of codes 0 to 15 and maxima that are powers of two, and W [n, k] in float64 if level c is c - 8."""
    codes = torch.randint(0, 16, (n * k + n * k % 2,), generator=generator)
    powers = 2.0 ** torch.randint(-2, 3, (-(-n * k // 64),), generator=generator)
    weight = Blockwise4bit((codes[::2] << 4 | codes[1::2]).to(torch.uint8), powers, "nf4", 64, (n, k))
    return weight, ((codes[: n * k] - 8) * powers.double().repeat_interleave(64)[: n * k]).view(n, k)
