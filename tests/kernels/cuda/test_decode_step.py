"""The products of a decode step by a table of pairs, each against float64, and what it leaves for the next kernel."""

from collections.abc import Iterator
from typing import NamedTuple

import pytest
import torch
from draws import normal
from error_bounds import assert_as_exact_as_plain, assert_sums_are_exact_enough
from ptx import driver
from torch import Tensor

from lowrank.kernels.cuda import pairs
from lowrank.kernels.cuda.decode_step import PairProducts, unsupported_reason
from lowrank.kernels.reference import llama_ops
from lowrank.kernels.reference import weights as reference
from lowrank.kernels.reference.decode_step import NormedInput
from lowrank.kernels.weights.linear_with_adapter import BlockWeights, LinearWithAdapter
from lowrank.kernels.weights.repack import repack

DIM, KV, FFN, EPS = 512, 256, 1024, 1e-5
SHAPES = ((DIM, DIM), (KV, DIM), (KV, DIM), (DIM, DIM), (FFN, DIM), (FFN, DIM), (DIM, FFN))
EMULATED = pytest.mark.usefixtures("emulated")


def linear(place: int, blocksize: int, is_nested: bool, rank: int) -> LinearWithAdapter:
    n, k = SHAPES[place]
    weight = repack(reference.quantize_4bit(normal(n, k, seed=place) / k**0.5, "nf4", blocksize, is_nested))
    if not rank:
        return LinearWithAdapter(weight)
    return LinearWithAdapter(weight, normal(rank, k, seed=place) / k**0.5, normal(n, rank, seed=place), 0.5)


def make_block(blocksize: int, is_nested: bool, ranks: tuple[int, ...]) -> BlockWeights:
    norms = [(1 + 0.3 * normal(DIM, seed=seed)).bfloat16() for seed in (1, 2)]
    return BlockWeights(*norms, tuple(linear(place, blocksize, is_nested, ranks[place]) for place in range(7)))


def product(x: Tensor, part: LinearWithAdapter) -> Tensor:
    """In the dtype of x, the adapter's part in float32 or wider."""
    y = x @ reference.dequantize(part.weight).to(x.dtype).T
    if part.lora_A is None or part.lora_B is None:
        return y
    wide = torch.promote_types(x.dtype, torch.float32)
    return y + (part.scaling * (x.to(wide) @ part.lora_A.to(wide).T) @ part.lora_B.to(wide).T).to(y.dtype)


def in_parts(x: Tensor, readers: tuple[LinearWithAdapter, ...], rank: int, count: int) -> Tensor:
    """Parts of x A^T, [count, M, readers, RANK]."""
    inner = torch.zeros(count, len(x), len(readers), rank)
    for place, reader in enumerate(readers):
        if reader.lora_A is not None:
            some = zip(x.float().chunk(count, 1), reader.lora_A.chunk(count, 1), strict=True)
            inner[:, :, place, : len(reader.lora_A)] = torch.stack([channels @ a.T for channels, a in some])
    return inner


def as_after_a_norm(h: Tensor, norm: Tensor, readers: tuple[LinearWithAdapter, ...], rank: int) -> NormedInput:
    count = DIM // 64
    x = (h.float() * norm.float()).bfloat16()
    return NormedInput(x, h.float().square().view(len(h), count, 64).sum(-1), in_parts(x, readers, rank, count))


def rstd(h: Tensor) -> Tensor:
    return (h.double().square().mean(-1, keepdim=True) + EPS).rsqrt()


class Outputs(NamedTuple):
    projected: Tensor
    hidden: Tensor
    normed: NormedInput
    activation: Tensor
    inner: Tensor
    last: Tensor


class Case(NamedTuple):
    block: BlockWeights
    h: Tensor
    attended: Tensor
    rank: int


def make_case(m: int, blocksize: int, is_nested: bool, ranks: tuple[int, ...], rank: int) -> Case:
    block = make_block(blocksize, is_nested, ranks)
    return Case(block, normal(m, DIM, seed=3, dtype=torch.bfloat16), normal(m, DIM, seed=4, dtype=torch.bfloat16), rank)


def run(case: Case) -> Outputs:
    block, h, attended, rank = case
    q, k, v, o, gate, up, down = block.linears
    products = PairProducts(h[:, None], block, rank)
    projected = products.qkv(as_after_a_norm(h, block.attention_norm, (q, k, v), rank), (q, k, v), EPS)
    inner = in_parts(attended, (o,), rank, 4)[:, :, 0].contiguous()
    hidden, normed = products.add(attended, inner, o, h, block.ffn_norm, (gate, up))
    hidden, normed = hidden.clone(), NormedInput(*(kept.clone() for kept in normed))
    activation, inner = products.gate_up(normed, (gate, up), EPS, down)
    products.squares.fill_(torch.nan)
    last, _ = products.add(activation, inner, down, hidden, None, ())
    assert products.squares.isnan().all(), "nothing reads a sum of squares behind the last block"
    return Outputs(projected, hidden, normed, activation, inner, last)


@EMULATED
@pytest.mark.parametrize(
    ("emulated", "m", "blocksize", "is_nested", "ranks", "rank"),
    [
        pytest.param(90, 1, 64, True, (0,) * 7, 0, id="bare", marks=pytest.mark.slow),
        pytest.param(90, 2, 64, False, (5, 0, 3, 5, 5, 0, 8), 8, id="hat", marks=pytest.mark.long),
        pytest.param(80, 3, 128, True, (3, 1, 2, 4, 4, 4, 4), 4, id="sm_80-blocks-of-128", marks=pytest.mark.long),
        pytest.param(90, 4, 64, True, (32, 32, 32, 32, 7, 32, 32), 32, id="wide-hat", marks=pytest.mark.long),
    ],
    indirect=["emulated"],
)
def test_each_product_is_as_exact_as_plain_torch(m, blocksize, is_nested, ranks, rank) -> None:
    block, h, attended, _ = case = make_case(m, blocksize, is_nested, ranks, rank)
    ours = run(case)
    q, k, v, o, gate, up, down = block.linears

    def held(y: Tensor, compute) -> None:
        assert_as_exact_as_plain(y, *(compute(lambda x, kind=kind: x.to(kind)) for kind in (y.dtype, torch.float64)))

    x = (h.float() * block.attention_norm.float()).bfloat16()
    held(ours.projected, lambda at: torch.cat([product(at(x), part) for part in (q, k, v)], 1) * at(rstd(h)))
    held(ours.hidden, lambda at: at(h) + product(at(attended), o))
    x, scale = ours.normed.x, rstd(ours.hidden)
    held(
        ours.activation,
        lambda at: llama_ops.swiglu(product(at(x), gate) * at(scale), product(at(x), up) * at(scale)),
    )
    held(ours.last, lambda at: at(ours.hidden) + product(at(ours.activation), down))


@EMULATED
@pytest.mark.long
def test_what_the_next_kernel_takes_is_in_parts_of_the_programs() -> None:
    block, _, _, rank = case = make_case(3, 64, True, (5, 5, 5, 5, 5, 3, 8), 8)
    ours = run(case)
    assert torch.equal(ours.normed.x, (ours.hidden.float() * block.ffn_norm.float()).bfloat16())
    squares = ours.hidden.double().square()
    parts = ours.normed.squares
    assert parts.shape == (3, 4), "with three rows the emulator's two multiprocessors have two programs each"
    assert_sums_are_exact_enough(parts.sum(1), squares.float().sum(1), squares.sum(1), squares.sum(1), DIM)
    inner = ours.normed.inner.flatten()[: 4 * 3 * 2 * rank].view(4, 3, 2, rank).sum(0)
    given = ((inner[:, 0], ours.normed.x, 4), (inner[:, 1], ours.normed.x, 5), (ours.inner.sum(0), ours.activation, 6))
    for sums, x, place in given:
        a = block.linears[place].lora_A
        assert a is not None
        exact, magnitude = x.double() @ a.double().T, x.double().abs() @ a.double().abs().T
        assert_sums_are_exact_enough(sums[:, : len(a)], x.float() @ a.T, exact, magnitude, x.shape[1])
        assert not sums[:, len(a) :].any(), "above the rank of an adapter there are zeros"


@pytest.fixture
def arranged() -> Iterator[None]:
    yield
    driver.arrange = None


@EMULATED
@pytest.mark.long
def test_the_bits_do_not_depend_on_the_order_in_which_programs_run(arranged: None) -> None:
    case = make_case(1, 64, True, (4,) * 7, 4)
    found = []
    for arrange in (None, lambda places: places[1::2] + places[::2]):
        driver.arrange = arrange
        found.append(run(case))
    one, other = found
    assert torch.equal(one.projected, other.projected) and torch.equal(one.last, other.last)


@EMULATED
def test_programs_of_q_k_and_v_run_at_once() -> None:
    shared = pairs.shared_bytes(1, 4096)
    for tiles in ([256, 256, 256], [256, 64, 64], [32, 4, 4], [5, 3, 3], [1, 1, 1]):
        counts = pairs.programs(tiles, shared, torch.device("cpu"))
        assert sum(counts) <= 6 and all(0 < programs <= of for programs, of in zip(counts, tiles, strict=True))
    assert pairs.programs([256, 256, 256], shared, torch.device("cpu"), 1) == [1, 1, 1], "each weight has a program"


def told(
    m: int = 4,
    dtype: torch.dtype = torch.bfloat16,
    rank: int = 32,
    adapter: torch.dtype = torch.float32,
    norm: torch.dtype = torch.bfloat16,
    k: int = FFN,
) -> tuple[Tensor, list[BlockWeights]]:
    """x, and a block without numbers; k: in_features of its last linear."""
    weights = [torch.empty(n, k if place == 6 else wide, device="meta") for place, (n, wide) in enumerate(SHAPES)]
    matrix, scale = torch.zeros(rank, 1, dtype=adapter), torch.ones(DIM, dtype=norm)
    block = BlockWeights(scale, scale, tuple(LinearWithAdapter(weight, matrix, matrix.T) for weight in weights))
    return torch.zeros(m, 1, DIM, dtype=dtype), [block]


@EMULATED
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"dtype": torch.float32}, "x must be bfloat16, is torch.float32"),
        ({"m": 5}, "there must be 1 to 4 rows, there are 5"),
        ({"rank": 33}, "ranks must be at most 32, there is 33"),
        ({"adapter": torch.bfloat16}, "the matrices of an adapter must be float32"),
        ({"norm": torch.float32}, "the weights of the norms must be bfloat16"),
        ({"k": 320}, "N must be a multiple of 16 and K of 256, W is [512, 320]"),
        ({}, ""),
    ],
    ids=["float32", "five rows", "rank", "adapter", "norm", "width", "nothing"],
)
def test_what_keeps_the_table_of_pairs_from_a_step_is_said_in_one_line(changes, reason) -> None:
    assert unsupported_reason(*told(**changes)) == reason


def test_without_an_nvidia_gpu_the_table_of_pairs_is_not_taken() -> None:
    assert "for NVIDIA GPUs" in unsupported_reason(*told())
