"""The peak of memory of a training run, part by part, from shapes alone.

B rows of a batch, T positions of a row, M = B T, S supervised positions of a batch, L layers, D model dim,
A channels of all query heads (D, but for a head_dim of its own), F ffn hidden, H heads, r rank, V vocabulary,
b bytes of a number in the compute type.

    kept by a layer a position      b (4 D + 4 A + 3 F) + 7 b r + 4 (2 + H)
        h, its norm, q, k, v, attention's output, h again, its norm; gate, up, SwiGLU's output; x A^T of seven linears;
        two statistics of the norms and one of each head, in float32
    selective                       the two norms and SwiGLU's output are not kept: b (2 D + 4 A + 2 F)
    full                            b D, and one layer's as above while it is computed again
"""

import math
from dataclasses import dataclass

import torch

from lowrank.adapters import resolve_targets
from lowrank.adapters.accounting import Item, adapter_parameters, base_items
from lowrank.adapters.starts import SUBTRACTED
from lowrank.checkpoints.load import DEFAULT_WEIGHTS, DEQUANT
from lowrank.kernels.dispatch.explain import explain
from lowrank.kernels.dispatch.table import BACKWARD, PLAIN, SCRATCH
from lowrank.kernels.llama_ops.linear_cross_entropy import rows_of_a_chunk
from lowrank.kernels.reference.riding_adapters import RANK_STEP
from lowrank.kernels.weights.quantized_weight import DENSE_DTYPES, QUANTIZED_NAMES
from lowrank.model.config import ModelConfig

from ..adam_state import state_bytes
from ..config import TrainConfig

HEAP = 2 * 32 << 20  # glibc gives memory back from 64 MiB on, once it has seen large pieces: mallopt(3)
PLAIN_SCRATCH = 6  # bytes a weight while plain torch dequantizes: its index, its float32, or that and the result


@dataclass(frozen=True)
class BatchShape:
    """The largest batch of a run, as one process computes it."""

    rows: int
    positions: int  # of a row
    supervised: int  # of the batch

    @property
    def tokens(self) -> int:
        """Positions of all rows: the M of the products."""
        return self.rows * self.positions


def compute_dtype(config: TrainConfig) -> torch.dtype:
    """The dtype in which `lowrank.load` computes for this config."""
    if config.base.dtype:
        return DENSE_DTYPES[config.base.dtype]
    return torch.float32 if config.base.device == "cpu" else torch.bfloat16


def stored_weights(config: TrainConfig) -> str:
    """The number format of the block linears in memory."""
    name = config.base.weights or DEFAULT_WEIGHTS
    if name.startswith(DEQUANT):
        return next(short for short, dtype in DENSE_DTYPES.items() if dtype == compute_dtype(config))
    return name


def parts(model: ModelConfig, config: TrainConfig, batch: BatchShape, shards: int = 1) -> list[Item]:
    """Everything that is held at the peak, in bytes; with `shards`, what one of so many processes holds.

    The peak is at the end of the forward pass, where the loss is made, or in the last layer's backward pass.
    """
    dtype = compute_dtype(config)
    short = next(name for name, kind in DENSE_DTYPES.items() if kind == dtype)
    base = base_items(model, stored_weights(config), short)
    blocks = [item for item in base if item.what.startswith("linears")]
    rest = [item for item in base if not item.what.startswith("linears")]
    count = adapter_parameters(model, config.adapter.rank, config.adapter.targets, dora=config.adapter.dora)
    states = _states(model, config)
    sharded = [
        *(Item(item.what, item.parameters, math.ceil(item.bytes / shards)) for item in (*blocks, *rest)),
        Item("hat, fp32", count, math.ceil(4 * count / shards)),
        Item("its gradient, fp32", 0, math.ceil(4 * count / shards)),
        *([Item("its start, fp32", 0, 4 * count)] if config.adapter.start in SUBTRACTED else []),
        *([Item("its reference, fp32", 0, 4 * count)] if config.preference.loss and config.adapter.from_ else []),
        Item(f"optimizer, {config.optimizer.states}", 0, 0 if _is_off_device(config) else math.ceil(states / shards)),
    ]
    if rounded := config.adapter.merge_aware:
        weights = [item for item in base_items(model, rounded, short) if item.what.startswith("linears")]
        one = max(math.prod(shape) for shape in model.linear_shapes().values())
        sharded.append(Item(f"rounded with the hat, {rounded}", 0, sum(item.bytes for item in weights)))
        sharded.append(Item("a linear while it is rounded, fp32", 0, 2 * 4 * one))
    if shards > 1:
        layer = sum(item.bytes for item in blocks) + 4 * count
        gathered = 2 * math.ceil(layer / model.n_layers) + sum(item.bytes for item in rest)
        sharded.append(Item("gathered: two layers, embedding and head", 0, gathered))
    if config.base.device == "cpu":
        sharded.append(Item("freed, kept by the C library's heap", 0, HEAP))
    return [
        *sharded,
        Item("activations", 0, activations(model, config, batch)),
        Item("working memory", 0, working_memory(model, config, batch)),
    ]


def host_bytes(model: ModelConfig, config: TrainConfig) -> int:
    """Bytes of paged optimizer states, in host memory beside a GPU."""
    return _states(model, config) if _is_off_device(config) else 0


def activations(model: ModelConfig, config: TrainConfig, batch: BatchShape) -> int:
    """Bytes of activations that the forward pass keeps for the backward pass."""
    size, of_a_layer = compute_dtype(config).itemsize, _kept_by_a_layer(model, config)
    if config.run.recompute == "full":
        return batch.tokens * (model.n_layers * size * model.dim + of_a_layer)
    is_masked = config.data.pack and (config.base.device == "cpu" or size > 2)  # else `packed_attention` needs no mask
    mask = batch.rows * batch.positions**2 * (1 + size) if is_masked else 0
    return batch.tokens * model.n_layers * of_a_layer + mask


def working_memory(model: ModelConfig, config: TrainConfig, batch: BatchShape) -> int:
    """Bytes that the loss or a layer's backward pass takes beside what is kept, whichever are more."""
    return max(_loss(model, batch, compute_dtype(config)), _backward(model, config, batch))


def _kept_by_a_layer(model: ModelConfig, config: TrainConfig) -> int:
    size = compute_dtype(config).itemsize
    selective = config.run.recompute == "selective"
    wide, hidden = (2, 2) if selective else (4, 3)
    numbers = wide * model.dim + 4 * model.attention_dim + hidden * model.hidden_dim + 7 * config.adapter.rank
    return size * numbers + 4 * (2 + model.n_heads)


def _loss(model: ModelConfig, batch: BatchShape, dtype: torch.dtype) -> int:
    """The final norm, the supervised rows of it, their gradient, and a chunk of logits."""
    rows = min(batch.supervised, rows_of_a_chunk(model.vocab_size))
    numbers = (2 * batch.tokens + 2 * batch.supervised) * model.dim + rows * model.vocab_size
    return numbers * dtype.itemsize


def _backward(model: ModelConfig, config: TrainConfig, batch: BatchShape) -> int:
    """dX of the residual, of SwiGLU's output, gate and up; and weights on their way to a product, and what it reads."""
    size = compute_dtype(config).itemsize
    flowing = size * batch.tokens * (2 * model.dim + 3 * model.hidden_dim)
    if not _rides(model, config):
        return flowing + _scratch(model, config)
    # Gate and up together: Z of `kernels.reference.riding_adapters`, and [dY | V].
    rank = math.ceil(2 * config.adapter.rank / RANK_STEP) * RANK_STEP
    outputs = 2 * model.hidden_dim + rank
    return flowing + size * (outputs * (model.dim + rank) + batch.tokens * outputs)


def _rides(model: ModelConfig, config: TrainConfig) -> bool:
    """True where the adapters of linears that share x ride in the products with W."""
    weights, dtype = stored_weights(config), compute_dtype(config)
    if weights not in QUANTIZED_NAMES or config.adapter.dropout or config.adapter.merge_aware:
        return False
    choices = explain(512, model.hidden_dim, model.dim, dtype=dtype, device=config.base.device, format=weights)
    return next(choice.path for choice in choices if choice.op == BACKWARD) == SCRATCH


def _scratch(model: ModelConfig, config: TrainConfig) -> int:
    """Bytes of scratch memory for the largest linear, by the kernel that computes it."""
    weights, dtype = stored_weights(config), compute_dtype(config)
    n, k = max(model.linear_shapes().values(), key=math.prod)
    if weights not in QUANTIZED_NAMES:
        return 0 if weights == config.base.dtype else n * k * dtype.itemsize
    choices = explain(512, n, k, dtype=dtype, device=config.base.device, format=weights)
    path = next(choice.path for choice in choices if choice.op == BACKWARD)
    return n * k * {PLAIN: PLAIN_SCRATCH, SCRATCH: dtype.itemsize}.get(path, 0)


def _states(model: ModelConfig, config: TrainConfig) -> int:
    shapes, rank = model.linear_shapes(), config.adapter.rank
    sizes = [rank * size for target in resolve_targets(config.adapter.targets) for size in shapes[target]]
    return model.n_layers * sum(state_bytes(size, config.optimizer.states) for size in sizes)


def _is_off_device(config: TrainConfig) -> bool:
    return config.optimizer.states.startswith("paged") and config.base.device != "cpu"
