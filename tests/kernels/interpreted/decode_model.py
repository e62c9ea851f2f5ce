"""The fused decode step of a model, interpreted: the logits of its modules, in a hat and without; what it refuses."""

from collections.abc import Iterator

import pytest
import torch
from draws import normal
from torch import Tensor

from lowrank.kernels import ops
from lowrank.kernels.llama_ops.cuda import CUDA_OPS
from lowrank.kernels.triton import decode_step
from lowrank.layers.gpu_decode import GpuBlocks
from lowrank.layers.lora import AdapterConfig, LoRALinear
from lowrank.layers.quant_linear import QuantLinear
from lowrank.model.config import ModelConfig
from lowrank.model.llama import KVCache, Llama
from lowrank.model.param_names import is_block_linear
from lowrank.model.static_decode import DecodeStep

CONFIG = ModelConfig(dim=64, n_layers=2, n_heads=2, n_kv_heads=1, hidden_dim=64, vocab_size=40)


@pytest.fixture(autouse=True)
def on_a_gpu(monkeypatch: pytest.MonkeyPatch, as_on_a_gpu: None) -> None:
    """Tensors say that they are on one; a step is not captured."""
    monkeypatch.setattr(Tensor, "is_cuda", property(lambda tensor: True), raising=False)
    monkeypatch.setattr(DecodeStep, "_capture", lambda step: None)


@pytest.fixture
def model() -> Llama:
    torch.manual_seed(0)
    llama = Llama(CONFIG, ops=CUDA_OPS)
    for name, shape in CONFIG.parameter_shapes().items():
        if is_block_linear(name):
            n, k = shape
            weight = ops.to_fast_layout(ops.quantize(normal(n, k, seed=len(name)) / k**0.5, "nf4-dq"), torch.float32)
            layer = LoRALinear(QuantLinear(weight), k, n)
            layer.add("hat", AdapterConfig(3, 6.0, ()), normal(3, k) / k**0.5, normal(n, 3), False)
            llama.set_submodule(name.removesuffix(".weight"), layer)
    llama.fused_blocks = GpuBlocks()
    return llama.requires_grad_(False).eval()


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Grows by one with each step through the fused kernels."""
    seen: list[int] = []
    fused = decode_step.decode_blocks
    monkeypatch.setattr(decode_step, "decode_blocks", lambda *given: seen.append(1) or fused(*given))
    return seen


def steps(model: Llama, rows: int = 2) -> Tensor:
    """Logits of a token behind a cache of five, whose rows have fillers at the left."""
    cache = KVCache(CONFIG, rows, 8, torch.float32, torch.device("cpu"))
    for place, kept in enumerate((cache.k, cache.v)):
        kept[:, :, :, :5] = normal(*kept[:, :, :, :5].shape, seed=place)
    cache.length = 5
    with torch.inference_mode():
        return DecodeStep(model, cache, torch.arange(rows))(torch.arange(rows)[:, None])


def by_modules(model: Llama) -> Tensor:
    fused, model.fused_blocks = model.fused_blocks, None
    logits = steps(model)
    model.fused_blocks = fused
    return logits


def wear(model: Llama, selection: object) -> None:
    for layer in model.modules():
        if isinstance(layer, LoRALinear):
            layer.active = selection


@pytest.mark.parametrize("selection", [(), (("hat", 1.0),), (("hat", -0.5),)], ids=["bare", "hat", "share"])
def test_its_logits_are_those_of_the_modules(selection: object, model: Llama, calls: list[int]) -> None:
    wear(model, selection)
    logits = steps(model)
    assert len(calls) == 1
    torch.testing.assert_close(logits, by_modules(model), rtol=1e-4, atol=1e-4)


def test_an_adapter_on_some_linears_of_one_block(model: Llama, calls: list[int]) -> None:
    for layer in (model.layers[1].attention.wv, model.layers[1].feed_forward.w2):
        layer.active = (("hat", 1.0),)
    logits = steps(model)
    assert len(calls) == 1
    torch.testing.assert_close(logits, by_modules(model), rtol=1e-4, atol=1e-4)


def two_hats(model: Llama) -> None:
    for layer in model.modules():
        if isinstance(layer, LoRALinear):
            layer.add("other", layer.configs["hat"], layer.lora_A["hat"], layer.lora_B["hat"], False)
    wear(model, (("hat", 0.5), ("other", 0.25)))


def a_hook(model: Llama) -> None:
    model.layers[0].attention.register_forward_hook(lambda *given: None)


def another_operation(model: Llama) -> None:
    model.layers[1].feed_forward.forward = lambda x: x


@pytest.mark.parametrize("change", [two_hats, a_hook, another_operation])
def test_what_it_does_not_take_runs_in_the_modules(change, model: Llama, calls: list[int]) -> None:
    change(model)
    assert torch.equal(steps(model), by_modules(model)) and not calls


def test_more_rows_than_it_takes(model: Llama, calls: list[int]) -> None:
    assert steps(model, rows=decode_step.ROWS + 1).isfinite().all() and not calls
