"""GGUF: read back by the gguf package, and by our own Llama, which turns interleaved pairs as llama.cpp does."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from random_hat import make_hat
from safetensors.torch import save_file
from torch import Tensor

from lowrank.adapters import add_adapter, lora_layers, use_adapter
from lowrank.adapters.files import load_adapter, save_adapter
from lowrank.adapters.merge import merge_folder
from lowrank.checkpoints.config_files import hf_config
from lowrank.checkpoints.load import load, load_tokenizer
from lowrank.checkpoints.quantize_folder import quantize_folder
from lowrank.data.encoding.jinja_form import jinja_form
from lowrank.data.encoding.template import find
from lowrank.gguf import writer
from lowrank.gguf.export import export_adapter_gguf, export_base_gguf
from lowrank.gguf.writer import read_gguf, tensor_name
from lowrank.model.checkpoint import open_checkpoint
from lowrank.model.config import ModelConfig
from lowrank.model.llama import Llama
from lowrank.model.param_names import to_hf

BASES = ("meta-tiny-mha", "meta-tiny-gqa-mp2", "hf-tiny-qlora/base")

pytestmark = pytest.mark.filterwarnings("ignore:.*token numbers only:UserWarning")


@pytest.fixture(params=BASES)
def base(request: pytest.FixtureRequest, golden: Path) -> Path:
    return golden / request.param


def llama_of(path: Path, tie: bool = False) -> Llama:
    """Our Llama from the values and tensors of a GGUF file alone; its pairs are interleaved, as in llama.cpp."""
    values, tensors = read_gguf(path)
    value: dict[str, Any] = {key.removeprefix("llama."): found for key, found in values.items()}
    config = ModelConfig(
        dim=value["embedding_length"],
        n_layers=value["block_count"],
        n_heads=value["attention.head_count"],
        n_kv_heads=value["attention.head_count_kv"],
        hidden_dim=value["feed_forward_length"],
        vocab_size=value["vocab_size"],
        norm_eps=value["attention.layer_norm_rms_epsilon"],
        rope_theta=value["rope.freq_base"],
        max_seq_len=value["context_length"],
        tie_embeddings=tie,
        rope_layout="interleaved",
    )
    assert value["rope.dimension_count"] == config.head_dim
    model = Llama(config)
    named = {name: tensors[tensor_name(name, config.n_layers)] for name in config.parameter_shapes()}
    state = {name: torch.from_numpy(np.array(array, dtype=np.float32)) for name, array in named.items()}
    model.load_state_dict(state | ({"output.weight": state["tok_embeddings.weight"]} if tie else {}))
    return model.eval()


@torch.inference_mode()
def logits_with(path: Path, hat: Path, tokens: Tensor) -> Tensor:
    """As llama.cpp does it: W + alpha / r * lora_b lora_a."""
    model, (values, pairs) = llama_of(path), read_gguf(hat)
    for name in model.config.parameter_shapes():
        stem = tensor_name(name, model.config.n_layers)
        if f"{stem}.lora_a" in pairs:
            a, b = (torch.from_numpy(np.array(pairs[f"{stem}.{matrix}"])).float() for matrix in ("lora_a", "lora_b"))
            model.get_parameter(name).add_(values["adapter.lora.alpha"] / b.shape[1] * (b @ a))
    logits: Tensor = model(tokens)
    return logits


def test_a_base_has_its_logits(
    base: Path, hf_reference: dict[str, Tensor], tmp_path: Path, assert_logits_equal: Callable[[Tensor, Tensor], None]
) -> None:
    path = export_base_gguf(base, tmp_path / "base.gguf", dtype="fp32")
    tokens = hf_reference["tokens"]
    assert_logits_equal(llama_of(path)(tokens), load(base, "fp32")(tokens))
    assert [file.name for file in tmp_path.iterdir()] == ["base.gguf"]


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"rslora": True}, {"targets": ["wk"]}], ids=str)
def test_a_hat_has_its_logits(
    options: dict[str, Any],
    base: Path,
    hf_reference: dict[str, Tensor],
    tmp_path: Path,
    assert_logits_equal: Callable[[Tensor, Tensor], None],
) -> None:
    tokens = hf_reference["tokens"]
    model = make_hat(base, tmp_path / "hat", **options)
    whole = export_base_gguf(base, tmp_path / "base.gguf", dtype="fp32")
    hat = export_adapter_gguf(tmp_path / "hat", base, tmp_path / "hat.gguf")
    assert_logits_equal(logits_with(whole, hat, tokens), model(tokens))


def test_one_alpha_a_file_is_made_up_for_in_lora_b(
    hf_folder: Path,
    hf_reference: dict[str, Tensor],
    tmp_path: Path,
    assert_logits_equal: Callable[[Tensor, Tensor], None],
) -> None:
    base, folder, tokens = hf_folder / "base", tmp_path / "hat", hf_reference["tokens"]
    make_hat(base, folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    patterns = {"alpha_pattern": {"k_proj": 3, "layers.1.mlp.up_proj": 12}}
    (folder / "adapter_config.json").write_text(json.dumps(config | patterns))
    model = load(base, "fp32")
    load_adapter(model, "hat", folder)
    use_adapter(model, "hat")
    assert len({layer.configs["hat"].scaling for layer in lora_layers(model).values()}) == 3
    whole = export_base_gguf(base, tmp_path / "base.gguf", dtype="fp32")
    hat = export_adapter_gguf(folder, base, tmp_path / "hat.gguf")
    assert read_gguf(hat)[0]["adapter.lora.alpha"] == 8.0
    assert_logits_equal(logits_with(whole, hat, tokens), model(tokens))


def test_a_merged_base_travels(
    hf_folder: Path,
    hf_reference: dict[str, Tensor],
    tmp_path: Path,
    assert_logits_equal: Callable[[Tensor, Tensor], None],
) -> None:
    model = make_hat(hf_folder / "base", tmp_path / "hat")
    merged = merge_folder(hf_folder / "base", tmp_path / "hat", tmp_path / "merged", "fp32").folder
    path = export_base_gguf(merged, tmp_path / "merged.gguf", dtype="fp32")
    assert_logits_equal(llama_of(path)(hf_reference["tokens"]), model(hf_reference["tokens"]))


def test_a_file_in_16_bits_is_the_rounded_weights_with_norms_in_32(base: Path, tmp_path: Path) -> None:
    values, tensors = read_gguf(export_base_gguf(base, tmp_path / "base.gguf"))
    model = load(base, "fp32")
    assert values["general.file_type"] == gguf.LlamaFileType.MOSTLY_F16
    for name in model.config.parameter_shapes():
        own, found = model.get_parameter(name), tensors[tensor_name(name, model.config.n_layers)]
        assert found.dtype == (np.float16 if own.dim() == 2 else np.float32)
        if "wq" not in name and "wk" not in name:
            assert np.array_equal(found, own.to(torch.from_numpy(np.array(found)).dtype).numpy())


def test_a_quantized_base_is_dequantized(
    golden: Path, tmp_path: Path, hf_reference: dict[str, Tensor], assert_logits_equal: Callable[[Tensor, Tensor], None]
) -> None:
    folder = quantize_folder(golden / "meta-tiny-mha", tmp_path / "q", "nf4")
    path = export_base_gguf(folder, tmp_path / "q.gguf", dtype="fp32")
    assert_logits_equal(llama_of(path)(hf_reference["tokens"]), load(folder)(hf_reference["tokens"]))


@pytest.mark.slow
def test_both_layouts_of_one_base_are_one_file(embedded: Path, tmp_path: Path) -> None:
    model = load(embedded, "fp32")
    add_adapter(model, "zero", targets=["wv"])
    save_adapter(model, "zero", tmp_path / "zero")
    other = merge_folder(embedded, tmp_path / "zero", tmp_path / "base", "fp16", format="hf").folder
    one, two = (
        read_gguf(export_base_gguf(folder, tmp_path / f"{i}.gguf")) for i, folder in enumerate([embedded, other])
    )
    assert open_checkpoint(embedded).config.rope_layout != open_checkpoint(other).config.rope_layout
    assert one[0] | {"general.name": ""} == two[0] | {"general.name": ""}
    assert all(np.array_equal(one[1][name], two[1][name]) for name in one[1].keys() | two[1].keys())


def test_rows_of_q_are_moved_as_the_converter_of_llama_cpp_moves_them(hf_folder: Path, tmp_path: Path) -> None:
    """reshape(H, 2, h/2, K), swap, flatten: row 2i is row i of a head, row 2i + 1 is row i + h/2."""
    _, tensors = read_gguf(export_base_gguf(hf_folder / "base", tmp_path / "base.gguf", dtype="fp32"))
    own = dict(open_checkpoint(hf_folder / "base").tensors())["layers.0.attention.wq.weight"].float().numpy()
    config = open_checkpoint(hf_folder / "base").config
    h = config.head_dim
    for head in range(config.n_heads):
        for i in range(h // 2):
            for row, place in ((head * h + i, head * h + 2 * i), (head * h + i + h // 2, head * h + 2 * i + 1)):
                assert np.array_equal(tensors["blk.0.attn_q.weight"][place], own[row])


@pytest.mark.slow
def test_the_tokenizer_goes_along(embedded: Path, tmp_path: Path) -> None:
    values, _ = read_gguf(export_base_gguf(embedded, tmp_path / "base.gguf"))
    tokenizer = load_tokenizer(embedded)
    assert values["tokenizer.ggml.model"] == "llama"
    assert values["tokenizer.ggml.tokens"] == [tokenizer.piece(token) for token in range(tokenizer.vocab_size)]
    scores, kinds = values["tokenizer.ggml.scores"], values["tokenizer.ggml.token_type"]
    assert len(scores) == len(kinds) == tokenizer.vocab_size
    assert kinds[:3] == [gguf.TokenType.UNKNOWN, gguf.TokenType.CONTROL, gguf.TokenType.CONTROL]
    assert kinds.count(gguf.TokenType.BYTE) == 256
    assert scores[260:] == sorted(scores[260:], reverse=True)  # the rank of a merge
    assert (values["tokenizer.ggml.bos_token_id"], values["tokenizer.ggml.eos_token_id"]) == (1, 2)
    assert values["tokenizer.ggml.unknown_token_id"] == 0
    assert values["tokenizer.ggml.add_bos_token"] is True
    assert values["tokenizer.ggml.add_space_prefix"] is True


@pytest.mark.filterwarnings("default:.*token numbers only:UserWarning")
def test_a_base_without_a_tokenizer_is_told(golden: Path, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"has neither tokenizer.model nor tokenizer.json: .* token numbers only"):
        path = export_base_gguf(golden / "meta-tiny-mha", tmp_path / "base.gguf")
    assert read_gguf(path)[0]["tokenizer.ggml.model"] == "no_vocab"


def test_a_hat_says_what_llama_cpp_asks_of_it(hf_folder: Path, tmp_path: Path) -> None:
    path = export_adapter_gguf(hf_folder / "adapter-end", hf_folder / "base", tmp_path / "hat.gguf", dtype="fp16")
    values, tensors = read_gguf(path)
    assert {key: values[key] for key in ("general.type", "general.architecture", "adapter.type")} == {
        "general.type": "adapter",
        "general.architecture": "llama",
        "adapter.type": "lora",
    }
    assert values["adapter.lora.alpha"] == 16.0
    assert len(tensors) == 28
    reader = gguf.GGUFReader(path)
    shapes = {tensor.name: tensor.shape.tolist() for tensor in reader.tensors}  # ggml's: the first axis last
    assert shapes["blk.1.ffn_down.weight.lora_a"][1] == 8
    assert shapes["blk.1.ffn_down.weight.lora_b"] == [8, 128]
    assert {tensor.tensor_type for tensor in reader.tensors} == {gguf.GGMLQuantizationType.F16}


@pytest.mark.slow
def test_a_merged_base_chats_in_the_template_of_its_hat(embedded: Path, tmp_path: Path) -> None:
    """Without one llama.cpp takes ChatML, which the hat has never seen, and writes figures that are in no fact."""
    model = load(embedded, "fp32")
    add_adapter(model, "hat", rank=1)
    save_adapter(model, "hat", tmp_path / "hat", notes={"template": {"name": "alpaca", "version": 1}})
    merged = merge_folder(embedded, tmp_path / "hat", tmp_path / "merged", "fp16").folder
    values, _ = read_gguf(export_base_gguf(merged, tmp_path / "merged.gguf"))
    assert values["tokenizer.chat_template"] == jinja_form(find("alpaca"))
    assert "tokenizer.chat_template" not in read_gguf(export_base_gguf(embedded, tmp_path / "base.gguf"))[0]
    values, _ = read_gguf(export_base_gguf(embedded, tmp_path / "given.gguf", template="fingpt"))
    assert values["tokenizer.chat_template"] == jinja_form(find("fingpt"))


def test_a_hat_carries_its_record_and_the_keys_that_llama_cpp_lists(hf_folder: Path, tmp_path: Path) -> None:
    model = load(hf_folder / "base", "fp32")
    add_adapter(model, "hat", rank=1)
    save_adapter(model, "hat", tmp_path / "hat", notes={"template": {"name": "alpaca", "version": 1}})
    values, _ = read_gguf(export_adapter_gguf(tmp_path / "hat", hf_folder / "base", tmp_path / "hat.gguf"))
    assert values["adapter.lora.task_name"] == "alpaca"
    assert values["adapter.lora.prompt_prefix"] == "### Instruction:\n"
    assert json.loads(values["lowrank.record"]) == json.loads((tmp_path / "hat/lowrank.json").read_text())


def test_a_tied_head_is_left_out(
    make_llama: Callable[..., Llama], tmp_path: Path, random_tokens: Callable[..., Tensor]
) -> None:
    model = make_llama(tie_embeddings=True, rope_layout="half")
    tensors = {to_hf(name): value.detach().clone() for name, value in model.named_parameters()}
    (tmp_path / "base").mkdir()
    save_file(tensors, tmp_path / "base/model.safetensors")
    (tmp_path / "base/config.json").write_text(json.dumps(hf_config(model.config, {}, "fp32")))
    path = export_base_gguf(tmp_path / "base", tmp_path / "base.gguf", dtype="fp32")
    assert "output.weight" not in read_gguf(path)[1]
    torch.testing.assert_close(llama_of(path, tie=True)(random_tokens(2, 9)), model(random_tokens(2, 9)))


def test_a_hat_of_another_base_is_refused(golden: Path, tmp_path: Path) -> None:
    make_hat(golden / "meta-tiny-mha", tmp_path / "hat")
    other = golden / "hf-tiny-qlora/base"
    with pytest.raises(ValueError, match=r"made for the base [0-9a-f]{16}, this base is [0-9a-f]{16}"):
        export_adapter_gguf(tmp_path / "hat", other, tmp_path / "hat.gguf")
    assert not (tmp_path / "hat.gguf").exists()


@pytest.mark.parametrize("dtype", ["bf16", "nf4", ""])
def test_a_type_that_is_not_done_is_refused(dtype: str, hf_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"dtype must be one of fp16, fp32 in GGUF, got '{dtype}'"):
        export_base_gguf(hf_folder / "base", tmp_path / "base.gguf", dtype=dtype)


def test_an_alpha_of_zero_is_refused(hf_folder: Path, tmp_path: Path) -> None:
    make_hat(hf_folder / "base", tmp_path / "hat", alpha=0)
    with pytest.raises(ValueError, match="lora_alpha must not be 0"):
        export_adapter_gguf(tmp_path / "hat", hf_folder / "base", tmp_path / "hat.gguf")


def test_what_fp16_cannot_hold_is_named_and_nothing_is_left(hf_folder: Path, tmp_path: Path) -> None:
    model = load(hf_folder / "base", "fp32")
    add_adapter(model, "hat", rank=2)
    lora_layers(model)["layers.1.attention.wo"].lora_B["hat"].data[0, 0] = 1e5
    save_adapter(model, "hat", tmp_path / "hat")
    with pytest.raises(ValueError, match=r"layers\.1\.attention\.wo\.lora_b: must be finite in fp16"):
        export_adapter_gguf(tmp_path / "hat", hf_folder / "base", tmp_path / "hat.gguf", dtype="fp16")
    assert [path.name for path in tmp_path.iterdir()] == ["hat"]


def test_a_file_that_does_not_read_back_never_gets_its_name(
    hf_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = writer.read_gguf

    def spoiled(path: Path):
        content = bytearray(path.read_bytes())
        content[-1000] ^= 1
        path.write_bytes(content)
        return honest(path)

    monkeypatch.setattr(writer, "read_gguf", spoiled)
    with pytest.raises(OSError, match="does not read back as it was written"):
        export_base_gguf(hf_folder / "base", tmp_path / "base.gguf")
    assert not list(tmp_path.iterdir())
