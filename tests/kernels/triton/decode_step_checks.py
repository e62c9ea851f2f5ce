"""Checks of the kernels of a decode step: decode_step_checks.py CHECK DEVICE FOLDER, as gemv_checks.py runs.

plain, hat     hidden states and cache of two tokens behind one another, of grouped and other heads, against float64
order          the same bits in whatever order the programs of every launch come to their end (emulated only)
traffic        bytes between memory and a cache that holds what a launch touches: 1.05 of the least (emulated only)

with the products by looking up in registers; "pairs plain" and so on with those by the table of pairs, which are taken
where every K is a multiple of 256.
"""

import itertools
import os
import sys
from random import Random

import torch
from error_bounds import assert_as_exact_as_plain
from torch import Tensor
from triton_as_on_a_gpu import patch

from lowrank.kernels.cuda import decode_step as pairs
from lowrank.kernels.reference import decode_step as reference
from lowrank.kernels.reference import weights
from lowrank.kernels.reference.decode_step import CacheWindow, StepSizes
from lowrank.kernels.triton.decode_step import decode_blocks, unsupported_reason
from lowrank.kernels.weights.linear_with_adapter import BlockWeights, LinearWithAdapter
from lowrank.kernels.weights.quantized_weight import stored_bytes
from lowrank.kernels.weights.repack import repack

_, CHECK, DEVICE, _FOLDER = sys.argv
IS_BY_PAIRS = CHECK.startswith("pairs ")
DIM, FFN, LAYERS, CAPACITY, FILLED = 256, 512 if IS_BY_PAIRS else 320, 2, 90, 70
IS_EMULATED = DEVICE == "cpu" and os.environ.get("TRITON_INTERPRET") != "1"
GENERATOR = torch.Generator().manual_seed(0)


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, generator=GENERATOR)


def linear(n: int, k: int, nested: bool, rank: int) -> LinearWithAdapter:
    weight = repack(weights.quantize_4bit(draw(n, k) / k**0.5, "nf4", 64, nested))
    weight = weight.with_tensors({name: tensor.to(DEVICE) for name, tensor in weight.tensors().items()})
    if not rank:
        return LinearWithAdapter(weight)
    return LinearWithAdapter(weight, (draw(rank, k) / k**0.5).to(DEVICE), draw(n, rank).to(DEVICE), 0.5)


def make_blocks(kv: int, nested: bool, ranks: tuple[int, ...], dtype: torch.dtype) -> list[BlockWeights]:
    """ranks: of the adapters of wq, wk, wv, wo, w1, w3, w2; 0 for none"""
    shapes = [(DIM, DIM), (kv, DIM), (kv, DIM), (DIM, DIM), (FFN, DIM), (FFN, DIM), (DIM, FFN)]
    blocks = []
    for _ in range(LAYERS):
        norms = [(1 + 0.3 * draw(DIM)).to(DEVICE, dtype) for _ in range(2)]
        parts = [linear(n, k, nested, rank) for (n, k), rank in zip(shapes, ranks, strict=True)]
        blocks.append(BlockWeights(*norms, tuple(parts)))
    return blocks


def make_case(rows: int, kv_heads: int, head_dim: int, nested: bool, ranks: tuple[int, ...], dtype: torch.dtype):
    sizes = StepSizes(DIM // head_dim, kv_heads, head_dim, 1e-5, kv_heads == DIM // head_dim)
    blocks = make_blocks(kv_heads * head_dim, nested, ranks, dtype)
    k, v = (draw(LAYERS, rows, kv_heads, CAPACITY, head_dim).to(DEVICE, dtype) for _ in range(2))
    padding = torch.arange(rows, device=DEVICE) * 3
    return sizes, blocks, k, v, padding


def run(decode, dtype: torch.dtype, case, tokens: Tensor, angles: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states of all tokens, and the caches, which hold NaN where nothing may be read."""
    sizes, blocks, k, v, padding = case
    if decode is decode_blocks:
        assert unsupported_reason(tokens[0].to(DEVICE, dtype), blocks, sizes) == ""
        assert (pairs.unsupported_reason(tokens[0].to(DEVICE, dtype), blocks) == "") == IS_BY_PAIRS
    k, v = k.to(dtype), v.to(dtype)
    for kept in (k, v):
        kept[:, :, :, FILLED:] = 0 if decode is reference.decode_blocks else float("nan")
    hidden = []
    for step, x in enumerate(tokens):
        position = torch.tensor([FILLED + step], device=DEVICE)
        window = CacheWindow(k, v, CAPACITY - 2, position, padding)
        angle = angles[step]
        hidden.append(decode(x.to(DEVICE, dtype), blocks, window, angle.cos(), angle.sin(), sizes))
    return torch.cat(hidden), k[:, :, :, : FILLED + len(tokens)], v[:, :, :, : FILLED + len(tokens)]


def check_against_float64(ranks: tuple[int, ...]) -> None:
    second = torch.bfloat16 if IS_BY_PAIRS else torch.float32
    cases = [((3, 4, 64), True, torch.bfloat16), ((1, 2, 32), False, second)]
    if IS_EMULATED and not IS_BY_PAIRS:
        cases = cases[:1]  # float32 is computed without tensor cores: ten times the instructions
    for (rows, kv_heads, head_dim), nested, dtype in cases:
        case = make_case(rows, kv_heads, head_dim, nested, ranks, dtype)
        tokens = draw(2 if rows > 1 else 4, rows, 1, DIM).to(dtype)
        angles = (torch.rand(len(tokens), rows, 1, 1, head_dim // 2, generator=GENERATOR) * 4096).to(DEVICE)
        ours = run(decode_blocks, dtype, case, tokens, angles)
        plain, exact = (run(reference.decode_blocks, kind, case, tokens, angles) for kind in (dtype, torch.float64))
        for mine, theirs, truth in zip(ours, plain, exact, strict=True):
            assert_as_exact_as_plain(mine, theirs, truth)


def check_order() -> None:
    """Nothing depends on which program comes last: forwards, backwards, and shuffled."""
    from ptx import driver

    case = make_case(2, 2, 64, True, (5,) * 7, torch.bfloat16)
    tokens, angles = draw(1, 2, 1, DIM), torch.rand(1, 2, 1, 1, 32, generator=GENERATOR) * 4096
    shuffled = Random(0)
    results = []
    for arrange in (list, lambda places: places[::-1], lambda places: shuffled.sample(places, len(places))):
        driver.arrange = arrange
        results.append(run(decode_blocks, torch.bfloat16, case, tokens, angles))
    driver.arrange = None
    for mine, theirs in itertools.product(results[:1], results[1:]):
        assert all(torch.equal(one, other) for one, other in zip(mine, theirs, strict=True))


def check_traffic() -> None:
    """A block with a long K, as those of 7B have: weights, norms, adapter, cache and states once each."""
    from ptx import cuda_c, driver

    cuda_c.MULTIPROCESSORS = 132  # of an H200: what a kernel gives the next is a part a program

    global DIM, FFN, LAYERS, CAPACITY, FILLED
    DIM, FFN, LAYERS, CAPACITY, FILLED = 1024, 2816 if IS_BY_PAIRS else 2880, 1, 260, 256
    for rank in (0, 8):
        case = make_case(1, 8, 128, True, (rank,) * 7, torch.bfloat16)
        linears = [part for block in case[1] for part in block.linears]
        tokens, angles = draw(1, 1, 1, DIM), torch.rand(1, 1, 1, 1, 64, generator=GENERATOR) * 4096
        driver.COUNTS.traffic.clear()
        run(decode_blocks, torch.bfloat16, case, tokens, angles)
        least = sum(stored_bytes(part.weight) for part in linears) + 2 * 2 * DIM  # norms
        least += sum(m.nbytes for part in linears for m in (part.lora_A, part.lora_B) if m is not None)
        least += 2 * 2 * DIM * (FILLED + 1) + 2 * 2 * DIM  # keys and values, h in and out
        ratio = driver.COUNTS.traffic.total() / least
        print(f"rank {rank}: {ratio:.3f} of the least, {least} bytes; {dict(driver.COUNTS.traffic)}", file=sys.stderr)
        assert ratio <= 1.05, ratio


CHECKS = {
    "order": check_order,
    "traffic": check_traffic,
    "plain": lambda: check_against_float64((0,) * 7),
    "hat": lambda: check_against_float64((5, 0, 3, 5, 5, 5, 8)),
}

if __name__ == "__main__":
    patch()
    CHECKS[CHECK.removeprefix("pairs ")]()
    print("passed")
