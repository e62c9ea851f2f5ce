"""The files of an adapter, which are PEFT's: `adapter_config.json`, `adapter_model.safetensors`; and our provenance.

The files always hold Hugging Face's layout, where the rows of wq and wk stand in halves; a base in Meta's
(interleaved) layout has the rows of lora_B put in its own order when an adapter is loaded, and back when it is saved.
That is exact, and makes a saved folder mean the same to PEFT and to every base here.

r rank, N out_features, K in_features, V rows of the embedding, D model dim.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..atomic_io import new_folder, sha256_of, write_json
from ..checkpoints import fingerprint
from ..checkpoints.sidecar_files import RECORD_FILE
from ..layers.adapter_rows import AdapterRows
from ..model.config import ModelConfig
from ..model.llama import Llama
from ..model.param_names import to_hf
from ..model.rope_layout import reorder_rope_rows
from . import (
    adapter_parameters,
    adapter_rows,
    check_new,
    freeze_base,
    layer_configs,
    lora_layer,
    rows_module,
    unwrapped,
)
from .folder import CONFIG_FILE
from .folder import WEIGHTS_FILE as WEIGHTS_FILE
from .key_names import ROWS, TOKEN_ROWS, rows_key
from .key_names import tensor_key as tensor_key
from .peft_config import to_peft_config
from .stored import Pair as Pair
from .stored import SavedRows
from .stored import StoredAdapter as StoredAdapter
from .stored import read_adapter as read_adapter


def save_adapter(
    model: Llama,
    name: str,
    folder: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    notes: dict[str, Any] | None = None,
    base_name: str | None = None,
) -> None:
    """Writes the adapter as PEFT reads it, and `lowrank.json` with its provenance and `notes` beside it.

    base_name  for `base_model_name_or_path`, such as "meta-llama/Llama-2-7b-hf"; left out, what `load` was given
    The files appear together or not at all, and are read back and compared before they do.
    Raises ValueError for an unknown name, and for NaN or infinity in a matrix.
    """
    model = unwrapped(model)
    configs = layer_configs(model, name)
    tensors = {}
    for path, parameter in adapter_parameters(model, name).items():
        layer, _, matrix = path.rpartition(".")
        value = parameter.detach().to("cpu", dtype)
        if not torch.isfinite(value).all():
            raise ValueError(f"adapter {name!r}: {path} is not finite in {dtype}, so it is not saved")
        if matrix != "lora_A":
            value = _rows_in_halves(value, layer, model.config)
        tensors[tensor_key(layer, matrix)] = value.contiguous()
    rows: dict[str, list[int] | None] = {}
    for path, module in adapter_rows(model).items():
        if name in module.rows:
            index = module.index[name]
            rows[path] = None if index is None else index.tolist()
            part = ROWS if index is None else TOKEN_ROWS
            tensors[rows_key(path, part)] = module.rows[name].detach().to("cpu", dtype).contiguous()
    with new_folder(Path(folder)) as aside:
        base_name = base_name or model.name_or_path or None
        write_peft_files(aside, tensors, to_peft_config(configs, model.config.n_layers, base_name, rows))
        record = fingerprint.record(model, sha256_of(aside / WEIGHTS_FILE), **(notes or {}))
        write_json(aside / RECORD_FILE, record)


def load_adapter(
    model: Llama, name: str, folder: str | Path, *, trainable: bool = False, force: bool = False
) -> dict[str, Any]:
    """Reads a PEFT adapter and adds it under a name, frozen unless `trainable`; returns its record ({} if it has none).

    It is inactive until `use_adapter` names it.  Raises ValueError naming file and key for a PEFT option that is not
    supported, tensors that are missing, foreign or misshapen, a hat made for another base (unless `force`), and
    rows of the embedding or head in a hat that is to be trained.
    """
    model = unwrapped(model)
    stored = read_adapter(folder, model.config, None if force else model.source, force=force)
    check_new(model, name)
    device = model.tok_embeddings.weight.device
    saved = _other_rows(model, stored)
    if trainable and saved:
        raise ValueError(f"{folder}: has rows of {to_hf(next(iter(saved)))} of its own: it can be worn, not trained on")
    freeze_base(model)
    for path in stored.pairs:
        config, lora_A, lora_B, magnitude = stored.reorder_rope_rows(path, model.config)
        magnitude = None if magnitude is None else magnitude.to(device)
        lora_layer(model, path).add(name, config, lora_A.to(device), lora_B.to(device), trainable, magnitude)
    for path, (rows, index) in saved.items():
        rows_module(model, path).add(name, rows, None if index is None else torch.tensor(index))
    return stored.record


def _other_rows(model: Llama, stored: StoredAdapter) -> dict[str, SavedRows]:
    """The rows that differ from the base's; with tied embeddings single tokens' rows are the head's as well."""
    other = {}
    for path, saved in stored.saved.items():
        module = model.get_submodule(path)
        weight: Any = module.base.weight if isinstance(module, AdapterRows) else module.weight
        replaced = saved.replaced_in(weight)
        if replaced.shape != weight.shape or not torch.equal(replaced, weight):
            other[path] = saved
    tied = model.config.tie_embeddings and "output" not in stored.saved
    if tied and "tok_embeddings" in other and other["tok_embeddings"].which is not None:
        other["output"] = other["tok_embeddings"]
    return other


def write_peft_files(folder: Path, tensors: dict[str, Tensor], config: dict[str, Any]) -> None:
    """PEFT's two files. The tensors are read back and compared.  Raises OSError if they differ."""
    save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    write_json(folder / CONFIG_FILE, config)
    read = load_file(folder / WEIGHTS_FILE)
    if read.keys() != tensors.keys() or not all(torch.equal(read[key], tensors[key]) for key in tensors):
        raise OSError(f"{folder}: {WEIGHTS_FILE} does not read back as it was written")


def _rows_in_halves(value: Tensor, path: str, config: ModelConfig) -> Tensor:
    """The rows of lora_B [N, r], or of a magnitude [N], as files have them."""
    rows = value if value.dim() == 2 else value[:, None]
    return reorder_rope_rows(rows, path, config, config.rope_layout, "half").view(value.shape)
