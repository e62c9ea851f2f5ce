"""Decoding on a CPU: all blocks of a model for one token a row, in one call of the C library.

The call gives to the byte what the modules give one after another, and saves what Python and torch take between them:
half of a token's time in a small model. It is made where every module is as it came and no gradient is wanted;
anywhere else the modules run.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from .kernels import run
from .kernels.adapted import Adapted
from .kernels.cpu import binding
from .kernels.cpu.blocks import Block, Blocks, Sizes
from .kernels.lean import LEAN
from .model.config import ModelConfig
from .model.llama import Attention, Cache, FeedForward, KVCache, Llama, RMSNorm, TransformerBlock
from .shared_input import adapted


class AtOnce:
    """What `Llama.at_once` calls. The description of a model is kept as long as it is true."""

    def __init__(self) -> None:
        self._kept: _Kept | None = None

    def __reduce__(self) -> tuple[type[Self], tuple[()]]:
        return type(self), ()  # a copy of a model has other tensors

    def __call__(
        self, model: Llama, x: Tensor, rotation: tuple[Tensor, Tensor], mask: Tensor | None, cache: Cache | None
    ) -> Tensor | None:
        """norm(blocks(x)) of x [B, 1, D], with its keys and values put into the cache; None if the modules must run."""
        if not _is_plain_decoding(x, cache) or (parts := _parts(model, x)) is None:
            return None
        kept = self._kept
        if kept is None or not kept.is_of(parts, x):
            if not run.at_once(x, [linear for block in parts.blocks for linear in block.linears]):
                return None
            kept = self._kept = _Kept.of(parts, x)
        assert isinstance(cache, KVCache)
        sizes = _sizes(model.config, x, cache, model.norm.eps)
        cos, sin = (angles.contiguous() for angles in rotation)
        seen = None if mask is None else mask.expand(len(x), -1, -1, -1).contiguous()
        return kept.described.run(x.contiguous(), cache.k, cache.v, sizes, cos, sin, seen)


class _Parts(NamedTuple):
    """What the modules are made of, in order."""

    blocks: list[Block]
    norm: Tensor


class _Kept(NamedTuple):
    """A description, the tensors and the factors that it was made of, where these were, and for which rows."""

    rows: tuple[torch.Size, torch.dtype]
    tensors: list[Tensor]
    scalings: list[float]
    places: list[int]
    described: Blocks

    @classmethod
    def of(cls, parts: _Parts, x: Tensor) -> Self:
        tensors = list(_tensors(parts))
        return cls(
            (x.shape, x.dtype), tensors, _scalings(parts), [t.data_ptr() for t in tensors], Blocks(parts.blocks, parts.norm)
        )

    def is_of(self, parts: _Parts, x: Tensor) -> bool:
        tensors = list(_tensors(parts))
        return (
            self.rows == (x.shape, x.dtype)
            and self.scalings == _scalings(parts)
            and len(tensors) == len(self.tensors)
            and all(a is b for a, b in zip(tensors, self.tensors, strict=True))
            and [t.data_ptr() for t in tensors] == self.places
        )


def _tensors(parts: _Parts) -> Iterator[Tensor]:
    yield parts.norm
    for block in parts.blocks:
        yield block.attention_norm
        yield block.ffn_norm
        for linear in block.linears:
            if isinstance(linear.weight, Tensor):
                yield linear.weight
            else:
                yield from linear.weight.tensors().values()
            if linear.lora_A is not None and linear.lora_B is not None:
                yield linear.lora_A
                yield linear.lora_B


def _scalings(parts: _Parts) -> list[float]:
    return [linear.scaling for block in parts.blocks for linear in block.linears]


def _is_plain_decoding(x: Tensor, cache: Cache | None) -> bool:
    """One token a row, behind what a cache of the same dtype holds, in C, and without gradients."""
    return (
        type(cache) is KVCache
        and x.is_cpu
        and x.shape[1] == 1
        and x.dtype in binding.DTYPES
        and cache.k.dtype == x.dtype
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and not _has_any_global_hook()
    )


def _parts(model: Llama, x: Tensor) -> _Parts | None:
    """The parts of the model's blocks and its last norm; None if a module is not what it was made as."""
    if not _is_norm(model.norm, x.dtype):
        return None
    blocks = []
    for block in model.layers:
        if not _is(block, TransformerBlock):
            return None
        attention, feed_forward, norms = block.attention, block.feed_forward, (block.attention_norm, block.ffn_norm)
        if not (_is(attention, Attention) and attention.ops is LEAN and _is(feed_forward, FeedForward)):
            return None
        if feed_forward.ops is not LEAN or not all(_is_norm(norm, x.dtype) for norm in norms):
            return None
        layers = attention.wq, attention.wk, attention.wv, attention.wo, feed_forward.w1, feed_forward.w3, feed_forward.w2
        linears = _linears(layers, x)
        if linears is None:
            return None
        blocks.append(Block(norms[0].weight, norms[1].weight, linears))
    return _Parts(blocks, model.norm.weight)


def _linears(layers: Sequence[nn.Module], x: Tensor) -> tuple[Adapted, ...] | None:
    found = [adapted(layer, x) for layer in layers]
    linears = tuple(linear for linear in found if linear is not None and linear.drop is None)
    return linears if len(linears) == len(layers) else None


def _is_norm(module: nn.Module, dtype: torch.dtype) -> bool:
    return _is(module, RMSNorm) and module.ops is LEAN and module.weight.dtype == dtype and module.weight.is_contiguous()


def _is(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether the module runs what its class says, and nothing besides."""
    return (
        type(module) is kind
        and not module._forward_hooks
        and not module._forward_pre_hooks
        and "forward" not in vars(module)
    )


def _sizes(config: ModelConfig, x: Tensor, cache: KVCache, eps: float) -> Sizes:
    return Sizes(
        batch=len(x),
        dim=config.dim,
        hidden_dim=config.hidden_dim,
        heads=config.n_heads,
        kv_heads=config.n_kv_heads,
        head_dim=config.head_dim,
        capacity=cache.capacity,
        position=cache.length,
        eps=eps,
        interleaved=config.rope_layout == "interleaved",
    )
