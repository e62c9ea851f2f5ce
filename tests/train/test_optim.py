"""AdamW, clipping and schedules against torch and by hand; twenty QLoRA steps against PEFT and bitsandbytes."""

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from lowrank.adapters import adapter_parameters, use_adapter
from lowrank.adapters.files import load_adapter, save_adapter
from lowrank.checkpoints.load import load
from lowrank.kernels.llama_ops.linear_cross_entropy import linear_cross_entropy
from lowrank.model.loss import HeadLoss, full_logits_loss, next_token_loss
from lowrank.train.optim import AdamW, clip_gradients, learning_rate, warmup_steps


def parameters(seed: int = 0) -> dict[str, nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"w": (5, 7), "u": (3, 4)}
    return {
        name: nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64))
        for name, shape in shapes.items()
    }


def set_gradients(ours: dict[str, nn.Parameter], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in ours.values():
        parameter.grad = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)


@pytest.mark.parametrize(
    ("betas", "eps", "decay"),
    [((0.9, 0.999), 1e-8, 0.0), ((0.9, 0.999), 1e-8, 0.1), ((0.8, 0.95), 1e-3, 0.01)],
    ids=str,
)
def test_thirty_steps_of_torch(betas: tuple[float, float], eps: float, decay: float) -> None:
    ours, theirs = parameters(), parameters()
    optimizer = AdamW(ours, betas, eps, decay)
    torchs = torch.optim.AdamW(theirs.values(), betas=betas, eps=eps, weight_decay=decay)
    for step in range(30):
        lr = 1e-2 * (step + 1) / 30
        torchs.param_groups[0]["lr"] = lr
        set_gradients(ours, step)
        set_gradients(theirs, step)
        optimizer.step(lr)
        torchs.step()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name])


def test_the_first_step_by_hand() -> None:
    w = nn.Parameter(torch.tensor([[2.0, -1.0]], dtype=torch.float64))
    w.grad = torch.tensor([[0.5, -4.0]], dtype=torch.float64)
    AdamW({"w": w}, eps=0.0, weight_decay=0.1).step(lr=0.1)
    # Whatever its size, the first gradient moves a weight by lr; 1 % of the weight decays.
    assert w.tolist() == [pytest.approx([2.0 * 0.99 - 0.1, -1.0 * 0.99 + 0.1])]


def test_vectors_do_not_decay() -> None:
    norm = nn.Parameter(torch.ones(4))
    norm.grad = torch.zeros(4)
    AdamW({"norm": norm}, weight_decay=0.5).step(lr=0.1)
    assert norm.tolist() == [1.0] * 4


def test_gradients_are_forgotten_after_a_step() -> None:
    ours = parameters()
    set_gradients(ours, 0)
    AdamW(ours).step(1e-3)
    assert [parameter.grad for parameter in ours.values()] == [None, None]


def test_a_parameter_without_a_gradient_is_an_error() -> None:
    ours = parameters()
    set_gradients(ours, 0)
    ours["u"].grad = None
    with pytest.raises((AssertionError, ValueError), match="u"):
        AdamW(ours).step(1e-3)


def test_going_on_from_a_state_is_going_on() -> None:
    whole, halves = parameters(), parameters()
    optimizer, first = AdamW(whole), AdamW(halves)
    for step in range(6):
        if step == 3:
            state = first.state_dict()
            first = AdamW(halves)
            first.load_state_dict(state)
        for ours, used in ((whole, optimizer), (halves, first)):
            set_gradients(ours, step)
            used.step(1e-2)
    assert all(torch.equal(whole[name], halves[name]) for name in whole)


@pytest.mark.parametrize("max_norm", [0.3, 3.0, 1e6])
def test_clipping_of_torch(max_norm: float) -> None:
    ours, theirs = parameters(), parameters()
    for some in (ours, theirs):
        set_gradients(some, 4)
    norm = clip_gradients(ours.values(), max_norm)
    # Ours is reduced in float32, whose roundings are what assert_close allows for float32.
    torch.testing.assert_close(norm, nn.utils.clip_grad_norm_(theirs.values(), max_norm).float())
    for name in ours:
        torch.testing.assert_close(ours[name].grad.float(), theirs[name].grad.float())


@pytest.mark.parametrize(
    ("max_norm", "clipped"), [(6.5, [1.5, 2.0, 6.0]), (13.0, [3.0, 4.0, 12.0]), (20.0, [3, 4, 12])]
)
def test_clipping_by_hand(max_norm: float, clipped: list[float]) -> None:
    ours = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))]
    ours[0].grad, ours[1].grad = torch.tensor([3.0, 4.0]), torch.tensor([12.0])
    assert clip_gradients(ours, max_norm).item() == 13.0
    assert [*ours[0].grad.tolist(), *ours[1].grad.tolist()] == pytest.approx(clipped, rel=1e-6)


def test_clipping_leaves_a_gradient_of_zero_alone() -> None:
    w = nn.Parameter(torch.ones(3))
    w.grad = torch.zeros(3)
    assert clip_gradients([w], 0.3).item() == 0.0
    assert w.grad.tolist() == [0.0] * 3


def test_no_clipping_leaves_every_bit() -> None:
    w = nn.Parameter(torch.ones(3))
    w.grad = torch.tensor([3.0e8, -1e-8, 4.0e8])
    before = w.grad.clone()
    assert clip_gradients([w], math.inf).item() == pytest.approx(5e8)
    assert torch.equal(w.grad, before)


@pytest.mark.parametrize(("warmup", "ratio", "steps"), [(0, 0.0, 0), (7, 0.0, 7), (0, 0.03, 2), (0, 0.5, 20)])
def test_a_warm_up_is_steps_or_a_share_of_them_rounded_up(warmup: int, ratio: float, steps: int) -> None:
    assert warmup_steps(39, warmup, ratio) == steps


@pytest.mark.parametrize(
    ("arguments", "rates"),
    [
        ({"steps": 5, "warmup": 0, "schedule": "constant"}, [2, 2, 2, 2, 2]),
        ({"steps": 5, "warmup": 2, "schedule": "constant"}, [1, 2, 2, 2, 2]),
        ({"steps": 5, "warmup": 4, "schedule": "constant"}, [0.5, 1, 1.5, 2, 2]),
        ({"steps": 5, "warmup": 0, "schedule": "cosine"}, [2, 1 + math.sqrt(0.5), 1, 1 - math.sqrt(0.5), 0]),
        ({"steps": 5, "warmup": 2, "schedule": "cosine"}, [1, 2, 2, 1, 0]),
        ({"steps": 5, "warmup": 2, "schedule": "cosine", "floor": 0.1}, [1, 2, 2, 1.1, 0.2]),
        ({"steps": 1, "warmup": 0, "schedule": "cosine"}, [2]),
        ({"steps": 5, "warmup": 0, "schedule": "linear"}, [2, 1.5, 1, 0.5, 0]),
        ({"steps": 5, "warmup": 2, "schedule": "linear"}, [1, 2, 2, 1, 0]),
        ({"steps": 5, "warmup": 0, "schedule": "linear", "floor": 0.5}, [2, 1.75, 1.5, 1.25, 1]),
        ({"steps": 3, "warmup": 5, "schedule": "linear"}, [0.4, 0.8, 1.2]),
        ({"steps": 2, "warmup": 2, "schedule": "cosine"}, [1, 2]),
    ],
    ids=str,
)
def test_the_rate_of_each_step(arguments: dict, rates: list[float]) -> None:
    ours = [learning_rate(step, peak=2.0, **arguments) for step in range(arguments["steps"])]
    assert ours == pytest.approx(rates, abs=1e-15)


@pytest.mark.slow
@pytest.mark.parametrize("head_loss", [full_logits_loss, linear_cross_entropy])
def test_twenty_qlora_steps_of_peft_and_bitsandbytes(
    head_loss: HeadLoss, golden: Path, hf_folder: Path, tmp_path: Path
) -> None:
    curve = load_file(golden / "qlora-curve.safetensors")
    model = load(hf_folder / "base-bnb-nf4-dq").train()
    load_adapter(model, "hat", hf_folder / "adapter-start", trainable=True)
    use_adapter(model, "hat")
    matrices = adapter_parameters(model, "hat")
    optimizer, losses, norms = AdamW(matrices), [], []
    allowed = {name: torch.zeros_like(matrix) for name, matrix in matrices.items()}
    rate, error = 2e-3, 3e-4
    for tokens, labels in zip(curve["train_tokens"], curve["train_labels"], strict=True):
        total, count = next_token_loss(model, tokens, labels, head_loss=head_loss)
        loss = total / count
        loss.backward()
        norms.append(clip_gradients(matrices.values(), 0.3))
        for name, matrix in matrices.items():
            assert matrix.grad is not None
            size = matrix.grad.abs()
            allowed[name] += rate * (error * size.max() / size).clamp(max=2)
        optimizer.step(rate)
        losses.append(loss.detach())
    torch.testing.assert_close(torch.stack(losses), curve["train_loss"], rtol=1e-4, atol=0)
    torch.testing.assert_close(torch.stack(norms), curve["train_grad_norm"], rtol=error, atol=0)
    save_adapter(model, "hat", tmp_path / "end")
    end: dict[str, Tensor] = load_file(tmp_path / "end" / "adapter_model.safetensors")
    # Adam divides a gradient by its own size: an error of 3e-4 of the largest one, to which the norm above is held,
    # moves a weight by the rate times the quotient of the two, and where the sign is lost by twice the rate.
    with torch.no_grad():
        for name, matrix in matrices.items():
            matrix.copy_(allowed[name])
    save_adapter(model, "hat", tmp_path / "allowed")  # in the order of rows that the file has
    bounds = load_file(tmp_path / "allowed" / "adapter_model.safetensors")
    assert {f"end.{key}" for key in end} == {key for key in curve if key.startswith("end.")}
    for key, value in end.items():
        assert bool(((value - curve[f"end.{key}"]).abs() <= bounds[key]).all()), key
    assert torch.cat([bound.flatten() for bound in bounds.values()]).median() < rate / 2  # a missing step is seen


@pytest.mark.parametrize("states", ["fp32", "8bit", "paged", "paged-8bit"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["fp16", "bf16"])
def test_parameters_in_16_bits_have_wide_moments_and_the_steps_of_float32(dtype: torch.dtype, states: str) -> None:
    """A step is the one that float32 makes of the same numbers, rounded once."""
    generator = torch.Generator().manual_seed(0)
    ours = nn.Parameter((torch.randn(256, 32, generator=generator) * 0.1).to(dtype))
    optimizer = AdamW({"w": ours}, states=states, weight_decay=0.1)
    reference = nn.Parameter(ours.detach().float())
    wide = AdamW({"w": reference}, states=states, weight_decay=0.1)
    for _ in range(3):
        reference.data.copy_(ours.detach())
        gradient = (torch.randn(256, 32, generator=generator) * 1e-6).to(dtype)
        ours.grad, reference.grad = gradient, gradient.float()
        optimizer.step(1e-3)
        wide.step(1e-3)
        assert torch.equal(ours, reference.to(dtype)) and ours.isfinite().all()
    for moments in (optimizer.m, optimizer.v):
        assert moments["w"].read().dtype == torch.float32


def test_a_float64_parameter_keeps_its_digits_beside_moments_in_8_bits() -> None:
    w = nn.Parameter(torch.full((64, 64), 1 / 3, dtype=torch.float64))
    w.grad = torch.zeros_like(w)
    AdamW({"w": w}, states="8bit").step(1e-3)
    assert (w == 1 / 3).all()
