"""The plan: which cases there are, what each has to do, and that a full run fits in its time."""

import pytest

from lowrank.bench.kernels.gpu_peers import Marlin, Unsloth
from lowrank.bench.kernels.peers import BitsAndBytes, BitsAndBytesDequantize, Dense, Ours, TorchAO
from lowrank.bench.kernels.plan import (
    H200,
    INTO,
    ON,
    OPS,
    ROWS,
    SHAPES,
    Case,
    Limits,
    Work,
    expected_seconds,
    plan,
    work,
)
from lowrank.bench.kernels.products import BUDGET_SECONDS


def test_a_full_plan_on_a_gpu_is_every_op_at_every_shape_and_every_M() -> None:
    cases = plan("cuda", "full")
    assert len(cases) == len(set(cases)) == len(SHAPES) * (2 + 2 * len(ROWS)) == 168
    assert {case.op for case in cases} == set(ON["cuda"]) == set(OPS) - {INTO}
    assert Case("dX", 4096, 11008, 16).shape == "16x4096x11008" and Case("quantize", 4096, 11008).shape == "4096x11008"


def test_a_full_plan_with_every_peer_fits_in_eight_minutes_on_an_h200() -> None:
    made = [Ours, Dense, BitsAndBytes, BitsAndBytesDequantize, TorchAO, Unsloth, Marlin]
    able = {op: sum(op in provider.ops for provider in made) for op in ON["cuda"]}
    assert able == {"quantize": 3, "dequantize": 4, "forward": 7, "dX": 4}
    seconds = expected_seconds(plan("cuda", "full"), "cuda", H200, able, repetitions=50, itemsize=2)
    assert seconds < BUDGET_SECONDS - 60  # a minute for the fused operations and the decode step


def test_dequantizing_moves_codes_statistics_and_output() -> None:
    stored = 11008 * 4096 // 2 + 11008 * 64
    needed = work(Case("dequantize", 11008, 4096), stored, 2)
    assert needed == Work(stored + 2 * 11008 * 4096, 0)
    bound, ms = needed.bound("dequantize", H200)
    assert bound == "bytes" and ms == pytest.approx(0.02637, rel=1e-3)  # 85 % of it is the goal of 31 us


def test_a_product_is_bound_by_its_weight_at_first_and_by_arithmetic_at_last() -> None:
    limits = Limits(copy_gbs=1000, read_gbs=1250, matmul_tflops=100, measured=False)
    small, large = (work(Case("forward", 4096, 4096, m), 8_650_756, 2) for m in (1, 8192))
    assert small == Work(8_650_756 + 2 * 8192, 2 * 4096**2)
    assert small.bound("forward", limits) == ("bytes", pytest.approx(small.bytes / 1250e6))
    assert large.bound("dX", limits) == ("flops", pytest.approx(2 * 8192 * 4096**2 / 100e9))
