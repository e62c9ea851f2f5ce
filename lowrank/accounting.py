"""Parameters and bytes, counted from shapes alone: no weights are needed, a model is built on the meta device.

Bytes are decimal: 1 MB = 10^6, 1 GB = 10^9.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import prod

import torch

from .adapters import ATTENTION, resolve_targets
from .kernels.formats import DENSE_DTYPES, expected_bytes
from .model.config import PRESETS, ModelConfig
from .model.llama import Llama
from .model.names import LINEARS, is_block_linear


@dataclass(frozen=True)
class Item:
    """One row of an account: what, how many parameters, how many bytes."""

    what: str
    parameters: int
    bytes: int


def model_parameters(config: ModelConfig) -> int:
    """All parameters of a model, counted on the model itself, built on the meta device."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in Llama(config).parameters())


def linear_parameters(config: ModelConfig) -> int:
    """Parameters of the linears of all blocks: what is quantized."""
    return config.n_layers * sum(map(prod, config.linear_shapes().values()))


def lora_parameters(in_features: int, out_features: int, rank: int) -> int:
    """r (d_in + d_out): A is d_in x r, B is r x d_out"""
    return rank * (in_features + out_features)


def adapter_parameters(config: ModelConfig, rank: int, targets: str | Sequence[str] = "all") -> int:
    """sum over layers and targets of r (d_in + d_out)"""
    shapes = config.linear_shapes()
    return config.n_layers * sum(lora_parameters(*shapes[target], rank) for target in resolve_targets(targets))


def base_items(config: ModelConfig, weights: str, dtype: str = "bf16") -> list[Item]:
    """The bytes of a base whose block linears are in `weights` and everything else in `dtype`, part by part."""
    shapes = config.parameter_shapes()
    linears = [shape for name, shape in shapes.items() if is_block_linear(name)]
    count = sum(map(prod, linears))
    total = sum(expected_bytes(shape, weights) for shape in linears)
    if weights in DENSE_DTYPES:
        items = [Item(f"linears of the blocks, {weights}", count, total)]
    else:
        codes = count if weights == "int8" else sum(-(-prod(shape) // 2) for shape in linears)
        items = [
            Item(f"linears of the blocks, {weights}: codes", count, codes),
            Item(f"linears of the blocks, {weights}: statistics", 0, total - codes),
        ]
    for what, ending in (
        ("embedding", "tok_embeddings.weight"),
        ("output head", "output.weight"),
        ("norms", "norm.weight"),
    ):
        part = sum(prod(shape) for name, shape in shapes.items() if name.endswith(ending))
        items.append(Item(f"{what}, {dtype}", part, part * DENSE_DTYPES[dtype].itemsize))
    return items


@dataclass(frozen=True)
class AdapterShape:
    """A common adapter of Llama 2 7B and the bytes of its matrices; a file adds some 0.05 MB of header."""

    rank: int
    targets: str
    dtype: str
    parameters: int
    bytes: int


COMMON_TARGETS = {
    "all seven linears": LINEARS,
    "wq, wk, wv, wo": ATTENTION,
    "wq, wv": ("attention.wq", "attention.wv"),
    "wq, wk, wv": ("attention.wq", "attention.wk", "attention.wv"),
}


def adapters_of_size(target_bytes: float, within: float, config: ModelConfig = PRESETS["7b"]) -> list[AdapterShape]:
    """The ordinary adapters (rank 1 to 256 by doubling, common targets, 16 or 32 bits) within `within` of a size.

    within is a fraction: 0.005 is half a per cent. Nearest first.
    """
    found = []
    for power, (label, targets), dtype in product(range(9), COMMON_TARGETS.items(), ("fp32", "bf16")):
        count = adapter_parameters(config, 2**power, targets)
        size = count * DENSE_DTYPES[dtype].itemsize
        if abs(size - target_bytes) <= within * target_bytes:
            found.append(AdapterShape(2**power, label, dtype, count, size))
    return sorted(found, key=lambda shape: (abs(shape.bytes - target_bytes), shape.rank))


def square_matrix(d: int) -> ModelConfig:
    """A one-block model whose wq is d x d, to look at one matrix by itself."""
    return replace(PRESETS["7b"], dim=d, n_layers=1, n_heads=1, n_kv_heads=1, hidden_dim=d, vocab_size=1)
