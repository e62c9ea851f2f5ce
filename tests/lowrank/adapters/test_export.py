"""A hat as PEFT's two files: the same hat, in the type asked for, for the base named."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lowrank.adapters import add_adapter, use_adapter
from lowrank.adapters.export import export_peft
from lowrank.adapters.files import load_adapter, read_adapter, save_adapter
from lowrank.adapters.merge import merge_folder
from lowrank.checkpoints.load import load
from lowrank.kernels.weights.quantized_weight import DENSE_DTYPES
from lowrank.model.llama import Llama

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


@pytest.mark.parametrize("dtype", ["fp32", "fp16", "bf16"])
def test_the_two_files_hold_the_hat_and_name_the_base(dtype: str, hf_folder: Path, tmp_path: Path) -> None:
    folder = export_peft(hf_folder / "adapter-end", tmp_path / "out", dtype=dtype, base_name="meta-llama/Llama-2-7b-hf")
    assert sorted(path.name for path in folder.iterdir()) == [CONFIG, WEIGHTS]
    own, ours = (load_file(path / WEIGHTS) for path in (hf_folder / "adapter-end", folder))
    assert own.keys() == ours.keys()
    assert all(torch.equal(ours[key], own[key].to(ours[key].dtype)) for key in own)
    assert {tensor.dtype for tensor in ours.values()} == {DENSE_DTYPES[dtype]}
    assert json.loads((folder / CONFIG).read_text())["base_model_name_or_path"] == "meta-llama/Llama-2-7b-hf"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the other programs' own
def test_a_hat_of_metas_layout_gives_its_logits_in_peft(
    hf_folder: Path,
    hf_reference: dict[str, Tensor],
    tmp_path: Path,
    assert_logits_equal: Callable[[Tensor, Tensor], None],
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    zero = load(hf_folder / "base", "fp32")
    add_adapter(zero, "zero", targets=["wq"])
    save_adapter(zero, "zero", tmp_path / "zero")
    with pytest.warns(UserWarning, match="params.json has no place"):
        meta = merge_folder(hf_folder / "base", tmp_path / "zero", tmp_path / "meta", "fp32", format="meta").folder
    model = load(meta, "fp32")
    assert model.config.rope_layout == "interleaved"
    load_adapter(model, "end", hf_folder / "adapter-end")
    use_adapter(model, "end")
    save_adapter(model, "end", tmp_path / "hat")
    folder = export_peft(tmp_path / "hat", tmp_path / "out")
    theirs = AutoModelForCausalLM.from_pretrained(hf_folder / "base", dtype=torch.float32)
    theirs = PeftModel.from_pretrained(theirs, folder).eval()
    tokens = hf_reference["tokens"]
    assert_logits_equal(model(tokens), theirs(tokens).logits.detach())
    assert_logits_equal(model(tokens), hf_reference["logits_fp32_adapter_end"])


@pytest.mark.parametrize(
    ("options", "targets"),
    [({}, ["q_proj"]), ({"layers_to_transform": [0]}, ["model.layers.0.self_attn.q_proj"])],
    ids=["all-layers", "first-layer"],
)
def test_a_hat_of_the_first_layers_stays_one(options, targets, hf_folder: Path, tmp_path: Path) -> None:
    """A folder does not say how many layers its base has; what is written must not reach further than what was read."""
    model = load(hf_folder / "base", "fp32")
    add_adapter(model, "hat", targets=["q_proj"])
    save_adapter(model, "hat", tmp_path / "hat")
    config = json.loads((tmp_path / "hat" / CONFIG).read_text())
    (tmp_path / "hat" / CONFIG).write_text(json.dumps(config | options))
    if options:
        tensors = load_file(tmp_path / "hat" / WEIGHTS)
        save_file({key: value for key, value in tensors.items() if "layers.0." in key}, tmp_path / "hat" / WEIGHTS)
        (tmp_path / "hat" / "lowrank.json").unlink()
    folder = export_peft(tmp_path / "hat", tmp_path / "out")
    assert json.loads((folder / CONFIG).read_text())["target_modules"] == targets
    assert read_adapter(folder, model.config).configs == read_adapter(tmp_path / "hat", model.config).configs


def test_what_a_type_cannot_hold_is_named(make_llama: Callable[..., Llama], tmp_path: Path) -> None:
    model = make_llama()
    add_adapter(model, "hat", targets=["wo"])
    model.layers[0].attention.wo.lora_B["hat"].data[0, 0] = 1e5
    save_adapter(model, "hat", tmp_path / "hat")
    with pytest.raises(ValueError, match=r"layers\.0\.self_attn\.o_proj\.lora_B\.weight must be finite in fp16"):
        export_peft(tmp_path / "hat", tmp_path / "out", dtype="fp16")
    with pytest.raises(ValueError, match="dtype must be one of fp32, bf16, fp16, got 'nf4'"):
        export_peft(tmp_path / "hat", tmp_path / "out", dtype="nf4")
    assert [path.name for path in tmp_path.iterdir()] == ["hat"]
