"""The two config files: what is honoured, and what is refused by name."""

import json
import warnings
from pathlib import Path
from typing import Any

import pytest

from lowrank.model.config import PRESETS, ModelConfig
from lowrank.model.config_json import from_hf, from_meta, read_config

META = {"dim": 128, "n_layers": 2, "n_heads": 8, "multiple_of": 64, "norm_eps": 1e-5, "vocab_size": 512}
HF = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 512,
}
QUANTIZERS = ("gptq", "awq", "fp8", "fbgemm_fp8", "compressed-tensors", "hqq", "aqlm", "quanto", "torchao", "mxfp4")
META_7B = {"dim": 4096, "multiple_of": 256, "n_heads": 32, "n_layers": 32, "norm_eps": 1e-05, "vocab_size": -1}
META_13B = META_7B | {"dim": 5120, "n_heads": 40, "n_layers": 40}
META_70B = META_7B | {
    "dim": 8192,
    "multiple_of": 4096,
    "ffn_dim_multiplier": 1.3,
    "n_heads": 64,
    "n_kv_heads": 8,
    "n_layers": 80,
}


@pytest.mark.parametrize(("params", "preset"), [(META_7B, "7b"), (META_13B, "13b"), (META_70B, "70b")])
def test_meta_params_of_llama_2_are_the_presets(params: dict[str, Any], preset: str) -> None:
    assert from_meta(params | {"vocab_size": 32_000}) == PRESETS[preset]
    assert from_meta(params).vocab_size == -1


def test_what_meta_says_is_honoured() -> None:
    config = from_meta(META | {"n_kv_heads": 2, "rope_theta": 500_000.0, "norm_eps": 1e-4})
    assert (config.n_kv_heads, config.rope_theta, config.norm_eps) == (2, 500_000.0, 1e-4)
    assert config.rope_layout == "interleaved"
    assert not config.tie_embeddings


def test_what_hugging_face_says_is_honoured() -> None:
    config = from_hf(
        HF
        | {"num_key_value_heads": 2, "rms_norm_eps": 1e-5, "max_position_embeddings": 256, "tie_word_embeddings": True}
    )
    assert config == ModelConfig(
        dim=128,
        n_layers=2,
        n_heads=4,
        n_kv_heads=2,
        hidden_dim=384,
        vocab_size=512,
        norm_eps=1e-5,
        max_seq_len=256,
        tie_embeddings=True,
        rope_layout="half",
    )


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_theta": 5e5},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}},
        {"rope_parameters": {"rope_theta": 5e5}, "rope_theta": 1.0},
    ],
    ids=["old", "new", "both"],
)
def test_rope_theta_is_read_where_either_age_of_config_has_it(rope: dict[str, Any]) -> None:
    assert from_hf(HF | rope).rope_theta == 5e5


def test_silence_means_the_defaults_of_each_program() -> None:
    meta = {key: META[key] for key in ("dim", "n_layers", "n_heads")}
    assert (from_meta(meta).norm_eps, from_meta(meta).rope_theta, from_meta(meta).vocab_size) == (1e-5, 1e4, -1)
    assert (from_hf(HF).norm_eps, from_hf(HF).rope_theta, from_hf(HF).max_seq_len) == (1e-6, 1e4, 2048)
    assert from_hf(HF).n_kv_heads == 4


def test_params_may_stand_under_model() -> None:
    assert from_meta({"model": META}) == from_meta(META)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rope_scaling", {"factor": 8}),
        ("sliding_window", 4096),
        ("qk_norm", True),
        ("moe", {"num_experts": 8}),
    ],
)
@pytest.mark.parametrize("nested", [False, True], ids=["flat", "under-model"])
def test_a_key_of_params_that_changes_the_mathematics_is_refused(key: str, value: Any, nested: bool) -> None:
    params = META | {key: value}
    with pytest.raises(ValueError, match=f"here/params.json: .*{key}"):
        from_meta({"model": params} if nested else params, "here/params.json")


def test_a_key_beside_model_is_refused() -> None:
    with pytest.raises(ValueError, match="qk_norm"):
        from_meta({"model": META, "qk_norm": True})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("architectures", ["MistralForCausalLM"]),
        ("model_type", "qwen2"),
        ("attention_bias", True),
        ("mlp_bias", True),
        ("hidden_act", "gelu"),
        ("partial_rotary_factor", 0.5),
        ("rope_scaling", {"type": "dynamic", "factor": 2.0}),
        ("rope_scaling", {"rope_type": "llama3", "factor": 8.0}),
        ("rope_scaling", {"rope_type": "default", "factor": 2.0}),
        ("rope_interleaved", True),
        ("qk_norm", True),
        ("final_logit_softcapping", 30.0),
        ("quantization", {"group_size": 64, "bits": 4}),
        ("sliding_window", 4096),
        ("use_sliding_window", True),
        ("head_dim", 33),
        ("head_dim", 0),
        ("head_dim", 32.0),
        ("rope_parameters", {"rope_type": "yarn", "rope_theta": 1e4}),
        ("rope_parameters", {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}),
        ("rope_parameters", {"rope_theta": 1e4, "factor": 2.0}),
    ],
)
def test_a_key_of_config_that_changes_the_mathematics_is_refused(key: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"here/config.json: {key}"):
        from_hf(HF | {key: value}, "here/config.json")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("attention_bias", False),
        ("head_dim", 32),
        ("head_dim", None),
        ("hidden_act", "silu"),
        ("hidden_act", "swish"),
        ("partial_rotary_factor", 1.0),
        ("rope_scaling", None),
        ("rope_scaling", {"rope_type": "default"}),
        ("rope_scaling", {"type": "default"}),
        ("rope_parameters", {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 1.0}),
        ("architectures", ["LLaMAForCausalLM"]),
        ("architectures", ["FSDPLlamaForCausalLM"]),
        ("_model_name_or_path", "meta-llama/Llama-2-7b-hf"),
        ("unsloth_version", "2025.1"),
        ("id2label", {"0": "LABEL_0"}),
        ("quantization_config", None),
        ("quantization_config", {"load_in_8bit": True}),
        ("quantization_config", {"quant_method": "bitsandbytes", "llm_int8_skip_modules": ["lm_head"]}),
        ("quantization_config", {"quant_method": "bitsandbytes_4bit"}),
        ("sliding_window", None),
        ("torch_dtype", "float16"),
        ("pretraining_tp", 2),
    ],
)
def test_a_key_of_config_that_changes_nothing_is_let_pass_without_a_word(key: str, value: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert from_hf(HF | {key: value}) == from_hf(HF)


@pytest.mark.slow
def test_no_key_of_a_config_that_transformers_writes_is_warned_of() -> None:
    from transformers import LlamaConfig

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        from_hf(LlamaConfig(rms_norm_eps=1e-5).to_dict() | {"architectures": ["LlamaForCausalLM"]})


@pytest.mark.parametrize(
    ("quantization", "method"),
    [
        *(({"quant_method": name, "bits": 4}, name) for name in QUANTIZERS),
        ({"bits": 4, "group_size": 64}, "(not named)"),
        ("int4", "int4"),
    ],
)
def test_another_quantization_is_refused_by_its_name_alone(quantization: Any, method: str) -> None:
    with pytest.raises(ValueError, match=r"here/config.json: quantization_config.quant_method must be") as error:
        from_hf(HF | {"quantization_config": quantization}, "here/config.json")
    assert f"got {method!r}: take the weights from before that quantization" in str(error.value)


def test_an_unknown_key_of_config_is_told_in_a_warning() -> None:
    with pytest.warns(UserWarning, match="'router_jitter'"):
        from_hf(HF | {"router_jitter": 0.1})


@pytest.mark.parametrize("key", ["dim", "n_layers", "n_heads"])
def test_a_key_missing_from_params_is_named(key: str) -> None:
    with pytest.raises(ValueError, match=f"params.json: key '{key}' is missing"):
        from_meta({name: value for name, value in META.items() if name != key})


@pytest.mark.parametrize("key", [key for key in HF if key != "architectures"])
def test_a_key_missing_from_config_is_named(key: str) -> None:
    with pytest.raises(ValueError, match=f"config.json: key '{key}' is missing"):
        from_hf({name: value for name, value in HF.items() if name != key})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"num_attention_heads": 3}, "dim / n_heads"),
        ({"num_attention_heads": 128}, "whole even number"),
        ({"num_attention_heads": 0}, "n_heads"),
        ({"num_key_value_heads": 3}, "multiple of n_kv_heads"),
        ({"num_hidden_layers": 0}, "n_layers must be at least 1"),
        ({"intermediate_size": -1}, "hidden_dim must be at least 1"),
        ({"hidden_size": "128"}, "config.json"),
        ({"vocab_size": 0}, "vocab_size must be at least 1, or -1"),
        ({"max_position_embeddings": 0}, "max_seq_len must be at least 1"),
        ({"rms_norm_eps": "1e-5"}, "norm_eps must be a number above 0, got '1e-5'"),
        ({"rope_theta": 0}, "rope_theta must be a number above 0, got 0"),
        ({"rope_parameters": "default"}, "rope_parameters must be a JSON object"),
    ],
    ids=str,
)
def test_a_shape_that_is_none_is_refused(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        from_hf(HF | change)


def test_the_file_that_is_there_decides(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(HF))
    assert read_config(tmp_path).rope_layout == "half"
    (tmp_path / "params.json").write_text(json.dumps(META))
    assert read_config(tmp_path).rope_layout == "interleaved"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{", "not JSON"),
        (b"[1]", "must hold a JSON object, got list"),
        (b"", "not JSON: it is empty"),
        (b"\xff\xfe{\0}\0", "not JSON: 'utf-8' codec"),
        (b"[" * 100_000, "not JSON"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 3\n",
            "not JSON: it is a pointer of Git LFS .*git lfs pull",
        ),
        (b"\n<!DOCTYPE html><html>", "not JSON: it is a page of a website"),
    ],
    ids=["cut", "list", "empty", "utf-16", "deep", "lfs", "html"],
)
def test_a_config_that_is_no_json_object_is_refused_by_file(content: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / "params.json").write_bytes(content)
    with pytest.raises(ValueError, match=f"params.json: {reason}"):
        read_config(tmp_path)


def test_a_folder_without_config_says_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"neither params.json .* nor config.json"):
        read_config(tmp_path)
