"""Llama 2 (arXiv 2307.09288), in plain torch, with the module names of Meta's checkpoints.

B batch, T time, D model dim, H query heads, G key/value heads, h head dim (D / H, or a config's own), F ffn hidden,
V vocabulary, S positions that a query can see: T of this call, or those in the cache.
"""

import math
import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager
from contextvars import Context, copy_context
from functools import partial
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook
from torch.utils.checkpoint import checkpoint

from .config import ModelConfig, RopeLayout
from .packed_texts import PackedTexts, attention_mask, segment_starts

Mask = Tensor | PackedTexts | None  # bool [B or 1, 1, T, S], or what stands for one: see `attention_mask`


class Ops(Protocol):
    """The operations that a faster implementation may replace; `TorchOps` is the truth."""

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor: ...
    def rms_norm_and_x(self, x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]: ...
    def add_rms_norm(self, x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]: ...
    def rope_pair(
        self, q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, layout: RopeLayout
    ) -> tuple[Tensor, Tensor]: ...
    def swiglu(self, gate: Tensor, up: Tensor) -> Tensor: ...
    def attention(self, q: Tensor, k: Tensor, v: Tensor, mask: Mask) -> Tensor: ...


class TorchOps:
    """The equations of Llama 2, one after another."""

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """y = n * weight,  n = x / sqrt(mean(x^2) + eps)    (arXiv 1910.07467)

        x [*, D], weight [D]. As in Meta's code, n is computed in float32 (float64 for float64) and rounded to the dtype
        of x before it is multiplied.
        """
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)).type_as(x) * weight

    def rms_norm_and_x(self, x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        """(rms_norm(x), x): what a block norms, and what it goes on with"""
        return self.rms_norm(x, weight, eps), x

    def add_rms_norm(self, x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        """h = x + residual;  (rms_norm(h), h): what a block norms, and what it goes on with"""
        h = x + residual
        return self.rms_norm(h, weight, eps), h

    def rope(self, x: Tensor, cos: Tensor, sin: Tensor, layout: RopeLayout) -> Tensor:
        """(a, b) -> (a cos - b sin, a sin + b cos) for each pair of channels, in float32    (arXiv 2104.09864)

        x [B, T, H, h]; cos, sin [B, T, 1, h/2]. The pairs are (2i, 2i+1) or (i, i + h/2): see `ModelConfig`.
        """
        if layout == "interleaved":
            a, b = x.float().unflatten(-1, (-1, 2)).unbind(-1)
            turned = torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1).flatten(-2)
        else:
            a, b = x.float().chunk(2, dim=-1)
            turned = torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)
        return turned.type_as(x)

    def rope_pair(self, q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, layout: RopeLayout) -> tuple[Tensor, Tensor]:
        """(rope(q), rope(k));  q [B, T, H, h], k [B, T, G, h]"""
        return self.rope(q, cos, sin, layout), self.rope(k, cos, sin, layout)

    def swiglu(self, gate: Tensor, up: Tensor) -> Tensor:
        """silu(gate) * up    (arXiv 2002.05202);  [*, F] each"""
        return F.silu(gate) * up

    def attention(self, q: Tensor, k: Tensor, v: Tensor, mask: Mask) -> Tensor:
        """softmax(q k^T / sqrt(h)) v, each G head serving H / G query heads; mask None: see `attention_mask`

        q [B, H, T, h]; k, v [B, G, S, h]; mask [B or 1, 1, T, S], true where a query may look. Returns [B, H, T, h].
        """
        mask = mask.mask if isinstance(mask, PackedTexts) else mask
        groups = q.shape[1] // k.shape[1]
        if groups > 1:
            k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
        queries, keys = q.shape[2], k.shape[2]
        if mask is None and 1 < queries < keys:
            mask = torch.ones(queries, keys, dtype=torch.bool, device=q.device).tril(keys - queries)
        if mask is None and queries > 1:
            return F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


TORCH_OPS = TorchOps()


class Cache(Protocol):
    """The cache as a block sees it: takes the keys and values of this call, returns all that a query may look at."""

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]: ...


class KVCache:
    """Keys and values of every layer for the positions seen so far, in buffers of a fixed length.

    capacity is in positions. `length` counts those that are filled; `Llama.forward` advances it. `angles` are those of
    all positions, [1, capacity, 1, h/2]. `living` are the rows that go on, None for all: nobody looks at the others any
    more, and `FusedBlocks` may leave them out.
    """

    def __init__(
        self, config: ModelConfig, batch: int, capacity: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        shape = (config.n_layers, batch, config.n_kv_heads, capacity, config.head_dim)
        self.k = torch.zeros(shape, dtype=dtype, device=device)
        self.v = torch.zeros(shape, dtype=dtype, device=device)
        self.angles = rope_angles(torch.arange(capacity, device=device)[None], config)
        self.capacity = capacity
        self.length = 0
        self.living: list[int] | None = None

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Stores k, v [B, G, T, h] behind what is there; returns all S = length + T of them, [B, G, S, h]."""
        count, all_k, all_v = k.shape[2], self.k[layer], self.v[layer]
        all_k.narrow(2, self.length, count).copy_(k)
        all_v.narrow(2, self.length, count).copy_(v)
        return all_k.narrow(2, 0, self.length + count), all_v.narrow(2, 0, self.length + count)


# (config, batch, capacity in positions, dtype, device) -> the cache of some texts
CacheType = Callable[[ModelConfig, int, int, torch.dtype, torch.device], KVCache]


class LogitsOfEach(NamedTuple):
    """logits float32 [T, V]; is_current() is false once anything but a number has changed: a hook, a module, what the
    model wears in this context."""

    logits: Tensor
    is_current: Callable[[], bool]


class NextToken(NamedTuple):
    """One more token of a text, int64 [1], which continues its cache in its context, and so in its adapters."""

    token: Tensor
    cache: KVCache
    context: Context


class FusedBlocks(Protocol):
    """All blocks and the norm behind them in one call, or None where they must run one after another."""

    def __call__(
        self,
        model: "Llama",
        x: Tensor,
        rotation: tuple[Tensor, Tensor],
        mask: Mask,
        cache: Cache | None,
    ) -> Tensor | None: ...

    def logits_of_each(self, model: "Llama", tokens: Tensor, cache: KVCache) -> "LogitsOfEach | None":
        """The logits behind each of a few tokens of one row, to the byte what they give in a call each

        tokens int64 [1, T], which continue the cache. None, and nothing has happened, where they must go one after
        another.
        """
        ...

    def costs_of_rows(self, model: "Llama") -> Sequence[float]:
        """The costs of `logits_of_each` for 1, 2, .. tokens, up to as many as it takes."""
        ...

    def joins_rows(self, model: "Llama") -> bool:
        """True where the tokens of several texts in this context are read together by `logits_of_rows`."""
        ...

    def logits_of_rows(self, model: "Llama", texts: Sequence[NextToken]) -> "list[Tensor | None]":
        """The logits float32 [1, V] behind one more token of each text, to the byte what it gives in a call of its own

        Texts are at positions, and in adapters, of their own. None, and nothing has happened to it, for a text that
        must go alone.
        """
        ...

    def unchanged(self) -> AbstractContextManager[None]:
        """A block in which the caller changes nothing in the model between two calls, so that it is looked at once."""
        ...


class Prefixes(Protocol):
    """Reads prompts, some of which begin alike."""

    def read(self, model: "Llama", tokens: Tensor, cache: KVCache) -> Generator[None, None, Tensor]:
        """`Llama.hidden` of the last token of a prompt, whose keys and values fill the cache;  [1, T] -> [1, 1, D]

        It stops between the parts that it reads: what is returned is the value of the last step.
        """
        ...


class RMSNorm(nn.Module):
    """y = x / sqrt(mean(x^2) + eps) * weight"""

    def __init__(self, dim: int, eps: float, ops: Ops) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps
        self.ops = ops

    def forward(self, x: Tensor) -> Tensor:
        return self.ops.rms_norm(x, self.weight, self.eps)

    def norm_and_keep(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(y, x), in whose gradient a faster implementation adds what comes by x alone: hooks see no module then"""
        if self._is_seen():
            return self(x), x
        return self.ops.rms_norm_and_x(x, self.weight, self.eps)

    def add_and_norm(self, x: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        """h = x + residual;  (y of h, h), which a faster implementation does in one pass: hooks see no module then"""
        if self._is_seen():
            h = x + residual
            return self(h), h
        return self.ops.add_rms_norm(x, residual, self.weight, self.eps)

    def _is_seen(self) -> bool:
        return not torch.compiler.is_compiling() and (is_hooked(self) or _has_any_global_hook())


def check_tokens(tokens: object) -> None:
    """Raises ValueError unless they are an integer tensor [B, T]."""
    if not isinstance(tokens, Tensor):
        kind = f"{type(tokens).__module__}.{type(tokens).__name__}"
        raise ValueError(f"tokens must be a tensor [B, T] (see torch.as_tensor), got {kind}")
    if tokens.dtype not in (torch.int64, torch.int32) or tokens.dim() != 2:
        raise ValueError(f"tokens must be int64 [B, T], got {tokens.dtype} {list(tokens.shape)}")


def is_hooked(module: nn.Module) -> bool:
    """True where something besides the module is to see its input, its output or a gradient of them."""
    hooks = module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks
    return any(hooks)


class Attention(nn.Module):
    """y = wo(attention(rope(wq x), rope(wk x), wv x)), with G <= H key/value heads    (arXiv 2305.13245)"""

    def __init__(self, config: ModelConfig, layer: int, ops: Ops) -> None:
        super().__init__()
        kv_dim = config.n_kv_heads * config.head_dim
        self.wq = nn.Linear(config.dim, config.attention_dim, bias=False)
        self.wk = nn.Linear(config.dim, kv_dim, bias=False)
        self.wv = nn.Linear(config.dim, kv_dim, bias=False)
        self.wo = nn.Linear(config.attention_dim, config.dim, bias=False)
        self.head_dim = config.head_dim
        self.rope_layout = config.rope_layout
        self.layer = layer
        self.ops = ops

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor], mask: Mask, cache: Cache | None) -> Tensor:
        heads = (*x.shape[:-1], -1, self.head_dim)
        q, k, v = fused_projections(x, (self.wq, self.wk, self.wv))
        q, k = self.ops.rope_pair(q.view(heads), k.view(heads), *rotation, self.rope_layout)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.view(heads).transpose(1, 2)
        if cache is not None:
            k, v = cache.append(self.layer, k, v)
        y = self.ops.attention(q, k, v, mask)
        out: Tensor = self.wo(y.transpose(1, 2).flatten(-2))
        return out


def fused_projections(x: Tensor, linears: Sequence[nn.Module]) -> Sequence[Tensor]:
    """[linear(x) for each linear], computed by the first one's method of this name where it has one."""
    fused: Callable[[Tensor, Sequence[nn.Module]], Sequence[Tensor]] | None = getattr(
        linears[0], "fused_projections", None
    )
    return [linear(x) for linear in linears] if fused is None else fused(x, linears)


class FeedForward(nn.Module):
    """y = w2(silu(w1 x) * w3 x)"""

    def __init__(self, config: ModelConfig, ops: Ops) -> None:
        super().__init__()
        self.w1 = nn.Linear(config.dim, config.hidden_dim, bias=False)
        self.w2 = nn.Linear(config.hidden_dim, config.dim, bias=False)
        self.w3 = nn.Linear(config.dim, config.hidden_dim, bias=False)
        self.ops = ops

    def forward(self, x: Tensor) -> Tensor:
        gate, up = fused_projections(x, (self.w1, self.w3))
        y: Tensor = self.w2(self.ops.swiglu(gate, up))
        return y


class TransformerBlock(nn.Module):
    """x = x + attention(norm(x)); x = x + feed_forward(norm(x))"""

    def __init__(self, config: ModelConfig, layer: int, ops: Ops) -> None:
        super().__init__()
        self.attention = Attention(config, layer, ops)
        self.feed_forward = FeedForward(config, ops)
        self.attention_norm = RMSNorm(config.dim, config.norm_eps, ops)
        self.ffn_norm = RMSNorm(config.dim, config.norm_eps, ops)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor], mask: Mask, cache: Cache | None) -> Tensor:
        normed, x = self.attention_norm.norm_and_keep(x)
        attended = self.attention(normed, rotation, mask, cache)
        normed, x = self.ffn_norm.add_and_norm(attended, x)
        y: Tensor = x + self.feed_forward(normed)
        return y


class Llama(nn.Module):
    """tokens -> logits.

    Parameters carry the names of Meta's checkpoint keys. With `tie_embeddings` the output head is the embedding.
    Set `gradient_checkpointing` to keep only each block's input for the backward pass and compute the rest again.
    """

    def __init__(self, config: ModelConfig, ops: Ops = TORCH_OPS) -> None:
        super().__init__()
        self.config = config
        self.tok_embeddings = nn.Embedding(config.vocab_size, config.dim)
        self.layers = nn.ModuleList(TransformerBlock(config, layer, ops) for layer in range(config.n_layers))
        self.norm = RMSNorm(config.dim, config.norm_eps, ops)
        self.output = nn.Linear(config.dim, config.vocab_size, bias=False)
        if config.tie_embeddings:
            self.output.weight = self.tok_embeddings.weight
        self.gradient_checkpointing = False
        self.fused_blocks: FusedBlocks | None = None
        self.cache_type: CacheType = KVCache
        self.name_or_path = ""  # what a loader was given
        self.source: dict[str, str] = {}  # what a loader knows of the weights: path, format, fingerprint

    def forward(self, tokens: Tensor, cache: KVCache | None = None, padding: Tensor | None = None) -> Tensor:
        """tokens int64 [B, T] -> logits float32 [B, T, V]

        With a cache the tokens continue what it holds. padding int64 [B] counts the filler tokens at the left of each
        row: they are never looked at, and positions are counted from the first real token. With a cache they are all
        fillers of the row, which may come in several calls.
        Raises ValueError if the cache has no room for T more, and for padding that leaves a row no token.
        """
        return self.logits(self.hidden(tokens, cache, padding))

    def hidden(
        self,
        tokens: Tensor,
        cache: KVCache | None = None,
        padding: Tensor | None = None,
        segments: Tensor | None = None,
    ) -> Tensor:
        """The normed hidden states before the output head: [B, T, D]. Arguments as in `forward`, and segments

        segments int64 [B, T]: tokens one behind another with the same number are a text of their own. It is attended
        to by itself, and its positions are counted from its first token.
        Raises ValueError for tokens that are no such tensor, and for segments together with a cache or padding.
        """
        check_tokens(tokens)
        if segments is not None and not (cache is None and padding is None):
            raise ValueError("segments are of whole rows: they go with neither a cache nor padding")
        start, length = (0 if cache is None else cache.length), tokens.shape[1]
        if cache is not None and start + length > cache.capacity:
            raise ValueError(f"the cache holds {cache.capacity} positions, got {start} + {length}")
        if padding is not None and start == 0:  # not at every token: a GPU would be waited for
            positions = length if cache is None else cache.capacity  # of a row: with a cache more parts of it may come
            if padding.shape != tokens.shape[:1] or ((padding < 0) | (padding >= positions)).any():
                rows = f"for each of {len(tokens)} rows"
                raise ValueError(f"padding must be 0 to {positions - 1} {rows}, got {padding.tolist()}")
        if cache is None and segments is None and length > self.config.max_seq_len:
            warnings.warn(
                f"this model was trained on {self.config.max_seq_len} positions, and is asked for more", stacklevel=2
            )
        first = None if padding is None else padding[:, None]
        if segments is not None:
            first = segment_starts(segments)
        rotation = self._rotation(tokens, start, first, cache)
        mask: Mask
        if segments is not None and first is not None and not torch.compiler.is_compiling():
            mask = PackedTexts(first)
        else:
            mask = attention_mask(start, length, first, tokens.device)
        hidden = self.blocks(tokens, rotation, mask, cache)
        if cache is not None:
            cache.length = start + length
        return hidden

    def _rotation(
        self, tokens: Tensor, start: int, first: Tensor | None, cache: KVCache | None
    ) -> tuple[Tensor, Tensor]:
        """The angles of the tokens, whose positions are counted from `first`; a cache has them ready."""
        batch, length = tokens.shape
        if first is None and cache is not None:
            cos, sin = cache.angles
            now = slice(start, start + length)
            return cos[:, now].expand(batch, -1, -1, -1), sin[:, now].expand(batch, -1, -1, -1)
        positions = torch.arange(start, start + length, device=tokens.device).expand(batch, -1)
        if first is not None:
            positions = (positions - first).clamp(min=0)
        return rope_angles(positions, self.config)

    def blocks(self, tokens: Tensor, rotation: tuple[Tensor, Tensor], mask: Mask, cache: Cache | None) -> Tensor:
        """`hidden`, with the rotations of the tokens and the mask given: embedding, blocks, final norm"""
        x: Tensor = self.tok_embeddings(tokens)
        if self.fused_blocks is not None and (normed := self.fused_blocks(self, x, rotation, mask, cache)) is not None:
            return normed
        for block in self.layers:
            if self.gradient_checkpointing and torch.is_grad_enabled():
                # Run again in the backward pass, maybe by another thread, a block finds the context it had here.
                run = block if torch.compiler.is_compiling() else partial(copy_context().run, block)
                x = checkpoint(run, x, rotation, mask, cache, use_reentrant=False)
            else:
                x = block(x, rotation, mask, cache)
        y: Tensor = self.norm(x)
        return y

    def logits(self, hidden: Tensor) -> Tensor:
        """The output head: [*, D] -> float32 [*, V]. Apply it to chosen positions where not all are wanted."""
        logits: Tensor = self.output(hidden)
        return logits.float()


def rope_angles(positions: Tensor, config: ModelConfig) -> tuple[Tensor, Tensor]:
    """cos and sin of position * f_i in float32, f as `rope_frequencies` has them;  [B, T] -> two of [B, T, 1, h/2]"""
    angle = positions[..., None].float() * rope_frequencies(config, positions.device)
    return angle.cos()[:, :, None], angle.sin()[:, :, None]


def rope_frequencies(config: ModelConfig, device: torch.device) -> Tensor:
    """f_i = theta^(-2i / h), i = 0 .. h/2 - 1, scaled as `RopeScaling` says; float32 [h/2]"""
    channel = torch.arange(0, config.head_dim, 2, device=device)
    return scaled_frequencies(1.0 / (config.rope_theta ** (channel.float() / config.head_dim)), config)


def scaled_frequencies(f: Tensor, config: ModelConfig) -> Tensor:
    """The frequencies [h/2] as the config's `RopeScaling` changes them."""
    scaling = config.rope_scaling
    if scaling is None:
        return f
    if scaling.kind == "linear":
        return f / scaling.factor
    low, high, length = scaling.low_freq_factor, scaling.high_freq_factor, scaling.original_max_seq_len
    wave = 2 * math.pi / f
    share = (length / wave - low) / (high - low)
    between = (1 - share) * f / scaling.factor + share * f
    far = torch.where(wave > length / low, f / scaling.factor, between)
    return torch.where(wave < length / high, f, far)
