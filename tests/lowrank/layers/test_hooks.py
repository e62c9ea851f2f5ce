"""torch's contract of hooks: whoever registers one is called, however the linears of a block are computed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lowrank
from lowrank.layers.lora import LoRALinear
from lowrank.model.llama import Llama, RMSNorm
from lowrank.model.param_names import LINEARS

KINDS = (
    "register_forward_hook",
    "register_forward_pre_hook",
    "register_full_backward_hook",
    "register_full_backward_pre_hook",
)
GLOBAL_KINDS = (
    "register_module_forward_hook",
    "register_module_forward_pre_hook",
    "register_module_full_backward_hook",
    "register_module_full_backward_pre_hook",
)
TOKENS = torch.tensor([[1, 5, 9, 33]])


@pytest.fixture
def model(hf_folder: Path) -> Llama:
    return lowrank.load(hf_folder / "base", "nf4")


def wear(model: Llama) -> None:
    lowrank.add_adapter(model, "hat")
    lowrank.use_adapter(model, "hat")


def linears(model: Llama) -> dict[nn.Module, str]:
    return {model.layers[1].get_submodule(name): name for name in LINEARS}


def embed_with_gradient(model: Llama) -> None:
    """So that every linear's input wants a gradient: torch warns where none does."""
    model.tok_embeddings.weight.requires_grad_(True)


@pytest.mark.parametrize("kind", KINDS)
def test_a_hook_of_every_linear_is_called_while_a_hat_is_trained(kind: str, model: Llama) -> None:
    wear(model)
    embed_with_gradient(model)
    called = []
    for module, name in linears(model).items():
        assert isinstance(module, LoRALinear)
        getattr(module, kind)(lambda *given, name=name: called.append(name))
    model.train()(TOKENS).sum().backward()
    assert sorted(called) == sorted(LINEARS)


@contextmanager
def everywhere(kind: str, called: list[nn.Module]) -> Iterator[None]:
    handle = getattr(nn.modules.module, kind)(lambda module, *given: called.append(module))
    try:
        yield
    finally:
        handle.remove()


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")  # of the embedding, whose input is of integers
@pytest.mark.parametrize("hat", [True, False], ids=["hat", "no-hat"])
@pytest.mark.parametrize("kind", GLOBAL_KINDS)
def test_a_hook_of_all_modules_is_called_for_every_linear_and_norm(kind: str, hat: bool, model: Llama) -> None:
    if hat:
        wear(model)
    embed_with_gradient(model)
    called: list[nn.Module] = []
    with everywhere(kind, called):
        model.train()(TOKENS).sum().backward()
    wanted = [module for module in model.layers[1].modules() if module in linears(model) or isinstance(module, RMSNorm)]
    if hat:
        wanted += [module.base for module in linears(model)]
    assert len(wanted) == (16 if hat else 9)
    assert [called.count(module) for module in wanted] == [1] * len(wanted)


@pytest.mark.parametrize("grad", [True, False], ids=["grad", "no-grad"])
def test_hooks_change_no_logit_by_more_than_rounding(
    grad: bool, model: Llama, assert_logits_equal: Callable[[Tensor, Tensor], None]
) -> None:
    wear(model)
    for layer in model.modules():
        if isinstance(layer, LoRALinear):
            nn.init.normal_(layer.lora_B["hat"], std=0.1)
    with torch.set_grad_enabled(grad):
        expected = model(TOKENS)
        called: list[nn.Module] = []
        with everywhere("register_module_forward_hook", called):
            assert_logits_equal(model(TOKENS), expected)
        assert called


def test_what_a_hook_of_a_norm_returns_is_what_goes_on(model: Llama) -> None:
    def double(module: nn.Module, given: Any, y: Tensor) -> Tensor:
        return 2 * y

    norm = model.layers[0].ffn_norm
    hooked = norm.register_forward_hook(double)
    ours = model(TOKENS)
    hooked.remove()
    assert not torch.equal(ours, model(TOKENS))
    norm.weight.data.mul_(2)
    assert torch.equal(ours, model(TOKENS))
