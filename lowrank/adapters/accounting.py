"""Parameters and bytes, counted from shapes alone: no weights are needed, a model is built on the meta device.

Bytes are decimal: 1 MB = 10^6, 1 GB = 10^9.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import prod

from torch import nn

from ..checkpoints.safetensors_writer import plan_file
from ..kernels.weights.quantized_weight import DENSE_DTYPES, expected_bytes, parts
from ..layers.quant_linear import QuantLinear
from ..model.config import PRESETS, ModelConfig
from ..model.llama import Llama
from ..model.meta_device import meta_device
from ..model.param_names import LINEARS, is_block_linear
from ..model.tensor_file import Layout
from . import ATTENTION, resolve_targets
from .folder import WEIGHTS_FILE
from .key_names import tensor_key

MAX_HEADER_BYTES = 2**20  # of an adapter's file: a 70B with all seven linears has a fifth of it


@dataclass(frozen=True)
class Item:
    """One row of an account: a part of the model, its parameters, its bytes."""

    what: str
    parameters: int
    bytes: int


def model_parameters(config: ModelConfig) -> int:
    """All parameters of a model, counted on the model itself, built on the meta device."""
    with meta_device():
        return sum(parameter.numel() for parameter in Llama(config).parameters())


def linear_parameters(config: ModelConfig) -> int:
    """Parameters of the linears of all blocks: what is quantized."""
    return config.n_layers * sum(map(prod, config.linear_shapes().values()))


def lora_parameters(in_features: int, out_features: int, rank: int) -> int:
    """r (d_in + d_out): A is d_in x r, B is r x d_out"""
    return rank * (in_features + out_features)


def adapter_parameters(
    config: ModelConfig, rank: int, targets: str | Sequence[str] = "all", *, dora: bool = False
) -> int:
    """sum over layers and targets of r (d_in + d_out), and of d_out again for the magnitudes of a DoRA"""
    shapes = [config.linear_shapes()[target] for target in resolve_targets(targets)]
    magnitudes = sum(d_out for d_out, _ in shapes) if dora else 0
    return config.n_layers * (sum(lora_parameters(*shape, rank) for shape in shapes) + magnitudes)


@dataclass(frozen=True)
class Trainable:
    """Numbers of a model that are trained, all of them with those of its adapters, and the share in per cent.

    A quantized weight counts as the N K numbers that it stands for; a tied output head counts once.
    """

    trained: int
    all: int

    @property
    def percent(self) -> float:
        """100 trained / all"""
        return 100 * self.trained / self.all


def trainable_parameters(model: nn.Module) -> Trainable:
    """Counts what of a model is trained, as PEFT's `print_trainable_parameters` counts it."""
    parameters = list(model.parameters())
    quantized = sum(prod(layer.stored_weight.shape) for layer in model.modules() if isinstance(layer, QuantLinear))
    trained = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
    return Trainable(trained, quantized + sum(parameter.numel() for parameter in parameters))


def base_items(config: ModelConfig, weights: str, dtype: str = "bf16") -> list[Item]:
    """The bytes of a base whose block linears are in `weights` and everything else in `dtype`, part by part."""
    shapes = config.parameter_shapes()
    linears = [shape for name, shape in shapes.items() if is_block_linear(name)]
    count = sum(map(prod, linears))
    total = sum(expected_bytes(shape, weights) for shape in linears)
    if weights in DENSE_DTYPES:
        items = [Item(f"linears of the blocks, {weights}", count, total)]
    else:
        codes = sum(parts(shape, weights)["codes"].nbytes for shape in linears)
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


def adapter_file_bytes(
    config: ModelConfig, rank: int, targets: str | Sequence[str], dtype: str, *, dora: bool = False
) -> int:
    """The exact size of `adapter_model.safetensors`: its header and its matrices"""
    shapes, layouts = config.linear_shapes(), {}
    for target, layer in product(resolve_targets(targets), range(config.n_layers)):
        d_out, d_in = shapes[target]
        shapes_of: dict[str, tuple[int, ...]] = {"lora_A": (rank, d_in), "lora_B": (d_out, rank)}
        if dora:
            shapes_of["lora_magnitude_vector"] = (d_out,)
        for matrix, shape in shapes_of.items():
            layouts[tensor_key(f"layers.{layer}.{target}", matrix)] = Layout.of(shape, DENSE_DTYPES[dtype])
    return plan_file(WEIGHTS_FILE, layouts).nbytes


@dataclass(frozen=True)
class AdapterShape:
    """An adapter by rank, targets and dtype: its parameters, the bytes of its matrices, and of its file"""

    rank: int
    targets: str
    dtype: str
    parameters: int
    bytes: int
    file_bytes: int


COMMON_TARGETS = {
    "all seven linears": LINEARS,
    "wq, wk, wv, wo": ATTENTION,
    "wq, wv": ("attention.wq", "attention.wv"),
    "wq, wk, wv": ("attention.wq", "attention.wk", "attention.wv"),
}
COMMON_RANKS = tuple(2**power for power in range(9))
ADAPTER_TYPES = ("fp32", "bf16")  # fp16 takes what bf16 does


def adapters_of_size(
    target_bytes: float,
    within: float,
    config: ModelConfig = PRESETS["7b"],
    *,
    ranks: Sequence[int] | None = COMMON_RANKS,
    targets: Mapping[str, Sequence[str]] = COMMON_TARGETS,
    dtypes: Sequence[str] = ADAPTER_TYPES,
) -> list[AdapterShape]:
    """The adapters whose file is within a fraction `within` of a size (0.005 is half a per cent). Nearest first.

    ranks  None tries every rank that could do; left out, 1 to 256 by doubling
    """
    shapes = []
    for (label, names), dtype in product(targets.items(), dtypes):
        rank_1 = adapter_parameters(config, 1, names)
        width = DENSE_DTYPES[dtype].itemsize
        for rank in _ranks_near(target_bytes, within, rank_1 * width) if ranks is None else ranks:
            count = rank * rank_1
            size = adapter_file_bytes(config, rank, names, dtype)
            if abs(size - target_bytes) <= within * target_bytes:
                shapes.append(AdapterShape(rank, label, dtype, count, count * width, size))
    return sorted(shapes, key=lambda shape: (abs(shape.file_bytes - target_bytes), shape.rank))


def _ranks_near(target_bytes: float, within: float, bytes_of_rank_1: int) -> range:
    """Every rank whose matrices may come to the size, with an empty header or with one of MAX_HEADER_BYTES."""
    largest = (1 + within) * target_bytes / bytes_of_rank_1
    smallest = ((1 - within) * target_bytes - MAX_HEADER_BYTES) / bytes_of_rank_1
    return range(max(1, int(smallest)), int(largest) + 1)


def square_matrix(d: int) -> ModelConfig:
    """A one-block model whose wq is d x d, to look at one matrix alone."""
    return replace(PRESETS["7b"], dim=d, n_layers=1, n_heads=1, n_kv_heads=1, hidden_dim=d, vocab_size=1)
