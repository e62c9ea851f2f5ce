"""Decoding on a CPU: all blocks of a model for one token a row, in one call of the C library.

The call gives to the byte what the modules give one after another, and saves what Python and torch take between them:
half of a token's time in a small model. It is made where every module is as it came, and no gradient is wanted;
anywhere else the modules run.
"""

from typing import Self, TypeGuard, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from .kernels import run
from .kernels.cpu.binding import DTYPES
from .kernels.cpu.blocks import Block, Blocks, Sizes
from .kernels.lean import LEAN
from .model.llama import Attention, Cache, FeedForward, KVCache, Llama, RMSNorm, TransformerBlock
from .shared_input import adapted, is_hooked

IN_A_BLOCK = ("attention", "feed_forward", "attention_norm", "ffn_norm")
IN_ATTENTION = ("wq", "wk", "wv", "wo")
IN_FEED_FORWARD = ("w1", "w3", "w2")


class AtOnce:
    """What `Llama.at_once` calls. The description of the model's blocks is kept as long as it is true."""

    def __init__(self) -> None:
        self._kept: tuple[torch.Size, torch.dtype, Blocks] | None = None

    def __reduce__(self) -> tuple[type[Self], tuple[()]]:
        return type(self), ()  # a copy of a model has other tensors

    def __call__(
        self, model: Llama, x: Tensor, rotation: tuple[Tensor, Tensor], mask: Tensor | None, cache: Cache | None
    ) -> Tensor | None:
        """norm(blocks(x)) of x [B, 1, D], with its keys and values put into the cache; None if the modules must run."""
        if type(cache) is not KVCache or not _is_decoding(x, cache):
            return None
        norm, blocks = _norm_weight(model.norm, model, x), _blocks(model, x)
        described = None if norm is None or blocks is None else self._described(blocks, norm, x)
        if described is None:
            return None
        cos, sin = (angles.contiguous() for angles in rotation)
        seen = None if mask is None else mask.expand(len(x), -1, -1, -1).contiguous()
        return described.run(x.contiguous(), cache.k, cache.v, _sizes(model, len(x), cache), cos, sin, seen)

    def _described(self, blocks: list[Block], norm: Tensor, x: Tensor) -> Blocks | None:
        """The blocks as C takes them; None if one of their products with x is not for it."""
        kept = self._kept
        if kept is not None and kept[:2] == (x.shape, x.dtype) and kept[2].describes(blocks, norm):
            return kept[2]
        if not run.at_once(x, [linear for block in blocks for linear in block.linears]):
            return None
        described = Blocks(blocks, norm)
        self._kept = x.shape, x.dtype, described
        return described


def _is_decoding(x: Tensor, cache: KVCache) -> bool:
    """Whether x is one token a row, on a CPU, in a dtype that C takes; without gradients, compiler or global hooks."""
    return (
        x.is_cpu
        and x.shape[1] == 1
        and x.dtype in DTYPES
        and x.dtype == cache.k.dtype
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and not _has_any_global_hook()
    )


def _blocks(model: Llama, x: Tensor) -> list[Block] | None:
    """What the blocks are made of, or None if one of their modules is not as it came.

    Asked for every token, so that submodules and parameters are read where torch keeps them (`shared_input.adapted`).
    """
    blocks = []
    for layer, block in enumerate(model.layers):
        if not _is(block, TransformerBlock):
            return None
        attention, feed_forward, attention_norm, ffn_norm = map(block._modules.get, IN_A_BLOCK)
        if not (_is(attention, Attention) and attention.ops is LEAN and attention.layer == layer):
            return None
        if not (_is(feed_forward, FeedForward) and feed_forward.ops is LEAN):
            return None
        linears = [*map(attention._modules.get, IN_ATTENTION), *map(feed_forward._modules.get, IN_FEED_FORWARD)]
        parts = [part for linear in linears if (part := adapted(linear, x)) is not None and part.drop is None]
        norms = [_norm_weight(norm, model, x) for norm in (attention_norm, ffn_norm)]
        if len(parts) < len(linears) or norms[0] is None or norms[1] is None:
            return None
        blocks.append(Block(norms[0], norms[1], tuple(parts)))
    return blocks


def _norm_weight(module: nn.Module | None, model: Llama, x: Tensor) -> Tensor | None:
    """Its weight, if it is a norm as all the others are, in the dtype of x."""
    if not _is(module, RMSNorm) or module.ops is not LEAN or module.eps != model.config.norm_eps:
        return None
    weight = module._parameters["weight"]
    return weight if weight is not None and weight.dtype == x.dtype and weight.is_contiguous() else None


Kind = TypeVar("Kind", bound=nn.Module)


def _is(module: nn.Module | None, kind: type[Kind]) -> TypeGuard[Kind]:
    """Whether the module does what its class says, and nothing besides."""
    return type(module) is kind and not is_hooked(module) and "forward" not in module.__dict__


def _sizes(model: Llama, batch: int, cache: KVCache) -> Sizes:
    config = model.config
    return Sizes(
        batch=batch,
        dim=config.dim,
        hidden_dim=config.hidden_dim,
        heads=config.n_heads,
        kv_heads=config.n_kv_heads,
        head_dim=config.head_dim,
        capacity=cache.capacity,
        position=cache.length,
        eps=config.norm_eps,
        interleaved=config.rope_layout == "interleaved",
    )
