"""Keys and values of the past in 8 or 4 bits, each head at each position with a scale of its own.

    int8   x[c] = code[c] * scale / 127        scale = max_c |x[c]|, codes from -127 to 127
    nf4    x[c] = level[code[c]] * scale       the 16 levels of NF4

Both are the formats of weights, for a matrix whose rows are heads at positions: a row of int8, or a block of NF4 as
long as a head. What is asked for is dequantized whole, a layer at a time, so that attention sees ordinary keys and
values; those of the tokens at hand too, so that a text is the same however its prompt is cut. The blocks then run
module by module: `cpu_decode` reads ordinary caches.

L layers, B batch, T time, S positions filled, G key/value heads, h head dim.
"""

from functools import partial
from typing import Literal

import torch
from torch import Tensor

from ..kernels import ops
from ..kernels.dispatch import run
from ..kernels.weights.quantized_weight import BLOCKSIZES, Blockwise4bit, RowwiseInt8
from ..model.config import ModelConfig
from ..model.llama import KVCache, Llama, rope_angles

CacheFormat = Literal["int8", "nf4"]
FORMATS: tuple[CacheFormat, ...] = ("int8", "nf4")


def use_cache_format(model: Llama, format: CacheFormat | None) -> None:
    """Makes the caches of a model's next texts quantized; None: in its own dtype again.

    Raises ValueError for another format, a model that is not on a CPU, and heads that are no block of NF4.
    """
    if format is None:
        model.cache_type = KVCache
        return
    if format not in FORMATS:
        raise ValueError(f"cache must be one of {', '.join(FORMATS)}, got {format!r}")
    if (device := model.tok_embeddings.weight.device).type != "cpu":
        raise ValueError(f"cache {format} is for a model on the CPU, this one is on {device}")
    if format == "nf4" and model.config.head_dim not in BLOCKSIZES:
        raise ValueError(f"cache nf4 is for heads of a power of two from 32, these have {model.config.head_dim}")
    model.cache_type = partial(QuantizedKVCache, format=format)


def cache_bytes(config: ModelConfig, positions: int, format: CacheFormat | None, batch: int = 1) -> int:
    """Bytes of the keys and values of so many positions, in bfloat16 for None; and of one layer's dequantized."""
    heads = 2 * batch * positions * config.n_kv_heads
    if format is None:
        return 2 * heads * config.n_layers * config.head_dim
    stored = {"int8": config.head_dim, "nf4": config.head_dim // 2}[format] + torch.float32.itemsize
    return heads * (config.n_layers * stored + 2 * config.head_dim)


class QuantizedKVCache(KVCache):
    """A `KVCache` whose buffers are codes and scales.

    codes   int8 [2, L, B, capacity, G, h], or uint8 [..., h/2], first in the high nibble: keys, then values
    scales  float32 [2, L, B, capacity, G]
    """

    def __init__(
        self,
        config: ModelConfig,
        batch: int,
        capacity: int,
        dtype: torch.dtype,
        device: torch.device,
        format: CacheFormat,
    ) -> None:
        self.format = format
        place = (2, config.n_layers, batch, capacity, config.n_kv_heads)
        is_int8 = format == "int8"
        width = config.head_dim if is_int8 else config.head_dim // 2
        self.codes = torch.zeros((*place, width), dtype=torch.int8 if is_int8 else torch.uint8, device=device)
        self.scales = torch.zeros(place, device=device)
        self.dequantized = torch.empty((2, batch, capacity, config.n_kv_heads, config.head_dim), dtype=dtype)
        self.angles = rope_angles(torch.arange(capacity, device=device)[None], config)
        self.capacity = capacity
        self.length = 0

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Stores k, v [B, G, T, h] behind what is there; returns all S of them as they are stored, [B, G, S, h]."""
        return self._append(0, layer, k), self._append(1, layer, v)

    def _append(self, which: int, layer: int, x: Tensor) -> Tensor:
        codes, scales, out = self.codes[which, layer], self.scales[which, layer], self.dequantized[which]
        rows, end = x.transpose(1, 2), self.length + x.shape[2]  # [B, T, G, h]
        try:
            found = ops.quantize(rows.reshape(-1, x.shape[3]), self.format, blocksize=x.shape[3], name="x")
        except ValueError:
            raise FloatingPointError(f"{('keys', 'values')[which]} of layer {layer} are not finite") from None
        codes[:, self.length : end] = found.codes.view(*rows.shape[:3], -1)
        scale = found.tensors()["scale" if self.format == "int8" else "absmax"]
        scales[:, self.length : end] = scale.view(rows.shape[:3])
        for row in range(len(codes)):
            self._dequantize(codes[row, :end], scales[row, :end], out[row, :end])
        return out[:, :end].transpose(1, 2)

    def _dequantize(self, codes: Tensor, scales: Tensor, out: Tensor) -> None:
        """codes [S, G, ...], scales [S, G] -> out [S, G, h]"""
        shape = (scales.numel(), out.shape[2])
        weight: RowwiseInt8 | Blockwise4bit
        if self.format == "int8":
            weight = RowwiseInt8(codes.view(shape), scales.flatten())
        else:
            weight = Blockwise4bit(codes.flatten(), scales.flatten(), "nf4", out.shape[2], shape)
        run.dequantize(weight, out.dtype, out.view(shape))
