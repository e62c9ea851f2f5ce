"""A folder in 4 bits: the same model as one quantized on the way in, in its source's naming, whole or not at all."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import lowrank
from lowrank.quantizer import quantize_folder

WEIGHTS = "model.safetensors"


@pytest.fixture(params=["meta-tiny-mha", "meta-tiny-gqa-mp2", "hf-tiny-qlora/base"])
def base(request, golden):
    return golden / request.param


@pytest.mark.parametrize("weights", ["nf4-dq", "nf4", "fp4", "fp4-dq", "int8"])
def test_the_folder_is_the_model_quantized_on_the_way_in(base, tmp_path, weights):
    tokens = torch.arange(40).view(2, 20)
    folder = quantize_folder(base, tmp_path / "out", weights)
    written, direct = lowrank.load(folder), lowrank.load(base, weights)
    assert torch.equal(written(tokens), direct(tokens))
    assert written.source == direct.source


def test_the_codes_are_those_that_transformers_and_bitsandbytes_wrote(golden, tmp_path):
    ours = load_file(quantize_folder(golden / "hf-tiny-qlora/base", tmp_path / "out") / "model.safetensors")
    theirs = load_file(golden / "hf-tiny-qlora/base-bnb-nf4-dq/model.safetensors")
    assert ours.keys() == theirs.keys()
    for key, tensor in theirs.items():
        if key.endswith(".absmax") and tensor.dtype == torch.uint8:
            assert (ours[key].int() - tensor.int()).abs().max() <= 1, key  # formats.md: a neighbouring 8-bit code
        elif "quant_state" not in key:
            assert torch.equal(ours[key].to(tensor.dtype), tensor), key
        else:
            mine, yours = (json.loads(bytes(state.tolist())) for state in (ours[key], tensor))
            assert mine["nested_offset"] == yours["nested_offset"]
            assert mine.keys() == yours.keys()


@pytest.mark.filterwarnings("ignore")  # the other programs' own
@pytest.mark.parametrize("weights", ["nf4-dq", "nf4", "fp4-dq", "fp4"])
def test_transformers_with_bitsandbytes_loads_the_folder_and_gives_our_logits(golden, tmp_path, weights):
    from transformers import AutoModelForCausalLM

    source = golden / "hf-tiny-qlora/base"
    wide = tmp_path / "wide"  # in float32, since transformers keeps what is not quantized in the type it is stored in
    wide.mkdir()
    save_file({key: tensor.float() for key, tensor in load_file(source / "model.safetensors").items()}, wide / WEIGHTS)
    (wide / "config.json").write_text((source / "config.json").read_text().replace('"bfloat16"', '"float32"'))
    folder = quantize_folder(wide, tmp_path / "out", weights)
    theirs = AutoModelForCausalLM.from_pretrained(folder).train()  # in training, bitsandbytes does not round W
    tokens = torch.arange(40).view(2, 20)
    torch.testing.assert_close(lowrank.load(folder)(tokens), theirs(tokens).logits.detach(), rtol=0, atol=2e-5)


def test_the_manifest_holds_the_hash_of_the_weights(base, tmp_path):
    folder = quantize_folder(base, tmp_path / "out")
    manifest = json.loads((folder / "quantization.json").read_text())
    assert len(manifest["sha256"]["model.safetensors"]) == 64
    assert manifest["weights"] == "nf4-dq"


def test_a_quantized_folder_is_not_quantized_again(base, tmp_path):
    folder = quantize_folder(base, tmp_path / "out")
    with pytest.raises(ValueError, match="already quantized"):
        quantize_folder(folder, tmp_path / "again")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_full_precision_format_is_refused(base, tmp_path):
    with pytest.raises(ValueError, match=r"weights must be one of int8, nf4.*got 'fp32'"):
        quantize_folder(base, tmp_path / "out", "fp32")


def test_nothing_is_left_when_a_weight_is_not_finite(golden, tmp_path):
    source = tmp_path / "base"
    source.mkdir()
    (source / "params.json").write_text((golden / "meta-tiny-mha/params.json").read_text())
    tensors = torch.load(golden / "meta-tiny-mha/consolidated.00.pth", weights_only=True)
    tensors["layers.1.attention.wo.weight"][3, 5] = float("nan")
    torch.save(tensors, source / "consolidated.00.pth")
    with pytest.raises(ValueError, match=r"layers\.1\.attention\.wo\.weight: .* finite, got nan at \[3, 5\]"):
        quantize_folder(source, tmp_path / "out")
    assert sorted(path.name for path in Path(tmp_path).iterdir()) == ["base"]
