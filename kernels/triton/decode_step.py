"""One token a row through all blocks of Llama in five kernels a block, from repacked 4-bit weights.

    q, k, v   = rstd (x Wq^T, x Wk^T, x Wv^T)                    x = h * weight of the norm, rstd = 1 / rms(h)
    y         = attention(turned q, turned k and v put into the cache)
    h         = h + y Wo^T                                        and x, the sums of h^2 of the next norm
    a         = silu(rstd x W1^T) rstd x W3^T
    h         = h + a W2^T                                        and x, the sums of h^2 of the next block's norm

each product with what its adapter adds, s (x A^T) B^T: a kernel that writes x also writes, in parts, what x adds to
x A^T of the linears that read it, and the product that needs x A^T adds the parts up. So neither a norm nor an adapter
is a kernel of its own, and no program waits for another: whichever arrives last at a tile of outputs finishes it,
adding the parts of all in a fixed order.

The products are by a table of pairs (`cuda.decode_step`), or, where that is not possible, by looking levels up in
registers (`decode_step_products`). Both have the same three methods.

M rows (tokens), D model dim, F ffn hidden, H heads, G key/value heads, h head dim, S positions of the cache, r rank.
"""

import math
from collections.abc import Sequence

import torch
import triton
from torch import Tensor

from ..cuda import decode_step as pairs
from ..reference.decode_step import CacheWindow, NormedInput, StepSizes
from ..weights.linear_with_adapter import BlockWeights, LinearWithAdapter
from ..weights.repack import launch_kind
from .decode_attention import BLOCK_S, WARPS
from .decode_attention import PROGRAMS as ATTENTION_PROGRAMS
from .decode_step_attention import step_attention_kernel
from .decode_step_products import LookUpProducts, inner_of, inner_one, tile_rows
from .decode_step_tiles import first_norm_kernel

ROWS = 4  # tokens: the last program at a tile finishes them one after another
DTYPES = (torch.bfloat16, torch.float32)  # h * weight, without the division by rms(h), could overflow in float16
LEAST_RANK = 4  # that x A^T has room for: 16 bytes


def unsupported_reason(x: Tensor, blocks: Sequence[BlockWeights], sizes: StepSizes) -> str:
    """The rule that keeps these kernels from a step of x [B, 1, D] through the blocks, "" if none does."""
    if x.dtype not in DTYPES:
        return f"x must be {' or '.join(map(str, DTYPES))}, is {x.dtype}"
    if not 0 < x.shape[0] <= ROWS:
        return f"there must be 1 to {ROWS} rows, there are {x.shape[0]}"
    parts = [part for block in blocks for part in block.linears]
    kinds = {launch_kind(part.weight) for part in parts}
    if len(kinds) != 1 or None in kinds:
        return "the linears must all be repacked 4-bit weights of one format, blocksize and kind of maxima"
    if any(part.drop is not None or part.rank_mask is not None or part.gain is not None for part in parts):
        return "an adapter must be one for all rows, without dropout, and no DoRA"
    if not all(m.is_contiguous() for part in parts for m in (part.lora_A, part.lora_B) if m is not None):
        return "the matrices of an adapter must be contiguous"
    tile = tile_rows(blocks[0].linears[0].weight.blocksize, x.dtype)  # type: ignore[union-attr]
    for part in blocks[0].linears:
        if part.weight.shape[0] % tile:
            return f"rows of a weight must be a multiple of {tile}, got {part.weight.shape[0]}"
    return "" if sizes.head_dim % 2 == 0 else f"head dim must be even, is {sizes.head_dim}"


def decode_blocks(
    x: Tensor, blocks: Sequence[BlockWeights], cache: CacheWindow, cos: Tensor, sin: Tensor, sizes: StepSizes
) -> Tensor:
    """h [B, 1, D] behind all blocks, of x [B, 1, D], both before a norm; keys and values go into the cache

    cos, sin  float32 [B, 1, 1, h/2];  what `unsupported_reason` names must not be
    """
    with torch.cuda.device_of(x):  # Triton launches on the current device
        return _run(x, blocks, cache, cos.contiguous(), sin.contiguous(), sizes)


def _run(
    x: Tensor, blocks: Sequence[BlockWeights], cache: CacheWindow, cos: Tensor, sin: Tensor, sizes: StepSizes
) -> Tensor:
    step = _Step(x, blocks, cache, sizes)
    products, hidden = step.products, x.contiguous().view(len(x), -1)
    normed = step.norm_first(hidden, blocks[0])
    for layer, block in enumerate(blocks):
        following = blocks[layer + 1] if layer + 1 < len(blocks) else None
        q, k, v, o, gate, up, down = block.linears
        projected = products.qkv(normed, (q, k, v), sizes.eps)
        attended, inner = step.attend(layer, o, projected, cos, sin)
        hidden, normed = products.add(attended, inner, o, hidden, block.ffn_norm, (gate, up))
        activation, inner = products.gate_up(normed, (gate, up), sizes.eps, down)
        norm, readers = (None, ()) if following is None else (following.attention_norm, following.linears[:3])
        hidden, normed = products.add(activation, inner, down, hidden, norm, readers)
    return hidden.view(x.shape)


class _Step:
    """All of a step but its products with W: the first norm, attention, and their memory."""

    def __init__(self, x: Tensor, blocks: Sequence[BlockWeights], cache: CacheWindow, sizes: StepSizes) -> None:
        self.m, self.dim, self.sizes, self.cache = x.shape[0], x.shape[-1], sizes, cache
        ranks = [part.lora_A.shape[0] for block in blocks for part in block.linears if part.lora_A is not None]
        self.rank = max(LEAST_RANK, triton.next_power_of_2(max(ranks))) if ranks else 0
        programs = self.m * sizes.heads
        splits = min(triton.cdiv(ATTENTION_PROGRAMS, programs), triton.cdiv(cache.window, BLOCK_S))
        self.attention_splits = triton.next_power_of_2(splits)

        def room(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.empty(shape, dtype=dtype, device=x.device)

        self.products: LookUpProducts | pairs.PairProducts
        if pairs.unsupported_reason(x, blocks):
            self.products = LookUpProducts(x, blocks[0], self.rank, programs)
            self.arrived = self.products.arrived
        else:
            self.products = pairs.PairProducts(x, blocks[0], self.rank)
            self.arrived = torch.zeros(programs, dtype=torch.int32, device=x.device)
        tiles = self.dim // self.products.norm_tile
        self.normed = NormedInput(
            room(self.m, self.dim, dtype=x.dtype), room(self.m, tiles), room(tiles, self.m, 3, self.rank)
        )
        self.attended = room(self.m, sizes.heads * sizes.head_dim, dtype=x.dtype)
        self.inner_attended = room(sizes.heads, self.m, self.rank)
        self.sums = room(programs, self.attention_splits, sizes.head_dim)
        self.totals, self.largest = (room(programs, self.attention_splits) for _ in range(2))

    def norm_first(self, hidden: Tensor, block: BlockWeights) -> NormedInput:
        """The input of q, k and v of the first block."""
        tile, (x, squares, inner) = self.products.norm_tile, self.normed
        first_norm_kernel[(self.dim // tile, self.m)](
            *(x, squares, hidden, block.attention_norm, self.m, self.dim),
            *inner_of(inner, block.linears[:3], squares),
            RANK=self.rank,
            BLOCK=tile,
            num_warps=2,
            enable_fp_fusion=False,
        )
        return self.normed

    def attend(
        self, layer: int, following: LinearWithAdapter, projected: Tensor, cos: Tensor, sin: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Attention [M, H h] of `projected`, whose key and value go into the cache, and parts of x A^T of what follows

        The parts are [H, M, RANK].
        """
        sizes, (k, v) = self.sizes, (self.cache.k[layer], self.cache.v[layer])
        step_attention_kernel[(self.m * sizes.heads, self.attention_splits)](
            self.attended,
            *(self.sums, self.totals, self.largest, self.arrived, projected, k, v, cos, sin),
            *(self.cache.position, self.cache.padding, 1 / math.sqrt(sizes.head_dim), sizes.heads, sizes.kv_heads),
            *(k.stride(0), k.stride(1), self.inner_attended, *inner_one(following, self.totals)),
            RANK=self.rank,
            SPLITS=self.attention_splits,
            HEAD_DIM=sizes.head_dim,
            BLOCK_D=triton.next_power_of_2(sizes.head_dim),
            BLOCK_S=BLOCK_S,
            INTERLEAVED=sizes.interleaved,
            num_warps=WARPS,
            enable_fp_fusion=False,
        )
        return self.attended, self.inner_attended
