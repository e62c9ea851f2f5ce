"""An adapter as its files have it, checked against each other and against a base.

r rank, N out_features, K in_features, n rows of V of the embedding or head, D model dim.
"""

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..checkpoints import fingerprint
from ..layers.dora import dora_delta
from ..layers.lora import AdapterConfig
from ..model.config import ModelConfig
from ..model.param_names import to_hf
from ..model.rope_layout import reorder_rope_rows
from . import MATRICES
from .folder import AdapterFiles, find_files, read_tensors
from .gguf_hat import read_gguf_adapter
from .key_names import ROWS, TOKEN_ROWS, first_key, rows_key, tensor_key, with_peft_keys
from .mlx import read_mlx
from .peft_config import PeftConfig, read_peft_config

NOTES = logging.getLogger("lowrank")


class Pair(NamedTuple):
    """The matrices of one linear, float32: lora_A [r, K], lora_B [N, r], and of a DoRA magnitude [N]"""

    config: AdapterConfig
    lora_A: Tensor
    lora_B: Tensor
    magnitude: Tensor | None = None

    def delta(self, weight: Tensor | None = None) -> Tensor:
        """delta W = scaling * (A B)^T = scaling * lora_B lora_A, of a DoRA W' - W;  [N, K]

        weight  W [N, K], float32, in the same order of rows: a DoRA's delta follows from it
        Raises ValueError for a DoRA without it.
        """
        added = self.config.scaling * (self.lora_B @ self.lora_A)
        if self.magnitude is None:
            return added
        if weight is None:
            raise ValueError("what a DoRA adds follows from W: name the base")
        return dora_delta(weight, added, self.magnitude)


class SavedRows(NamedTuple):
    """Rows of the embedding or the output head that come with an adapter: [n, D], all, or those of `which`."""

    rows: Tensor
    which: list[int] | None = None

    def replaced_in(self, weight: Tensor) -> Tensor:
        """The rows of a base, [V, D], with those of the adapter in their place, in the dtype of the base's."""
        if self.which is None:
            return self.rows.to(weight)
        return weight.index_copy(0, torch.tensor(self.which, device=weight.device), self.rows.to(weight))


@dataclass(frozen=True)
class StoredAdapter:
    """An adapter as it is in its folder, rows in halves: pairs by the path of their linear, in Meta's names.

    saved  rows of "tok_embeddings" and "output" that come with it
    """

    folder: Path
    weights: Path  # the file of matrices
    pairs: dict[str, Pair]
    record: dict[str, Any]  # its provenance, {} if it has none
    saved: dict[str, SavedRows] = field(default_factory=dict)

    @property
    def configs(self) -> dict[str, AdapterConfig]:
        """Rank, alpha and the rest by the path of the linear."""
        return {path: pair.config for path, pair in self.pairs.items()}

    @property
    def is_dora(self) -> bool:
        """True if some linear has a magnitude."""
        return any(pair.magnitude is not None for pair in self.pairs.values())

    def reorder_rope_rows(self, path: str, base: ModelConfig) -> Pair:
        """The pair of one linear with the rows of lora_B in the order of a base."""
        pair = self.pairs[path]
        magnitude = pair.magnitude
        if magnitude is not None:
            magnitude = reorder_rope_rows(magnitude[:, None], path, base, "half", base.rope_layout).squeeze(1)
        lora_B = reorder_rope_rows(pair.lora_B, path, base, "half", base.rope_layout)
        return pair._replace(lora_B=lora_B, magnitude=magnitude)

    def refuse_beyond_lora(self, what: str) -> None:
        """Raises ValueError for a DoRA, and rows of the embedding or head, where only LoRA's matrices have a place."""
        if self.is_dora:
            raise ValueError(f"{self.folder}: a DoRA has no place in {what}: merge it into its base")
        for path in self.saved:
            raise ValueError(
                f"{self.folder}: its rows of {to_hf(path)} have no place in {what}: merge it into its base"
            )


def read_adapter(
    folder: str | Path,
    base: ModelConfig | None = None,
    source: Mapping[str, str] | None = None,
    *,
    force: bool = False,
) -> StoredAdapter:
    """An adapter's files, checked against each other, and against a base if one is given.

    base    its shapes
    source  its fingerprint (see `Llama.source`)
    force   takes a hat of a base that was rewritten at its start (PiSSA, LoftQ ...): this is that base
    The files are PEFT's, in safetensors or as the pickle of its older versions, with whatever wrappers in their keys;
    MLX's, or one file of llama.cpp's. An adapter that adds nothing is told of, once it is read.
    Raises ValueError naming file and key for whatever does not fit, for weights other than those of lowrank.json, and
    with both fingerprints for a hat that was made for another base.
    """
    folder = Path(folder)
    files = find_files(folder)
    record = fingerprint.read_record(folder)
    if source is not None:
        fingerprint.check_same_base(source, record, str(folder))
    if files.kind == "gguf":
        configs, tensors = read_gguf_adapter(folder, base)
        return _noted(StoredAdapter(folder, folder, _pairs(tensors, configs, base, files), record))
    options = read_peft_config(files.config, force=force) if files.kind == "peft" else None
    fingerprint.check_weights(record, files.weights)
    tensors, saved = read_tensors(files.weights), {}
    if options is None:
        configs, tensors = read_mlx(files.config, tensors, files.weights)
    else:
        named = with_peft_keys(tensors, files.weights)
        saved = _saved_rows(named, options, base, files.weights)
        configs = options.layer_configs(base.n_layers if base else _layers(named))
        tensors = named
    return _noted(StoredAdapter(folder, files.weights, _pairs(tensors, configs, base, files), record, saved))


def _noted(stored: StoredAdapter) -> StoredAdapter:
    """The adapter, after a word on one that adds nothing."""
    if not stored.is_dora and not stored.saved and all(map(_is_zero, stored.pairs.values())):
        NOTES.warning("%s: adds nothing: lora_B is zero in all of its %d linears", stored.folder, len(stored.pairs))
    return stored


def _is_zero(pair: Pair) -> bool:
    return not (pair.config.scaling and pair.lora_B.any() and pair.lora_A.any())


def _saved_rows(
    tensors: dict[str, Tensor], options: PeftConfig, base: ModelConfig | None, where: Path
) -> dict[str, SavedRows]:
    """Rows of the embedding and the head, which are taken out of `tensors`; what the config promises must be there."""
    saved = {}
    for path in ("tok_embeddings", "output"):
        rows, some = (tensors.pop(rows_key(path, part), None) for part in (ROWS, TOKEN_ROWS))
        index = options.token_rows.get(path)
        for key, promised, found, part in (
            ("modules_to_save", path in options.saved, rows, ROWS),
            ("trainable_token_indices", index is not None, some, TOKEN_ROWS),
        ):
            if promised and found is None:
                raise ValueError(f"{options.where}: {key} names {to_hf(path)}, but {rows_key(path, part)} is missing")
        if some is not None:
            if rows is not None or index is None:
                raise ValueError(
                    f"{where}: {rows_key(path, TOKEN_ROWS)} is of no trainable_token_indices of the config"
                )
            rows = some
        if rows is None:
            continue
        key = rows_key(path, ROWS if some is None else TOKEN_ROWS)
        count = f"{len(index)} rows" if index is not None else f"{base.vocab_size} rows or more" if base else "rows"
        fits = rows.dim() == 2 and rows.is_floating_point() and (base is None or rows.shape[1] == base.dim)
        if base is not None:
            fits = fits and (index is not None or len(rows) >= base.vocab_size)
            if index is not None and max(index, default=0) >= base.vocab_size:
                raise ValueError(
                    f"{options.where}: trainable_token_indices must be below {base.vocab_size}, got {index}"
                )
        if not fits or (index is not None and len(rows) != len(index)):
            width = f" of {base.dim}" if base else ""
            raise ValueError(f"{where}: {key} fits no linear and no {count}{width} of this base: {list(rows.shape)}")
        if not torch.isfinite(rows).all():
            raise ValueError(f"{where}: {key} must be finite, holds NaN or infinity")
        saved[path] = SavedRows(rows, index)
    return saved


def _layers(keys: Iterable[str]) -> int:
    """The smallest number of layers with these keys."""
    return 1 + max((int(match[1]) for key in keys if (match := re.search(r"\.layers\.(\d+)\.", key))), default=0)


def _pairs(
    tensors: dict[str, Tensor],
    configs: dict[str, AdapterConfig],
    base: ModelConfig | None,
    files: AdapterFiles,
) -> dict[str, Pair]:
    """The matrices of every linear that the config covers, in float32; there must be nothing else."""
    where = files.weights
    wanted = {
        path: {matrix: tensor_key(path, matrix) for matrix in (MATRICES if config.dora else MATRICES[:2])}
        for path, config in configs.items()
    }
    keys = [key for parts in wanted.values() for key in parts.values()]
    if missing := [key for key in keys if key not in tensors]:
        magnitudes = [parts["lora_magnitude_vector"] for parts in wanted.values() if "lora_magnitude_vector" in parts]
        if missing == magnitudes:
            raise ValueError(f"{files.config}: use_dora is true, but {_some(missing)} is missing in {where.name}")
        present = len(keys) - len(missing)
        raise ValueError(
            f"{where}: {_some(missing)} is missing: of {len(keys)} matrices that the config asks of this base "
            f"{present or 'none'} is there" + ("" if present else f"; {first_key(tensors)}")
        )
    if foreign := sorted(tensors.keys() - set(keys)):
        raise ValueError(f"{where}: {_some(foreign)} fits no linear of this base that the config names")
    shapes = base.linear_shapes() if base else {}
    pairs = {}
    for path, config in configs.items():
        parts = {matrix: tensors[key] for matrix, key in wanted[path].items()}
        sizes = (parts["lora_B"].shape[0], parts["lora_A"].shape[-1])
        out_features, in_features = shapes.get(path.split(".", 2)[2], sizes)
        expected = {
            "lora_A": (config.rank, in_features),
            "lora_B": (out_features, config.rank),
            "lora_magnitude_vector": (out_features,),
        }
        for matrix, tensor in parts.items():
            key, shape = wanted[path][matrix], expected[matrix]
            if tuple(tensor.shape) != shape:
                empty = "" if tensor.numel() else ": empty, as ZeRO-3 and FSDP leave what they did not gather"
                got = f"{list(tensor.shape)}{empty}"
                raise ValueError(f"{where}: {key} must have shape {list(shape)} on this base, got {got}")
            if not torch.isfinite(tensor).all():
                raise ValueError(f"{where}: {key} must be finite, holds NaN or infinity")
        magnitude = parts.get("lora_magnitude_vector")
        magnitude = None if magnitude is None else magnitude.float()
        pairs[path] = Pair(config, parts["lora_A"].float(), parts["lora_B"].float(), magnitude)
    return pairs


def _some(names: list[str]) -> str:
    return names[0] + (f" (and {len(names) - 1} more)" if len(names) > 1 else "")
