"""Hats in llama.cpp's files: what `lowrank export --format gguf` and `convert_lora_to_gguf.py` write.

    y = x W^T + alpha / r * (x lora_a^T) lora_b^T          lora_a [r, K], lora_b [N, r], r that of each pair

An alpha of 0 means a scaling of 1. Rows of lora_b of q and k are interleaved: the heads of the base say where they go.
"""

import re
from pathlib import Path

from torch import Tensor

from ..gguf.header import read_header
from ..gguf.names import to_meta
from ..gguf.read import ARCHITECTURE, read_tensor
from ..layers.lora import AdapterConfig
from ..model.config import ModelConfig
from ..model.param_names import LINEARS, is_block_linear
from ..model.rope_layout import ROTATED, reorder_rope_rows
from . import check_range
from .key_names import tensor_key

_MATRICES = {"lora_a": "lora_A", "lora_b": "lora_B"}


def read_gguf_adapter(path: Path, base: ModelConfig | None) -> tuple[dict[str, AdapterConfig], dict[str, Tensor]]:
    """Options by the path of their linear, in Meta's names, and the matrices as PEFT has them, by PEFT's keys

    base   its heads order the rows of q and k
    Raises ValueError naming file and key for a file of another kind, a tensor that fits no linear, a matrix without its
    other one, and a hat on q or k where no base is given.
    """
    header = read_header(path)
    if header.kind != "adapter" or header.values.get("adapter.type") != "lora":
        raise ValueError(f"{path}: is a GGUF file of general.type {header.kind!r}, not a hat of adapter.type 'lora'")
    if header.architecture != ARCHITECTURE:
        raise ValueError(f"{path}: general.architecture must be {ARCHITECTURE!r}, got {header.architecture!r}")
    if "adapter.alora.invocation_tokens" in header.values:
        raise ValueError(f"{path}: adapter.alora.invocation_tokens: an activated LoRA is not read here")
    alpha = header.values.get("adapter.lora.alpha")
    if not isinstance(alpha, float):
        raise ValueError(f"{path}: adapter.lora.alpha must be a number, got {alpha!r}")
    pairs: dict[str, dict[str, Tensor]] = {}
    for key, info in header.tensors.items():
        match = re.fullmatch(r"(.+\.weight)\.(lora_a|lora_b)", key)
        name = to_meta(match[1]) if match else None
        if match is None or name is None or not is_block_linear(name) or len(info.shape) != 2:
            raise ValueError(f"{path}: {key} fits no linear of a Llama")
        linear, value = name.removesuffix(".weight"), read_tensor(path, info).float()
        if match[2] == "lora_b" and linear.endswith(ROTATED):
            if base is None:
                raise ValueError(f"{path}: {key}: the heads of its base order its rows: name the base")
            if value.shape[0] % base.head_dim == 0:
                value = reorder_rope_rows(value, linear, base, "interleaved", "half")
        pairs.setdefault(linear, {})[_MATRICES[match[2]]] = value
    targets = tuple(linear for linear in LINEARS if any(found.endswith(linear) for found in pairs))
    configs: dict[str, AdapterConfig] = {}
    tensors: dict[str, Tensor] = {}
    for linear, pair in pairs.items():
        if pair.keys() != set(_MATRICES.values()):
            raise ValueError(f"{path}: {linear} must have lora_a and lora_b, has one of them")
        rank = pair["lora_A"].shape[0]
        configs[linear] = AdapterConfig(rank, alpha or float(rank), targets, 0.0)
        check_range(configs[linear], str(path), {"alpha": "adapter.lora.alpha"})
        tensors |= {tensor_key(linear, matrix): value for matrix, value in pair.items()}
    if not pairs:
        raise ValueError(f"{path}: holds no matrices")
    return configs, tensors
