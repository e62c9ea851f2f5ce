"""Decoding on a CPU: all blocks of a model for one token a row, or for a few of one row, in one call of the C library.

The call gives to the byte what the modules give one after another, and saves what Python and torch take between them:
half of a token's time in a small model. It is made where every module is as it came, and no gradient is wanted;
anywhere else the modules run.

Why it exists: at one token a row a block computes for less time than Python and torch need between two of its
operations, because reading the weights has displaced their own data from the caches. The alternative is to let the
modules run one after another, at about half the speed in a small model. The cost: the order of operations of
`model.llama` is written a second time, in C (`llama_step.c`, held to the same bytes by tests), and the description of
the model that C reads must be discarded when anything in it changes: a weight, an adapter, a hook, an operation. A
change that went unnoticed would be a wrong text without an error.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from operator import is_
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from ..kernels.cpu.decode_step import SAME_BITS_UP_TO, Blocks, Sizes, cached_rows
from ..kernels.cpu.library import DTYPES
from ..kernels.dispatch import run
from ..kernels.llama_ops.cpu import CPU_OPS
from ..model.llama import Cache, KVCache, Llama, LogitsOfEach, is_hooked
from .adapter_rows import AdapterRows
from .adapter_selection import changes, context_selection
from .block_weights import block_weights, is_as_it_came, norm_weight
from .exact_head import logits_of_rows
from .pass_costs import pass_costs

OF_EVERY_MODULE = frozenset(vars(nn.Module()))


_looked_at: ContextVar[list["_ModelSnapshot"] | None] = ContextVar("looked_at", default=None)


class FusedBlocks:
    """The call behind `Llama.fused_blocks`; its description of the blocks is kept while nothing in them changes."""

    def __init__(self) -> None:
        self._kept: tuple[_ModelSnapshot, Blocks] | None = None

    def __reduce__(self) -> tuple[type[Self], tuple[()]]:
        return type(self), ()  # a copy of a model has other tensors

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """A block in which the caller changes no module between two calls: the attributes are compared once in it.

        Adapters, where the tensors lie and hooks are looked at for every token all the same. Comparing attributes takes
        as long as a sixth of a token's time in a small model.
        """
        outer = _looked_at.set([])
        try:
            yield
        finally:
            _looked_at.reset(outer)

    def __call__(
        self, model: Llama, x: Tensor, rotation: tuple[Tensor, Tensor], mask: Tensor | None, cache: Cache | None
    ) -> Tensor | None:
        """norm(blocks(x)) of x [B, 1, D], with its keys and values put into the cache; None if the modules must run."""
        if type(cache) is not KVCache or x.shape[1] != 1 or not _is_decoding(x, cache):
            return None
        described = self._described(model, x)
        if described is None:
            return None
        cos, sin = (angles.contiguous() for angles in rotation)
        seen = None if mask is None else mask.expand(len(x), -1, -1, -1).contiguous()
        past = cached_rows(cache.k, cache.v, cache.length, seen)
        return described.run(x.contiguous(), past, _sizes(model, x), cos, sin)

    def logits_of_each(self, model: Llama, tokens: Tensor, cache: KVCache) -> LogitsOfEach | None:
        """The logits behind each of some tokens of one row, to the byte what they give in a call each

        tokens int64 [1, T], T at most `SAME_BITS_UP_TO`, which continue the cache. None, and nothing has happened, if
        the tokens must go one after another: where one alone is not computed here, or is described anew each time.
        """
        assert 1 <= tokens.shape[1] <= SAME_BITS_UP_TO and cache.length + tokens.shape[1] <= cache.capacity
        if type(cache) is not KVCache or len(tokens) != 1 or not _has_usual_ends(model):
            return None
        x: Tensor = model.tok_embeddings(tokens)
        one = x[:, :1]  # it is what one token takes that decides: the same products, for more rows
        if not _is_decoding(x, cache) or (described := self._described(model, one)) is None or self._kept is None:
            return None
        now = slice(cache.length, cache.length + x.shape[1])
        cos, sin = (angles[:, now].contiguous() for angles in cache.angles)
        past = cached_rows(cache.k, cache.v, cache.length)
        hidden = described.run(x.contiguous(), past, _sizes(model, x), cos, sin)
        cache.length += x.shape[1]
        snapshot, ends, before = self._kept[0], (model.tok_embeddings, model.output), changes()

        def is_current() -> bool:
            is_same = changes() == before and ends == (model.tok_embeddings, model.output)
            return is_same and _has_usual_ends(model) and _is_decoding(one, cache) and snapshot.matches(model, one)

        return LogitsOfEach(logits_of_rows(model, hidden[0]), is_current)

    def costs_of_rows(self, model: Llama) -> Sequence[float]:
        """The costs of `logits_of_each` for 1, 2, .. `SAME_BITS_UP_TO` tokens, that of one being 1: `pass_costs`."""
        return pass_costs(model)

    def _described(self, model: Llama, x: Tensor) -> Blocks | None:
        """The blocks as C takes them; None if one of their modules, or of their products with x, is not for it."""
        kept = self._kept
        if kept is not None and kept[0].matches(model, x):
            return kept[1]
        norm = norm_weight(model.norm, model, x, CPU_OPS)
        blocks = block_weights(model, x, CPU_OPS)
        if norm is None or blocks is None:
            return None
        if not run.can_run_in_one_call(x, [linear for block in blocks for linear in block.linears]):
            return None
        described = Blocks(blocks, norm)
        self._kept = None if described.copied else (_ModelSnapshot(model, x), described)
        return described


class _ModelSnapshot:
    """Whatever a description of a model's blocks could depend on, as it was when that was made.

    Every attribute, submodule, parameter and buffer of every module, where the tensors lie, hooks, and which adapters
    are active. It is asked for every token, after weights have gone through the caches: so it is a few lists that are
    compared in C, and the longest of them once a text where the caller says that nothing changes
    (`FusedBlocks.unchanged`).
    """

    def __init__(self, model: Llama, x: Tensor) -> None:
        self._model, self._selection, self._kind = model, context_selection(), (x.shape, x.dtype)
        self._read: tuple[list[Any], list[Any], list[Any]] = ([], [], [])  # dictionaries, a key of each, its value
        self._submodules: list[dict[str, Any]] = []
        self._hooks: list[dict[int, Any]] = []
        self._watch(vars(model), "config")
        self._watch(model._modules, "layers", "norm")
        for module in (*model.layers.modules(), model.norm):
            attributes = vars(module)
            own = attributes.keys() - OF_EVERY_MODULE
            self._watch(attributes, "forward", "training", *own)
            for held in (module._modules, module._parameters, module._buffers, *map(attributes.get, own)):
                if isinstance(held, dict):
                    self._watch(held, *held)
            self._submodules.append(module._modules)
            self._hooks += [module._forward_hooks, module._forward_pre_hooks]
        self._sizes = list(map(len, self._submodules))
        self._tensors = [value for value in self._read[2] if isinstance(value, Tensor)]
        self._places = list(map(Tensor.data_ptr, self._tensors))
        self._remember()

    def _watch(self, dictionary: dict[str, Any], *keys: str) -> None:
        for key in keys:
            for kept, part in zip(self._read, (dictionary, key, dictionary.get(key)), strict=True):
                kept.append(part)

    def matches(self, model: Llama, x: Tensor) -> bool:
        """True if nothing has changed, for an x of the same shape and dtype."""
        return (
            self._model is model
            and self._selection is context_selection()
            and self._kind == (x.shape, x.dtype)
            and not any(self._hooks)
            and self._sizes == list(map(len, self._submodules))
            and self._places == list(map(Tensor.data_ptr, self._tensors))
            and self._has_attributes()
        )

    def _has_attributes(self) -> bool:
        """True if every module has the attributes that it had; once in an `unchanged` block, while adapters stay."""
        seen = _looked_at.get()
        if seen is not None and any(known is self for known in seen) and self._changes == changes():
            return True
        if not self._attributes_match():
            return False
        self._remember()
        return True

    def _remember(self) -> None:
        """Keeps that the attributes are now as they were, for the `unchanged` block around this call."""
        self._changes = changes()
        seen = _looked_at.get()
        if seen is not None:
            seen[:] = [self]

    def _attributes_match(self) -> bool:
        dictionaries, keys, values = self._read
        return all(map(is_, map(dict.get, dictionaries, keys), values))


def _is_decoding(x: Tensor, cache: KVCache) -> bool:
    """True if x is on a CPU, in a dtype that C takes; without gradients, compiler, autocast, hooks of every module."""
    return (
        x.is_cpu
        and x.dtype in DTYPES
        and x.dtype == cache.k.dtype
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled("cpu")
        and not _has_any_global_hook()
    )


def _has_usual_ends(model: Llama) -> bool:
    """True if the embedding looks rows up, and nobody is told of tokens that go in or logits that come out."""
    embedding = model.tok_embeddings
    is_usual = is_as_it_came(embedding, nn.Embedding) or is_as_it_came(embedding, AdapterRows)
    return is_usual and not is_hooked(model.output)


def _sizes(model: Llama, x: Tensor) -> Sizes:
    config = model.config
    return Sizes(
        batch=x.shape[0],
        tokens=x.shape[1],
        dim=config.dim,
        hidden_dim=config.hidden_dim,
        heads=config.n_heads,
        kv_heads=config.n_kv_heads,
        head_dim=config.head_dim,
        eps=config.norm_eps,
        interleaved=config.rope_layout == "interleaved",
    )
