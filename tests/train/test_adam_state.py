"""The moments of Adam: what 8 bits keep of them, that paging changes nothing, and LoRA+."""

import pytest
import torch
from draws import normal
from torch import nn

from lowrank.kernels.weights.codebooks import dynamic8, dynamic8_unsigned
from lowrank.train.adam_state import BLOCK, SMALLEST, Blockwise8bit, FullMoment, new_moment, state_bytes
from lowrank.train.optim import AdamW


def test_a_moment_is_zero_at_first() -> None:
    for signed in (True, False):
        assert not Blockwise8bit(torch.empty(70, 70), False, signed).read().any()


@pytest.mark.parametrize("signed", [True, False])
def test_every_number_is_kept_as_the_nearest_level(signed: bool) -> None:
    value = normal(50, 103) if signed else normal(50, 103) ** 2
    moment = Blockwise8bit(value, False, signed)
    moment.write(value)
    levels = dynamic8() if signed else dynamic8_unsigned()
    for start in range(0, value.numel(), BLOCK):
        block, kept = (tensor.flatten()[start : start + BLOCK] for tensor in (value, moment.read()))
        candidates = levels * block.abs().max()
        nearest = (block[:, None] - candidates).abs().min(dim=1).values
        torch.testing.assert_close((block - kept).abs(), nearest)


@pytest.mark.slow
@pytest.mark.parametrize("signed", [True, False])
def test_the_levels_are_bitsandbytes_and_no_code_of_its_is_nearer(signed: bool) -> None:
    functional = pytest.importorskip("bitsandbytes").functional
    theirs = functional.create_dynamic_map(signed=signed)
    levels = dynamic8() if signed else dynamic8_unsigned()
    torch.testing.assert_close(levels, theirs, rtol=1e-6, atol=1e-9)
    value = normal(64, 128) if signed else normal(64, 128) ** 2
    codes, state = functional.quantize_blockwise(value, code=theirs, blocksize=BLOCK)
    moment = Blockwise8bit(value, False, signed)
    moment.write(value)
    assert torch.equal(moment.tensors()["absmax"], state.absmax)
    other = (levels[codes.int()].view(-1, BLOCK) * state.absmax[:, None]).view(value.shape)
    mine = (value - moment.read()).abs()
    assert (mine <= (value - other).abs() * (1 + 1e-5) + 1e-9).all()  # its CPU code is not always the nearest


def test_small_matrices_stay_in_float32() -> None:
    assert isinstance(new_moment(torch.empty(SMALLEST - 1), "8bit", True), FullMoment)
    assert isinstance(new_moment(torch.empty(SMALLEST), "8bit", True), Blockwise8bit)
    assert isinstance(new_moment(torch.empty(SMALLEST), "fp32", True), FullMoment)


@pytest.mark.parametrize("kind", ["fp32", "8bit", "paged", "paged-8bit"])
@pytest.mark.parametrize("numbers", [100, 4096, 10_000])
def test_bytes_are_counted_as_they_are(kind: str, numbers: int) -> None:
    moments = [new_moment(torch.empty(numbers), kind, signed) for signed in (True, False)]
    held = [tensor for moment in moments for tensor in moment.tensors().values()]
    assert state_bytes(numbers, kind) == sum(tensor.numel() * tensor.element_size() for tensor in held)


def losses(kind: str, rates: dict[str, float] | None = None) -> list[float]:
    """A linear regression, 200 steps."""
    w = nn.Parameter(torch.zeros(64, 128))
    truth, x = normal(64, 128, seed=1), normal(512, 128, seed=2)
    optimizer = AdamW({"w": w}, states=kind, rates=rates)
    found = []
    for _ in range(200):
        loss = (x @ (w - truth).T).pow(2).mean()
        loss.backward()
        optimizer.step(2e-2)
        found.append(loss.item())
    return found


@pytest.mark.slow
def test_paging_changes_nothing() -> None:
    assert losses("paged") == losses("fp32")
    assert losses("paged-8bit") == losses("8bit")


@pytest.mark.slow
def test_8_bits_learn_what_32_do() -> None:
    whole, eight = losses("fp32"), losses("8bit")
    assert eight != whole
    assert eight[-1] < 1.1 * whole[-1] < 0.01 * whole[0]


def test_lora_plus_is_a_rate_of_its_own() -> None:
    """The first step of Adam moves every number by its rate."""
    parameters = {name: nn.Parameter(torch.zeros(3, 3)) for name in ("lora_A", "lora_B")}
    for parameter in parameters.values():
        parameter.grad = torch.ones(3, 3)
    AdamW(parameters, eps=0.0, rates={"lora_B": 16.0}).step(1e-3)
    torch.testing.assert_close(parameters["lora_A"], torch.full((3, 3), -1e-3))
    torch.testing.assert_close(parameters["lora_B"], torch.full((3, 3), -16e-3))
