"""The files of an adapter, which are PEFT's: `adapter_config.json`, `adapter_model.safetensors`; and our provenance.

The files always hold Hugging Face's layout, where the rows of wq and wk stand in halves; a base in Meta's
(interleaved) layout has the rows of lora_B put in its own order when an adapter is loaded, and back when it is saved.
That is exact, and makes a saved folder mean the same to PEFT and to every base here.

r rank, H heads of a projection, h head dim.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from . import provenance
from .adapters import (
    adapter_config,
    adapter_parameters,
    check_new,
    check_range,
    freeze_base,
    lora_layer,
    resolve_targets,
    target_paths,
)
from .files import new_folder, write_json
from .lora import AdapterConfig
from .model.config import ModelConfig, RopeLayout, read_json
from .model.llama import Llama
from .model.names import to_hf

WEIGHTS_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"
PREFIX = "base_model.model."

# PEFT's options. What is neither read, harmless nor in PEFT_FIXED may change the mathematics: it has to be left empty.
PEFT_READ = ("r", "lora_alpha", "lora_dropout", "target_modules", "use_rslora")
PEFT_HARMLESS = (
    "auto_mapping",
    "base_model_name_or_path",
    "ensure_weight_tying",
    "eva_config",
    "inference_mode",
    "layers_pattern",
    "loftq_config",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "task_type",
)
PEFT_FIXED: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none",),
    # The other ways to start (PiSSA, OLoRA, CorDA, LoftQ, LoRA-GA) rewrite the base as well.
    "init_lora_weights": (True, False, "gaussian", "eva", "orthogonal"),
}


def save_adapter(
    model: Llama,
    name: str,
    folder: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    notes: dict[str, Any] | None = None,
) -> None:
    """Writes the adapter as PEFT reads it, and `lowrank.json` with its provenance and `notes` beside it.

    The files appear together or not at all, and are read back and compared before they do.
    Raises ValueError for a name that is not held, and for NaN or infinity in a matrix.
    """
    config = adapter_config(model, name)
    tensors = {}
    for path, parameter in adapter_parameters(model, name).items():
        layer, _, matrix = path.rpartition(".")
        value = parameter.detach().to("cpu", dtype)
        if not torch.isfinite(value).all():
            raise ValueError(f"adapter {name!r}: {path} is not finite in {dtype}, so it is not saved")
        if matrix == "lora_B":
            value = _in_layout(value, layer, model.config, model.config.rope_layout, "half")
        tensors[f"{PREFIX}{to_hf(layer)}.{matrix}.weight"] = value.contiguous()
    with new_folder(Path(folder)) as aside:
        save_file(tensors, aside / WEIGHTS_FILE, metadata={"format": "pt"})
        write_json(aside / CONFIG_FILE, _peft_config(config))
        write_json(aside / provenance.FILENAME, provenance.record(model, **(notes or {})))
        written = load_file(aside / WEIGHTS_FILE)
        if written.keys() != tensors.keys() or not all(torch.equal(written[key], tensors[key]) for key in tensors):
            raise OSError(f"{folder}: {WEIGHTS_FILE} does not read back as it was written")


def load_adapter(
    model: Llama, name: str, folder: str | Path, *, trainable: bool = False, force: bool = False
) -> dict[str, Any]:
    """Holds a PEFT adapter under a name, frozen unless `trainable`; returns its provenance ({} if it has none).

    It takes part once `use_adapter` names it.  Raises ValueError naming file and key for a PEFT option that is not
    done here, tensors that are missing, foreign or misshapen, and a hat made for another base (unless `force`).
    """
    folder = Path(folder)
    for filename in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / filename).is_file():
            raise ValueError(f"{folder}: {filename} is missing, so this is no PEFT adapter")
    config = _read_peft_config(folder / CONFIG_FILE)
    recorded = read_json(folder / provenance.FILENAME) if (folder / provenance.FILENAME).exists() else {}
    if not force:
        provenance.check_same_base(model, recorded, str(folder))
    matrices = _read_matrices(folder / WEIGHTS_FILE, model, config)
    check_new(model, name, config)
    device = model.tok_embeddings.weight.device
    freeze_base(model)
    for path, (lora_A, lora_B) in matrices.items():
        lora_B = _in_layout(lora_B, path, model.config, "half", model.config.rope_layout)
        lora_layer(model, path).add(name, config, lora_A.to(device), lora_B.to(device), trainable)
    return recorded


def _in_layout(lora_B: Tensor, path: str, config: ModelConfig, have: RopeLayout, want: RopeLayout) -> Tensor:
    """The rows of a q or k projection [H h, r] moved from one RoPE layout to the other; others are left alone."""
    if have == want or not path.endswith(("attention.wq", "attention.wk")):
        return lora_B
    pairs = (-1, 2) if have == "interleaved" else (2, -1)
    heads = lora_B.view(-1, config.head_dim, lora_B.shape[1])
    moved: Tensor = heads.unflatten(1, pairs).transpose(1, 2).reshape(lora_B.shape)
    return moved


def _peft_config(config: AdapterConfig) -> dict[str, Any]:
    """Few keys, since older PEFT refuses those it does not know."""
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": None,
        "r": config.rank,
        "lora_alpha": config.alpha,
        "lora_dropout": config.dropout,
        "target_modules": sorted(to_hf(f"layers.0.{target}").rpartition(".")[2] for target in config.targets),
        "bias": "none",
        "fan_in_fan_out": False,
        "use_rslora": config.rslora,
        "inference_mode": True,
        "init_lora_weights": True,
        "modules_to_save": None,
    }


def _read_peft_config(path: Path) -> AdapterConfig:
    values = read_json(path)
    for key, value in values.items():
        if key in PEFT_FIXED:
            if value not in PEFT_FIXED[key]:
                raise ValueError(f"{path}: {key} must be {PEFT_FIXED[key][0]!r}, got {value!r}: it is not done here")
        elif key not in PEFT_READ and key not in PEFT_HARMLESS and value not in (None, False, [], {}):
            raise ValueError(f"{path}: {key} must be left empty, got {value!r}: it is not done here")
    for key in ("r", "lora_alpha", "target_modules"):
        if key not in values:
            raise ValueError(f"{path}: key {key!r} is missing")
    targets = values["target_modules"]
    if targets != "all-linear" and not (isinstance(targets, list) and all(isinstance(name, str) for name in targets)):
        raise ValueError(f"{path}: target_modules must be a list of names or 'all-linear', got {targets!r}")
    try:
        resolved = resolve_targets("all" if targets == "all-linear" else targets)
    except ValueError as error:
        raise ValueError(f"{path}: target_modules: {error}") from None
    config = AdapterConfig(
        rank=values["r"],
        alpha=values["lora_alpha"],
        targets=resolved,
        dropout=values.get("lora_dropout", 0.0),
        rslora=values.get("use_rslora", False),
    )
    check_range(config, str(path), {"rank": "r", "alpha": "lora_alpha", "dropout": "lora_dropout"})
    return config


def _read_matrices(path: Path, model: Llama, config: AdapterConfig) -> dict[str, tuple[Tensor, Tensor]]:
    """lora_A and lora_B in float32 by the path of their layer: every target of every layer, and nothing else."""
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path}: not a whole safetensors file (truncated?): {error}") from None
    shapes = model.config.linear_shapes()
    matrices = {}
    for layer in target_paths(model, config.targets):
        out_features, in_features = shapes[layer.split(".", 2)[2]]
        pair = []
        for matrix, shape in (("lora_A", (config.rank, in_features)), ("lora_B", (out_features, config.rank))):
            key = f"{PREFIX}{to_hf(layer)}.{matrix}.weight"
            if key not in tensors:
                raise ValueError(f"{path}: {key} is missing: the hat does not cover this base")
            if tuple(tensors[key].shape) != shape:
                got = list(tensors[key].shape)
                raise ValueError(f"{path}: {key} must have shape {list(shape)} on this base, got {got}")
            if not torch.isfinite(tensors[key]).all():
                raise ValueError(f"{path}: {key} must be finite, holds NaN or infinity")
            pair.append(tensors.pop(key).float())
        matrices[layer] = (pair[0], pair[1])
    if tensors:
        raise ValueError(f"{path}: {min(tensors)} fits no linear of this base that the config names")
    return matrices
