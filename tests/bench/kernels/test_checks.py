"""Nothing is timed unless it is right: what passes, and that a small error does not."""

from dataclasses import replace

import pytest
import torch

from lowrank.bench.kernels.checks import Inputs, check
from lowrank.bench.kernels.peers import PEERS, Dense, Ours, find
from lowrank.bench.kernels.plan import Case

N, K = 96, 128
CASES = [
    Case("quantize", N, K),
    Case("dequantize", N, K),
    Case("dequantize into", N, K),
    *(Case(op, N, K, m) for op in ("forward", "dX") for m in (1, 3, 17)),
]


def verdict(provider, case, dtype=torch.bfloat16):
    inputs = Inputs(N, K, dtype, torch.device("cpu"))
    return check(provider, provider.hold(inputs.w), case, inputs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=["bf16", "fp16", "fp32"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.op}-{case.shape}")
def test_ours_is_right(case, dtype) -> None:
    found = verdict(Ours(), case, dtype)
    assert found.has_passed, str(found)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.op}-{case.shape}")
def test_the_peers_that_are_here_are_right(case) -> None:
    for provider in find(PEERS)[0][1:]:
        if case.op in provider.ops:
            found = verdict(provider, case)
            assert found.has_passed, str(found)


class OneWrongCode(Ours):
    """The first weight of a row is not what was stored."""

    def hold(self, w):
        held = super().hold(w)
        codes = held.codes.clone()
        codes[0] ^= 0x70
        return replace(held, codes=codes)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.op}-{case.shape}")
def test_one_wrong_code_is_found_by_every_op(case) -> None:
    found = verdict(OneWrongCode(), case)
    assert not found.has_passed
    assert "at most" in str(found) and "ours" in str(found)


class NotANumber(Dense):
    def linear(self, held, x):
        return super().linear(held, x) * float("nan")


class Doubled(Dense):
    """Right forward, and a gradient that is twice what it should be."""

    def linear(self, held, x):
        return super().linear(held, x + (x - x.detach()))


def test_what_is_no_number_does_not_pass() -> None:
    assert not verdict(NotANumber(), Case("forward", N, K, 3)).has_passed


def test_a_wrong_gradient_does_not_pass() -> None:
    assert verdict(Doubled(), Case("forward", N, K, 3)).has_passed
    assert not verdict(Doubled(), Case("dX", N, K, 3)).has_passed
