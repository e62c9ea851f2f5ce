"""Models inside other programs' wrappers, and copies of models: the hats' functions find the model in them."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from lowrank.adapters import (
    adapter_names,
    adapter_parameters,
    add_adapter,
    drop_adapter,
    lora_layers,
    use_adapter,
    using_adapter,
)
from lowrank.adapters.files import load_adapter, save_adapter
from lowrank.model.llama import Llama

WEIGHTS = "adapter_model.safetensors"


def whole(model: Llama) -> nn.Module:
    return torch.compile(model, backend="eager")


def blocks(model: Llama) -> nn.Module:
    """Only some blocks, and one linear, are compiled."""
    model.layers[0] = torch.compile(model.layers[0], backend="eager")
    model.layers[1].attention.wq = torch.compile(model.layers[1].attention.wq, backend="eager")
    return model


@pytest.mark.parametrize("wrap", [whole, blocks, nn.DataParallel], ids=lambda wrap: wrap.__name__)
def test_the_functions_of_hats_take_a_model_that_is_wrapped(
    wrap: Callable[[Llama], nn.Module],
    make_llama: Callable[..., Llama],
    random_tokens: Callable[..., Tensor],
    tmp_path: Path,
) -> None:
    plain = make_llama()
    wrapped = wrap(make_llama())
    for model in (plain, wrapped):
        add_adapter(model, "a", rank=2)
        for seed, parameter in enumerate(adapter_parameters(model, "a").values()):
            parameter.data.normal_(std=0.1, generator=torch.Generator().manual_seed(seed))
        use_adapter(model, "a")
    assert adapter_parameters(wrapped, "a").keys() == adapter_parameters(plain, "a").keys()
    save_adapter(plain, "a", tmp_path / "plain")
    save_adapter(wrapped, "a", tmp_path / "wrapped")
    expected = load_file(tmp_path / "plain" / WEIGHTS)
    ours = load_file(tmp_path / "wrapped" / WEIGHTS)
    assert ours.keys() == expected.keys() and all(torch.equal(ours[key], expected[key]) for key in ours)
    load_adapter(wrapped, "b", tmp_path / "plain")
    drop_adapter(wrapped, "a")
    assert adapter_names(wrapped) == ["b"]
    drop_adapter(wrapped, "b")
    assert lora_layers(wrapped) == {}


def test_a_copy_inside_a_block_adds_what_the_model_does_until_the_block_ends(
    make_llama: Callable[..., Llama], random_tokens: Callable[..., Tensor]
) -> None:
    model, tokens = make_llama(), random_tokens(2, 5)
    for seed, name in enumerate("ab"):
        add_adapter(model, name, rank=2)
        for parameter in adapter_parameters(model, name).values():
            parameter.data.normal_(std=0.1, generator=torch.Generator().manual_seed(seed))
    bare = model(tokens)
    with using_adapter(model, "a"):
        a = model(tokens)
        with using_adapter(model, "b"):
            b = model(tokens)
            copied = copy.deepcopy(model)
            assert torch.equal(copied(tokens), b) and not torch.equal(a, b)
            with using_adapter(copied, "a"):
                assert torch.equal(copied(tokens), a) and torch.equal(model(tokens), b)
        assert torch.equal(copied(tokens), a)
    assert torch.equal(copied(tokens), bare) and not torch.equal(a, bare)
