"""The equation of LoRA and its gradients, term by term."""

import hashlib
from functools import partial

import draws
import pytest
import torch
from torch import Tensor, nn

from lowrank.layers.adapter_selection import AdapterMix, PerRow
from lowrank.layers.lora import AdapterConfig, LoRALinear, initial_matrices

CONFIG = AdapterConfig(rank=3, alpha=6.0, targets=("attention.wq",))


normal = partial(draws.normal, dtype=torch.float64)


@pytest.fixture
def layer() -> LoRALinear:
    """K 5, N 7, r 3, scaling 2, in float64."""
    base = nn.Linear(5, 7, bias=False).double().requires_grad_(False)
    layer = LoRALinear(base, 5, 7)
    layer.add("hat", CONFIG, normal(3, 5, seed=1), normal(7, 3, seed=2), trainable=True)
    layer.active = (("hat", 1.0),)
    return layer


def test_the_equation(layer: LoRALinear) -> None:
    x, W, A, B = normal(4, 5), layer.base.weight, layer.A["hat"], layer.B["hat"]
    torch.testing.assert_close(layer(x), x @ W.T + 2.0 * (x @ A) @ B)
    torch.testing.assert_close(layer(x), x @ (W + layer.delta("hat")).T)
    torch.testing.assert_close(layer.delta("hat"), 2.0 * (A @ B).T)


def test_the_equation_by_hand() -> None:
    base = nn.Linear(2, 2, bias=False)
    base.weight = nn.Parameter(torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
    layer = LoRALinear(base, 2, 2)
    config = AdapterConfig(rank=1, alpha=4.0, targets=())
    layer.add("hat", config, torch.tensor([[1.0, -1.0]]), torch.tensor([[3.0], [5.0]]), trainable=False)
    layer.active = (("hat", 0.5),)
    # x A = 2 - 7 = -5; 0.5 * 4 * -5 * [3, 5] on top of [2, 14]
    assert layer(torch.tensor([[2.0, 7.0]])).tolist() == [[-28.0, -36.0]]


def test_A_and_B_are_the_stored_tensors_seen_the_other_way(layer: LoRALinear) -> None:
    for seen, stored in ((layer.A["hat"], layer.lora_A["hat"]), (layer.B["hat"], layer.lora_B["hat"])):
        assert seen.shape == stored.shape[::-1]
        assert seen.untyped_storage().data_ptr() == stored.untyped_storage().data_ptr()


def test_the_card_d_10000_r_8_has_160000_numbers() -> None:
    base = nn.Linear(10_000, 10_000, bias=False, device="meta")
    layer = LoRALinear(base, 10_000, 10_000)
    config = AdapterConfig(rank=8, alpha=16.0, targets=())
    matrices = initial_matrices(10_000, 10_000, 8, torch.Generator(), torch.device("meta"))
    layer.add("hat", config, *matrices, trainable=True)
    assert (tuple(layer.A["hat"].shape), tuple(layer.B["hat"].shape)) == ((10_000, 8), (8, 10_000))
    assert sum(p.numel() for name, p in layer.named_parameters() if "lora" in name) == 160_000
    assert layer.delta("hat").shape == (10_000, 10_000)


def test_the_gradients_of_the_docstring_are_those_of_autograd(layer: LoRALinear) -> None:
    x, dY = normal(2, 4, 5).requires_grad_(), normal(2, 4, 7, seed=3)
    layer(x).backward(dY)
    W, A, B, s = layer.base.weight, layer.A["hat"].detach(), layer.B["hat"].detach(), 2.0
    flat_x, flat_dY = x.detach().flatten(0, 1), dY.flatten(0, 1)
    torch.testing.assert_close(layer.lora_B["hat"].grad.T, s * (flat_x @ A).T @ flat_dY)
    torch.testing.assert_close(layer.lora_A["hat"].grad.T, s * flat_x.T @ (flat_dY @ B.T))
    torch.testing.assert_close(x.grad, dY @ W + s * (dY @ B.T) @ A.T)
    assert W.grad is None


def test_gradients_by_finite_differences(layer: LoRALinear) -> None:
    def output(x: Tensor, lora_A: Tensor, lora_B: Tensor) -> Tensor:
        matrices = {"lora_A.hat": lora_A, "lora_B.hat": lora_B}
        return torch.func.functional_call(layer, matrices, (x,))

    inputs = (normal(2, 5), normal(3, 5, seed=1), normal(7, 3, seed=2))
    assert torch.autograd.gradcheck(output, tuple(tensor.requires_grad_() for tensor in inputs))


def test_nothing_is_added_while_nothing_is_active(layer: LoRALinear) -> None:
    layer.active = ()
    assert torch.equal(layer(normal(4, 5)), layer.base(normal(4, 5)))


def test_a_mix_is_the_weighted_sum_of_the_deltas(layer: LoRALinear) -> None:
    layer.add("other", AdapterConfig(2, 1.0, ()), normal(2, 5, seed=4), normal(7, 2, seed=5), trainable=False)
    layer.active = (("hat", 0.7), ("other", -0.3))
    x, delta = normal(4, 5), 0.7 * layer.delta("hat") - 0.3 * layer.delta("other")
    torch.testing.assert_close(layer(x), x @ (layer.base.weight + delta).T)


HAT, OTHER, NONE = (("hat", 1.0),), (("other", 1.0),), ()
BOTH = (("hat", 0.7), ("other", -0.3))


def per_row(*rows: AdapterMix) -> PerRow:
    mixes = tuple(dict.fromkeys(rows))
    return PerRow(mixes, torch.tensor([mixes.index(row) for row in rows]))


@pytest.fixture
def two(layer: LoRALinear) -> LoRALinear:
    """The layer with a second adapter, of rank 2."""
    layer.add("other", AdapterConfig(2, 1.0, ()), normal(2, 5, seed=4), normal(7, 2, seed=5), trainable=True)
    return layer


@pytest.mark.parametrize("shape", [(5, 5), (5, 4, 5)], ids=str)
@pytest.mark.parametrize("learning", [False, True], ids=["no-grad", "grad"])
def test_each_row_wears_what_it_wears_alone(shape: tuple[int, ...], learning: bool, two: LoRALinear) -> None:
    x, rows = normal(*shape), (OTHER, NONE, HAT, BOTH, OTHER)
    with torch.set_grad_enabled(learning):
        two.active = per_row(*rows)
        fused_projections = two(x)
        for row, mix in enumerate(rows):
            two.active = mix
            torch.testing.assert_close(fused_projections[row : row + 1], two(x[row : row + 1]))


def test_the_gradients_of_a_batch_of_hats_are_the_sums_of_each_rows(two: LoRALinear) -> None:
    x, dy, rows = normal(5, 4, 5).requires_grad_(), normal(5, 4, 7, seed=3), (OTHER, NONE, HAT, BOTH, OTHER)
    inputs = (x, *two.lora_A.values(), *two.lora_B.values())
    two.active = per_row(*rows)
    fused_projections = torch.autograd.grad(two(x), inputs, dy)
    alone = [torch.zeros_like(gradient) for gradient in fused_projections]
    for row, mix in enumerate(rows):
        two.active = mix
        one = torch.autograd.grad(two(x[row : row + 1]), inputs, dy[row : row + 1], allow_unused=True)
        alone = [a if g is None else a + g for a, g in zip(alone, one, strict=True)]
    for ours, theirs in zip(fused_projections, alone, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_gradients_of_rows_by_finite_differences(two: LoRALinear) -> None:
    two.active = per_row(BOTH, HAT, NONE)
    names = [name for name, _ in two.named_parameters() if "lora" in name]

    def output(x: Tensor, *matrices: Tensor) -> Tensor:
        return torch.func.functional_call(two, dict(zip(names, matrices, strict=True)), (x,))

    matrices = [two.get_parameter(name).detach().clone().requires_grad_() for name in names]
    assert torch.autograd.gradcheck(output, (normal(3, 2, 5).requires_grad_(), *matrices))


@torch.no_grad()
def test_a_matrix_that_changes_is_stacked_again(two: LoRALinear) -> None:
    x, two.active = normal(2, 5), per_row(HAT, OTHER)
    before = two(x)
    assert torch.equal(two(x), before)
    two.lora_B["hat"] *= 2
    after = two(x)
    assert not torch.equal(after[0], before[0])
    assert torch.equal(after[1], before[1])


def test_each_row_is_dropped_with_its_own_share(two: LoRALinear) -> None:
    two.configs["hat"] = AdapterConfig(rank=3, alpha=6.0, targets=(), dropout=0.25)
    x = torch.ones(3, 20_000, 5, dtype=torch.float64)
    two.active = per_row(HAT, OTHER, NONE)
    dropped, whole = two.train()(x) - two.base(x), two.eval()(x) - two.base(x)
    torch.testing.assert_close(dropped[1:], whole[1:])
    deviation = (two.delta("hat").pow(2).sum(1) / 3 / 20_000).sqrt()
    assert ((dropped[0].mean(0) - whole[0, 0]).abs() < 6 * deviation).all()
    assert dropped[0].std(0).min() > 0
    two.active = per_row(BOTH, HAT, NONE)
    with pytest.raises(ValueError, match="one dropout"):
        two.train()(x)


@pytest.mark.parametrize(("weights", "rows"), [(1, 3), (2, 3), (4, 3), (3, 1)])
def test_hats_for_another_number_of_rows_are_refused(weights: int, rows: int, layer: LoRALinear) -> None:
    layer.active = per_row(*[HAT] * weights)
    with pytest.raises(ValueError, match=f"{weights}.*{rows}"):
        layer(normal(rows, 5))


def test_dropout_is_for_training_and_keeps_the_mean(layer: LoRALinear) -> None:
    x = torch.ones(20_000, 5, dtype=torch.float64)
    added = layer(x) - layer.base(x)
    layer.configs["hat"] = AdapterConfig(rank=3, alpha=6.0, targets=(), dropout=0.25)
    torch.testing.assert_close(layer.eval()(x) - layer.base(x), added)
    dropped = layer.train()(x) - layer.base(x)
    # Each of the five terms of a row is 0 or 4/3 of itself, with variance 1/3; six standard deviations of the mean.
    deviation = (layer.delta("hat").pow(2).sum(1) / 3 / len(x)).sqrt()
    assert ((dropped.mean(0) - added[0]).abs() < 6 * deviation).all()
    assert dropped.std(0).min() > 0


def test_dropout_does_not_touch_the_base(layer: LoRALinear) -> None:
    layer.configs["hat"] = AdapterConfig(rank=3, alpha=6.0, targets=(), dropout=0.5)
    nn.init.zeros_(layer.lora_B["hat"])
    assert torch.equal(layer.train()(normal(4, 5)), layer.base(normal(4, 5)))


@pytest.mark.parametrize(
    ("rank", "alpha", "rslora", "scaling"), [(8, 16, False, 2.0), (64, 16, False, 0.25), (16, 16, True, 4.0)]
)
def test_scaling(rank: int, alpha: float, rslora: bool, scaling: float) -> None:
    assert AdapterConfig(rank, alpha, (), rslora=rslora).scaling == scaling


def test_a_seed_gives_the_same_bytes_on_every_processor() -> None:
    lora_A, _ = initial_matrices(11008, 4096, 8, torch.Generator().manual_seed(0), torch.device("cpu"))
    digest = hashlib.sha256(lora_A.numpy().tobytes()).hexdigest()
    assert digest == "c9bfa33079ce2e865247588795171696891211b6712e8c657eb96cc4167bfb23"


def test_a_starts_uniform_and_b_at_zero() -> None:
    lora_A, lora_B = initial_matrices(400, 30, 50, torch.Generator().manual_seed(0), torch.device("cpu"))
    assert (lora_A.shape, lora_B.shape) == ((50, 400), (30, 50))
    assert not lora_B.any()
    assert lora_A.abs().max() <= 0.05
    # Of 20,000 draws from U(-b, b) the largest is above 0.999 b but for one time in e^20; the variance is b^2 / 3.
    assert lora_A.abs().max() > 0.999 * 0.05
    assert abs(lora_A.square().mean() * 3 / 0.05**2 - 1) < 6 * (0.8 / 20_000) ** 0.5


def test_a_seed_decides_the_start() -> None:
    def start(seed: int) -> Tensor:
        return initial_matrices(9, 4, 2, torch.Generator().manual_seed(seed), torch.device("cpu"))[0]

    assert torch.equal(start(1), start(1))
    assert not torch.equal(start(1), start(2))


def test_a_half_precision_base_keeps_its_dtype_and_float32_matrices() -> None:
    layer = LoRALinear(nn.Linear(5, 7, bias=False).bfloat16(), 5, 7)
    layer.add("hat", CONFIG, normal(3, 5).float(), normal(7, 3).float(), trainable=True)
    layer.active = (("hat", 1.0),)
    y = layer(normal(4, 5).bfloat16())
    y.sum().backward()
    assert y.dtype == torch.bfloat16
    assert layer.lora_A["hat"].grad.dtype == torch.float32
