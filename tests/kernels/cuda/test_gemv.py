"""y = x W^T by a table of pairs of levels: exact where it can be, float64's error elsewhere, and what it reads."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
from draws import normal
from error_bounds import assert_product_is_exact_enough
from ptx.driver import COUNTS
from ptx.memory import SharedMemory
from torch import Tensor

from lowrank.kernels.cuda import pairs
from lowrank.kernels.cuda.gemv import KERNEL, decode_linear
from lowrank.kernels.cuda.pairs import TABLE_BYTES
from lowrank.kernels.reference import weights as reference
from lowrank.kernels.weights.codebooks import dynamic8, nf4
from lowrank.kernels.weights.quantized_weight import Blockwise4bit, NestedAbsmax
from lowrank.kernels.weights.repack import repack

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("emulated")]

MINUS_ONE, ZERO, ONE = 0, 7, 15  # codes of NF4's levels that are whole numbers


def drawn(low: int, high: int, *shape: int, seed: int = 0) -> Tensor:
    return torch.randint(low, high, shape, generator=torch.Generator().manual_seed(seed))


def exact_weight(codes: Tensor, blocksize: int, is_nested: bool) -> Blockwise4bit:
    """A weight of these codes [N, K] whose maxima are powers of two."""
    count = codes.numel() // blocksize
    packed = (codes[:, 0::2] << 4 | codes[:, 1::2]).to(torch.uint8).flatten()
    absmax: Tensor | NestedAbsmax = 2.0 ** drawn(-2, 3, count, seed=1)
    if is_nested:
        assert dynamic8()[255] == 1
        of_maxima = 2.0 ** drawn(-2, 3, -(-count // 256), seed=2)
        codes8 = torch.where(drawn(0, 5, count, seed=3) > 0, 255, int((dynamic8() == 0).nonzero()))
        absmax = NestedAbsmax(codes8.to(torch.uint8), of_maxima, torch.tensor(0.25))
    return Blockwise4bit(packed, absmax, "nf4", blocksize, (codes.shape[0], codes.shape[1]))


@pytest.mark.parametrize(
    ("blocksize", "is_nested", "dtype"),
    [(64, True, torch.bfloat16), (128, False, torch.float16)],
    ids=["64-nested-bf16", "128-fp16"],
)
def test_each_weight_by_itself_is_multiplied_exactly(blocksize: int, is_nested: bool, dtype: torch.dtype) -> None:
    codes = torch.full((256, 256), ZERO)
    codes.diagonal()[:] = drawn(0, 16, 256)
    weight = exact_weight(codes, blocksize, is_nested)
    x = normal(4, 256, dtype=dtype)
    absmax = weight.absmax if isinstance(weight.absmax, Tensor) else reference.dequantize_absmax(weight.absmax)
    absmax = absmax.view(256, -1).repeat_interleave(blocksize, dim=1).double()
    levels = nf4().to(dtype).double()[codes]
    assert torch.equal(decode_linear(x, repack(weight)), (x.double() @ (levels * absmax).T).to(dtype))


@pytest.mark.parametrize(
    ("emulated", "m", "n", "k", "blocksize", "is_nested"),
    [
        (90, 1, 112, 2304, 64, True),
        (80, 4, 48, 2304, 64, True),
        (90, 2, 16, 256, 64, False),
        (90, 3, 32, 2304, 128, True),
    ],
    ids=["several-tiles-a-program", "sm_80", "one-group", "blocks-of-128"],
    indirect=["emulated"],
)
def test_sums_of_whole_numbers_are_exact(m: int, n: int, k: int, blocksize: int, is_nested: bool) -> None:
    codes = torch.tensor([MINUS_ONE, ZERO, ONE])[drawn(0, 3, n, k)]
    weight = exact_weight(codes, blocksize, is_nested)
    x = drawn(-3, 4, m, k).bfloat16()
    exact = x.double() @ reference.dequantize_4bit(weight).double().T
    assert torch.equal(decode_linear(x, repack(weight)), exact.bfloat16())


@pytest.mark.parametrize(
    ("format", "is_nested", "dtype"),
    [("nf4", True, torch.bfloat16), ("fp4", False, torch.float16)],
    ids=["nf4-dq-bf16", "fp4-fp16"],
)
def test_the_error_is_that_of_the_rule(format: str, is_nested: bool, dtype: torch.dtype) -> None:
    weight = reference.quantize_4bit(normal(48, 1024), format, 64, is_nested)
    x = normal(4, 1024, seed=1, dtype=dtype)
    exact, dense = reference.dequantize_4bit(weight).double(), reference.dequantize_4bit(weight, dtype)
    assert_product_is_exact_enough(decode_linear(x, repack(weight)), x, dense.T, exact.T)


def test_rows_may_lie_anywhere_in_memory() -> None:
    weight = exact_weight(torch.tensor([MINUS_ONE, ONE])[drawn(0, 2, 16, 256)], 64, True)
    w, wide = reference.dequantize_4bit(weight).double(), drawn(-3, 4, 260, 600).bfloat16()
    views = (wide.T[:2, 2:258], wide[:3, 1:513:2], wide.flatten()[1:513].view(2, 256), wide[0, :256].expand(2, 2, 256))
    for x in (*views, wide[0, :256], wide[:0, :256]):
        y = decode_linear(x, repack(weight))
        assert y.shape == (*x.shape[:-1], 16) and torch.equal(y, (x.double() @ w.T).bfloat16())


def test_levels_of_the_maxima_may_be_those_of_a_file() -> None:
    weight = exact_weight(torch.full((16, 256), ONE), 64, True)
    assert isinstance(weight.absmax, NestedAbsmax)
    other = replace(weight, absmax=replace(weight.absmax, levels=2 * dynamic8()))
    x = drawn(-3, 4, 1, 256).bfloat16()
    exact = x.double() @ reference.dequantize_4bit(other).double().T
    assert torch.equal(decode_linear(x, repack(other)), exact.bfloat16())


def test_a_launch_is_made_on_the_device_of_its_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    current: list[torch.device] = []
    launched: list[list[torch.device]] = []

    @contextmanager
    def device_of(tensor: Tensor) -> Iterator[None]:
        current.append(tensor.device)
        yield
        current.pop()

    monkeypatch.setattr(torch.cuda, "device_of", device_of)
    monkeypatch.setattr(pairs, "kernel", lambda *given: lambda *given: launched.append([*current]))
    decode_linear(torch.zeros(1, 256).bfloat16(), repack(exact_weight(torch.full((16, 256), ONE), 64, True)))
    assert launched == [[torch.device("cpu")]]


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(1, 256), r"x must be of torch.bfloat16, torch.float16, got torch.float32"),
        (torch.zeros(5, 256).bfloat16(), "the kernel takes up to 4 rows, x has 5"),
        (torch.zeros(1, 128).bfloat16(), r"x must end in in_features 256, got shape \(1, 128\)"),
    ],
    ids=["float32", "five rows", "width"],
)
def test_what_the_kernel_does_not_take_is_refused_in_one_line(x: Tensor, message: str) -> None:
    weight = repack(exact_weight(torch.full((16, 256), ONE), 64, True))
    with pytest.raises(ValueError, match=message):
        decode_linear(x, weight)


def test_the_loads_of_a_warp_from_the_table_never_meet_in_a_bank(monkeypatch: pytest.MonkeyPatch) -> None:
    """No two threads of a warp, which read a word each, read different words of one bank."""
    read, loads = SharedMemory.read, 0

    def counted(memory: SharedMemory, addresses, size, threads):
        nonlocal loads
        if size == 4 and len(addresses) == 256 and (addresses // TABLE_BYTES == addresses[0] // TABLE_BYTES).all():
            words = addresses.reshape(-1, 32) // 4
            if (words % 32 == np.arange(32)).all():
                loads += 1
        return read(memory, addresses, size, threads)

    monkeypatch.setattr(SharedMemory, "read", counted)
    decode_linear(normal(1, 2048, dtype=torch.bfloat16), repack(exact_weight(drawn(0, 16, 16, 2048), 64, True)))
    assert loads == 64  # of eight warps together: 128 weights a lane, two a load


def test_memory_is_read_once() -> None:
    """A sector of codes, of maxima and of x once each; beside them the table of pairs and the levels of the maxima."""
    n, k = 32, 4096
    before = COUNTS.traffic[KERNEL]
    decode_linear(normal(1, k, dtype=torch.bfloat16), repack(exact_weight(drawn(0, 16, n, k), 64, True)))
    statistics = n * k // 64 + 4 * n * k // 64 // 256
    assert COUNTS.traffic[KERNEL] - before <= n * k // 2 + statistics + 2 * (n + k) + 4 * 256 * 2 + 64
