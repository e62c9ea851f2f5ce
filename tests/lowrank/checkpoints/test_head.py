"""The output head in 8 and 4 bits: quantized on the way in or in a folder, and what is computed with it."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from draws import normal
from error_bounds import assert_product_is_exact_enough
from safetensors.torch import load_file, save_file

import lowrank
from lowrank.adapters.merge import merge_folder
from lowrank.checkpoints.quantize_folder import quantize_folder
from lowrank.cli import main
from lowrank.kernels import ops
from lowrank.layers.quant_linear import CastLinear, QuantHead
from lowrank.model.checkpoint import open_checkpoint
from lowrank.model.loss import next_token_loss

TOKENS = torch.arange(40).view(2, 20)
QUANTIZED = pytest.mark.parametrize("head", ["int8", "nf4"])


@pytest.fixture(params=["meta-tiny-gqa-mp2", "hf-tiny-qlora/base"])
def base(request: pytest.FixtureRequest, golden: Path) -> Path:
    return golden / str(request.param)


@pytest.fixture
def tied(golden: Path, tmp_path: Path) -> Path:
    """The Hugging Face base without a head of its own."""
    folder = tmp_path / "tied"
    shutil.copytree(golden / "hf-tiny-qlora/base", folder)
    stored = load_file(folder / "model.safetensors")
    del stored["lm_head.weight"]
    save_file(stored, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    return folder


@QUANTIZED
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_logits_are_those_of_the_stored_head(base: Path, head: str, dtype: torch.dtype) -> None:
    model = lowrank.load(base, dtype=dtype, head=head)
    output = model.get_submodule("output")
    assert isinstance(output, QuantHead) and output.format == head
    stored = output.dequantize(torch.float32).T
    for rows in (1, 4, 40):
        x = normal(rows, model.config.dim).to(dtype)
        assert_product_is_exact_enough(output(x), x, stored.to(dtype), stored.double())


@QUANTIZED
def test_the_codes_are_those_of_the_stored_numbers_whatever_the_model_computes_in(base: Path, head: str) -> None:
    value = next(p for p in open_checkpoint(base).parameters() if p.name == "output.weight").read()
    assert isinstance(value, torch.Tensor)
    output = lowrank.load(base, dtype=torch.bfloat16, head=head).get_submodule("output")
    assert isinstance(output, QuantHead)
    for name, tensor in ops.quantize(value, head).tensors().items():
        assert torch.equal(output.quantized.tensors()[name], tensor)


@pytest.mark.slow
@pytest.mark.parametrize("head", ["bf16", "int8", "nf4"])
@pytest.mark.parametrize("max_file_bytes", [5e9, 1e5])
def test_a_folder_with_such_a_head_is_the_model_quantized_on_the_way_in(
    base: Path, tmp_path: Path, head: str, max_file_bytes: float
) -> None:
    folder = quantize_folder(base, tmp_path / "out", head=head, max_file_bytes=max_file_bytes)
    written, direct = lowrank.load(folder, head="bf16" if head == "bf16" else None), lowrank.load(base, head=head)
    assert torch.equal(written(TOKENS), direct(TOKENS))
    assert written.source == direct.source and written.source["head"] == head
    assert written.source["fingerprint"] == lowrank.load(base).source["fingerprint"]
    assert json.loads((folder / "quantization.json").read_text())["head"] == head


def test_a_tied_head_becomes_one_of_its_own(tied: Path, tmp_path: Path) -> None:
    folder = quantize_folder(tied, tmp_path / "out", head="int8")
    written, direct, bare = lowrank.load(folder), lowrank.load(tied, head="int8"), lowrank.load(tied)
    assert torch.equal(written(TOKENS), direct(TOKENS)) and not torch.equal(direct(TOKENS), bare(TOKENS))
    assert written.source == direct.source and direct.source["fingerprint"] == bare.source["fingerprint"]
    assert torch.equal(written.tok_embeddings.weight, bare.tok_embeddings.weight)


def test_a_bfloat16_head_of_a_float32_model_is_multiplied_as_it_is_stored(base: Path) -> None:
    model = lowrank.load(base, dtype=torch.float32, head="bf16")
    output = model.get_submodule("output")
    assert isinstance(output, CastLinear) and output.weight.dtype == torch.bfloat16
    x = normal(40, model.config.dim)
    stored = output.weight.float().T
    assert_product_is_exact_enough(output(x), x, stored, stored.double())


@pytest.mark.parametrize("head", ["bf16", "int8", "nf4"])
def test_a_loss_is_that_of_the_stored_head(base: Path, head: str) -> None:
    model = lowrank.load(base, head=head)
    logits, (loss, count) = model(TOKENS), next_token_loss(model, TOKENS, TOKENS)
    ours = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1).double(), TOKENS[:, 1:].flatten())
    assert loss.item() / count == pytest.approx(ours.item(), rel=1e-5)


def test_transformers_is_told_that_the_folder_is_not_its_own(golden: Path, tmp_path: Path) -> None:
    folder = quantize_folder(golden / "hf-tiny-qlora/base", tmp_path / "out", head="int8")
    config = json.loads((folder / "config.json").read_text())["quantization_config"]
    assert (config["quant_method"], config["head"]) == ("lowrank", "int8")


@QUANTIZED
def test_a_folder_with_such_a_head_is_not_merged_into(base: Path, tmp_path: Path, head: str) -> None:
    folder = quantize_folder(base, tmp_path / "out", head=head)
    with pytest.raises(ValueError, match="has its output head in 4 or 8 bits"):
        merge_folder(folder, tmp_path / "hat", tmp_path / "merged", "dequantized")


def test_mistakes_are_told_before_any_work(tied: Path, base: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="head must be one of bf16, int8, nf4, got 'fp4'"):
        lowrank.load(base, head="fp4")
    with pytest.raises(ValueError, match="head must be bf16 or int8 where it is tied"):
        quantize_folder(tied, tmp_path / "out", head="nf4")
    folder = quantize_folder(base, tmp_path / "out", head="int8")
    with pytest.raises(ValueError, match="stored as int8: head must be 'int8', got 'nf4'"):
        lowrank.load(folder, head="nf4")


def test_the_command_line_quantizes_a_head(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["quantize", str(base), str(tmp_path / "out"), "--head", "int8"]) == 0
    assert ": nf4-dq, head int8, model.safetensors" in capsys.readouterr().out
