"""The batches of several hats in one pass through the base: each weight is decoded once for all of their rows.

The rows of all batches stand one behind another, P positions as one row. Products with W, norms, RoPE, SwiGLU and the
head see them all; attention and the products of a hat see the batch of that hat alone, in the shape that it has in a
run of its own: no position is filled up to another hat's length, and a dropout draws the mask that it draws there.

A gradient: the loss is the sum of the hats' own losses, and a hat's matrices meet its own rows only.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lowrank.adapters import lora_layers
from lowrank.data.encoding.packing import Row, collate_rows
from lowrank.kernels.llama_ops.linear_cross_entropy import linear_cross_entropy_of_rows
from lowrank.layers.fused_projections import AdapterSpan
from lowrank.layers.recompute import use_ops
from lowrank.model.config import RopeLayout
from lowrank.model.llama import Llama, Mask, Ops, rope_angles
from lowrank.model.loss import IGNORED
from lowrank.model.packed_texts import PackedTexts, segment_starts


@dataclass(frozen=True)
class AdapterBatch:
    """A batch as its hat's own run would compute it: b rows of T positions, T + 1 tokens each but the last is not read.

    tokens     int64 [b, T]
    targets    int64 [b, T], -100 where nothing is learned
    positions  int64 [b, T], of each token in its text
    mask       of packed rows; None: causal
    """

    name: str
    tokens: Tensor
    targets: Tensor
    positions: Tensor
    mask: Mask

    @classmethod
    def of(cls, name: str, rows: Sequence[Row], device: torch.device) -> "AdapterBatch":
        """As `next_token_loss` and `Llama.hidden` read rows."""
        tokens, labels, segments = collate_rows(rows)
        tokens, targets = tokens[:, :-1], labels[:, 1:]
        places = torch.arange(tokens.shape[1]).expand(tokens.shape)
        mask = None
        if segments is not None:
            targets = targets.masked_fill(segments[:, 1:] != segments[:, :-1], IGNORED)
            first = segment_starts(segments[:, :-1])
            places = (places - first).clamp(min=0)
            mask = PackedTexts(first.to(device))
        return cls(name, tokens.to(device), targets.to(device), places.to(device), mask)


def losses_together(model: Llama, batches: Sequence[AdapterBatch]) -> list[Tensor]:
    """The nats of the supervised tokens of each batch, float32 [] each; call it inside `active_together`."""
    tokens, targets, places = (
        torch.cat([getattr(batch, part).flatten() for batch in batches]) for part in ("tokens", "targets", "positions")
    )
    hidden = model.blocks(tokens[None], rope_angles(places[None], model.config), None, None)[0]
    learned = targets != IGNORED
    losses = linear_cross_entropy_of_rows(hidden[learned], model.output.weight.to(hidden.dtype), targets[learned])
    counts = [int((batch.targets != IGNORED).sum()) for batch in batches]
    return [part.sum() for part in losses.split(counts)]


@contextmanager
def active_together(model: Llama, batches: Sequence[AdapterBatch]) -> Iterator[None]:
    """The rows of `losses_together` wear their hats inside the block, which the backward pass belongs to as well."""
    spans, begin = [], 0
    for batch in batches:
        spans.append(AdapterSpan(begin, begin + batch.tokens.numel(), batch.name))
        begin += batch.tokens.numel()
    layers, before = lora_layers(model).values(), model.norm.ops
    active = tuple(spans)
    use_ops(model, AttentionApart(before, batches))
    for layer in layers:
        layer.spans = active
    try:
        yield
    finally:
        for layer in layers:
            layer.spans = ()
        use_ops(model, before)


class AttentionApart:
    """The operations of a model whose one row is the batches of several hats: attention is of each batch by itself."""

    def __init__(self, ops: Ops, batches: Sequence[AdapterBatch]) -> None:
        self._ops = ops
        self._shapes = [(*batch.tokens.shape, batch.mask) for batch in batches]
        self.rms_norm: Callable[..., Any] = ops.rms_norm
        self.rms_norm_and_x: Callable[..., Any] = ops.rms_norm_and_x
        self.add_rms_norm: Callable[..., Any] = ops.add_rms_norm
        self.swiglu: Callable[..., Any] = ops.swiglu

    def rope_pair(self, q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, layout: RopeLayout) -> tuple[Tensor, Tensor]:
        return self._ops.rope_pair(q, k, cos, sin, layout)

    def attention(self, q: Tensor, k: Tensor, v: Tensor, mask: Mask) -> Tensor:
        """q [1, H, P, h], k and v [1, G, P, h] -> [1, H, P, h]"""
        assert mask is None
        sizes = [rows * length for rows, length, _ in self._shapes]
        parts = zip(*(one.transpose(1, 2)[0].split(sizes) for one in (q, k, v)), self._shapes, strict=True)
        outputs = []
        for q_rows, k_rows, v_rows, (rows, length, own_mask) in parts:
            heads = [one.unflatten(0, (rows, length)).transpose(1, 2) for one in (q_rows, k_rows, v_rows)]
            outputs.append(self._ops.attention(heads[0], heads[1], heads[2], own_mask).transpose(1, 2).flatten(0, 1))
        return torch.cat(outputs)[None].transpose(1, 2)
