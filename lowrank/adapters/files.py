"""The files of an adapter, which are PEFT's: `adapter_config.json`, `adapter_model.safetensors`; and our provenance.

The files always hold Hugging Face's layout, where the rows of wq and wk stand in halves; a base in Meta's
(interleaved) layout has the rows of lora_B put in its own order when an adapter is loaded, and back when it is saved.
That is exact, and makes a saved folder mean the same to PEFT and to every base here.

r rank, N out_features, K in_features.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..atomic_io import new_folder, sha256_of, write_json
from ..checkpoints import fingerprint
from ..checkpoints.sidecar_files import RECORD_FILE
from ..layers.lora import AdapterConfig
from ..model.config import ModelConfig
from ..model.llama import Llama
from ..model.param_names import to_hf
from ..model.rope_layout import reorder_rope_rows
from . import adapter_parameters, check_new, freeze_base, layer_configs, lora_layer, unwrapped
from .peft_config import CONFIG_FILE, read_peft_config, to_peft_config

WEIGHTS_FILE = "adapter_model.safetensors"
PREFIX = "base_model.model."


class Pair(NamedTuple):
    """The two matrices of one linear, float32: lora_A [r, K], lora_B [N, r], and what they are scaled by."""

    config: AdapterConfig
    lora_A: Tensor
    lora_B: Tensor

    def delta(self) -> Tensor:
        """delta W = scaling * (A B)^T = scaling * lora_B lora_A;  [N, K]"""
        return self.config.scaling * (self.lora_B @ self.lora_A)


@dataclass(frozen=True)
class StoredAdapter:
    """An adapter as it is in its folder, rows in halves: pairs by the path of their linear, in Meta's names."""

    folder: Path
    pairs: dict[str, Pair]
    record: dict[str, Any]  # its provenance, {} if it has none

    @property
    def configs(self) -> dict[str, AdapterConfig]:
        """Rank, alpha and the rest by the path of the linear."""
        return {path: pair.config for path, pair in self.pairs.items()}

    def reorder_rope_rows(self, path: str, base: ModelConfig) -> Pair:
        """The pair of one linear with the rows of lora_B in the order of a base."""
        pair = self.pairs[path]
        return pair._replace(lora_B=reorder_rope_rows(pair.lora_B, path, base, "half", base.rope_layout))


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
        if matrix == "lora_B":
            value = reorder_rope_rows(value, layer, model.config, model.config.rope_layout, "half")
        tensors[tensor_key(layer, matrix)] = value.contiguous()
    with new_folder(Path(folder)) as aside:
        write_peft_files(aside, tensors, to_peft_config(configs, model.config.n_layers))
        record = fingerprint.record(model, sha256_of(aside / WEIGHTS_FILE), **(notes or {}))
        write_json(aside / RECORD_FILE, record)


def load_adapter(
    model: Llama, name: str, folder: str | Path, *, trainable: bool = False, force: bool = False
) -> dict[str, Any]:
    """Reads a PEFT adapter and adds it under a name, frozen unless `trainable`; returns its record ({} if it has none).

    It is inactive until `use_adapter` names it.  Raises ValueError naming file and key for a PEFT option that is not
    supported, tensors that are missing, foreign or misshapen, and a hat made for another base (unless `force`).
    """
    model = unwrapped(model)
    stored = read_adapter(folder, model.config, None if force else model.source)
    check_new(model, name)
    device = model.tok_embeddings.weight.device
    freeze_base(model)
    for path in stored.pairs:
        config, lora_A, lora_B = stored.reorder_rope_rows(path, model.config)
        lora_layer(model, path).add(name, config, lora_A.to(device), lora_B.to(device), trainable)
    return stored.record


def read_adapter(
    folder: str | Path, base: ModelConfig | None = None, source: Mapping[str, str] | None = None
) -> StoredAdapter:
    """An adapter's files, checked against each other, and against a base if one is given.

    base    its shapes
    source  its fingerprint (see `Llama.source`)
    Raises ValueError naming file and key for whatever does not fit, for weights other than those of lowrank.json, and
    with both fingerprints for a hat that was made for another base.
    """
    folder = Path(folder)
    for filename in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / filename).is_file():
            raise ValueError(f"{folder}: {filename} is missing, so this is no PEFT adapter")
    record = fingerprint.read_record(folder)
    if source is not None:
        fingerprint.check_same_base(source, record, str(folder))
    options = read_peft_config(folder / CONFIG_FILE)
    fingerprint.check_weights(record, folder / WEIGHTS_FILE)
    try:
        tensors = load_file(folder / WEIGHTS_FILE)
    except SafetensorError as error:
        raise ValueError(f"{folder / WEIGHTS_FILE}: not a whole safetensors file (truncated?): {error}") from None
    configs = options.layer_configs(base.n_layers if base else _layers(tensors))
    return StoredAdapter(folder, _pairs(tensors, configs, base, folder / WEIGHTS_FILE), record)


def tensor_key(path: str, matrix: str) -> str:
    """("layers.0.attention.wq", "lora_A") -> PEFT's key of that matrix"""
    return f"{PREFIX}{to_hf(path)}.{matrix}.weight"


def write_peft_files(folder: Path, tensors: dict[str, Tensor], config: dict[str, Any]) -> None:
    """PEFT's two files. The tensors are read back and compared.  Raises OSError if they differ."""
    save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    write_json(folder / CONFIG_FILE, config)
    read = load_file(folder / WEIGHTS_FILE)
    if read.keys() != tensors.keys() or not all(torch.equal(read[key], tensors[key]) for key in tensors):
        raise OSError(f"{folder}: {WEIGHTS_FILE} does not read back as it was written")


def _layers(keys: Iterable[str]) -> int:
    """The smallest number of layers with these keys."""
    return 1 + max((int(match[1]) for key in keys if (match := re.search(r"\.layers\.(\d+)\.", key))), default=0)


def _pairs(
    tensors: dict[str, Tensor], configs: dict[str, AdapterConfig], base: ModelConfig | None, where: Path
) -> dict[str, Pair]:
    """Both matrices of every linear that the config covers, in float32; there must be nothing else."""
    wanted = {path: (tensor_key(path, "lora_A"), tensor_key(path, "lora_B")) for path in configs}
    keys = [key for pair in wanted.values() for key in pair]
    if missing := [key for key in keys if key not in tensors]:
        present = len(keys) - len(missing)
        raise ValueError(
            f"{where}: {_some(missing)} is missing: of {len(keys)} matrices that the config asks of this base "
            f"{present or 'none'} is there"
        )
    if foreign := sorted(tensors.keys() - set(keys)):
        raise ValueError(f"{where}: {_some(foreign)} fits no linear of this base that the config names")
    shapes = base.linear_shapes() if base else {}
    pairs = {}
    for path, config in configs.items():
        lora_A, lora_B = (tensors[key] for key in wanted[path])
        out_features, in_features = shapes.get(path.split(".", 2)[2], (lora_B.shape[0], lora_A.shape[-1]))
        expected = ((config.rank, in_features), (out_features, config.rank))
        for key, tensor, shape in zip(wanted[path], (lora_A, lora_B), expected, strict=True):
            if tuple(tensor.shape) != shape:
                got = list(tensor.shape)
                raise ValueError(f"{where}: {key} must have shape {list(shape)} on this base, got {got}")
            if not torch.isfinite(tensor).all():
                raise ValueError(f"{where}: {key} must be finite, holds NaN or infinity")
        pairs[path] = Pair(config, lora_A.float(), lora_B.float())
    return pairs


def _some(names: list[str]) -> str:
    return names[0] + (f" (and {len(names) - 1} more)" if len(names) > 1 else "")
