"""Meta's names and Hugging Face's, both ways."""

import pytest

from lowrank.model.config import PRESETS
from lowrank.model.param_names import HF_LINEARS, LINEARS, is_block_linear, to_hf, to_meta


@pytest.mark.parametrize(
    ("meta", "hf"),
    [
        ("tok_embeddings.weight", "model.embed_tokens.weight"),
        ("layers.11.attention.wq.weight", "model.layers.11.self_attn.q_proj.weight"),
        ("layers.0.attention.wo", "model.layers.0.self_attn.o_proj"),
        ("layers.0.feed_forward.w1.weight", "model.layers.0.mlp.gate_proj.weight"),
        ("layers.0.feed_forward.w2.weight", "model.layers.0.mlp.down_proj.weight"),
        ("layers.0.feed_forward.w3.weight", "model.layers.0.mlp.up_proj.weight"),
        ("layers.0.attention_norm.weight", "model.layers.0.input_layernorm.weight"),
        ("layers.0.ffn_norm.weight", "model.layers.0.post_attention_layernorm.weight"),
        ("norm.weight", "model.norm.weight"),
        ("output.weight", "lm_head.weight"),
    ],
)
def test_the_two_names_of_a_tensor(meta: str, hf: str) -> None:
    assert (to_hf(meta), to_meta(hf)) == (hf, meta)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_parameter_has_one_name_of_each_kind(preset: str) -> None:
    names = list(PRESETS[preset].parameter_shapes())
    translated = [to_hf(name) for name in names]
    assert len(set(translated)) == len(names)
    assert [to_meta(name) for name in translated] == names


@pytest.mark.parametrize(
    "foreign",
    [
        "layers.0.attention.wq.weight",
        "model.layers.0.self_attn.qkv_proj.weight",
        "model.layers.x.mlp.up_proj.weight",
        "model.layers.0.input_layernorm2.weight",
        "transformer.h.0.attn",
        "",
    ],
)
def test_a_name_of_another_model_has_no_translation(foreign: str) -> None:
    with pytest.raises(KeyError):
        to_meta(foreign)


def test_the_seven_linears_of_a_block_are_the_quantized_ones() -> None:
    names = PRESETS["7b"].parameter_shapes()
    linears = [name for name in names if is_block_linear(name)]
    assert len(LINEARS) == len(HF_LINEARS) == 7
    assert len(linears) == 7 * 32
    assert not any(is_block_linear(name) for name in ("output.weight", "layers.0.attention.wq.bias", "attention.wq"))
