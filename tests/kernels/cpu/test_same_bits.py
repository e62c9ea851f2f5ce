"""A row of x has the bits that it has alone: whatever stands beside it, by every instruction set of this processor."""

import itertools

import pytest
import torch
from draws import normal
from torch import Tensor

from lowrank.kernels import ops
from lowrank.kernels.cpu import linear as cpu_linear
from lowrank.kernels.cpu.decode_step import SAME_BITS_UP_TO, Blocks, Sizes, cached_rows
from lowrank.kernels.cpu.library import FLOAT_PANELS_FROM
from lowrank.kernels.weights.linear_with_adapter import BlockWeights, LinearWithAdapter

from .test_decode_step import EPS, LAYERS, SHAPES, Shape, make_block
from .test_linear import EVERY_DTYPE

pytestmark = pytest.mark.usefixtures("instruction_set", "unwritten_is_nan")

FORMATS = ("nf4", "nf4-dq", "fp4", "int8", "float32", "bfloat16", "float16")
MATRICES = ((5, 192), (70, 1024), (33, 77), (1, 64), (9, 2752))


def part(n: int, k: int, format: str) -> LinearWithAdapter:
    w = normal(n, k) / k**0.5
    weight = w.to(getattr(torch, format)) if "float" in format else ops.quantize(w, format)
    rank = n % 4
    return LinearWithAdapter(weight, *((normal(rank, k, seed=1), normal(n, rank, seed=2)) if rank else (None, None)))


@EVERY_DTYPE
@pytest.mark.parametrize("format", FORMATS)
def test_up_to_eight_rows_have_the_bits_of_one(format: str, dtype: torch.dtype) -> None:
    assert FLOAT_PANELS_FROM == SAME_BITS_UP_TO + 1
    for n, k in MATRICES:
        linear, x = part(n, k, format), normal(SAME_BITS_UP_TO, k, seed=3).to(dtype)
        alone = torch.cat([cpu_linear.linears(row, [linear])[0] for row in x.split(1)])
        for m in range(2, SAME_BITS_UP_TO + 1):
            for first in (0, SAME_BITS_UP_TO - m):
                rows = slice(first, first + m)
                assert torch.equal(cpu_linear.linears(x[rows], [linear])[0], alone[rows])


@EVERY_DTYPE
@pytest.mark.parametrize("format", FORMATS)
def test_from_nine_rows_on_a_row_has_the_same_bits_in_any_number(format: str, dtype: torch.dtype) -> None:
    for n, k in ((5, 192), (70, 130)):
        linear, x = part(n, k, format), normal(64, k, seed=3).to(dtype)
        y = cpu_linear.linears(x, [linear])[0]
        for m in (*range(FLOAT_PANELS_FROM, 20), 31, 32, 33, 63):
            assert torch.equal(cpu_linear.linears(x[:m], [linear])[0], y[:m])
            assert torch.equal(cpu_linear.linears(x[-m:], [linear])[0], y[-m:])


def step(blocks: Blocks, shape: Shape, layout: str, x: Tensor, begin: int, caches: tuple[Tensor, Tensor]) -> Tensor:
    """y of the tokens x [batch, T, dim], the first of which stands at position `begin`."""
    batch, count, _ = x.shape
    angles = normal(batch, 32, 1, shape.head_dim // 2, seed=4)[:, begin : begin + count].contiguous()
    mask = (torch.arange(begin + count) >= torch.arange(batch)[:, None])[:, None, None].contiguous()
    sizes = Sizes(batch, count, *shape[1:6], EPS, layout == "interleaved")
    past = cached_rows(*caches, begin, mask if batch > 1 else None)
    return blocks.run(x.contiguous(), past, sizes, angles.cos(), angles.sin())


@EVERY_DTYPE
@pytest.mark.parametrize("layout", ["interleaved", "half"])
def test_tokens_of_a_text_together_have_the_bits_of_one_after_another(layout: str, dtype: torch.dtype) -> None:
    for kind in SHAPES:
        shape = kind._replace(capacity=20)
        blocks = Blocks([make_block(shape, dtype, seed) for seed in range(LAYERS)], (1 + normal(shape.dim)).to(dtype))
        count = SAME_BITS_UP_TO // shape.batch
        x = normal(shape.batch, count, shape.dim, seed=6).to(dtype)
        size = LAYERS, shape.batch, shape.kv_heads, shape.capacity, shape.head_dim
        k, v = normal(*size, seed=7).to(dtype), normal(*size, seed=8).to(dtype)
        alone = k.clone(), v.clone()
        expected = [step(blocks, shape, layout, token, 9 + t, alone) for t, token in enumerate(x.split(1, dim=1))]
        for tokens in range(2, count + 1):
            together = k.clone(), v.clone()
            y = step(blocks, shape, layout, x[:, :tokens], 9, together)
            assert y.isfinite().all() and torch.equal(y, torch.cat(expected[:tokens], dim=1))
            for ours, theirs in zip(together, alone, strict=True):
                assert torch.equal(ours[..., : 9 + tokens, :], theirs[..., : 9 + tokens, :])
                assert torch.equal(ours[..., 9 + tokens :, :], (k if ours is together[0] else v)[..., 9 + tokens :, :])


def wearing(block: BlockWeights, rank: int, seed: int) -> BlockWeights:
    """The block in another adapter, of the same rank on every linear, or in none."""
    linears = []
    for number, part in enumerate(block.linears):
        n, k = part.weight.shape
        matrices = normal(rank, k, seed=seed + number) / k**0.5, normal(n, rank, seed=seed - number)
        linears.append(LinearWithAdapter(part.weight, *(matrices if rank else (None, None)), 0.25 * seed))
    return block._replace(linears=tuple(linears))


@pytest.mark.slow
@EVERY_DTYPE
@pytest.mark.parametrize("shape", SHAPES)
def test_rows_at_their_own_positions_in_their_own_adapters_have_the_bits_of_a_call_each(
    shape: Shape, dtype: torch.dtype
) -> None:
    blocks = [make_block(shape, dtype, seed) for seed in range(LAYERS)]
    norm = (1 + normal(shape.dim)).to(dtype)
    worn = [Blocks([wearing(block, rank, 3 + rank) for block in blocks], norm) for rank in (2, 0, 5)]
    capacities = [7 + 5 * row % 23 for row in range(64)]
    caches = [normal(2, LAYERS, 1, shape.kv_heads, s, shape.head_dim, seed=s).to(dtype) for s in capacities]
    x, angles = normal(64, 1, shape.dim, seed=6).to(dtype), normal(64, 1, 1, shape.head_dim // 2, seed=4)

    def run(rows: range, of: Blocks, own: dict[int, Tensor], *spans: tuple[int, int, Blocks]) -> Tensor:
        past = [row_of for row in rows for row_of in cached_rows(*own[row], row * row % own[row].shape[4])]
        given, sizes = slice(rows.start, rows.stop), Sizes(len(rows), 1, *shape[1:6], EPS, True)
        return of.run(x[given], past, sizes, angles[given].cos(), angles[given].sin(), spans)

    for bounds in ((0, 64), (3, 4, 9, 20), (10, 11, 12), (20, 33, 34, 50), (0, 5, 6, 8)):
        rows = range(bounds[0], bounds[-1])
        ours, theirs = ({row: caches[row].clone() for row in rows} for _ in range(2))
        spans = [(a - rows.start, b - rows.start, worn[n % 3]) for n, (a, b) in enumerate(itertools.pairwise(bounds))]
        alone = [run(rows[place : place + 1], of, theirs) for first, end, of in spans for place in range(first, end)]
        y = run(rows, worn[0], ours, *spans)
        assert y.isfinite().all() and torch.equal(y, torch.cat(alone))
        assert all(torch.equal(ours[row], theirs[row]) for row in rows)
