"""Starts that follow from the base: PEFT's matrices, residual base and outputs; and PEFT's hats with such starts."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from error_bounds import assert_logits_are_equal
from peers import peft, transformers
from torch import Tensor, nn

from lowrank.adapters import adapter_parameters, add_adapter, layer_configs, lora_layers, use_adapter
from lowrank.adapters.export import export_peft
from lowrank.adapters.files import load_adapter
from lowrank.adapters.starts import (
    SUBTRACTED,
    Factors,
    as_active,
    joined,
    leading_factors,
    orthonormal_factors,
    start_adapter,
    start_name,
)
from lowrank.checkpoints.load import load
from lowrank.checkpoints.open_base import open_base
from lowrank.checkpoints.quantize_folder import quantize_folder
from lowrank.cli import main
from lowrank.layers.dora import frozen_weight
from lowrank.model.llama import Llama
from lowrank.model.param_names import to_hf

RANK, ALPHA = 4, 6.0
SAME = 2e-5  # of the largest number: singular vectors of float32 matrices of 128 and 384, by LAPACK twice

# transformers tells peft 0.21.2 of a new name.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*changes the base weights of the model:UserWarning"),
]

Started = Callable[..., tuple[Any, dict[str, nn.Module]]]


def dense(folder: Path) -> Llama:
    """Our model of a Hugging Face folder, in float32."""
    return load(folder, "fp32")


@pytest.fixture(scope="module")
def folder(hf_folder: Path) -> Path:
    return hf_folder / "base"


@pytest.fixture
def started(folder: Path) -> Started:
    """PEFT's model of a start, and its linears by our paths."""

    def make(start: str, **options: Any) -> tuple[Any, dict[str, nn.Module]]:
        base = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        config = peft.LoraConfig(
            r=RANK, lora_alpha=ALPHA, target_modules="all-linear", init_lora_weights=start, **options
        )
        model = peft.get_peft_model(base, config)
        names = dict(model.named_modules())
        paths = [f"layers.{layer}.{linear}" for layer in range(2) for linear in dense(folder).config.linear_shapes()]
        return model, {path: names[f"base_model.model.{to_hf(path)}"] for path in paths}

    return make


def new(model: Llama, start: str, **options: Any) -> Llama:
    add_adapter(model, "hat", rank=RANK, alpha=ALPHA, **options)
    start_adapter(model, "hat", start)
    use_adapter(model, as_active("hat", start))
    return model


def assert_same_up_to_signs(ours: Tensor, theirs: Tensor, components: int) -> None:
    """The rows of two matrices, each up to its sign."""
    assert ours.shape == theirs.shape and len(ours) == components
    signs = (ours * theirs).sum(dim=1).sign()[:, None]
    torch.testing.assert_close(ours, signs * theirs, rtol=0, atol=SAME * theirs.abs().max().item())


@pytest.mark.slow
@pytest.mark.parametrize("rslora", [False, True], ids=["lora", "rslora"])
@pytest.mark.parametrize("start", SUBTRACTED)
def test_matrices_residual_base_and_output_are_those_of_peft(
    start: str, rslora: bool, folder: Path, started: Started, hf_reference: dict[str, Tensor]
) -> None:
    theirs, linears = started(start, use_rslora=rslora)
    bare = dense(folder)
    before = bare(hf_reference["tokens"])
    model = new(dense(folder), start, rslora=rslora)
    for path, layer in lora_layers(model).items():
        other: Any = linears[path]
        A, B = layer.lora_A["hat"].detach(), layer.lora_B["hat"].detach()
        assert_same_up_to_signs(A, other.lora_A["default"].weight.detach(), RANK)
        assert_same_up_to_signs(B.T, other.lora_B["default"].weight.detach().T, RANK)
        residual = frozen_weight(layer.base) - layer.configs["hat"].scaling * B @ A
        largest = frozen_weight(layer.base).abs().max().item()
        torch.testing.assert_close(residual, other.base_layer.weight.detach(), rtol=0, atol=4 * SAME * largest)
    ours = model(hf_reference["tokens"])
    assert_logits_are_equal(ours, theirs(hf_reference["tokens"]).logits.detach())
    assert_logits_are_equal(ours, before)  # and that is the base's, which has not changed


@pytest.mark.slow
@pytest.mark.parametrize("start", SUBTRACTED)
def test_steps_from_a_start_are_those_of_peft_and_so_is_the_hat_that_is_saved(
    start: str, folder: Path, started: Started, tmp_path: Path, hf_reference: dict[str, Tensor]
) -> None:
    theirs, _ = started(start)
    theirs.peft_config["default"].init_lora_weights = True
    theirs.save_pretrained(tmp_path / "start")
    theirs.peft_config["default"].init_lora_weights = start
    model, tokens = new(dense(folder), start), hf_reference["tokens"]
    ours = adapter_parameters(model, "hat").values()
    descents = [
        torch.optim.SGD(ours, lr=0.05),
        torch.optim.SGD([parameter for parameter in theirs.parameters() if parameter.requires_grad], lr=0.05),
    ]
    for _ in range(3):
        for logits, descent in zip((model(tokens), theirs(tokens).logits), descents, strict=True):
            loss = nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
            loss.backward()
            descent.step()
            descent.zero_grad()
    trained, expected = model(tokens).detach(), theirs(tokens).logits.detach()
    torch.testing.assert_close(trained, expected, rtol=0, atol=1e-3)
    assert (expected - dense(folder)(hf_reference["tokens"]).detach()).abs().max() > 0.1  # the steps are steps
    theirs.save_pretrained(tmp_path / "converted", path_initial_model_for_weight_conversion=str(tmp_path / "start"))
    converted = dense(folder)
    load_adapter(converted, "theirs", tmp_path / "converted")
    for path, layer in lora_layers(model).items():
        config = layer.configs["hat"]
        now, begun = (
            Factors(layer.lora_A[name].detach(), layer.lora_B[name].detach()) for name in ("hat", start_name("hat"))
        )
        options, (A, B) = joined(config, now, begun)
        their_options = layer_configs(converted, "theirs")[path]
        assert (options.rank, options.alpha, options.scaling) == (2 * RANK, 2 * ALPHA, config.scaling)
        assert (their_options.rank, their_options.scaling) == (options.rank, options.scaling)
        change = lora_layers(converted)[path].delta("theirs").detach()
        torch.testing.assert_close(
            options.scaling * B @ A, change, rtol=0, atol=1e-4 * frozen_weight(layer.base).abs().max().item()
        )


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [float(RANK), ALPHA], ids=["scaling-1", "scaling-1.5"])
def test_loftq_is_the_best_product_for_the_error_of_the_stored_weights(
    alpha: float, folder: Path, hf_reference: dict[str, Tensor]
) -> None:
    from peft.utils.loftq_utils import _low_rank_decomposition

    model = load(folder, "nf4-dq")
    add_adapter(model, "hat", rank=RANK, alpha=alpha)
    originals = {one.name.removesuffix(".weight"): one.read() for one in open_base(folder).parameters()}
    start_adapter(model, "hat", "loftq", originals)  # type: ignore[arg-type]  # a dense folder
    for path, layer in lora_layers(model).items():
        error = originals[path].float() - frozen_weight(layer.base)  # type: ignore[union-attr]
        theirs = _low_rank_decomposition(error, RANK)
        A, B, scaling = layer.lora_A["hat"].detach(), layer.lora_B["hat"].detach(), layer.configs["hat"].scaling
        # PEFT leaves the scaling out: its start is too large by it unless alpha is the rank.
        assert_same_up_to_signs(A * scaling**0.5, theirs["R"], RANK)
        assert_same_up_to_signs(B.T * scaling**0.5, theirs["L"].T, RANK)
        left = (error - scaling * B @ A).square().sum()
        torch.testing.assert_close(left, theirs["S"][RANK:].square().sum(), rtol=1e-3, atol=0)
        assert start_name("hat") not in layer.configs
    exact = dense(folder)(hf_reference["tokens"]).detach()
    errors = []
    for worn in (None, "hat"):
        use_adapter(model, worn)
        errors.append((model(hf_reference["tokens"]) - exact).square().mean())
    assert errors[1] < errors[0]


def test_the_base_of_a_start_may_be_stored_in_4_bits(folder: Path, hf_reference: dict[str, Tensor]) -> None:
    stored = load(folder, "nf4-dq")
    before = stored(hf_reference["tokens"])
    for start in SUBTRACTED:
        assert_logits_are_equal(new(load(folder, "nf4-dq"), start)(hf_reference["tokens"]).detach(), before)


@pytest.mark.parametrize("start", ["pissa", "olora"])
def test_a_rank_or_scaling_that_it_has_no_place_for_is_refused(start: str, folder: Path) -> None:
    model = load(folder, "fp32")
    add_adapter(model, "wide", rank=129)
    with pytest.raises(
        ValueError, match=rf"'wide': the start {start} of layers\.0\.attention\.wq: its rank must be at most 128"
    ):
        start_adapter(model, "wide", start)
    add_adapter(model, "dora", rank=2, dora=True)
    with pytest.raises(ValueError, match=rf"the start {start} is of a LoRA"):
        start_adapter(model, "dora", start)
    with pytest.raises(ValueError, match="its scaling must be above 0, got -1"):
        leading_factors(torch.eye(4), 2, -1.0)


def test_the_factors_of_a_matrix_that_is_known() -> None:
    matrix = torch.diag(torch.tensor([8.0, 2.0, 0.0]))
    lora_A, lora_B = leading_factors(matrix, 1, 2.0)
    torch.testing.assert_close(2 * lora_B @ lora_A, torch.diag(torch.tensor([8.0, 0.0, 0.0])))
    assert lora_A.abs().max() == lora_B.abs().max() == 2
    lora_A, lora_B = orthonormal_factors(torch.tensor([[3.0, 1.0], [4.0, 2.0]]), 1)
    torch.testing.assert_close(lora_A.abs(), torch.tensor([[5.0, 2.2]]))
    torch.testing.assert_close(lora_B.abs(), torch.tensor([[0.6], [0.8]]))


# Hats of PEFT's


@pytest.mark.slow
@pytest.mark.parametrize("rslora", [False, True], ids=["lora", "rslora"])
@pytest.mark.parametrize("start", SUBTRACTED)
def test_a_hat_of_peft_that_rewrote_its_base_is_converted(
    start: str, rslora: bool, folder: Path, started: Started, tmp_path: Path, hf_reference: dict[str, Tensor]
) -> None:
    theirs, _ = started(start, use_rslora=rslora)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    expected = theirs(hf_reference["tokens"]).logits.detach()
    theirs.save_pretrained(tmp_path / "hat")
    words = ["export", str(tmp_path / "hat"), str(tmp_path / "out"), "--format", "peft"]
    assert main(words) == 2  # without its base
    assert main([*words, "--base", str(folder)]) == 0
    assert json.loads((tmp_path / "out" / "adapter_config.json").read_text())["r"] == 2 * RANK
    model = dense(folder)
    load_adapter(model, "hat", tmp_path / "out")
    use_adapter(model, "hat")
    assert_logits_are_equal(model(hf_reference["tokens"]).detach(), expected)


@pytest.mark.slow
def test_what_cannot_be_converted_is_refused(folder: Path, started: Started, tmp_path: Path) -> None:
    theirs, _ = started("pissa")
    theirs.save_pretrained(tmp_path / "hat")
    path = tmp_path / "hat" / "adapter_config.json"
    config = json.loads(path.read_text())
    for start, reason in (("pissa_niter_4", "drawn"), ("loftq", "codes of its own"), ("corda", "CorDA")):
        path.write_text(json.dumps({**config, "init_lora_weights": start}))
        with pytest.raises(ValueError, match=f"init_lora_weights.*{reason}"):
            export_peft(tmp_path / "hat", tmp_path / "out", base=folder)
    path.write_text(json.dumps({**config, "init_lora_weights": True}))
    with pytest.raises(ValueError, match="needs no base"):
        export_peft(tmp_path / "hat", tmp_path / "out", base=folder)
    path.write_text(json.dumps(config))
    quantize_folder(folder, tmp_path / "nf4", "nf4-dq")
    with pytest.raises(ValueError, match="stored in 4 or 8 bits"):
        export_peft(tmp_path / "hat", tmp_path / "out", base=tmp_path / "nf4")
