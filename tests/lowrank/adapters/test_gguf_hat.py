"""Hats in GGUF files: what was exported comes back to the bit, with its record; what is no hat is named."""

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from random_hat import make_hat
from torch import Tensor

from lowrank.adapters import use_adapter
from lowrank.adapters.export import export_peft
from lowrank.adapters.files import load_adapter, read_adapter
from lowrank.checkpoints.fingerprint import read_record
from lowrank.checkpoints.load import load
from lowrank.gguf.export import export_adapter_gguf
from lowrank.model.checkpoint import open_checkpoint

BASES = ("meta-tiny-gqa-mp2", "hf-tiny-qlora/base")


@pytest.mark.parametrize("options", [{}, {"targets": ["wk", "w2"]}], ids=str)
@pytest.mark.parametrize("name", BASES)
def test_an_exported_hat_comes_back_to_the_bit(
    name: str, options: dict[str, Any], golden: Path, tmp_path: Path
) -> None:
    base = golden / name
    make_hat(base, tmp_path / "hat", notes={"template": {"name": "alpaca", "version": 1}}, **options)
    path = export_adapter_gguf(tmp_path / "hat", base, tmp_path / "hat.gguf")
    ours, theirs = (read_adapter(hat, open_checkpoint(base).config) for hat in (path, tmp_path / "hat"))
    assert ours.pairs.keys() == theirs.pairs.keys()
    for linear, pair in theirs.pairs.items():
        assert torch.equal(ours.pairs[linear].lora_A, pair.lora_A)
        assert torch.equal(ours.pairs[linear].lora_B, pair.lora_B)
        assert ours.pairs[linear].config.scaling == pair.config.scaling
    assert ours.record == theirs.record == read_record(path)


@pytest.mark.slow
def test_a_hat_out_of_a_file_is_worn_and_goes_on_to_peft(
    hf_folder: Path, hf_reference: dict[str, Tensor], tmp_path: Path
) -> None:
    base = hf_folder / "base"
    make_hat(base, tmp_path / "hat", targets=["wv", "wo"])
    path = export_adapter_gguf(tmp_path / "hat", base, tmp_path / "hat.gguf")
    model = load(base, "fp32")
    for name, hat in (("file", path), ("folder", tmp_path / "hat")):
        load_adapter(model, name, hat)
    use_adapter(model, "file")
    first = model(hf_reference["tokens"])
    use_adapter(model, "folder")
    assert torch.equal(first, model(hf_reference["tokens"]))
    peft = read_adapter(export_peft(path, tmp_path / "peft")).pairs["layers.1.attention.wo"]
    assert torch.equal(peft.lora_B, read_adapter(path).pairs["layers.1.attention.wo"].lora_B)


def test_a_hat_of_another_base_is_refused(golden: Path, hf_folder: Path, tmp_path: Path) -> None:
    make_hat(hf_folder / "base", tmp_path / "hat")
    path = export_adapter_gguf(tmp_path / "hat", hf_folder / "base", tmp_path / "hat.gguf")
    with pytest.raises(ValueError, match="made for the base"):
        load_adapter(load(golden / "meta-tiny-mha", "fp32"), "hat", path)


def write(path: Path, values: dict[str, str], tensors: dict[str, tuple[int, int]], alpha: float | None = 8.0) -> Path:
    writer = gguf.GGUFWriter(path, "llama")
    for key, value in values.items():
        writer.add_string(key, value)
    if alpha is not None:
        writer.add_float32("adapter.lora.alpha", alpha)
    for name, shape in tensors.items():
        writer.add_tensor(name, np.ones(shape, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


HAT = {"general.type": "adapter", "adapter.type": "lora"}
PAIR = {"blk.0.attn_v.weight.lora_a": (2, 8), "blk.0.attn_v.weight.lora_b": (8, 2)}


def test_an_alpha_of_zero_is_a_scaling_of_one(tmp_path: Path) -> None:
    """llama.cpp: scale = alpha ? adapter_scale * alpha / rank : adapter_scale"""
    stored = read_adapter(write(tmp_path / "x.gguf", HAT, PAIR, 0.0))
    assert stored.pairs["layers.0.attention.wv"].config.scaling == 1.0


@pytest.mark.parametrize(
    ("values", "tensors", "alpha", "says"),
    [
        ({"general.type": "model"}, PAIR, 8.0, r"of general\.type 'model', not a hat"),
        (HAT, {"token_embd.weight.lora_a": (2, 8)}, 8.0, r"token_embd\.weight\.lora_a fits no linear"),
        (HAT, {"blk.0.attn_v.weight.lora_a": (2, 8)}, 8.0, "must have lora_a and lora_b"),
        (HAT, {"blk.0.attn_q.weight.lora_b": (8, 2)}, 8.0, "name the base"),
        (HAT, PAIR, None, r"adapter\.lora\.alpha must be a number, got None"),
        (HAT, {}, 8.0, "holds no matrices"),
    ],
)
def test_what_is_no_hat_is_named(values, tensors, alpha: float | None, says: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=says):
        read_adapter(write(tmp_path / "x.gguf", values, tensors, alpha))
