"""The forward pass with the same bits on every processor: the equations of `model.llama`, over its modules' weights.

The modules themselves are not called, so their hooks see nothing. B batch, T time, D model dim, H query heads, G
key/value heads, h head dim, F ffn hidden.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lowrank.data.encoding.packing import Row
from lowrank.kernels.cpu import exact
from lowrank.kernels.exact.linears import linears
from lowrank.kernels.exact.llama_ops import attention, head_loss, rms_norm, rope, swiglu
from lowrank.layers.fused_projections import lora_plan
from lowrank.model.config import ModelConfig
from lowrank.model.llama import Llama, TransformerBlock, scaled_frequencies
from lowrank.model.packed_texts import segment_starts

from ..step import NextToken, batch_loss


@dataclass(frozen=True)
class ExactNextToken(NextToken):
    """-log p of every supervised token, by `ExactLlama`."""

    def batch_loss(self, model: Llama, rows: list[Row]) -> tuple[Tensor, int]:
        return batch_loss(ExactLlama(model), rows, head_loss)


class ExactLlama:
    """A Llama whose hidden states are computed here; embedding and output head are the model's own."""

    def __init__(self, model: Llama) -> None:
        assert isinstance(model.tok_embeddings, nn.Embedding) and model.norm.weight.dtype == torch.float32
        self.model, self.tok_embeddings, self.output = model, model.tok_embeddings, model.output

    def hidden(self, tokens: Tensor, *, segments: Tensor | None = None) -> Tensor:
        """As `Llama.hidden`: the normed hidden states before the output head;  int64 [B, T] -> [B, T, D]"""
        model, starts = self.model, None if segments is None else segment_starts(segments)
        positions = torch.arange(tokens.shape[1]).expand(len(tokens), -1)
        rotation = rope_angles(positions if starts is None else positions - starts, model.config)
        x: Tensor = self.tok_embeddings(tokens)
        for block in cast(Iterable[TransformerBlock], model.layers):
            if model.gradient_checkpointing and torch.is_grad_enabled():
                x = checkpoint(self.block, block, x, rotation, starts, use_reentrant=False)
            else:
                x = self.block(block, x, rotation, starts)
        return rms_norm(x, model.norm.weight, model.norm.eps)

    def block(
        self, block: TransformerBlock, x: Tensor, rotation: tuple[Tensor, Tensor], starts: Tensor | None
    ) -> Tensor:
        """x = x + attention(norm(x)); x = x + w2(silu(w1 n) * w3 n), n = norm(x)"""
        own, ffn, norm = block.attention, block.feed_forward, block.attention_norm
        q, k, v = outputs(rms_norm(x, norm.weight, norm.eps), (own.wq, own.wk, own.wv))
        heads = (*x.shape[:-1], -1, own.head_dim)
        q, k = (rope(one.view(heads), *rotation, own.rope_layout).transpose(1, 2) for one in (q, k))
        attended = attention(q, k, v.view(heads).transpose(1, 2), starts).transpose(1, 2).flatten(-2)
        x = x + outputs(attended, (own.wo,))[0]
        gate, up = outputs(rms_norm(x, block.ffn_norm.weight, block.ffn_norm.eps), (ffn.w1, ffn.w3))
        return x + outputs(swiglu(gate, up), (ffn.w2,))[0]


def outputs(x: Tensor, layers: Sequence[Any]) -> tuple[Tensor, ...]:
    """The outputs of linears that share x, in the adapters that they wear."""
    plan = lora_plan(x, layers, hooks_run=True)
    assert plan is not None, "a linear without a bias, and without a gradient"
    return linears(x, plan)


def rope_angles(positions: Tensor, config: ModelConfig) -> tuple[Tensor, Tensor]:
    """`model.llama.rope_angles`;  int64 [B, T] -> cos and sin, [B, T, 1, h/2]"""
    f = scaled_frequencies(rope_frequencies(config), config)
    angle = positions[..., None].float() * f
    return exact.function("cos", angle)[:, :, None], exact.function("sin", angle)[:, :, None]


def rope_frequencies(config: ModelConfig) -> Tensor:
    """f_i = theta^(-2i / h), i = 0 .. h/2 - 1, in decimal digits, then rounded to float32;  [h/2]"""
    with localcontext(prec=40):
        powers = [Decimal(config.rope_theta) ** (Decimal(-i) / config.head_dim) for i in range(0, config.head_dim, 2)]
    return torch.tensor([float(power) for power in powers], dtype=torch.float32)
