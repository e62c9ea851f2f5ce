"""Named adapters ("hats") on one frozen base: add, use, mix, drop, and their files, which are PEFT's.

N out_features, K in_features, r rank, H heads of a projection, h head dim.

The files always hold Hugging Face's layout, where the rows of wq and wk stand in halves; a base in Meta's
(interleaved) layout has the rows of lora_B put in its own order when an adapter is loaded, and back when it is saved.
That is exact, and makes a saved folder mean the same to PEFT and to every base here.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from . import provenance
from .files import new_folder, write_json
from .lora import AdapterConfig, LoRALinear, initial_matrices
from .model.config import ModelConfig, RopeLayout, read_json
from .model.llama import Llama
from .model.names import HF_LINEARS, LINEARS, to_hf

WEIGHTS_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"
ATTENTION = tuple(name for name in LINEARS if name.startswith("attention."))
PREFIX = "base_model.model."

# PEFT options that change the mathematics in a way that is not done here, with the values that leave it alone.
PEFT_FIXED: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none",),
    "fan_in_fan_out": (False, None),
    "use_dora": (False, None),
    "use_qalora": (False, None),
    "lora_bias": (False, None),
    "modules_to_save": (None, []),
    "layers_to_transform": (None, []),
    "layer_replication": (None, []),
    "exclude_modules": (None, []),
    "target_parameters": (None, []),
    "trainable_token_indices": (None, []),
    "rank_pattern": ({}, None),
    "alpha_pattern": ({}, None),
    "alora_invocation_tokens": (None,),
    "use_bdlora": (None, False),
}


def add_adapter(
    model: Llama,
    name: str,
    *,
    rank: int = 8,
    alpha: float = 16.0,
    targets: str | Sequence[str] = "all",
    dropout: float = 0.0,
    rslora: bool = False,
    seed: int = 0,
) -> None:
    """A new trainable adapter: A uniform in +-1/sqrt(K) from `seed`, B zero, both float32. The base is frozen.

    targets: "all" (the seven linears of a block), "attention" (its four), or names, Meta's or Hugging Face's.
    It takes part once `use_adapter` names it.  Raises ValueError for a name in use or options out of range.
    """
    config = AdapterConfig(rank, alpha, resolve_targets(targets), dropout, rslora)
    _check(model, name, config)
    model.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    device = model.tok_embeddings.weight.device
    for path in _target_paths(model, config.targets):
        layer = _wrap(model, path)
        lora_A, lora_B = initial_matrices(layer.in_features, layer.out_features, rank, generator, device)
        layer.add(name, config, lora_A, lora_B, trainable=True)


def use_adapter(model: Llama, use: str | Mapping[str, float] | Sequence[str | None] | None) -> None:
    """Which adapters are added from now on: None, one name, a weighted mix, or one name (or None) a row of the batch.

    Raises ValueError for a name that is not held.
    """
    if use is None:
        weights: dict[str, float | Tensor] = {}
    elif isinstance(use, str):
        weights = {use: 1.0}
    elif isinstance(use, Mapping):
        weights = dict(use)
    else:
        device = model.tok_embeddings.weight.device
        weights = {
            name: torch.tensor([float(row == name) for row in use], device=device)
            for name in dict.fromkeys(use)
            if name is not None
        }
    held = adapter_names(model)
    for name in weights:
        if name not in held:
            raise ValueError(f"unknown adapter {name!r}: this model holds {held or 'none'}")
    for layer in lora_layers(model).values():
        layer.active = tuple((name, weight) for name, weight in weights.items() if name in layer.configs)


def drop_adapter(model: Llama, name: str) -> None:
    """Forgets an adapter; the base is what it was before it.  Raises ValueError for a name that is not held."""
    _adapter_config(model, name)
    for path, layer in lora_layers(model).items():
        if name in layer.configs:
            layer.active = tuple(part for part in layer.active if part[0] != name)
            layer.drop(name)
        if not layer.configs:
            model.set_submodule(path, layer.base)


def adapter_names(model: Llama) -> list[str]:
    """The names of the adapters that a model holds, in the order in which they came."""
    return list(dict.fromkeys(name for layer in lora_layers(model).values() for name in layer.configs))


def adapter_parameters(model: Llama, name: str) -> dict[str, nn.Parameter]:
    """The matrices of one adapter by the path of their layer: "layers.0.attention.wq.lora_A" ..."""
    _adapter_config(model, name)
    return {
        f"{path}.{matrix}": getattr(layer, matrix)[name]
        for path, layer in lora_layers(model).items()
        if name in layer.configs
        for matrix in ("lora_A", "lora_B")
    }


def lora_layers(model: Llama) -> dict[str, LoRALinear]:
    """Every layer that carries adapters, by its path in Meta's names."""
    return {path: module for path, module in model.named_modules() if isinstance(module, LoRALinear)}


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
    config = _adapter_config(model, name)
    tensors = {}
    for path, parameter in adapter_parameters(model, name).items():
        layer, _, matrix = path.rpartition(".")
        value = parameter.detach()
        if not torch.isfinite(value).all():
            raise ValueError(f"adapter {name!r}: {path} is not finite, so it is not saved")
        if matrix == "lora_B":
            value = _in_layout(value, layer, model.config, model.config.rope_layout, "half")
        tensors[f"{PREFIX}{to_hf(layer)}.{matrix}.weight"] = value.to("cpu", dtype).contiguous()
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
    _check(model, name, config)
    device = model.tok_embeddings.weight.device
    model.requires_grad_(False)
    for path, (lora_A, lora_B) in matrices.items():
        lora_B = _in_layout(lora_B, path, model.config, "half", model.config.rope_layout)
        _wrap(model, path).add(name, config, lora_A.to(device), lora_B.to(device), trainable)
    return recorded


def resolve_targets(targets: str | Sequence[str]) -> tuple[str, ...]:
    """Meta's names, in Meta's order, of "all", "attention", or names of either kind ("wq", "q_proj", "attention.wq").

    Raises ValueError for another name, or none.
    """
    if targets == "all":
        return LINEARS
    if targets == "attention":
        return ATTENTION
    known = {short: meta for meta in LINEARS for short in (meta, meta.partition(".")[2])}
    known |= {short: meta for hf, meta in zip(HF_LINEARS, LINEARS, strict=True) for short in (hf, hf.partition(".")[2])}
    chosen = set()
    for target in [targets] if isinstance(targets, str) else targets:
        if target not in known:
            raise ValueError(f"targets: unknown linear {target!r}: 'all', 'attention', or of {', '.join(known)}")
        chosen.add(known[target])
    if not chosen:
        raise ValueError("targets: name at least one linear, got none")
    return tuple(meta for meta in LINEARS if meta in chosen)


def _check(model: Llama, name: str, config: AdapterConfig) -> None:
    if not re.fullmatch(r"\w[\w-]*", name):
        raise ValueError(f"an adapter's name must be letters, digits, _ and -, got {name!r}")
    if name in adapter_names(model):
        raise ValueError(f"adapter {name!r} is already there: drop it first, or choose another name")
    if config.rank < 1:
        raise ValueError(f"adapter {name!r}: rank must be at least 1, got {config.rank}")
    if not 0 <= config.dropout < 1:
        raise ValueError(f"adapter {name!r}: dropout must be in [0, 1), got {config.dropout}")


def _adapter_config(model: Llama, name: str) -> AdapterConfig:
    for layer in lora_layers(model).values():
        if name in layer.configs:
            return layer.configs[name]
    raise ValueError(f"unknown adapter {name!r}: this model holds {adapter_names(model) or 'none'}")


def _target_paths(model: Llama, targets: Sequence[str]) -> list[str]:
    return [f"layers.{layer}.{target}" for layer in range(model.config.n_layers) for target in targets]


def _wrap(model: Llama, path: str) -> LoRALinear:
    """The LoRA layer at a path, put around the linear that is there if it is the first adapter's."""
    module = model.get_submodule(path)
    if not isinstance(module, LoRALinear):
        out_features, in_features = model.config.linear_shapes()[path.split(".", 2)[2]]
        module = LoRALinear(module, in_features, out_features).train(model.training)
        model.set_submodule(path, module)
    return module


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
    for key, allowed in PEFT_FIXED.items():
        if key in values and values[key] not in allowed:
            raise ValueError(f"{path}: {key} must be {allowed[0]!r}, got {values[key]!r}: it is not done here")
    for key in ("r", "lora_alpha", "target_modules"):
        if key not in values:
            raise ValueError(f"{path}: key {key!r} is missing")
    targets = values["target_modules"]
    if not isinstance(targets, list) and targets != "all-linear":
        raise ValueError(f"{path}: target_modules must be a list of names or 'all-linear', got {targets!r}")
    return AdapterConfig(
        rank=values["r"],
        alpha=values["lora_alpha"],
        targets=resolve_targets("all" if targets == "all-linear" else targets),
        dropout=values.get("lora_dropout", 0.0),
        rslora=values.get("use_rslora", False),
    )


def _read_matrices(path: Path, model: Llama, config: AdapterConfig) -> dict[str, tuple[Tensor, Tensor]]:
    """lora_A and lora_B in float32 by the path of their layer: every target of every layer, and nothing else."""
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path}: not a whole safetensors file (truncated?): {error}") from None
    shapes = model.config.linear_shapes()
    matrices = {}
    for layer in _target_paths(model, config.targets):
        out_features, in_features = shapes[layer.split(".", 2)[2]]
        pair = []
        for matrix, shape in (("lora_A", (config.rank, in_features)), ("lora_B", (out_features, config.rank))):
            key = f"{PREFIX}{to_hf(layer)}.{matrix}.weight"
            if key not in tensors:
                raise ValueError(f"{path}: {key} is missing: the hat does not cover this base")
            if tuple(tensors[key].shape) != shape:
                got = list(tensors[key].shape)
                raise ValueError(f"{path}: {key} must have shape {list(shape)} on this base, got {got}")
            pair.append(tensors.pop(key).float())
        matrices[layer] = (pair[0], pair[1])
    if tensors:
        raise ValueError(f"{path}: {min(tensors)} fits no linear of this base that the config names")
    return matrices
