"""Folders into models: every precision, and the logits that other programs get from the same weights."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from child_process import run_python
from safetensors.torch import load_file, save_file
from torch import Tensor

from lowrank.checkpoints import load as loader
from lowrank.checkpoints.load import WEIGHTS, load, load_tokenizer
from lowrank.checkpoints.stored_weight import to_stored
from lowrank.kernels.cpu import library
from lowrank.kernels.llama_ops.cpu import CPU_OPS
from lowrank.kernels.ops import dequantize, quantize
from lowrank.kernels.weights.quantized_weight import DENSE_DTYPES, QUANTIZED_NAMES
from lowrank.layers.quant_linear import CastLinear, QuantLinear
from lowrank.model.llama import TORCH_OPS
from lowrank.model.param_names import is_block_linear, to_hf

# Nested maxima quantized by us: bitsandbytes' CPU takes a neighbouring 8-bit code now and then (golden/README.md).
OUR_NESTED = {"rtol": 0.0, "atol": 1e-2}
PATH = "layers.1.feed_forward.w2"


@pytest.fixture
def quantized_folder(hf_folder: Path, tmp_path: Path) -> Callable[[str], Path]:
    """The Hugging Face base with the linears of its blocks stored in a format."""

    def make(format: str) -> Path:
        folder = tmp_path / "quantized"
        shutil.copytree(hf_folder / "base", folder)
        stored = {}
        for key, tensor in load_file(folder / "model.safetensors").items():
            parts = to_stored(quantize(tensor, format)) if "_proj" in key else {".weight": tensor}
            stored |= {key.removesuffix(".weight") + suffix: part.clone() for suffix, part in parts.items()}
        save_file(stored, folder / "model.safetensors")
        return folder

    return make


@pytest.mark.parametrize(("weights", "key"), [("fp32", "logits_fp32"), ("bf16", "logits_fp32"), ("nf4", "logits_nf4")])
def test_logits_of_transformers_and_bitsandbytes(
    weights: str,
    key: str,
    hf_folder: Path,
    hf_reference: dict[str, Tensor],
    assert_logits_equal: Callable[[Tensor, Tensor], None],
) -> None:
    assert_logits_equal(load(hf_folder / "base", weights)(hf_reference["tokens"]), hf_reference[key])


@pytest.mark.parametrize("weights", [None, "nf4-dq", "dequant:nf4-dq"])
def test_logits_of_the_codes_that_bitsandbytes_stored(
    weights: str | None,
    hf_folder: Path,
    hf_reference: dict[str, Tensor],
    assert_logits_equal: Callable[[Tensor, Tensor], None],
) -> None:
    model = load(hf_folder / "base-bnb-nf4-dq", weights)
    assert_logits_equal(model(hf_reference["tokens"]), hf_reference["logits_nf4_dq"])


def test_logits_of_our_own_double_quantization(hf_folder: Path, hf_reference: dict[str, Tensor]) -> None:
    model = load(hf_folder / "base")
    torch.testing.assert_close(model(hf_reference["tokens"]), hf_reference["logits_nf4_dq"], **OUR_NESTED)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_weights_decide_how_the_linears_of_the_blocks_are_held(weights: str, hf_folder: Path) -> None:
    model, w = load(hf_folder / "base", weights), load_file(hf_folder / "base" / "model.safetensors")
    layer, original = model.get_submodule(PATH), w[f"{to_hf(PATH)}.weight"]
    assert layer.format == weights
    assert isinstance(layer, CastLinear if weights in DENSE_DTYPES else QuantLinear)
    if weights in DENSE_DTYPES:
        assert torch.equal(layer.weight, original.to(DENSE_DTYPES[weights]))
    else:
        assert torch.equal(layer.dequantize(), dequantize(quantize(original, weights)))
    others = {name: p for name, p in model.named_parameters() if not is_block_linear(name)}
    assert {p.dtype for p in others.values()} == {torch.float32}
    assert torch.equal(others["output.weight"], w["lm_head.weight"].float())


@pytest.mark.parametrize("format", QUANTIZED_NAMES)
def test_dequant_is_the_dense_base_of_the_quantized_weights(
    format: str, hf_folder: Path, hf_reference: dict[str, Tensor]
) -> None:
    dense, quantized = load(hf_folder / "base", f"dequant:{format}"), load(hf_folder / "base", format)
    assert torch.equal(dense.get_submodule(PATH).weight, quantized.get_submodule(PATH).dequantize())
    assert isinstance(dense.get_submodule(PATH), CastLinear)
    torch.testing.assert_close(dense(hf_reference["tokens"]), quantized(hf_reference["tokens"]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_dtype_is_what_the_model_computes_in(dtype: torch.dtype, hf_folder: Path) -> None:
    model = load(hf_folder / "base", "nf4", dtype=dtype)
    assert model.hidden(torch.tensor([[5, 6]])).dtype == dtype
    assert model.get_submodule(PATH).quantized.absmax.dtype == torch.float32


def test_left_out_weights_mean_nf4_dq_or_as_stored(hf_folder: Path, quantized_folder) -> None:
    formats = [load(folder).source["weights"] for folder in (hf_folder / "base", quantized_folder("fp4"))]
    assert formats == ["nf4-dq", "fp4"]


@pytest.mark.parametrize("format", QUANTIZED_NAMES)
def test_a_stored_format_is_read_as_if_quantized_on_the_way_in(format: str, hf_folder: Path, quantized_folder) -> None:
    stored, ours = load(quantized_folder(format)), load(hf_folder / "base", format)
    for path in (PATH, "layers.0.attention.wq"):
        for part, tensor in ours.get_submodule(path).quantized.tensors().items():
            assert torch.equal(stored.get_submodule(path).quantized.tensors()[part], tensor), (path, part)


@pytest.mark.parametrize("weights", [name for name in WEIGHTS if name != "nf4-dq"] + ["dequant:nf4", "dequant:int8"])
def test_a_quantized_folder_is_not_taken_for_another_format(weights: str, hf_folder: Path) -> None:
    with pytest.raises(ValueError, match=r"stored as nf4-dq: weights must be 'nf4-dq' or 'dequant:nf4-dq', got"):
        load(hf_folder / "base-bnb-nf4-dq", weights)


@pytest.mark.parametrize("weights", ["", "nf3", "NF4", "dequant:", "dequant:fp32", "dequant:dequant:nf4", "4bit"])
def test_weights_that_are_none_are_refused(weights: str, hf_folder: Path) -> None:
    with pytest.raises(ValueError, match=f"weights must be one of fp32, .*got '{weights}'"):
        load(hf_folder / "base", weights)


def test_the_fingerprint_is_that_of_the_base_in_every_precision(hf_folder: Path, quantized_folder) -> None:
    loaded = [load(hf_folder / "base", weights) for weights in ("fp32", "bf16", "nf4", "dequant:int8")]
    loaded += [load(hf_folder / "base", "nf4", dtype=torch.bfloat16)]
    loaded += [load(hf_folder / "base-bnb-nf4-dq"), load(quantized_folder("int8"))]
    assert len({model.source["fingerprint"] for model in loaded}) == 1


def test_another_base_has_another_fingerprint(golden: Path) -> None:
    folders = ("meta-tiny-mha", "meta-tiny-gqa-mp2", "hf-tiny-qlora/base")
    assert len({load(golden / folder, "fp32").source["fingerprint"] for folder in folders}) == 3


def test_a_cpu_without_the_c_library_is_told_of_once(hf_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loader._warn_plain_torch.cache_clear()
    monkeypatch.setattr(library, "unavailable_reason", lambda: "nobody compiled it")
    load(hf_folder / "base", weights="bf16")
    with pytest.warns(UserWarning, match="4-bit and 8-bit weights in plain torch: nobody compiled it") as told:
        load(hf_folder / "base", weights="nf4")
        load(hf_folder / "base", weights="nf4")
    assert len(told) == 1
    loader._warn_plain_torch.cache_clear()


def test_a_loaded_base_is_frozen_and_in_evaluation(hf_folder: Path) -> None:
    model = load(hf_folder / "base", "fp32")
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not any(module.training for module in model.modules())


def test_a_loaded_base_does_not_hang_on_its_file(
    hf_folder: Path, hf_reference: dict[str, Tensor], tmp_path: Path
) -> None:
    base = Path(shutil.copytree(hf_folder / "base", tmp_path / "base"))
    model, tokens = load(base, "bf16", dtype=torch.bfloat16), hf_reference["tokens"]
    before: Tensor = model(tokens)
    with (base / "model.safetensors").open("r+b") as file:
        file.write(bytes((base / "model.safetensors").stat().st_size))
    assert torch.equal(model(tokens), before)


@pytest.mark.slow
def test_loading_imports_nothing_large(golden: Path) -> None:
    code = "import sys, lowrank; lowrank.load(sys.argv[1]); print('sympy' in sys.modules)"
    assert run_python("-c", code, golden / "meta-tiny-mha").stdout == "False\n"


def test_a_tied_base_shares_one_tensor(hf_folder: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(hf_folder / "base", tmp_path / "base"))
    tensors = load_file(base / "model.safetensors")
    del tensors["lm_head.weight"]
    save_file(tensors, base / "model.safetensors")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    model = load(base, "fp32")
    assert model.output.weight is model.tok_embeddings.weight
    assert not model.output.weight.is_meta


def test_rope_theta_of_a_folder_reaches_its_logits(
    golden: Path, tmp_path: Path, hf_reference: dict[str, Tensor]
) -> None:
    base = Path(shutil.copytree(golden / "meta-tiny-mha", tmp_path / "base"))
    params = json.loads((base / "params.json").read_text())
    (base / "params.json").write_text(json.dumps(params | {"rope_theta": 500_000.0}))
    long, usual = load(base, "fp32"), load(golden / "meta-tiny-mha", "fp32")
    assert long.config.rope_theta == 500_000.0
    assert (long(hf_reference["tokens"]) - usual(hf_reference["tokens"])).abs().max() > 1e-3


def test_a_weight_that_is_not_finite_is_named(hf_folder: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(hf_folder / "base", tmp_path / "base"))
    tensors = load_file(base / "model.safetensors")
    tensors["model.layers.0.mlp.up_proj.weight"][3, 4] = torch.nan
    save_file(tensors, base / "model.safetensors")
    with pytest.raises(ValueError, match=r"base: layers.0.feed_forward.w3.weight: .*got nan at \[3, 4\]"):
        load(base, "nf4")


def test_a_stored_weight_of_another_shape_is_named(hf_folder: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(hf_folder / "base-bnb-nf4-dq", tmp_path / "base"))
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"intermediate_size": 256}))
    with pytest.raises(ValueError, match=r"feed_forward.* must have shape"):
        load(base)


def test_a_tokenizer_of_another_vocabulary_is_refused(hf_folder: Path, llama2_tokenizer: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(hf_folder / "base", tmp_path / "base"))
    shutil.copy(llama2_tokenizer, base / "tokenizer.model")
    with pytest.raises(ValueError, match="has 32000 pieces, the embedding has 512 rows"):
        load_tokenizer(base)
    (base / "tokenizer.model").unlink()
    with pytest.raises(ValueError, match=r"base: has no tokenizer: neither tokenizer\.model nor tokenizer\.json"):
        load_tokenizer(base)


def test_a_model_on_a_cpu_computes_in_c_where_that_was_compiled(
    hf_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "unavailable_reason", lambda: "")
    assert load(hf_folder / "base", "fp32").norm.ops is CPU_OPS
    assert load(hf_folder / "base", "fp32", dtype=torch.float64).norm.ops is TORCH_OPS
    monkeypatch.setattr(library, "unavailable_reason", lambda: "nobody compiled it")
    assert load(hf_folder / "base", "fp32").norm.ops is TORCH_OPS


@pytest.mark.long
@pytest.mark.parametrize("folder", ["hf-tiny-qlora/base", "meta-tiny-gqa-mp2"])
def test_torch_compile_traces_a_loaded_model_whole(
    folder: str, golden: Path, assert_logits_equal: Callable[[Tensor, Tensor], None]
) -> None:
    model = load(golden / folder, "nf4")
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        for batch, length in ((2, 9), (2, 5), (3, 17), (1, 1)):  # from the second on the shape is a symbol
            tokens = torch.randint(3, 60, (batch, length))
            assert_logits_equal(compiled(tokens), model(tokens))
