"""Heads whose channels are not dim / heads: quantized, decoded, in GGUF, with a hat, trained, merged."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from error_bounds import assert_logits_are_equal
from random_hat import make_hat
from safetensors.torch import save_file
from torch import Tensor

from lowrank.adapters import adapter_parameters, use_adapter
from lowrank.adapters.files import load_adapter
from lowrank.adapters.merge import merge_folder
from lowrank.checkpoints.config_files import hf_config
from lowrank.checkpoints.fingerprint import fingerprint_of
from lowrank.checkpoints.load import load
from lowrank.checkpoints.open_base import open_base
from lowrank.checkpoints.quantize_folder import quantize_folder
from lowrank.data.encoding.batching import Example
from lowrank.gguf.export import export_base_gguf
from lowrank.gguf.header import read_header
from lowrank.kernels.cpu import library
from lowrank.model.config import ModelConfig
from lowrank.model.generate import generate_tokens
from lowrank.model.llama import Llama
from lowrank.model.param_names import to_hf
from lowrank.train import trainer
from lowrank.train.config import TrainConfig

SHAPES: dict[str, dict[str, Any]] = {
    "above": {"dim": 64, "own_head_dim": 32},
    "below": {"dim": 128, "own_head_dim": 16},
    "no multiple": {"dim": 72, "n_heads": 5, "n_kv_heads": 5, "own_head_dim": 16},
}
TOKENS = torch.randint(3, 64, (2, 12), generator=torch.Generator().manual_seed(1))

pytestmark = pytest.mark.filterwarnings("ignore:.*token numbers only:UserWarning")


@pytest.fixture(params=SHAPES.values(), ids=SHAPES)
def base(request: pytest.FixtureRequest, make_llama: Any, tmp_path: Path) -> Path:
    """A random model as a Hugging Face folder; weights are large enough that attention is not flat."""
    model: Llama = make_llama(rope_layout="half", hidden_dim=96, **request.param)
    folder = tmp_path / "base"
    folder.mkdir()
    save_file({to_hf(name): 2 * value for name, value in model.named_parameters()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(hf_config(model.config, {}, "fp32")))
    return folder


@torch.inference_mode()
def logits(model: Llama) -> Tensor:
    found: Tensor = model(TOKENS)
    return found


def test_a_config_says_it_only_where_it_is_not_dim_over_heads() -> None:
    shape: dict[str, Any] = {"dim": 64, "n_layers": 1, "n_heads": 4, "n_kv_heads": 2, "hidden_dim": 8, "vocab_size": 9}
    plain, said, other = (ModelConfig(**shape, own_head_dim=own) for own in (None, 16, 32))
    assert plain == said and said.own_head_dim is None and said.attention_dim == 64
    assert (other.head_dim, other.attention_dim) == (32, 128)
    assert other.linear_shapes()["attention.wq"] == (128, 64) and other.linear_shapes()["attention.wo"] == (64, 128)
    assert other.linear_shapes()["attention.wk"] == (64, 64)


@pytest.mark.slow
@pytest.mark.parametrize("weights", ["nf4-dq", "int8"])
def test_a_quantized_folder_gives_what_its_base_gives_quantized(base: Path, weights: str, tmp_path: Path) -> None:
    folder = quantize_folder(base, tmp_path / "quantized", weights)
    assert torch.equal(logits(load(folder)), logits(load(base, weights)))
    assert json.loads((folder / "config.json").read_text())["head_dim"] == load(folder).config.head_dim


@pytest.mark.slow
@pytest.mark.skipif(bool(library.unavailable_reason()), reason="there is no C library")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_step_of_c_gives_the_bytes_of_the_modules(base: Path, dtype: torch.dtype) -> None:
    model = load(base, "nf4", dtype)
    prompts = [[1, 5, 9, 13], [1, 7]]
    written = list(generate_tokens(model, prompts, max_new_tokens=12))
    assert model.fused_blocks is not None and model.fused_blocks._kept is not None
    model.fused_blocks = None
    assert written == list(generate_tokens(model, prompts, max_new_tokens=12))
    assert written == list(generate_tokens(model, prompts, max_new_tokens=12, fixed_shapes=True))


def test_a_gguf_file_says_it_and_is_the_folder_again_to_the_bit(base: Path, tmp_path: Path) -> None:
    path = export_base_gguf(base, tmp_path / "base.gguf", dtype="fp32")
    head_dim = load(base, "fp32").config.head_dim
    values = read_header(path).values
    keys = ("attention.key_length", "attention.value_length", "rope.dimension_count")
    assert [values[f"llama.{key}"] for key in keys] == [head_dim] * 3
    ours, theirs = dict(open_base(path).tensors()), dict(open_base(base).tensors())
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)  # type: ignore[arg-type]
    assert fingerprint_of(open_base(path)) == fingerprint_of(open_base(base))


def test_a_merged_hat_gives_what_the_worn_one_gives_and_metas_format_refuses(base: Path, tmp_path: Path) -> None:
    worn = make_hat(base, tmp_path / "hat")
    merged = merge_folder(base, tmp_path / "hat", tmp_path / "merged", "fp32").folder
    assert (logits(worn) - logits(load(base, "fp32"))).abs().max() > 1e-2
    assert_logits_are_equal(logits(load(merged, "fp32")), logits(worn))
    with pytest.raises(ValueError, match=r"params.json has no place for a head_dim of \d+ with dim"):
        merge_folder(base, tmp_path / "hat", tmp_path / "meta", "fp32", format="meta")
    assert not (tmp_path / "meta").exists()


@pytest.mark.slow
def test_a_hat_is_trained_on_it(base: Path, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randint(3, 64, (9,), generator=generator).tolist() for _ in range(4)]
    examples = [Example(str(number), tuple(row), tuple(row)) for number, row in enumerate(rows)]
    options = {
        "adapter": {"rank": 4},
        "optimizer": {"lr": 3e-2},
        "run": {"out": str(tmp_path / "run"), "epochs": 8, "batch": 4},
    }
    steps = trainer.train(load(base, "nf4-dq"), examples, TrainConfig.from_dict(options), progress=False)
    losses = [step["loss"] for step in steps]
    assert all(map(math.isfinite, losses)) and losses[-1] < 0.7 * losses[0]
    model = load(base, "nf4-dq")
    plain = logits(model)
    load_adapter(model, "hat", tmp_path / "run" / "hat")
    use_adapter(model, "hat")
    assert not torch.equal(logits(model), plain)


# transformers refuses a hidden size that is no multiple of the heads.
@pytest.mark.parametrize("base", [SHAPES["above"], SHAPES["below"]], ids=["above", "below"], indirect=True)
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the other programs' own
def test_peft_gives_the_logits_and_gradients_of_a_hat_of_ours(base: Path, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    make_hat(base, tmp_path / "hat")
    ours = load(base, "fp32")
    load_adapter(ours, "hat", tmp_path / "hat", trainable=True)
    use_adapter(ours, "hat")
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    theirs = PeftModel.from_pretrained(plain, tmp_path / "hat", is_trainable=True)
    found, expected = ours(TOKENS), theirs(TOKENS).logits
    assert_logits_are_equal(found.detach(), expected.detach())
    found.square().mean().backward()
    expected.square().mean().backward()
    gradients = {name: parameter.grad for name, parameter in theirs.named_parameters() if parameter.requires_grad}
    for path, parameter in adapter_parameters(ours, "hat").items():
        layer, _, matrix = path.rpartition(".")
        wanted = gradients[f"base_model.model.{to_hf(layer)}.{matrix}.default.weight"]
        assert parameter.grad is not None and wanted is not None
        atol = 1e-4 * wanted.abs().max().item()  # of sums in another order, as in test_other_hats
        torch.testing.assert_close(parameter.grad, wanted, rtol=1e-4, atol=atol)
