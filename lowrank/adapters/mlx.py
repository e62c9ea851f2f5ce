"""Hats of MLX (`mlx_lm.lora`): `adapter_config.json` with "lora_parameters", `adapters.safetensors`.

    y = x W^T + scale * (drop(x) lora_a) lora_b          lora_a [K, r], lora_b [r, N], both transposed to PEFT's

Its scale is what scaling is here, so alpha = scale * r. A DoRA has "m" [N], the norms of rows. The rows of q and k are
Hugging Face's, as those of the models that MLX converts.
"""

import re
from pathlib import Path

from torch import Tensor

from ..layers.lora import AdapterConfig
from ..model.config_json import read_json
from ..model.param_names import HF_LINEARS, LINEARS
from .key_names import first_key, tensor_key
from .options import check_range

CALLED = {"dropout": "lora_parameters.dropout", "alpha": "lora_parameters.scale"}
_KEY = re.compile(r"model\.layers\.(\d+)\.((?:self_attn|mlp)\.\w+)\.(lora_a|lora_b|m)")


def read_mlx(
    config: Path, tensors: dict[str, Tensor], where: Path
) -> tuple[dict[str, AdapterConfig], dict[str, Tensor]]:
    """Options by the path of their linear, in Meta's names, and the matrices as PEFT has them, by PEFT's keys

    Raises ValueError naming file and key for what MLX does not write, and for a fine-tune that is no hat.
    """
    values = read_json(config)
    kind, options = values.get("fine_tune_type", "lora"), values.get("lora_parameters")
    if kind not in ("lora", "dora") or not isinstance(options, dict):
        raise ValueError(f"{config}: fine_tune_type must be 'lora' or 'dora' with lora_parameters, got {kind!r}")
    scale, dropout = options.get("scale"), options.get("dropout", 0.0)
    if not isinstance(scale, int | float) or isinstance(scale, bool):
        raise ValueError(f"{config}: lora_parameters.scale must be a number, got {scale!r}")
    matrices: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        match = _KEY.fullmatch(key)
        if match is None or match[2] not in HF_LINEARS:
            raise ValueError(f"{where}: {key} fits no linear of a Llama; {first_key(tensors)}")
        path = f"layers.{match[1]}.{LINEARS[HF_LINEARS.index(match[2])]}"
        matrices.setdefault(path, {})[match[3]] = tensor
    wanted = {"lora_a", "lora_b"} | ({"m"} if kind == "dora" else set())
    for path, parts in matrices.items():
        if parts.keys() != wanted or any(parts[name].dim() != 2 for name in ("lora_a", "lora_b")):
            raise ValueError(f"{where}: {path} must have {', '.join(sorted(wanted))}, has {', '.join(sorted(parts))}")
    targets = tuple(linear for linear in LINEARS if any(path.endswith(linear) for path in matrices))
    configs = {}
    for path, parts in matrices.items():
        rank = parts["lora_a"].shape[1]
        configs[path] = AdapterConfig(rank, scale * rank, targets, dropout, dora=kind == "dora")
        check_range(configs[path], str(config), CALLED)
    return configs, _as_peft(matrices)


def _as_peft(matrices: dict[str, dict[str, Tensor]]) -> dict[str, Tensor]:
    tensors = {}
    for path, parts in matrices.items():
        tensors[tensor_key(path, "lora_A")] = parts["lora_a"].T.contiguous()
        tensors[tensor_key(path, "lora_B")] = parts["lora_b"].T.contiguous()
        if "m" in parts:
            tensors[tensor_key(path, "lora_magnitude_vector")] = parts["m"]
    return tensors
