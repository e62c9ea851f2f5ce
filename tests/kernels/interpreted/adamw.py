"""AdamW, norm and clipping of all parameters in a launch each, interpreted: as the equations one after another."""

import math

import pytest
import torch
from draws import normal
from error_bounds import assert_as_exact_as_plain
from torch import Tensor, nn

from lowrank.kernels.triton import adamw
from lowrank.train.optim import AdamW, clip_gradients

SHAPES = ((8, 33), (3, adamw.CHUNK), (5,), (1, 1), (2, adamw.CHUNK + 1))


def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tensor, "is_cuda", property(lambda tensor: True), raising=False)


def parameters(dtype: torch.dtype = torch.float32) -> dict[str, nn.Parameter]:
    return {f"p{i}": nn.Parameter(normal(*shape, seed=i).to(dtype)) for i, shape in enumerate(SHAPES)}


def give_gradients(to: dict[str, nn.Parameter], step: int) -> None:
    for i, parameter in enumerate(to.values()):
        parameter.grad = (10.0**-i * normal(*parameter.shape, seed=50 * step + i)).to(parameter.dtype)


def trained(dtype: torch.dtype) -> tuple[list[Tensor], list[Tensor]]:
    """The parameters behind three clipped steps, and the norms."""
    held = parameters(dtype)
    optimizer = AdamW(held, weight_decay=0.1, rates={"p1": 4.0})
    norms = []
    for step in range(3):
        give_gradients(held, step)
        norms.append(clip_gradients(held.values(), 1.0))
        optimizer.step(1e-2)
        assert all(parameter.grad is None for parameter in held.values())
    return [parameter.detach() for parameter in held.values()], norms


def test_three_steps_are_those_of_the_equations(monkeypatch: pytest.MonkeyPatch) -> None:
    exact, exact_norms = trained(torch.float64)
    plain, _ = trained(torch.float32)
    as_on_a_gpu(monkeypatch)
    launches: list[str] = []
    for name in ("adamw_kernel", "squares_kernel", "scale_kernel"):
        kernel = getattr(adamw, name)
        monkeypatch.setattr(adamw, name, _Noting(kernel, name, launches))
    ours, norms = trained(torch.float32)
    assert launches == ["squares_kernel", "scale_kernel", "adamw_kernel"] * 3
    together = [torch.cat([tensor.flatten() for tensor in tensors]) for tensors in (ours, plain, exact)]
    assert_as_exact_as_plain(*together)
    torch.testing.assert_close(torch.stack(norms), torch.stack(exact_norms), rtol=1e-6, atol=0)


class _Noting:
    """A kernel that notes its launches."""

    def __init__(self, kernel: object, name: str, launches: list[str]) -> None:
        self.kernel, self.name, self.launches = kernel, name, launches

    def __getitem__(self, grid: tuple[int, ...]) -> object:
        self.launches.append(self.name)
        return self.kernel[grid]


def test_gradients_that_are_not_finite_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    as_on_a_gpu(monkeypatch)
    held = parameters()
    give_gradients(held, 0)
    held["p4"].grad[-1, -1] = math.inf
    before = [parameter.grad.clone() for parameter in held.values()]
    assert clip_gradients(held.values(), 1.0).isinf()
    assert all(torch.equal(p.grad, kept) for p, kept in zip(held.values(), before, strict=True))


def test_no_clipping_leaves_every_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    as_on_a_gpu(monkeypatch)
    held = parameters()
    give_gradients(held, 0)
    before = [parameter.grad.clone() for parameter in held.values()]
    clip_gradients(held.values(), math.inf)
    assert all(torch.equal(p.grad, kept) for p, kept in zip(held.values(), before, strict=True))


def test_moments_in_8_bits_have_the_codes_of_the_equations(monkeypatch: pytest.MonkeyPatch) -> None:
    def codes(held: dict[str, nn.Parameter]) -> tuple[list[Tensor], dict[str, Tensor]]:
        optimizer = AdamW(held, weight_decay=0.1, states="8bit")
        for step in range(2):
            give_gradients(held, step)
            optimizer.step(1e-2)
        return [p.detach() for p in held.values()], {k: t for k, (_, t) in optimizer.saved().items()}

    plain, theirs = codes(parameters())
    as_on_a_gpu(monkeypatch)
    launches: list[str] = []
    for name in ("adamw_kernel", "adamw_8bit_kernel"):
        monkeypatch.setattr(adamw, name, _Noting(getattr(adamw, name), name, launches))
    ours, mine = codes(parameters())
    assert launches == ["adamw_kernel", "adamw_8bit_kernel"] * 2
    for one, other in zip(ours, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    for key, tensor in theirs.items():
        if tensor.dtype == torch.uint8:  # the last bit of a moment may fall on the other side of a middle
            assert ((tensor.int() - mine[key].int()).abs() <= 1).all(), key
            assert (tensor != mine[key]).float().mean() < 1e-3, key
        else:  # sums of two numbers that may nearly cancel: the bound is of what is added
            scale = tensor.abs().max().item()
            torch.testing.assert_close(tensor, mine[key], rtol=0, atol=4 * torch.finfo(torch.float32).eps * scale)


def test_parameters_in_16_bits_take_their_update_one_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, _ = trained(torch.bfloat16)
    monkeypatch.setattr(adamw, "step", lambda *given: pytest.fail("not for these"))
    as_on_a_gpu(monkeypatch)
    ours, _ = trained(torch.bfloat16)
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(ours, plain, strict=True))
