"""DoRA (arXiv 2402.09353): its equation, its gradients, and that it rides on every path of LoRA's product."""

import copy
from functools import partial

import draws
import pytest
import torch
from torch import Tensor, nn

import lowrank
from lowrank.adapters import adapter_parameters, add_adapter, use_adapter, using_adapter
from lowrank.layers.dora import frozen_weight, row_norms
from lowrank.layers.lora import AdapterConfig, LoRALinear
from lowrank.model.llama import Llama

normal = partial(draws.normal, dtype=torch.float64)
CONFIG = AdapterConfig(rank=3, alpha=6.0, targets=(), dora=True)


@pytest.fixture
def layer() -> LoRALinear:
    """K 5, N 7, r 3, scaling 2, in float64, with a magnitude of its own."""
    layer = LoRALinear(nn.Linear(5, 7, bias=False).double().requires_grad_(False), 5, 7)
    layer.add("hat", CONFIG, normal(3, 5, seed=1), normal(7, 3, seed=2), True, normal(7, seed=3).abs() + 0.5)
    layer.active = (("hat", 1.0),)
    return layer


def adapted(layer: LoRALinear, detach: bool = False) -> Tensor:
    """W' = m V / |V|, by the equation."""
    V = layer.base.weight + 2.0 * (layer.A["hat"] @ layer.B["hat"]).T
    norms = V.norm(dim=1)
    return (layer.lora_magnitude_vector["hat"] / (norms.detach() if detach else norms))[:, None] * V


def test_the_equation(layer: LoRALinear) -> None:
    x = normal(4, 5)
    torch.testing.assert_close(layer(x), x @ adapted(layer).T)
    torch.testing.assert_close(layer.delta("hat"), adapted(layer) - layer.base.weight)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), x @ adapted(layer).T)


def test_the_equation_by_hand() -> None:
    base = nn.Linear(2, 1, bias=False)
    base.weight = nn.Parameter(torch.tensor([[3.0, 0.0]]), requires_grad=False)
    layer = LoRALinear(base, 2, 1)
    config = AdapterConfig(rank=1, alpha=2.0, targets=(), dora=True)
    layer.add("hat", config, torch.tensor([[0.0, 1.0]]), torch.tensor([[2.0]]), False, torch.tensor([10.0]))
    layer.active = (("hat", 1.0),)
    # V = [3, 0] + 2 * 2 * [0, 1] = [3, 4], |V| = 5, W' = 10 / 5 * [3, 4] = [6, 8]
    assert layer(torch.tensor([[1.0, 2.0]])).tolist() == [[22.0]]


def test_the_magnitude_starts_as_that_of_w_and_changes_nothing() -> None:
    base = nn.Linear(40, 30, bias=False).requires_grad_(False)
    layer = LoRALinear(base, 40, 30)
    layer.add("hat", CONFIG, torch.randn(3, 40), torch.zeros(30, 3), trainable=True)
    layer.active = (("hat", 1.0),)
    assert torch.equal(layer.lora_magnitude_vector["hat"], row_norms(base.weight))
    assert torch.equal(layer.dora_gain("hat"), torch.ones(30))
    x = torch.randn(20, 40)
    torch.testing.assert_close(layer(x), base(x))


def test_gradients_with_the_norm_as_a_constant(layer: LoRALinear) -> None:
    x, dY = normal(2, 4, 5).requires_grad_(), normal(2, 4, 7, seed=4)
    inputs = (x, layer.lora_A["hat"], layer.lora_B["hat"], layer.lora_magnitude_vector["hat"])
    ours = torch.autograd.grad(layer(x), inputs, dY)
    expected = torch.autograd.grad(x @ adapted(layer, detach=True).T, inputs, dY)
    for one, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_the_gradient_of_x_and_m_by_finite_differences(layer: LoRALinear) -> None:
    def output(x: Tensor, magnitude: Tensor) -> Tensor:
        return torch.func.functional_call(layer, {"lora_magnitude_vector.hat": magnitude}, (x,))

    inputs = (normal(2, 5).requires_grad_(), (normal(7, seed=3).abs() + 0.5).requires_grad_())
    assert torch.autograd.gradcheck(output, inputs)


def test_with_dropout_the_base_sees_x_and_the_rest_what_is_left_of_it(layer: LoRALinear) -> None:
    from lowrank.kernels.lora.dropout import apply_dropout
    from lowrank.layers.dropout_seed import BatchCounter, DropoutSeed

    layer.configs["hat"] = AdapterConfig(rank=3, alpha=6.0, targets=(), dropout=0.5, dora=True)
    layer.dropout_stream = DropoutSeed(BatchCounter(1), 0)
    x = normal(6, 5)
    dropped = apply_dropout(x, 0.5, layer.dropout_stream.seed)
    expected = x @ layer.base.weight.T + dropped @ layer.delta("hat").T
    torch.testing.assert_close(layer.train()(x), expected)
    assert not torch.equal(dropped, x)


@torch.no_grad()
def test_a_matrix_or_a_weight_that_changes_is_seen(layer: LoRALinear) -> None:
    x = normal(4, 5)
    layer(x)
    for change in (
        lambda: layer.lora_A["hat"].data.mul_(2),
        lambda: layer.lora_B["hat"].data.zero_(),
        lambda: layer.base.weight.mul_(3),
        lambda: layer.lora_magnitude_vector["hat"].data.add_(1),
        lambda: setattr(layer, "base", nn.Linear(5, 7, bias=False).double()),
    ):
        before = layer(x)
        change()
        torch.testing.assert_close(layer(x), x @ adapted(layer).T)
        assert not torch.equal(layer(x), before)


def test_norms_that_were_kept_without_gradients_serve_training(layer: LoRALinear) -> None:
    x = normal(4, 5)
    with torch.inference_mode():
        layer(x)
    layer(x).sum().backward()
    assert layer.lora_magnitude_vector["hat"].grad is not None


def dora_model(folder, weights: str) -> Llama:
    """A small base with the DoRA "hat" on every linear, and the LoRA "other"."""
    model = lowrank.load(folder / "base", weights)
    add_adapter(model, "hat", rank=4, dora=True)
    add_adapter(model, "other", rank=4)
    generator = torch.Generator().manual_seed(0)
    for name in ("hat", "other"):
        for path, parameter in adapter_parameters(model, name).items():
            if path.endswith("magnitude_vector"):
                parameter.data.mul_(1 + 0.1 * torch.rand(parameter.shape, generator=generator))
            else:
                parameter.data.normal_(std=0.1, generator=generator)
    use_adapter(model, "hat")
    return model


TOKENS = torch.randint(3, 60, (2, 12), generator=torch.Generator().manual_seed(3))


@pytest.mark.slow
@pytest.mark.parametrize("grad", [True, False], ids=["grad", "no-grad"])
@pytest.mark.parametrize("rows", [1, 9, 80])
@pytest.mark.parametrize("weights", ["nf4-dq", "int8", "fp32", "bf16"])
def test_every_path_multiplies_its_outputs(weights: str, rows: int, grad: bool, hf_folder) -> None:
    layer = dora_model(hf_folder, weights).layers[0].feed_forward.w1
    x = torch.randn(rows, layer.in_features, generator=torch.Generator().manual_seed(1))
    with torch.set_grad_enabled(grad):
        y = layer(x)
        w = frozen_weight(layer.base).double()
        V = w + layer.configs["hat"].scaling * (layer.A["hat"] @ layer.B["hat"]).T.double()
        expected = x.double() @ (layer.lora_magnitude_vector["hat"].double() / V.norm(dim=1))[:, None].mul(V).T
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())


@pytest.mark.parametrize("use", [{"hat": 0.5}, {"hat": 1.0, "other": 0.5}, ["hat", None], ["hat", "other"]], ids=str)
def test_a_dora_is_worn_alone(use, hf_folder) -> None:
    model = dora_model(hf_folder, "fp32")
    with pytest.raises(ValueError, match="'hat' is a DoRA: it is worn alone, at weight 1"):
        use_adapter(model, use)
    with pytest.raises(ValueError, match="'hat' is a DoRA"), using_adapter(model, use):
        pass


@pytest.mark.parametrize("use", [{"hat": 1.0, "other": 0.0}, ["hat", "hat"], {"hat": 1}], ids=str)
def test_alone_however_it_is_said(use, hf_folder) -> None:
    model = dora_model(hf_folder, "nf4-dq")
    with torch.no_grad():
        expected = model(TOKENS)
        use_adapter(model, use)
        assert torch.equal(model(TOKENS), expected)
        use_adapter(model, ["other", None])
        model(TOKENS)


@pytest.mark.slow
def test_a_copy_and_a_compiled_model_give_the_same(hf_folder, assert_logits_equal) -> None:
    model = dora_model(hf_folder, "fp32")
    with torch.no_grad():
        expected = model(TOKENS)
        assert torch.equal(copy.deepcopy(model)(TOKENS), expected)
        assert_logits_equal(torch.compile(model, backend="eager")(TOKENS), expected)


def test_tokens_one_by_one_are_those_of_the_whole_text(hf_folder, assert_logits_equal) -> None:
    from lowrank.model.llama import KVCache

    model = dora_model(hf_folder, "nf4-dq")
    with torch.inference_mode():
        cache = KVCache(model.config, 2, 12, torch.float32, torch.device("cpu"))
        seen = [model(part, cache) for part in TOKENS.split(1, dim=1)]
        assert_logits_equal(torch.cat(seen, dim=1), model(TOKENS))


def test_a_layer_with_a_bias_is_refused() -> None:
    layer = LoRALinear(nn.Linear(5, 7), 5, 7)
    with pytest.raises(ValueError, match="without a bias"):
        layer.add("hat", CONFIG, torch.randn(3, 5), torch.zeros(7, 3), trainable=True)
