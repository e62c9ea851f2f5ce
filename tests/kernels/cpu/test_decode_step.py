"""All blocks in one call of C, against the same functions of C called one after another: the same to the byte."""

import itertools
from typing import Any, NamedTuple

import pytest
import torch
from draws import normal
from torch import Tensor

from lowrank.kernels import ops
from lowrank.kernels.cpu import library
from lowrank.kernels.cpu import linear as cpu_linear
from lowrank.kernels.cpu.decode_step import Blocks, Sizes, cached_rows
from lowrank.kernels.llama_ops.cpu import CPU_OPS
from lowrank.kernels.weights.linear_with_adapter import BlockWeights, LinearWithAdapter

from .test_linear import EVERY_DTYPE

pytestmark = pytest.mark.usefixtures("instruction_set", "unwritten_is_nan")

EPS = 1e-5
LAYERS = 3


class Shape(NamedTuple):
    """Rows, widths, heads of q and of k and v, channels of a head, and the positions of the cache."""

    batch: int
    dim: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    capacity: int

    @property
    def position(self) -> int:
        """The one that is filled now."""
        return self.capacity - 2


SHAPES = (
    Shape(1, 128, 192, 2, 2, 64, 40),
    Shape(3, 66, 70, 6, 2, 10, 5),  # ragged blocks, and 6 query heads on 2
    Shape(2, 64, 100, 4, 1, 32, 2),
)


def make_block(shape: Shape, dtype: torch.dtype, seed: int) -> BlockWeights:
    """Every format, with and without an adapter."""
    dim, kv, attended = shape.dim, shape.kv_heads * shape.head_dim, shape.heads * shape.head_dim
    sizes = [(attended, dim), (kv, dim), (kv, dim), (dim, attended), (shape.hidden, dim), (shape.hidden, dim)]
    formats = itertools.islice(itertools.cycle(("nf4-dq", "int8", "fp4", "dense")), seed, seed + 7)
    linears = []
    for number, ((n, k), format) in enumerate(zip([*sizes, (dim, shape.hidden)], formats, strict=True)):
        w = normal(n, k, seed=10 * seed + number) / k**0.5
        weight = w.to(dtype) if format == "dense" else ops.quantize(w, format)
        rank = number % 4
        matrices = (normal(rank, k, seed=number) / k**0.5, normal(n, rank, seed=number)) if rank else (None, None)
        linears.append(LinearWithAdapter(weight, *matrices, 0.5))
    norms = [(1 + normal(dim, seed=seed + j) / 4).to(dtype) for j in range(2)]
    return BlockWeights(*norms, tuple(linears))


def one_after_another(
    blocks: list[BlockWeights], norm: Tensor, x: Tensor, k: Tensor, v: Tensor, shape: Shape, layout: Any, given: Any
) -> Tensor:
    cos, sin, mask = given
    position = shape.position

    def linears(x: Tensor, block: BlockWeights, first: int, end: int) -> tuple[Tensor, ...]:
        return cpu_linear.linears(x, block.linears[first:end])

    for layer, block in enumerate(blocks):
        projected = linears(CPU_OPS.rms_norm(x, block.attention_norm, EPS), block, 0, 3)
        q, new_k, new_v = (y.unflatten(-1, (-1, shape.head_dim)) for y in projected)
        k[layer, :, :, position] = CPU_OPS.rope(new_k, cos, sin, layout)[:, 0]
        v[layer, :, :, position] = new_v[:, 0]
        seen = slice(position + 1)
        q = CPU_OPS.rope(q, cos, sin, layout).transpose(1, 2)
        y = CPU_OPS.attention(q, k[layer, :, :, seen], v[layer, :, :, seen], mask).transpose(1, 2).flatten(-2)
        normed, x = CPU_OPS.add_rms_norm(linears(y, block, 3, 4)[0], x, block.ffn_norm, EPS)
        x = x + linears(CPU_OPS.swiglu(*linears(normed, block, 4, 6)), block, 6, 7)[0]
    return CPU_OPS.rms_norm(x, norm, EPS)


def sizes_of(shape: Shape, layout: str) -> Sizes:
    return Sizes(shape.batch, 1, *shape[1:6], EPS, layout == "interleaved")


def both(shape: Shape, dtype: torch.dtype, layout: str, masked: bool) -> list[tuple[Tensor, Tensor, Tensor]]:
    """y, and the caches behind it: one after another, and at once."""
    blocks = [make_block(shape, dtype, seed) for seed in range(LAYERS)]
    norm, x = (1 + normal(shape.dim)).to(dtype), normal(shape.batch, 1, shape.dim).to(dtype)
    angles = normal(shape.batch, 1, 1, shape.head_dim // 2)
    mask = None
    if masked:
        mask = normal(shape.batch, 1, 1, shape.position + 1, seed=5) > 0
        mask[..., -1] = True
    caches = LAYERS, shape.batch, shape.kv_heads, shape.capacity, shape.head_dim
    k, v = normal(*caches, seed=7).to(dtype), normal(*caches, seed=8).to(dtype)
    other_k, other_v = k.clone(), v.clone()
    given = angles.cos(), angles.sin(), mask
    expected = one_after_another(blocks, norm, x, k, v, shape, layout, given)
    past = cached_rows(other_k, other_v, shape.position, mask)
    y = Blocks(blocks, norm).run(x, past, sizes_of(shape, layout), *given[:2])
    return [(expected, k, v), (y, other_k, other_v)]


@EVERY_DTYPE
@pytest.mark.parametrize("layout", ["interleaved", "half"])
@pytest.mark.parametrize("masked", [False, True], ids=["all-seen", "masked"])
def test_it_is_what_its_parts_give(masked: bool, layout: str, dtype: torch.dtype) -> None:
    for shape in SHAPES:
        (expected, *caches), (y, *others) = both(shape, dtype, layout, masked)
        assert expected.isfinite().all() and torch.equal(y, expected)
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(others, caches, strict=True))


def test_the_number_of_threads_changes_no_result(threads: Any) -> None:
    results = []
    for count in (1, 2, 3):
        threads(count)
        results.append(both(Shape(2, 192, 320, 6, 3, 32, 9), torch.bfloat16, "half", True)[1])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_no_blocks_are_a_norm() -> None:
    shape = SHAPES[0]
    x, norm = normal(1, 1, shape.dim), 1 + normal(shape.dim)
    empty, angles = torch.zeros(0, 1, 2, 40, 64), torch.zeros(1, 1, 1, 32)
    y = Blocks([], norm).run(x, cached_rows(empty, empty, 5), sizes_of(shape, "half"), angles, angles)
    assert torch.equal(y, CPU_OPS.rms_norm(x, norm, EPS))


def test_no_memory_is_an_error_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library.library(), "lowrank_llama_step", lambda *arguments: -1)
    with pytest.raises(MemoryError, match="lowrank_llama_step: no memory for its rows"):
        test_no_blocks_are_a_norm()
