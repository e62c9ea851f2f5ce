"""Decoding on a GPU: a step of fixed shapes through all blocks, in five kernels a block (`kernels.triton.decode_step`).

What the modules give one after another, up to rounding: h * weight is rounded before the division by its root mean
square and not behind it, and the gate, the up projection and what a residual adds are not rounded in between. Taken
where every module is as it came and the kernels take the weights; anywhere else the modules run.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor

from ..kernels.llama_ops.cuda import CUDA_OPS
from ..kernels.reference.decode_step import CacheWindow, StepSizes
from ..model.llama import Cache, KVCache, Llama, LogitsOfEach, Mask, NextToken
from ..model.static_decode import FixedCache
from .block_weights import block_weights, is_plain_inference


class GpuBlocks:
    """The call behind `Llama.fused_blocks` of a model on a GPU; it keeps nothing, as a step is captured once."""

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Nothing is looked at a second time anyway."""
        yield

    def logits_of_each(self, model: Llama, tokens: Tensor, cache: KVCache) -> LogitsOfEach | None:
        """None: a step is one token a row."""
        return None

    def costs_of_rows(self, model: Llama) -> Sequence[float]:
        """The cost of one token alone."""
        return (1.0,)

    def joins_rows(self, model: Llama) -> bool:
        """False: a captured step has one position for all of its rows, and a number of them that stays."""
        return False

    def logits_of_rows(self, model: Llama, texts: Sequence[NextToken]) -> list[Tensor | None]:
        """None of them: see `joins_rows`."""
        return [None] * len(texts)

    def __call__(
        self, model: Llama, x: Tensor, rotation: tuple[Tensor, Tensor], mask: Mask, cache: Cache | None
    ) -> Tensor | None:
        """norm(blocks(x)) of x [B, 1, D], with its keys and values put into the cache; None if the modules must run."""
        if type(cache) is not FixedCache or type(cache.cache) is not KVCache or not _is_decoding(x, cache):
            return None
        blocks = block_weights(model, x, CUDA_OPS)
        if blocks is None:
            return None
        from ..kernels.triton import decode_step  # on Linux only

        sizes = _sizes(model)
        if decode_step.unsupported_reason(x, blocks, sizes):
            return None
        window = CacheWindow(cache.cache.k, cache.cache.v, cache.window, cache.position, cache.padding)
        normed: Tensor = model.norm(decode_step.decode_blocks(x, blocks, window, *rotation, sizes))
        return normed


def _is_decoding(x: Tensor, cache: FixedCache) -> bool:
    """True if x is one token a row, on a GPU, and nothing but its output is asked for."""
    return x.is_cuda and x.shape[1] == 1 and x.dtype == cache.cache.k.dtype and is_plain_inference(x)


def _sizes(model: Llama) -> StepSizes:
    config = model.config
    is_interleaved = config.rope_layout == "interleaved"
    return StepSizes(config.n_heads, config.n_kv_heads, config.head_dim, config.norm_eps, is_interleaved)
