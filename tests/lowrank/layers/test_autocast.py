"""torch.autocast: block linears compute in the dtype of the region, with hats and without, forward and backward."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

import lowrank
from lowrank.layers.lora import LoRALinear
from lowrank.model.generate import generate_tokens
from lowrank.model.llama import Llama

TOKENS = torch.randint(3, 60, (2, 20), generator=torch.Generator().manual_seed(0))


def hatted(folder, weights: str, dropout: float = 0.0) -> Llama:
    model = lowrank.load(folder / "base", weights)
    lowrank.add_adapter(model, "hat", rank=4, dropout=dropout)
    for seed, layer in enumerate(layer for layer in model.modules() if isinstance(layer, LoRALinear)):
        layer.lora_B["hat"].data.normal_(std=0.1, generator=torch.Generator().manual_seed(seed))
    lowrank.use_adapter(model, "hat")
    return model


def autocast(enabled: bool = True) -> torch.autocast:
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled)


@pytest.mark.slow
@pytest.mark.parametrize("backward_inside", [True, False], ids=["backward-inside", "backward-outside"])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("weights", ["nf4-dq", "int8", "fp32", "bf16"])
def test_a_hat_is_trained_in_bfloat16_with_float32_gradients(
    weights: str, dropout: float, backward_inside: bool, hf_folder: Path
) -> None:
    model = hatted(hf_folder, weights, dropout).train()
    with autocast():
        loss = model(TOKENS).square().mean()
        if backward_inside:
            loss.backward()
    if not backward_inside:
        loss.backward()
    layer = model.layers[1].attention.wq
    for matrix in (layer.lora_A["hat"], layer.lora_B["hat"]):
        assert matrix.grad is not None and matrix.grad.dtype == torch.float32 and matrix.grad.isfinite().all()
        assert matrix.grad.any()


@pytest.mark.slow
@pytest.mark.parametrize("rows", [1, 2, 9, 80])
@pytest.mark.parametrize("use", ["hat", None, ["hat", None]], ids=str)
@pytest.mark.parametrize("weights", ["nf4-dq", "int8", "fp32"])
def test_a_linear_gives_what_it_gives_for_x_in_that_dtype(weights: str, use, rows: int, hf_folder: Path) -> None:
    model = hatted(hf_folder, weights)
    lowrank.use_adapter(model, use)
    layer = model.layers[0].feed_forward.w2
    x = torch.randn(2, rows, layer.in_features, generator=torch.Generator().manual_seed(rows))
    with torch.no_grad(), autocast():
        ours, bare = layer(x), layer.base(x)
    with torch.no_grad():
        assert torch.equal(ours, layer(x.bfloat16())) and ours.dtype == torch.bfloat16
        assert torch.equal(bare, layer.base(x.bfloat16())) and bare.dtype == torch.bfloat16


def test_the_gradients_are_those_of_x_in_that_dtype(hf_folder: Path) -> None:
    layer = hatted(hf_folder, "nf4-dq").layers[0].attention.wq

    def gradients(enabled: bool, x: Tensor) -> list[Tensor]:
        x = x.detach().requires_grad_()
        with autocast(enabled):
            y = layer(x)
        return [g.float() for g in torch.autograd.grad(y.square().sum(), (x, *layer.lora_A.values()))]

    x = torch.randn(20, layer.in_features, generator=torch.Generator().manual_seed(1)).bfloat16()
    for ours, expected in zip(gradients(True, x.float()), gradients(False, x), strict=True):
        assert torch.equal(ours, expected)


@pytest.mark.parametrize("use", ["hat", None, ["hat", None]], ids=str)
def test_text_is_generated_inside_a_region(use, hf_folder: Path) -> None:
    model = hatted(hf_folder, "nf4-dq")
    lowrank.use_adapter(model, use)
    with autocast():
        assert len(list(generate_tokens(model, [[1, 5, 9], [1, 4]], max_new_tokens=4))) == 4


def test_float64_is_left_alone(hf_folder: Path) -> None:
    layer = hatted(hf_folder, "fp32").layers[0].attention.wq
    x = torch.randn(3, layer.in_features, dtype=torch.float64)
    with autocast(), torch.no_grad():
        assert layer(x).dtype == torch.float64
