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

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Self

import torch
from torch import Tensor

from ..kernels.cpu.decode_step import SAME_BITS_UP_TO, Blocks, cached_rows
from ..model.llama import Cache, KVCache, Llama, LogitsOfEach, Mask, NextToken
from .adapter_selection import changes
from .cpu_blocks import described, has_usual_ends, is_decoding, sizes_of
from .cpu_rows import JoinedRows
from .exact_head import logits_of_rows
from .model_snapshot import ModelSnapshot, unchanged
from .pass_costs import pass_costs


class FusedBlocks:
    """The call behind `Llama.fused_blocks`; its description of the blocks is kept while nothing in them changes."""

    def __init__(self) -> None:
        self._kept: tuple[ModelSnapshot, Blocks] | None = None
        self._rows = JoinedRows()

    def __reduce__(self) -> tuple[type[Self], tuple[()]]:
        return type(self), ()  # a copy of a model has other tensors

    def unchanged(self) -> AbstractContextManager[None]:
        """A block in which the caller changes no module between two calls: see `model_snapshot.unchanged`."""
        return unchanged()

    def __call__(
        self, model: Llama, x: Tensor, rotation: tuple[Tensor, Tensor], mask: Mask, cache: Cache | None
    ) -> Tensor | None:
        """norm(blocks(x)) of x [B, 1, D], with its keys and values put into the cache; None if the modules must run.

        Of up to `SAME_BITS_UP_TO` rows those that no longer live are left out, and zero: the others have the same bits.
        """
        if type(cache) is not KVCache or x.shape[1] != 1 or not is_decoding(x, cache):
            return None
        blocks = self._described(model, x)
        if blocks is None:
            return None
        cos, sin = (angles.contiguous() for angles in rotation)
        assert mask is None or isinstance(mask, Tensor), "packed rows go with no cache"
        seen = None if mask is None else mask.expand(len(x), -1, -1, -1).contiguous()
        past = cached_rows(cache.k, cache.v, cache.length, seen)
        living = cache.living
        if living is None or len(living) == len(x) or len(x) > SAME_BITS_UP_TO:
            return blocks.run(x.contiguous(), past, sizes_of(model, x), cos, sin)
        left, y = x[living], torch.zeros_like(x)
        y[living] = blocks.run(left, [past[row] for row in living], sizes_of(model, left), cos[living], sin[living])
        return y

    def logits_of_each(self, model: Llama, tokens: Tensor, cache: KVCache) -> LogitsOfEach | None:
        """The logits behind each of some tokens of one row, to the byte what they give in a call each

        tokens int64 [1, T], T at most `SAME_BITS_UP_TO`, which continue the cache. None, and nothing has happened, if
        the tokens must go one after another: where one alone is not computed here, or is described anew each time.
        """
        assert 1 <= tokens.shape[1] <= SAME_BITS_UP_TO and cache.length + tokens.shape[1] <= cache.capacity
        if type(cache) is not KVCache or len(tokens) != 1 or not has_usual_ends(model):
            return None
        x: Tensor = model.tok_embeddings(tokens)
        one = x[:, :1]  # it is what one token takes that decides: the same products, for more rows
        if not is_decoding(x, cache) or (blocks := self._described(model, one)) is None or self._kept is None:
            return None
        now = slice(cache.length, cache.length + x.shape[1])
        cos, sin = (angles[:, now].contiguous() for angles in cache.angles)
        past = cached_rows(cache.k, cache.v, cache.length)
        hidden = blocks.run(x.contiguous(), past, sizes_of(model, x), cos, sin)
        cache.length += x.shape[1]
        snapshot, ends, before = self._kept[0], (model.tok_embeddings, model.output), changes()

        def is_current() -> bool:
            is_same = changes() == before and ends == (model.tok_embeddings, model.output)
            return is_same and has_usual_ends(model) and is_decoding(one, cache) and snapshot.is_current(model, one)

        return LogitsOfEach(logits_of_rows(model, hidden[0]), is_current)

    def joins_rows(self, model: Llama) -> bool:
        """True where the tokens of several texts in this context are read together: see `cpu_rows`."""
        return self._rows.can_join(model)

    def logits_of_rows(self, model: Llama, texts: Sequence[NextToken]) -> list[Tensor | None]:
        """The logits float32 [1, V] behind one more token of each text; None for one that must go alone: `cpu_rows`."""
        return self._rows.logits(model, texts)

    def costs_of_rows(self, model: Llama) -> Sequence[float]:
        """The costs of `logits_of_each` for 1, 2, .. `SAME_BITS_UP_TO` tokens, that of one being 1: `pass_costs`."""
        return pass_costs(model)

    def _described(self, model: Llama, x: Tensor) -> Blocks | None:
        """The blocks as C takes them; None if one of their modules, or of their products with x, is not for it."""
        kept = self._kept
        if kept is not None and kept[0].is_current(model, x):
            return kept[1]
        found = described(model, x)
        if found is not None:
            self._kept = None if found.copied else (ModelSnapshot(model, x), found)
        return found
