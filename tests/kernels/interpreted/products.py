"""Products under Triton's interpreter, through the table that a GPU has: int8 rows, scratch, and an adapter that rides.

Not collected by itself: see `test_interpreted.py`.
"""

import threading
from dataclasses import replace
from typing import Any

import pytest
import torch
from draws import normal
from error_bounds import assert_product_is_exact_enough, assert_sums_are_exact_enough
from torch import Tensor

from lowrank.kernels import ops
from lowrank.kernels.dispatch import dequant_gemm, run, scratch, table
from lowrank.kernels.lora import lora_linear
from lowrank.kernels.reference import weights as reference
from lowrank.kernels.triton import int8_linear
from lowrank.kernels.weights import codebooks
from lowrank.kernels.weights.quantized_weight import Blockwise4bit, RowwiseInt8
from lowrank.layers.adapter_selection import PerRow
from lowrank.layers.lora import AdapterConfig, LoRALinear
from lowrank.layers.quant_linear import QuantLinear

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
SHAPES = [(1, 48, 96), (3, 5, 77), (17, 64, 130), (70, 33, 256)]
EVERY_DTYPE = pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
EVERY_SHAPE = pytest.mark.parametrize(("m", "n", "k"), SHAPES, ids=[f"M{m}-N{n}-K{k}" for m, n, k in SHAPES])
EVERY_FORMAT = pytest.mark.parametrize("format", ["int8", "nf4-dq", "fp4"])
EVERY_RANK = pytest.mark.parametrize("rank", [1, 8, 11], ids="r{}".format)


@pytest.fixture(autouse=True)
def by_the_table_of_a_gpu(as_on_a_gpu: None) -> None:
    pass


def integers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(-4, 5, shape, generator=torch.Generator().manual_seed(seed)).float()


def gradients(y: Tensor, dy: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(y, inputs, dy)


@EVERY_DTYPE
@EVERY_SHAPE
@EVERY_FORMAT
def test_product_and_gradient_are_as_exact_as_matmul(format: str, m: int, n: int, k: int, dtype: torch.dtype) -> None:
    weight = ops.quantize(normal(n, k), format)
    exact, w = reference.dequantize(weight).double(), reference.dequantize(weight, dtype)
    x, dy = normal(m, k, seed=1).to(dtype).requires_grad_(), normal(m, n, seed=2).to(dtype)
    y = ops.linear(x, weight)
    (dx,) = gradients(y, dy, x)
    assert (y.dtype, dx.dtype) == (dtype, dtype)
    assert_product_is_exact_enough(y.detach(), x.detach(), w.T, exact.T)
    assert_product_is_exact_enough(dx, dy, w, exact)


@EVERY_DTYPE
@EVERY_FORMAT
def test_one_hot_rows_read_the_weight_back(format: str, dtype: torch.dtype) -> None:
    weight = ops.quantize(normal(37, 77), format)
    w, x = reference.dequantize(weight, dtype), torch.eye(77, dtype=dtype, requires_grad=True)
    y = ops.linear(x, weight)
    assert torch.equal(y.T, w)
    (dx,) = gradients(ops.linear(x[:37], weight), torch.eye(37, dtype=dtype), x)
    assert torch.equal(dx[:37], w)


def test_the_scale_of_an_int8_row_is_divided_and_not_multiplied() -> None:
    weight = reference.quantize_int8(normal(400, 3))  # one in 23 differs in the last bit if it is multiplied by 1 / 127
    assert torch.equal(int8_linear.linear(torch.eye(3), weight).T, reference.dequantize_int8(weight))
    assert torch.equal(int8_linear.linear_backward(torch.eye(400), weight), reference.dequantize_int8(weight))


@EVERY_DTYPE
@pytest.mark.parametrize(("n", "k"), [(16, 64), (5, 77), (3, 129), (40, 3)], ids=["even", "odd", "odd-rows", "short"])
def test_whole_numbers_are_multiplied_exactly_by_int8_rows(n: int, k: int, dtype: torch.dtype) -> None:
    powers = 2.0 ** integers(n, seed=5)
    codes = torch.randint(-3, 4, (n, k), generator=torch.Generator().manual_seed(3), dtype=torch.int8)
    weight, w = RowwiseInt8(codes, 127 * powers), codes.double() * powers.double()[:, None]
    for x, inner, product in (
        (integers(9, k), w.T, int8_linear.linear),
        (integers(9, n, seed=1), w, int8_linear.linear_backward),
    ):
        exact = x.double() @ inner
        assert torch.equal(product(x.to(dtype), weight), exact.to(dtype))


@pytest.mark.parametrize("shape", [(77,), (0, 77), (2, 3, 77)], ids=str)
@EVERY_FORMAT
def test_x_may_have_any_leading_shape(format: str, shape: tuple[int, ...]) -> None:
    weight, x = ops.quantize(normal(5, 77), format), integers(*shape)
    y = ops.linear(x, weight)
    torch.testing.assert_close(y, x @ reference.dequantize(weight).T)
    assert y.shape == (*shape[:-1], 5)


@EVERY_FORMAT
def test_x_may_be_strided_and_misaligned(format: str) -> None:
    weight = ops.quantize(normal(5, 77), format)
    for one_hot in (torch.eye(154)[::2, ::2], torch.eye(77).T, torch.eye(78)[1:, 1:]):
        assert torch.equal(ops.linear(one_hot, weight).T, reference.dequantize(weight))


@EVERY_FORMAT
def test_what_is_not_finite_stays_in_its_row(format: str) -> None:
    weight, x = ops.quantize(normal(5, 77), format), torch.full((7, 77), torch.nan)
    x[::2] = 0
    y = ops.linear(x[:6], weight)
    assert torch.equal(y.isnan().any(1), torch.tensor([False, True] * 3))


@pytest.mark.parametrize("shape", [(0, 64), (4, 0)], ids=str)
def test_int8_rows_without_weights(shape: tuple[int, int]) -> None:
    weight = RowwiseInt8(torch.empty(shape, dtype=torch.int8), torch.ones(shape[0]))
    assert torch.equal(int8_linear.linear(torch.ones(2, shape[1]), weight), torch.zeros(2, shape[0]))
    assert torch.equal(int8_linear.linear_backward(torch.ones(2, shape[0]), weight), torch.zeros(2, shape[1]))


def test_what_the_int8_product_does_not_take_is_refused() -> None:
    weight = reference.quantize_int8(normal(5, 77))
    for x, w, rule in (
        (torch.ones(2, 77).double(), weight, r"x must be of .*float16, got torch.float64"),
        (torch.ones(2, 76), weight, r"x must end in 77 for W \(5, 77\), got shape \(2, 76\)"),
        (torch.ones(2, 77, device="meta"), weight, "x must be on cpu, where the weight is, got meta"),
        (torch.ones(2, 77), replace(weight, scale=torch.ones(4)), r"scale must be torch.float32 \[5\] .*got .*\[4\]"),
        (torch.ones(2, 77), replace(weight, codes=weight.codes.T.contiguous().T), "codes must be contiguous"),
        (torch.ones(2, 77), replace(weight, scale=weight.scale.to("meta")), "scale must be on cpu"),
    ):
        with pytest.raises(ValueError, match=rule):
            int8_linear.linear(x, w)


@pytest.fixture
def integer_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Codes -8 .. 7 in place of the NF4 levels: every product of small integers is then exact in float32."""
    monkeypatch.setitem(codebooks.CODEBOOKS, "nf4", lambda: torch.arange(-8.0, 8.0))


@EVERY_DTYPE
@EVERY_RANK
@pytest.mark.parametrize(("n", "k"), [(16, 64), (5, 77), (3, 129)], ids=["even", "odd", "odd-rows"])
def test_whole_numbers_are_multiplied_exactly_with_an_adapter(
    n: int, k: int, rank: int, dtype: torch.dtype, integer_levels: None
) -> None:
    generator = torch.Generator().manual_seed(3)
    numbers = torch.randint(0, 16, (n * k + n * k % 2,), generator=generator)
    powers = 2.0 ** torch.randint(-1, 2, (-(-n * k // 64),), generator=generator)
    weight = Blockwise4bit((numbers[::2] << 4 | numbers[1::2]).to(torch.uint8), powers, "nf4", 64, (n, k))
    w = ((numbers[: n * k] - 8) * powers.double().repeat_interleave(64)[: n * k]).view(n, k)
    # At most three numbers a row of A and a column of B, so that scaling * x A^T and dY B are exact in 8 bits.
    A, B = integers(rank, k, seed=1), integers(n, rank, seed=2)
    A[:, 3:], B[3:], scaling = 0, 0, 0.5
    x, dy = (integers(9, k, seed=4) / 2).round(), (integers(9, n, seed=5) / 2).round()
    inputs = [x.to(dtype).requires_grad_(), A.clone().requires_grad_(), B.clone().requires_grad_()]
    y = ops.lora_linear(inputs[0], weight, inputs[1], inputs[2], scaling)
    dx, dA, dB = gradients(y, dy.to(dtype), *inputs)
    wide = [tensor.double() for tensor in (x, A, B, dy)]
    x, A, B, dy = wide
    delta = scaling * B @ A
    assert torch.equal(y, (x @ (w + delta).T).to(dtype))
    assert torch.equal(dx, (dy @ (w + delta)).to(dtype))
    assert torch.equal(dA, (scaling * (dy @ B).T @ x).to(dtype).float())
    assert torch.equal(dB, (dy.T @ (scaling * x @ A.T)).to(dtype).float())


@EVERY_DTYPE
@EVERY_RANK
@EVERY_SHAPE
def test_an_adapter_in_the_product_is_as_exact_as_matmul(m: int, n: int, k: int, rank: int, dtype: torch.dtype) -> None:
    weight, scaling = ops.quantize(normal(n, k), "nf4-dq"), 0.75
    x, A, B, dy = (
        part.to(dtype) for part in (normal(m, k, seed=1), normal(rank, k, seed=2), normal(n, rank), normal(m, n))
    )
    inputs = [x.clone().requires_grad_(), A.float().requires_grad_(), B.float().requires_grad_()]
    y = ops.lora_linear(inputs[0], weight, inputs[1], inputs[2], scaling)
    ours = (y.detach(), *gradients(y, dy, *inputs))
    assert [part.dtype for part in ours] == [dtype, dtype, torch.float32, torch.float32]

    def not_fused_reason(w: Tensor, x: Tensor, A: Tensor, B: Tensor, dy: Tensor) -> tuple[Tensor, ...]:
        u, v = scaling * (x @ A.T), scaling * (dy @ B)
        return x @ w.T + u @ B.T, dy @ w + v @ A, v.T @ x, dy.T @ u

    theirs = not_fused_reason(reference.dequantize(weight, dtype), x, A, B, dy)
    wide = (reference.dequantize(weight).double(), x.double(), A.double(), B.double(), dy.double())
    exact, magnitude = not_fused_reason(*wide), not_fused_reason(*(tensor.abs() for tensor in wide))
    mine = (tensor.to(dtype) for tensor in ours)
    for *part, terms in zip(mine, theirs, exact, magnitude, (k + rank, n + rank, n + m, k + m), strict=True):
        assert_sums_are_exact_enough(*part, terms)


def take_scratch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernels take no float64: the products that an adapter rides in do, where the table is passed by."""
    (riding,) = (path for path in table.TABLE if (path.op, path.name) == (table.FORWARD, table.SCRATCH))
    monkeypatch.setattr(run, "path", lambda x, weight: riding)


def test_gradients_by_finite_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = reference.quantize_4bit(normal(7, 5))
    inputs = [part.double().requires_grad_() for part in (normal(2, 3, 5), normal(3, 5, seed=1), normal(7, 3, seed=2))]
    take_scratch(monkeypatch)

    def product(x: Tensor, A: Tensor, B: Tensor) -> Tensor:
        return ops.lora_linear(x, weight, A, B, 2.0)

    assert torch.autograd.gradcheck(product, inputs)


@pytest.mark.parametrize("frozen", ["x", "matrices"])
def test_only_the_gradients_that_are_wanted_are_taken(frozen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    weight = ops.quantize(normal(5, 77), "nf4")
    x = normal(4, 77).requires_grad_(frozen != "x")
    A, B = (part.requires_grad_(frozen != "matrices") for part in (normal(3, 77), normal(5, 3)))
    y = ops.lora_linear(x, weight, A, B, 1.0)
    dequantized = []
    monkeypatch.setattr(dequant_gemm, "dequantize", lambda *a, **b: dequantized.append(reference.dequantize(*a, **b)))
    y.sum().backward()
    assert [part.grad is None for part in (x, A, B)] == [frozen == "x", frozen == "matrices", frozen == "matrices"]
    assert len(dequantized) == (frozen != "x")


def test_the_weight_is_not_kept_for_the_backward_pass() -> None:
    weight, kept = ops.quantize(normal(48, 96), "nf4"), []
    x, A, B = normal(2, 96).requires_grad_(), normal(3, 96).requires_grad_(), normal(48, 3).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        ops.linear(x, weight)
        ops.lora_linear(x, weight, A, B, 1.0)
    assert sorted(tuple(tensor.shape) for tensor in kept) == [(2, 8), (2, 96), (3, 96), (48, 3)]  # U is filled up


def adapted(format: str = "nf4-dq", dropout: float = 0.0) -> LoRALinear:
    layer = LoRALinear(QuantLinear(ops.quantize(normal(48, 96), format)), 96, 48).train()
    for name, seed in (("hat", 1), ("other", 2)):
        config = AdapterConfig(rank=3, alpha=6.0, targets=(), dropout=dropout)
        layer.add(name, config, normal(3, 96, seed=seed), normal(48, 3, seed=seed), trainable=True)
    layer.active = (("hat", 0.5),)
    return layer


def test_a_layer_takes_one_product_with_its_adapter_and_is_what_two_give(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x, dy = adapted(), normal(2, 3, 96, seed=3), normal(2, 3, 48, seed=4).double()
    assert layer.not_fused_reason(x) == ""
    take_scratch(monkeypatch)
    layer, x = layer.double(), x.double().requires_grad_()
    inputs = (x, layer.lora_A["hat"], layer.lora_B["hat"])
    y = layer(x)
    together = (y.detach(), *gradients(y, dy, *inputs))
    monkeypatch.setattr(lora_linear, "_rides", lambda rows, plan: False)
    y = layer(x)
    for one, other in zip(together, (y.detach(), *gradients(y, dy, *inputs)), strict=True):
        torch.testing.assert_close(one, other)


def test_an_adapter_that_does_not_ride_says_why() -> None:
    x = normal(3, 96)
    for layer, active, reason in (
        (adapted(), (), "no adapter is active"),
        (adapted(), (("hat", 0.0),), "no adapter is active"),
        (adapted(dropout=0.1), (("hat", 1.0),), "with dropout the adapter sees another x than W does"),
        (adapted("int8"), (("hat", 1.0),), f"the product with W takes the path 'Triton int8': {table.ROWS}"),
    ):
        layer.active = active
        assert layer.not_fused_reason(x) == reason
        assert torch.isfinite(layer(x)).all()
    assert adapted(dropout=0.1).eval().not_fused_reason(x) == ""
    for active in (
        (("hat", 1.0), ("other", 1.0)),
        PerRow(((("hat", 1.0),), ()), torch.tensor([0, 1, 0])),
    ):
        layer = adapted()
        layer.active = active
        assert layer.not_fused_reason(x) == ""
    assert "the kernels take float32" in adapted().not_fused_reason(x.double())


MIX, ROWS = (("hat", 0.5), ("other", -2.0)), PerRow(((("hat", 0.5),), (), (("other", 1.0),)), torch.tensor([2, 0, 1]))


@pytest.mark.parametrize("active", [MIX, ROWS], ids=["mix", "rows"])
def test_a_mix_and_an_adapter_a_row_ride_too(active: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x, dy = adapted().double(), normal(3, 2, 96, seed=3).double(), normal(3, 2, 48, seed=4).double()
    x.requires_grad_()
    layer.active = active
    take_scratch(monkeypatch)
    inputs, results, ridden = (x, *layer.lora_A.values(), *layer.lora_B.values()), [], []
    ride = dequant_gemm.linears_with_adapters
    monkeypatch.setattr(dequant_gemm, "linears_with_adapters", lambda *given: (ridden.append(given), ride(*given))[1])
    for _ in range(2):
        y = layer(x)
        results.append((y.detach(), *gradients(y, dy, *inputs)))
        monkeypatch.setattr(lora_linear, "_rides", lambda rows, plan: False)
    assert len(ridden) == 1
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


def test_scratch_is_reused_and_grows() -> None:
    scratch._buffers.clear()
    cpu = torch.device("cpu")
    with scratch.borrow((4, 100), torch.float32, cpu) as first:
        assert (first.shape, first.stride()) == ((4, 100), (128, 1))
    with scratch.borrow((2, 128), torch.float32, cpu) as smaller:
        assert smaller.data_ptr() == first.data_ptr()
    with scratch.borrow((2, 128), torch.float16, cpu) as other:
        assert other.data_ptr() != first.data_ptr()
    with scratch.borrow((9, 100), torch.float32, cpu) as larger:
        assert larger.untyped_storage().nbytes() == 9 * 128 * 4
    assert {buffer.memory.numel() for buffer in scratch._buffers.values()} == {9 * 128, 2 * 128}


def test_scratch_of_inference_mode_serves_outside_of_it() -> None:
    scratch._buffers.clear()
    weight = ops.quantize(normal(5, 77), "int8")
    with torch.inference_mode():
        dequant_gemm.linear(normal(2, 77), weight)
    assert torch.equal(dequant_gemm.linear(torch.eye(77), weight).T, reference.dequantize(weight))


def test_two_threads_do_not_meet_in_the_scratch() -> None:
    weights = [reference.quantize_4bit(normal(8, 64, seed=seed)) for seed in range(2)]
    wrong = []

    def work(weight: Blockwise4bit) -> None:
        for _ in range(20):
            if not torch.equal(dequant_gemm.linear(torch.eye(64), weight).T, reference.dequantize(weight)):
                wrong.append(weight)

    threads = [threading.Thread(target=work, args=(weight,)) for weight in weights]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
