"""A step by exact numerics: loss and gradients are those of the model, as near to float64 as the ordinary step's."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from draws import normal
from error_bounds import assert_as_exact_as_plain
from torch import Tensor, nn

import lowrank
from lowrank.adapters import adapter_parameters
from lowrank.data.encoding.batching import Example
from lowrank.data.encoding.packing import Row, pack, rows_of_one
from lowrank.kernels.cpu import library
from lowrank.model.config import RopeScaling
from lowrank.model.llama import Llama
from lowrank.model.llama import rope_angles as rope_angles_of_torch
from lowrank.model.loss import IGNORED
from lowrank.train.exact.llama import ExactNextToken, rope_angles
from lowrank.train.exact.optim import ExactAdamW, ExactProcess, power
from lowrank.train.optim import AdamW, clip_gradients, cosine
from lowrank.train.step import NextToken

pytestmark = pytest.mark.skipif(bool(library.unavailable_reason()), reason=library.unavailable_reason())

BASES = ("meta-tiny-mha", "meta-tiny-gqa-mp2")


def examples() -> list[Example]:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(6, 90, (8,), generator=generator).tolist()
    rows = [torch.randint(3, 512, (length,), generator=generator).tolist() for length in lengths]
    return [Example(str(i), tuple(row), (*[IGNORED] * (1 + i % 4), *row[1 + i % 4 :])) for i, row in enumerate(rows)]


def in_a_hat(folder: Path, weights: str, dtype: torch.dtype = torch.float32, targets: Any = "all") -> Llama:
    model = lowrank.load(folder, weights, dtype)
    lowrank.add_adapter(model, "hat", rank=4, targets=targets)
    for name, matrix in adapter_parameters(model, "hat").items():
        if name.endswith("lora_B"):
            matrix.data.copy_(normal(*matrix.shape, seed=len(name)) / 8)
        if dtype == torch.float64:
            matrix.data = matrix.data.double()
    lowrank.use_adapter(model, "hat")
    return model.train()


def loss_and_gradients(model: Llama, objective: NextToken, rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
    nats = objective(model, rows).nats
    nats.backward()
    found = [parameter.grad for parameter in adapter_parameters(model, "hat").values()]
    return nats.detach(), torch.cat([gradient.flatten() for gradient in found if gradient is not None])


@pytest.mark.long
@pytest.mark.parametrize("weights", ["nf4-dq", "fp4", "int8", "fp32", "bf16"])
@pytest.mark.parametrize("base", BASES)
def test_loss_and_gradients_are_as_near_to_float64_as_those_of_the_ordinary_step(
    base: str, weights: str, golden: Path
) -> None:
    for rows in (rows_of_one(examples()), pack(examples(), 128)):
        folder = golden / base
        ours = loss_and_gradients(in_a_hat(folder, weights), ExactNextToken(), rows)
        plain = loss_and_gradients(in_a_hat(folder, weights), NextToken(), rows)
        truth = loss_and_gradients(in_a_hat(folder, weights, torch.float64), NextToken(), rows)
        assert_as_exact_as_plain(ours[1], plain[1], truth[1])
        assert ours[0].item() == pytest.approx(truth[0].item(), rel=2**-22)


def test_linears_without_an_adapter_and_blocks_computed_again(golden: Path) -> None:
    rows, found = rows_of_one(examples()), []
    for again in (False, True):
        model = in_a_hat(golden / BASES[0], "nf4", targets=["wq", "w2"])
        model.gradient_checkpointing = again
        found.append(loss_and_gradients(model, ExactNextToken(), rows))
    assert torch.equal(found[0][0], found[1][0]) and torch.equal(found[0][1], found[1][1])
    plain = loss_and_gradients(in_a_hat(golden / BASES[0], "nf4", targets=["wq", "w2"]), NextToken(), rows)
    truth = in_a_hat(golden / BASES[0], "nf4", torch.float64, targets=["wq", "w2"])
    assert_as_exact_as_plain(found[0][1], plain[1], loss_and_gradients(truth, NextToken(), rows)[1])


def test_a_row_has_the_loss_that_it_has_alone(golden: Path) -> None:
    model, rows = in_a_hat(golden / BASES[1], "nf4"), rows_of_one(examples())
    alone = [ExactNextToken().batch_loss(model, [row])[0].item() for row in rows]
    together = ExactNextToken().batch_loss(model, rows)[0].item()
    assert together == pytest.approx(sum(alone), rel=2**-22)


@pytest.mark.parametrize("scaling", [None, RopeScaling("linear", 4.0), RopeScaling("llama3", 8.0, 1.0, 4.0, 64)])
def test_rotary_angles(scaling: RopeScaling | None, make_llama: Any) -> None:
    config = make_llama(rope_scaling=scaling).config
    positions = torch.arange(500).expand(2, -1)
    for ours, theirs in zip(rope_angles(positions, config), rope_angles_of_torch(positions, config), strict=True):
        # Their frequencies may differ in the last place, and the angles are up to 500.
        torch.testing.assert_close(ours, theirs, rtol=0, atol=500 * 2**-23)


def test_the_cosine_of_the_rate_is_that_of_libm_but_for_its_last_bit() -> None:
    for i in range(1001):
        x = math.pi * i / 1000
        assert abs(cosine(x) - math.cos(x)) <= math.ulp(math.cos(x))
    assert (cosine(0.0), cosine(math.pi)) == (1.0, -1.0)


def test_powers() -> None:
    assert [power(0.5, n) for n in (0, 1, 2, 3, 30)] == [0.5**n for n in (0, 1, 2, 3, 30)]
    assert power(0.999, 5000) == pytest.approx(0.999**5000, rel=1e-12)


def parameters(dtype: torch.dtype) -> dict[str, nn.Parameter]:
    shapes = {"one.lora_A": (8, 640), "one.lora_B": (300, 8)}
    return {name: nn.Parameter(normal(*shape).to(dtype)) for name, shape in shapes.items()}


@pytest.mark.parametrize("states", ["fp32", "8bit"])
def test_three_updates_are_those_of_adamw(states: Any) -> None:
    def trained(kind: type[AdamW], dtype: torch.dtype) -> Tensor:
        taken = parameters(dtype)
        optimizer = kind(taken, weight_decay=0.1, states=states, rates={"one.lora_B": 2.0})
        for step in range(3):
            for parameter in taken.values():
                parameter.grad = normal(*parameter.shape, seed=step + 1).to(dtype)
            optimizer.step(1e-2)
        return torch.cat([parameter.detach().flatten() for parameter in taken.values()])

    ours, plain = trained(ExactAdamW, torch.float32), trained(AdamW, torch.float32)
    if states == "fp32":
        assert_as_exact_as_plain(ours, plain, trained(AdamW, torch.float64))
    else:  # a moment that is on the edge of two codes may take the other one
        assert ours.sub(plain).abs().median() <= 2**-22


@pytest.mark.parametrize("most", [0.3, 1e4, math.inf])
def test_clipping(most: float) -> None:
    ours, plain = parameters(torch.float32), parameters(torch.float32)
    for taken in (ours, plain):
        for parameter in taken.values():
            parameter.grad = normal(*parameter.shape, seed=1)
    norm = ExactProcess().clip(ours.values(), most)
    assert norm == pytest.approx(clip_gradients(plain.values(), most).item(), rel=2**-20)
    for name, parameter in ours.items():
        torch.testing.assert_close(parameter.grad, plain[name].grad, rtol=2**-20, atol=0)


def test_a_gradient_that_is_not_finite_is_left_as_it_is() -> None:
    taken = parameters(torch.float32)
    for parameter in taken.values():
        parameter.grad = torch.full_like(parameter, math.inf)
    assert ExactProcess().clip(taken.values(), 1.0) == math.inf
    assert all(bool(parameter.grad.isinf().all()) for parameter in taken.values() if parameter.grad is not None)
