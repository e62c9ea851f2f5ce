"""One more token of each of several texts in one call of the C library: continuous batching on a CPU.

The texts are at positions of their own, each with a cache of its own, and wear adapters of their own: in x those that
wear the same stand one behind another, and C is told which rows of x have which matrices. W is read once for all. No
row depends on the others, so each has the bits of a call of its own (`Blocks.run`), whoever comes and goes.

B texts, D model dim, V vocabulary, h head dim.
"""

from collections.abc import Sequence
from contextvars import Context, copy_context
from itertools import accumulate
from operator import is_
from typing import NamedTuple

import torch
from torch import Tensor

from ..kernels.cpu.decode_step import MOST_SPANS, Blocks, cached_rows
from ..model.llama import KVCache, Llama, NextToken
from .adapter_selection import SelectingModule, context_selection
from .cpu_blocks import described, has_usual_ends, is_decoding, sizes_of
from .exact_head import logits_of_rows
from .model_snapshot import ModelSnapshot


class _Worn:
    """The blocks as some texts wear them."""

    def __init__(self, model: Llama, x: Tensor, blocks: Blocks) -> None:
        self.snapshot, self.blocks = ModelSnapshot(model, x), blocks
        self.weights = [part.weight for block in blocks.blocks for part in block.linears]

    def has_weights_of(self, other: "_Worn") -> bool:
        """True if they are the same blocks but for their adapters."""
        return len(self.weights) == len(other.weights) and all(map(is_, self.weights, other.weights))


class _Group(NamedTuple):
    """Texts that wear the same: their places among all, and the embeddings [1, 1, D] of their tokens."""

    worn: _Worn
    context: Context
    places: list[int]
    embedded: list[Tensor]


class JoinedRows:
    """The call for several texts; descriptions of what they wear are kept from one to the next."""

    def __init__(self) -> None:
        self._last: list[_Worn] = []

    def can_join(self, model: Llama) -> bool:
        """True if a text that is begun in this context can be read together with others."""
        weight = model.tok_embeddings.weight
        cache = model.cache_type(model.config, 1, 1, weight.dtype, weight.device)
        token = torch.zeros(1, dtype=torch.int64, device=weight.device)
        with torch.inference_mode():
            return bool(self._groups(model, [NextToken(token, cache, copy_context())]))

    def logits(self, model: Llama, texts: Sequence[NextToken]) -> list[Tensor | None]:
        """The logits float32 [1, V] behind one more token of each text, to the byte what it gives in a call of its own

        None, and nothing has happened to it, for a text whose cache is of another kind, or whose blocks the library
        does not take: a mix of adapters, a DoRA, a hook.
        """
        found: list[Tensor | None] = [None] * len(texts)
        groups = self._groups(model, texts)
        if not groups:
            return found
        order = [place for group in groups for place in group.places]
        hidden = _step(model, groups, [texts[place].cache for place in order])
        for place, logits in zip(order, _logits(model, groups, hidden).split(1), strict=True):
            found[place] = logits
        return found

    def _groups(self, model: Llama, texts: Sequence[NextToken]) -> list[_Group]:
        """The texts that can be read together."""
        if not has_usual_ends(model):
            return []
        groups: dict[int, _Group | None] = {}  # by the selection of a context, which lives as long as its text
        for place, text in enumerate(texts):
            x = text.context.run(model.tok_embeddings, text.token[:, None])
            if type(text.cache) is not KVCache or not is_decoding(x, text.cache):
                continue
            selection = id(text.context.run(context_selection))
            if selection not in groups:
                worn = text.context.run(self._worn, model, x)
                groups[selection] = None if worn is None else _Group(worn, text.context, [], [])
            if (group := groups[selection]) is not None:
                group.places.append(place)
                group.embedded.append(x)
        found = [group for group in groups.values() if group is not None]
        self._last = [group.worn for group in found if not group.worn.blocks.copied]
        return [group for group in found if group.worn.has_weights_of(found[0].worn)]

    def _worn(self, model: Llama, x: Tensor) -> _Worn | None:
        """The blocks as they are worn in this context; None if they are not for the library."""
        for worn in self._last:
            if worn.snapshot.is_current(model, x):
                return worn
        blocks = described(model, x)
        return None if blocks is None else _Worn(model, x, blocks)


def _step(model: Llama, groups: Sequence[_Group], caches: Sequence[KVCache]) -> Tensor:
    """norm(blocks(x)) of the next tokens, group by group, whose keys and values go to their caches;  [B, D]"""
    x = torch.cat([x for group in groups for x in group.embedded])
    cos, sin = (torch.cat([cache.angles[part][:, cache.length, None] for cache in caches]) for part in range(2))
    past = [row for cache in caches for row in cached_rows(cache.k, cache.v, cache.length)]
    ends = list(accumulate(len(group.places) for group in groups))
    spans = [(end - len(group.places), end, group.worn.blocks) for group, end in zip(groups, ends, strict=True)]
    assert len(spans) <= MOST_SPANS
    hidden = groups[0].worn.blocks.run(x, past, sizes_of(model, x), cos, sin, spans)
    for cache in caches:
        cache.length += 1
    return hidden[:, -1]


def _logits(model: Llama, groups: Sequence[_Group], hidden: Tensor) -> Tensor:
    """The output head, of each group in its context where adapters have heads of their own;  [B, D] -> [B, V]"""
    if not isinstance(model.output, SelectingModule):
        return logits_of_rows(model, hidden)
    parts = hidden.split([len(group.places) for group in groups])
    return torch.cat(
        [group.context.run(logits_of_rows, model, part) for group, part in zip(groups, parts, strict=True)]
    )
