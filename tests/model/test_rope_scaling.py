"""Scaled RoPE and the shapes of the Llama family, against transformers' own code on small random models."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lowrank.checkpoints.config_files import meta_params
from lowrank.checkpoints.load import load
from lowrank.model.config import RopeScaling
from lowrank.model.config_json import from_hf, from_meta, hf_scaling
from lowrank.model.llama import rope_frequencies

LLAMA_3_1 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
LINEAR = {"rope_type": "linear", "factor": 4.0}
# Shapes as their models have them, in small: query and key/value heads of 16 channels, rotary base, tied head, scaling.
FAMILIES: dict[str, dict[str, Any]] = {
    "Llama 2": {"heads": (4, 4), "theta": 1e4, "positions": 4096},
    "TinyLlama": {"heads": (8, 1), "theta": 1e4, "positions": 2048},
    "SmolLM2": {"heads": (9, 3), "theta": 1e5, "tied": True, "positions": 8192},
    "Llama 3": {"heads": (8, 2), "theta": 5e5, "positions": 8192},
    "Llama 3.1": {"heads": (8, 2), "theta": 5e5, "positions": 131_072, "scaling": LLAMA_3_1},
    "Llama 3.2": {
        "heads": (8, 2),
        "theta": 5e5,
        "tied": True,
        "positions": 131_072,
        "scaling": {**LLAMA_3_1, "factor": 32.0},
    },
    "head_dim above dim / heads": {"heads": (4, 2), "dim": 32, "theta": 1e4, "positions": 4096},
    "head_dim below dim / heads": {"heads": (4, 1), "dim": 128, "theta": 5e5, "positions": 8192, "scaling": LLAMA_3_1},
    "linear scaling": {"heads": (4, 4), "theta": 1e4, "positions": 16_384, "scaling": LINEAR},
}
BASE = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 320,
}


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_the_logits_of_a_family_are_transformers(family: str, tmp_path: Path, record_property: Any) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = FAMILIES[family]
    heads, kv_heads = shape["heads"]
    config = LlamaConfig(
        hidden_size=shape.get("dim", 16 * heads),
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=16,
        vocab_size=320,
        max_position_embeddings=shape["positions"],
        rope_parameters={"rope_theta": shape["theta"], **shape.get("scaling", {"rope_type": "default"})},
        tie_word_embeddings=shape.get("tied", False),
        rms_norm_eps=1e-5,
        initializer_range=0.08,  # attention is not flat then, so that angles matter
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = LlamaForCausalLM(config).eval()
        tokens = torch.randint(0, 320, (2, 300))
    theirs.save_pretrained(tmp_path)
    ours = load(tmp_path, "fp32", torch.float32)
    with torch.no_grad():
        expected, found = theirs(tokens).logits, ours(tokens)
    error = (found - expected).abs().max().item()
    record_property("error", error)
    print(f"{family}: largest error {error:.1e}, largest logit {expected.abs().max():.2f}")
    assert error <= 2e-5
    if "scaling" in shape:  # a test that cannot tell a scaling from none would say nothing
        ours.config = replace(ours.config, rope_scaling=None)
        with torch.no_grad():
            assert (ours(tokens) - expected).abs().max() > 10 * 2e-5


@pytest.mark.slow
@pytest.mark.parametrize(
    "scaling",
    [LLAMA_3_1, {**LLAMA_3_1, "factor": 32.0}, LINEAR, {**LLAMA_3_1, "low_freq_factor": 2.0, "high_freq_factor": 16.0}],
    ids=["3.1", "3.2", "linear", "others"],
)
def test_the_frequencies_are_those_of_transformers_own_code(scaling: dict[str, Any]) -> None:
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    theirs = LlamaRotaryEmbedding(
        LlamaConfig(
            hidden_size=512,
            num_attention_heads=4,
            max_position_embeddings=131_072,
            rope_parameters={"rope_theta": 5e5, **scaling},
        )
    )
    ours = from_hf(BASE | {"hidden_size": 512, "rope_theta": 5e5, "rope_scaling": scaling})
    assert torch.equal(rope_frequencies(ours, torch.device("cpu")), theirs.inv_freq)


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_scaling": LLAMA_3_1, "rope_theta": 5e5},
        {"rope_parameters": {**LLAMA_3_1, "rope_theta": 5e5}},
        {"rope_scaling": {"type": "llama3", **LLAMA_3_1}, "rope_theta": 5e5},
    ],
)
def test_a_scaling_is_read_in_the_words_of_every_version(rope: dict[str, Any]) -> None:
    config = from_hf(BASE | rope)
    assert config.rope_scaling == RopeScaling("llama3", 8.0, 1.0, 4.0, 8192) and config.rope_theta == 5e5
    assert from_hf(BASE | {"rope_scaling": hf_scaling(config.rope_scaling), "rope_theta": 5e5}) == config


def test_linear_scaling_divides_every_frequency() -> None:
    plain = from_hf(BASE)
    linear = from_hf(BASE | {"rope_scaling": {"type": "linear", "factor": 4}})
    device = torch.device("cpu")
    assert torch.equal(rope_frequencies(linear, device), rope_frequencies(plain, device) / 4)
    assert from_hf(BASE | {"rope_scaling": hf_scaling(linear.rope_scaling)}).rope_scaling == RopeScaling("linear", 4.0)


@pytest.mark.parametrize(
    ("scaling", "told"),
    [
        ({"type": "dynamic", "factor": 2.0}, "rope_type must be one of default, linear, llama3, got 'dynamic'"),
        ({"rope_type": "yarn", "factor": 4.0}, "got 'yarn'"),
        ({"rope_type": "longrope", "short_factor": [1.0]}, "got 'longrope'"),
        ({"rope_type": "default", "factor": 2.0}, "got 'default' with a factor of 2.0"),
        ({"rope_type": "llama3", "factor": 8.0}, "low_freq_factor is missing, which rope_type 'llama3' needs"),
        ({**LLAMA_3_1, "attention_factor": 1.0}, "attention_factor is not known with rope_type 'llama3'"),
        ({"rope_type": "linear", "factor": 0}, "factor must be a number above 0, got 0"),
        ({"rope_type": "linear", "factor": "4"}, "factor must be a number above 0, got '4'"),
        ({**LLAMA_3_1, "high_freq_factor": 1.0}, "high_freq_factor must be above low_freq_factor = 1.0, got 1.0"),
        ({"rope_type": "linear"}, "factor is missing"),
        ("linear", "must be a JSON object, got 'linear'"),
    ],
)
def test_another_scaling_is_refused_by_name(scaling: Any, told: str) -> None:
    with pytest.raises(ValueError, match=rf"config\.json: rope_scaling.*{told}"):
        from_hf(BASE | {"rope_scaling": scaling})


META = {"dim": 4096, "n_heads": 32, "n_layers": 32, "n_kv_heads": 8, "multiple_of": 1024, "ffn_dim_multiplier": 1.3}


def test_metas_files_of_llama_3_say_the_context_and_the_scaling_by_two_keys() -> None:
    llama3 = from_meta(META | {"rope_theta": 500_000.0, "vocab_size": 128_256})
    assert (llama3.max_seq_len, llama3.rope_scaling, llama3.hidden_dim) == (8192, None, 14_336)
    scaled = META | {"rope_theta": 500_000.0, "use_scaled_rope": True, "vocab_size": 128_256}
    assert from_meta(scaled).rope_scaling == RopeScaling("llama3", 8.0) and from_meta(scaled).max_seq_len == 131_072
    assert from_meta(scaled | {"dim": 2048, "multiple_of": 256}).rope_scaling == RopeScaling("llama3", 32.0)


def test_a_scaling_that_metas_code_has_not_is_refused_for_params_json() -> None:
    scaled = from_meta(META | {"rope_theta": 500_000.0, "use_scaled_rope": True, "vocab_size": 128_256})
    assert from_meta(json.loads(json.dumps(meta_params(scaled)))) == scaled
    with pytest.raises(ValueError, match=r"params\.json has no place for RopeScaling\(kind='linear', factor=2.0"):
        meta_params(replace(scaled, rope_scaling=RopeScaling("linear", 2.0)))
