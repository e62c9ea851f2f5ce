"""`config.json` and `params.json`: a Llama's shape as Hugging Face's code, or Meta's, reads it."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from ..atomic_io import write_json
from ..kernels.weights.quantized_weight import QUANTIZED_NAMES
from ..model.config import ModelConfig, ffn_hidden_dim
from ..model.config_json import from_meta, hf_scaling
from ..model.param_names import to_hf

Format = Literal["hf", "meta"]
TORCH_NAMES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def write_config(
    folder: Path,
    own: dict[str, Any],
    config: ModelConfig,
    format: Format,
    weights: str,
    dense: Sequence[str] = (),
) -> None:
    """Writes config.json or params.json of a model whose linears are in `weights`, but for those that are dense

    own    the config.json of the base, {} if it has none: other keys of it (special tokens, say) are kept
    dense  Meta's names of the block linears that are not quantized
    """
    if format == "meta":
        params = meta_params(config)
        if (assumed := from_meta(params).max_seq_len) != config.max_seq_len:
            warnings.warn(
                f"params.json has no place for {config.max_seq_len} positions: Meta's code assumes {assumed}",
                stacklevel=3,
            )
        write_json(folder / "params.json", params)
    else:
        write_json(folder / "config.json", hf_config(config, own, weights, dense))


def hf_config(config: ModelConfig, own: dict[str, Any], weights: str, dense: Sequence[str] = ()) -> dict[str, Any]:
    """The config.json that transformers reads as this config, with the other keys of the base's own."""
    values = {key: value for key, value in own.items() if key not in ("torch_dtype", "dtype", "quantization_config")}
    values = values or {"bos_token_id": 1, "eos_token_id": 2}
    values |= {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": config.dim,
        "intermediate_size": config.hidden_dim,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_kv_heads,
        "vocab_size": config.vocab_size,
        "rms_norm_eps": config.norm_eps,
        "max_position_embeddings": config.max_seq_len,
        "tie_word_embeddings": config.tie_embeddings,
    }
    if config.own_head_dim is not None or values.get("head_dim") is not None:
        values["head_dim"] = config.head_dim
    if "rope_parameters" not in values:
        values["rope_theta"] = config.rope_theta
    if config.rope_scaling and not (values.get("rope_scaling") or "rope_parameters" in values):
        values["rope_scaling"] = hf_scaling(config.rope_scaling)
    if weights in QUANTIZED_NAMES:
        return {**values, "quantization_config": quantization_config(weights, dense)}
    return {**values, "torch_dtype": TORCH_NAMES[weights]}


def quantization_config(weights: str, dense: Sequence[str] = (), head: str | None = None) -> dict[str, Any]:
    """The part of config.json by which transformers sets up bitsandbytes' layers in place of all but `dense`.

    With a quantized `head` the method has a name of our own: transformers then refuses the folder, where it would read
    the codes of the head as its weights.
    """
    if head is not None:
        return {**quantization_config(weights, dense), "quant_method": "lowrank", "head": head}
    # A list of ours takes the place of transformers' own, which has the output head.
    skipped = {"llm_int8_skip_modules": ["lm_head", *map(to_hf, dense)]} if dense else {}
    if weights == "int8":
        return {"quant_method": "bitsandbytes", "load_in_8bit": True, "load_in_4bit": False, **skipped}
    return {
        **skipped,
        "quant_method": "bitsandbytes",
        "load_in_4bit": True,
        "load_in_8bit": False,
        "bnb_4bit_quant_type": weights.partition("-")[0],
        "bnb_4bit_use_double_quant": weights.endswith("-dq"),
        "bnb_4bit_compute_dtype": "float32",
        "bnb_4bit_quant_storage": "uint8",
    }


def meta_params(config: ModelConfig) -> dict[str, Any]:
    """The params.json that Meta's code reads as this config; its `multiple_of` is chosen to give the ffn's width.

    Raises ValueError for a head_dim other than dim / n_heads and a scaling of RoPE, which Meta's code has not.
    """
    if config.own_head_dim is not None:
        raise ValueError(
            f"params.json has no place for a head_dim of {config.head_dim} with dim {config.dim} and {config.n_heads} "
            "heads: write a Hugging Face folder"
        )
    params: dict[str, Any] = {
        "dim": config.dim,
        "n_layers": config.n_layers,
        "n_heads": config.n_heads,
        "n_kv_heads": config.n_kv_heads,
        "vocab_size": config.vocab_size,
        "norm_eps": config.norm_eps,
    }
    if config.rope_theta != 10_000.0:  # the code that came with Llama 2 does not know the key
        params["rope_theta"] = config.rope_theta
    if config.rope_scaling:
        params["use_scaled_rope"] = True
        if (assumed := from_meta({**params, "multiple_of": 1}).rope_scaling) != config.rope_scaling:
            raise ValueError(f"params.json has no place for {config.rope_scaling}: Meta's code assumes {assumed}")
    for multiple_of, multiplier in ((256, None), (1024, None), (4096, 1.3), (config.hidden_dim, None)):
        if ffn_hidden_dim(config.dim, multiple_of, multiplier) == config.hidden_dim:
            break
    else:  # narrower than 8 dim / 3: the multiplier brings it to at most this width, the rounding up to it
        multiple_of, multiplier = config.hidden_dim, config.hidden_dim / int(8 * config.dim / 3)
    params["multiple_of"] = multiple_of
    if multiplier is not None:
        params["ffn_dim_multiplier"] = multiplier
    return params
