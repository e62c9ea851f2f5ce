"""A `ModelConfig` from `params.json` (Meta) or `config.json` (Hugging Face).

A key that would change the mathematics is honoured or refused by name; it is never passed over.
"""

import json
import warnings
from pathlib import Path
from typing import Any

from .config import ModelConfig, RopeScaling, ffn_hidden_dim
from .foreign_file import foreign_file_reason
from .hf_keys import HF_ARCHITECTURES, HF_FIXED, HF_HARMLESS, HF_READ

# The kinds of scaled RoPE that are honoured, and the keys that each must have.
SCALED = {
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
}
SCALING_NAMES = {"original_max_position_embeddings": "original_max_seq_len"}

META_READ = (
    "dim",
    "n_layers",
    "n_heads",
    "n_kv_heads",
    "vocab_size",
    "multiple_of",
    "ffn_dim_multiplier",
    "norm_eps",
    "rope_theta",
    "use_scaled_rope",
)


def from_meta(params: dict[str, Any], where: str = "params.json") -> ModelConfig:
    """The config that Meta's `params.json` describes.

    use_scaled_rope is Llama 3.1's scaling by 8, and in models of fewer than 4096 dims, Llama 3.2's 1B and 3B, by 32:
    the file does not say which. Raises ValueError naming `where` and the key for a missing key, or a foreign one.
    """
    if "model" in params:  # later files of Meta's nest the model's own keys
        if len(params) > 1:
            raise ValueError(f"{where}: unknown key {next(key for key in params if key != 'model')!r} beside 'model'")
        params = params["model"]
        if not isinstance(params, dict):
            raise ValueError(f"{where}: 'model' must hold a JSON object, got {type(params).__name__}")
    for key in params:
        if key not in META_READ:
            raise ValueError(f"{where}: unknown key {key!r}: it may change the mathematics, so it is not passed over")
    _warn_norm_eps(params.get("norm_eps"), where)
    dim, n_heads = _need(params, "dim", where), _need(params, "n_heads", where)
    return _checked(
        where,
        dim=dim,
        n_layers=_need(params, "n_layers", where),
        n_heads=n_heads,
        n_kv_heads=params.get("n_kv_heads") or n_heads,
        hidden_dim=ffn_hidden_dim(dim, params.get("multiple_of", 256), params.get("ffn_dim_multiplier")),
        vocab_size=params.get("vocab_size", -1),
        norm_eps=params.get("norm_eps", 1e-5),
        rope_theta=params.get("rope_theta", 10_000.0),
        max_seq_len=_meta_context(params),
        rope_layout="interleaved",
        rope_scaling=_meta_scaling(dim) if params.get("use_scaled_rope") else None,
    )


def _meta_context(params: dict[str, Any]) -> int:
    """Positions that Meta's models are made for: Llama 2's 4096, Llama 3's 8192, and with scaled RoPE 131,072."""
    if params.get("use_scaled_rope"):
        return 131_072
    return 8192 if params.get("rope_theta") == 500_000.0 else 4096


def _meta_scaling(dim: Any) -> RopeScaling:
    return RopeScaling("llama3", 32.0 if isinstance(dim, int) and dim < 4096 else 8.0)


def from_hf(config: dict[str, Any], where: str = "config.json") -> ModelConfig:
    """The config that Hugging Face's `config.json` describes.

    Raises ValueError naming `where` and the key for another architecture, another quantization than bitsandbytes',
    RoPE that is scaled as none of SCALED, biases or sliding windows. Warns of a key that is not known.
    """
    architectures = config.get("architectures") or ["LlamaForCausalLM"]
    if architectures not in ([name] for name in HF_ARCHITECTURES):
        raise ValueError(f"{where}: architectures must be ['LlamaForCausalLM'], got {architectures}")
    for key, value in config.items():
        if key in HF_FIXED:
            if value is not None and value not in HF_FIXED[key]:
                raise ValueError(f"{where}: {key} must be {HF_FIXED[key][0]!r} or absent, got {value!r}")
        elif key not in HF_READ and key not in HF_HARMLESS and value not in (None, False):
            warnings.warn(f"{where}: key {key!r} is not known here and is not acted on", stacklevel=2)
    check_quantization(config, where)
    rope = config.get("rope_parameters") or {}
    scaling = _hf_scaling(rope, f"{where}: rope_parameters")
    scaling = _hf_scaling(config.get("rope_scaling") or {}, f"{where}: rope_scaling") or scaling
    _warn_norm_eps(config.get("rms_norm_eps"), where)
    n_heads = _need(config, "num_attention_heads", where)
    return _checked(
        where,
        dim=_need(config, "hidden_size", where),
        n_layers=_need(config, "num_hidden_layers", where),
        n_heads=n_heads,
        n_kv_heads=config.get("num_key_value_heads") or n_heads,
        hidden_dim=_need(config, "intermediate_size", where),
        vocab_size=_need(config, "vocab_size", where),
        norm_eps=config.get("rms_norm_eps", 1e-6),
        rope_theta=rope.get("rope_theta", config.get("rope_theta", 10_000.0)),
        max_seq_len=config.get("max_position_embeddings", 2048),
        tie_embeddings=bool(config.get("tie_word_embeddings", False)),
        rope_layout="half",
        rope_scaling=scaling,
        own_head_dim=config.get("head_dim"),
    )


# "lowrank" is bitsandbytes' tensors with a quantized output head, which transformers would take for numbers.
QUANT_METHODS = ("bitsandbytes", "lowrank")


def check_quantization(config: dict[str, Any], where: str) -> None:
    """Raises ValueError naming the method if config.json says that weights are quantized by another than bitsandbytes.

    Which linears are quantized, and how, is read off the weights themselves.
    """
    quantization = config.get("quantization_config") or {}
    if isinstance(quantization, dict):  # the first files of bitsandbytes do not name it
        is_named = "quant_method" in quantization or not {"load_in_4bit", "load_in_8bit"}.isdisjoint(quantization)
        method = quantization.get("quant_method", "bitsandbytes" if is_named or not quantization else "(not named)")
        if isinstance(method, str) and method.removesuffix("_4bit").removesuffix("_8bit") in QUANT_METHODS:
            return
    else:
        method = quantization
    raise ValueError(
        f"{where}: quantization_config.quant_method must be 'bitsandbytes', got {method!r}: take the weights from "
        "before that quantization"
    )


def _hf_scaling(rope: object, where: str) -> RopeScaling | None:
    """The scaling that rope_parameters, or rope_scaling, describes in the words of any version of transformers.

    Raises ValueError naming the kind that is none of these, a key that is not known, and one that is missing.
    """
    if not isinstance(rope, dict):
        raise ValueError(f"{where} must be a JSON object, got {rope!r}")
    scaling = {key: value for key, value in rope.items() if value is not None and key != "rope_theta"}
    kind = scaling.pop("rope_type", scaling.pop("type", "default"))
    scaling.pop("type", None)
    if scaling.pop("partial_rotary_factor", 1.0) != 1.0:
        raise ValueError(f"{where}.partial_rotary_factor must be 1.0, got {rope['partial_rotary_factor']!r}")
    if kind == "default" and scaling.pop("factor", 1.0) == 1.0:
        needed: tuple[str, ...] = ()
    elif kind in SCALED:
        needed = SCALED[kind]
    else:
        got = f"{kind!r}" if kind != "default" else f"'default' with a factor of {rope['factor']!r}"
        raise ValueError(f"{where}.rope_type must be one of default, {', '.join(SCALED)}, got {got}")
    if kind == "linear":
        scaling.pop("original_max_position_embeddings", None)  # transformers does not look at it
    for key in (*scaling, *needed):
        if key not in needed:
            raise ValueError(f"{where}.{key} is not known with rope_type {kind!r}")
        if key not in scaling:
            raise ValueError(f"{where}.{key} is missing, which rope_type {kind!r} needs")
    if not needed:
        return None
    try:
        return RopeScaling(kind, **{SCALING_NAMES.get(key, key): scaling[key] for key in needed})
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def hf_scaling(scaling: RopeScaling) -> dict[str, Any]:
    """The rope_scaling of config.json that is read as this scaling."""
    if scaling.kind == "linear":
        return {"rope_type": "linear", "factor": scaling.factor}
    return {
        "rope_type": "llama3",
        "factor": scaling.factor,
        "low_freq_factor": scaling.low_freq_factor,
        "high_freq_factor": scaling.high_freq_factor,
        "original_max_position_embeddings": scaling.original_max_seq_len,
    }


def read_config(path: Path) -> ModelConfig:
    """The config of a `params.json` (Meta) or a `config.json` (Hugging Face), or of a folder that holds one."""
    for filename, parse in (("params.json", from_meta), ("config.json", from_hf)):
        file = path / filename if path.is_dir() else path
        if file.name == filename and file.exists():
            return parse(read_json(file), str(file))
    raise ValueError(f"{path}: holds neither params.json (Meta) nor config.json (Hugging Face)")


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file.  Raises ValueError naming the file and the line for anything else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON: {foreign_file_reason(path) or error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path}: must hold a JSON object, got {type(value).__name__}")
    return value


def _warn_norm_eps(value: object, where: str) -> None:
    """The first files of Llama 2 said 1e-6 where all later ones say 1e-5: either is taken at its word."""
    if value == 1e-6:
        warnings.warn(f"{where}: norm_eps is 1e-06 and is taken as it stands; Llama 2 says 1e-05", stacklevel=3)


def _need(values: dict[str, Any], key: str, where: str) -> Any:
    if key not in values:
        raise ValueError(f"{where}: key {key!r} is missing")
    return values[key]


def _checked(where: str, **values: Any) -> ModelConfig:
    try:
        return ModelConfig(**values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from None
