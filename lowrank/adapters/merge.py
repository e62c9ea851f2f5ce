"""An adapter added to the weights of its base, and how much of it the rounding of the result leaves.

F(W) is W as the output stores it: rounded to 16 bits, or quantized.  N out_features, K in_features.
"""

import hashlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from .. import __version__
from ..atomic_io import new_folder, sha256_of, write_json
from ..checkpoints import fingerprint
from ..checkpoints.config_files import Format, meta_params, write_config
from ..checkpoints.open_base import open_base, own_config, sidecars_of
from ..checkpoints.pth_writer import PthWriter
from ..checkpoints.safetensors_writer import PlannedWriter, plan_file
from ..checkpoints.sidecar_files import RECORD_FILE, write_files
from ..checkpoints.stored_weight import from_stored, stored_layouts, to_stored
from ..kernels import ops
from ..kernels.weights.quantized_weight import DENSE_DTYPES, QUANTIZED_NAMES, QuantizedWeight
from ..model.checkpoint import Checkpoint, QuantizedParts, Stored
from ..model.config import RopeLayout
from ..model.param_names import is_block_linear, to_hf
from ..model.rope_layout import reorder_rope_rows
from ..model.tensor_file import Layout, tensor_bytes
from ..progress import ProgressBar
from .merge_plan import MergePlan, is_trained_for
from .stored import SavedRows, StoredAdapter, read_adapter
from .survival import Survival, products, survival_from

T = TypeVar("T")


@dataclass(frozen=True)
class Merged:
    """The folder, and how much of the adapter each linear keeps, and all of them together.

    weights   the number format of its linears, as `load` takes it
    unmerged  the format of the base with which the adapter is to be used unmerged, to compare with
    """

    folder: Path
    survival: list[Survival]
    overall: Survival
    weights: str
    unmerged: str


def merge_folder(
    base: str | Path,
    adapter: str | Path,
    out: str | Path,
    into: str,
    *,
    format: Format = "hf",
    dtype: str = "fp16",
    through: str = "nf4-dq",
    force: bool = False,
    progress: bool = False,
    measure: Callable[[Merged], None] | None = None,
) -> Merged:
    """Writes a folder whose linears are F(W + scaling * (A B)^T), a tensor at a time

    into     "fp32", "bf16", "fp16": W is the full-precision base, F rounds to that type, as do all other tensors
             "dequantized": W went `through` a 4- or 8-bit format (or is stored in one), F rounds to `dtype`
             "nf4-dq", "nf4", "fp4-dq", "fp4", "int8": W is the base as it is, F quantizes; other tensors are kept, and
             linears that a quantized base left dense stay in their type. A hat that was trained for such a merge
             (`adapter.merge_aware`) is added to the base in the format that it was trained on
    measure  is called when the folder is whole, before it has its name: what it raises leaves nothing behind
    format   "hf" (rows of wq and wk in halves) or "meta" (interleaved); the rows are moved where the base differs
    The files that go along with the base are copied. The folder is read back and compared with what was to be written,
    tensor by tensor, before it takes its name; its lowrank.json records the adapter, the base and the survival.
    Raises ValueError for a hat of another base (unless `force`), a full-precision merge without full-precision
    weights, a shape that `format` has no place for, and a weight out of the range of its type; OSError if the folder
    does not read back.
    """
    checkpoint = open_base(base)
    if any(part.name == "output.weight" and part.dtype is None for part in checkpoint.parameters()):
        raise ValueError(
            f"{base}: has its output head in 4 or 8 bits: merge into the folder that it was quantized from, and "
            "quantize that"
        )
    if format == "meta":
        meta_params(checkpoint.config)  # raises for what Meta's code has not
    plan = MergePlan.of(checkpoint, into, dtype, through)
    source = {"fingerprint": fingerprint.fingerprint_of(checkpoint)}
    adapter_files = read_adapter(adapter, checkpoint.config, None if force else source, force=force)
    _check_rows(adapter_files, checkpoint)
    plan = plan.as_trained(adapter_files)
    out, total = Path(out), len(checkpoint.config.parameter_shapes())
    merger = _Merger(checkpoint, adapter_files, plan, format)
    if is_trained_for(adapter_files, into) and merger.layout != checkpoint.config.rope_layout:
        same = "meta" if format == "hf" else "hf"
        warnings.warn(
            f"{adapter}: was trained for the bytes of a merge; rows of q and k are moved: format={same!r} keeps them",
            stacklevel=2,
        )
    with new_folder(out) as aside:
        digests = {}
        with _writer(aside, merger) as writer:
            for name, stored in ProgressBar(merger.tensors(), "merge", total, unit="tensor", disable=not progress):
                writer.write(merger.by_key(name, stored))
                digests[name] = _digest(stored)
        dense = merger.dense() if plan.stored in QUANTIZED_NAMES else []
        write_config(aside, own_config(checkpoint), checkpoint.config, format, plan.stored, dense)
        write_files(aside, sidecars_of(checkpoint))
        merged = Merged(out, merger.survival, merger.overall(), plan.stored, plan.unmerged)
        write_json(aside / RECORD_FILE, _record(merged, plan, source, adapter_files, digests))
        with warnings.catch_warnings():  # told of the base already, and of a path that is soon another
            warnings.simplefilter("ignore", UserWarning)
            _check_read_back(aside, digests)
        if measure is not None:
            measure(replace(merged, folder=aside))
    return merged


class _Merger:
    """The tensors of the output one after another, and how much of the adapter they keep."""

    def __init__(self, checkpoint: Checkpoint, adapter: StoredAdapter, plan: MergePlan, format: Format) -> None:
        self.checkpoint, self.adapter, self.plan, self.format = checkpoint, adapter, plan, format
        self.layout: RopeLayout = "half" if format == "hf" else "interleaved"
        self.survival: list[Survival] = []
        self._sums = torch.zeros(3, dtype=torch.float64)  # of kept * delta, kept^2, delta^2

    def by_key(self, name: str, values: Mapping[str, T]) -> dict[str, T]:
        """Values of one parameter by the end of its key -> the same by the whole key in the output."""
        stem = (to_hf(name) if self.format == "hf" else name).removesuffix(".weight")
        return {stem + suffix: value for suffix, value in values.items()}

    def layouts(self) -> dict[str, Layout]:
        """Shapes and dtypes of all tensors of the output, by key, before any is read."""
        shapes = self.checkpoint.config.parameter_shapes()
        layouts: dict[str, Layout] = {}
        for parameter in self.checkpoint.parameters():
            shape = shapes[parameter.name]
            form = self.plan.form(parameter.dtype)
            if form in DENSE_DTYPES:
                parts = {".weight": Layout.of(shape, DENSE_DTYPES[form])}
            elif is_block_linear(parameter.name):
                parts = stored_layouts(shape, form)
            else:
                assert parameter.dtype is not None, parameter.name
                parts = {".weight": Layout.of(shape, parameter.dtype)}
            for name in self._names(parameter.name):
                layouts |= self.by_key(name, parts)
        return layouts

    def tensors(self) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
        """(Meta's key, the tensors stored for it by the end of their key)"""
        for name, value in self.checkpoint.tensors():
            if is_block_linear(name):
                yield name, self._linear(name, value)
            else:
                assert isinstance(value, Tensor), name
                for output_name in self._names(name):
                    yield output_name, self._other(output_name, value)

    def _names(self, name: str) -> tuple[str, ...]:
        """The parameters of the output that one of the base becomes: Meta's format has no tied output head."""
        is_tied = self.checkpoint.config.tie_embeddings and self.format == "meta"
        return (name, "output.weight") if is_tied and name == "tok_embeddings.weight" else (name,)

    def dense(self) -> list[str]:
        """The block linears of the base that it has dense beside quantized ones."""
        linears = [part for part in self.checkpoint.parameters() if is_block_linear(part.name)]
        return [part.name.removesuffix(".weight") for part in linears if self.plan.keeps_dense and part.dtype]

    def overall(self) -> Survival:
        """Over all linears that the adapter covers, as one long vector."""
        return survival_from("all", *self._sums.tolist())

    def _linear(self, name: str, value: Stored) -> Mapping[str, Tensor]:
        config, path = self.checkpoint.config, name.removesuffix(".weight")
        where = f"{self.checkpoint.folder}: {name}"
        form = self.plan.form(value.dtype if isinstance(value, Tensor) else None)
        weight = _dense(value, self.plan.through, where)
        if path not in self.adapter.pairs:
            return _stored(self._in_output_layout(name, weight), form, where)
        delta = self._in_output_layout(name, self.adapter.reorder_rope_rows(path, config).delta(weight))
        weight = self._in_output_layout(name, weight)
        bare = _values(_stored(weight, form, where), where)
        stored = _stored(weight.add_(delta), form, where)
        del weight
        sums = products(_values(stored, where).sub_(bare), delta)
        self._sums += sums
        self.survival.append(survival_from(path, *sums.tolist()))
        return stored

    def _in_output_layout(self, name: str, rows: Tensor) -> Tensor:
        return reorder_rope_rows(rows, name, self.checkpoint.config, self.checkpoint.config.rope_layout, self.layout)

    def _saved(self, name: str) -> SavedRows | None:
        """Rows of the adapter for a parameter; with tied embeddings single tokens' rows are the head's as well."""
        saved = self.adapter.saved
        if name == "output.weight" and "output" not in saved and self.checkpoint.config.tie_embeddings:
            name = "tok_embeddings.weight"
        return saved.get(name.removesuffix(".weight"))

    def _other(self, name: str, value: Tensor) -> Mapping[str, Tensor]:
        """The embedding, a norm or the output head; rows that come with the adapter take the base's place."""
        if (saved := self._saved(name)) is not None:
            value = saved.replaced_in(value.float() if self.plan.stored in DENSE_DTYPES else value)
        if self.plan.stored in DENSE_DTYPES:
            value = _narrowed(value, self.plan.stored, f"{self.checkpoint.folder}: {name}")
        return {".weight": value}


def _check_rows(adapter: StoredAdapter, checkpoint: Checkpoint) -> None:
    """Raises ValueError for rows of the embedding or head that the output has no place for."""
    config = checkpoint.config
    for path, saved in adapter.saved.items():
        if saved.which is None and len(saved.rows) != config.vocab_size:
            raise ValueError(
                f"{adapter.folder}: has {len(saved.rows)} rows of {to_hf(path)}, the base {config.vocab_size}: it is "
                "not merged, since the base's tokenizer and config would not know of them"
            )
        if saved.which is None and config.tie_embeddings:
            raise ValueError(
                f"{adapter.folder}: has all rows of {to_hf(path)}, and the base ties embedding and head: it is not "
                "merged, since the output would have one of the two"
            )


def _stored(weight: Tensor, form: str, where: str) -> Mapping[str, Tensor]:
    """F(W) as the parts that are written."""
    if form in DENSE_DTYPES:
        return {".weight": _narrowed(weight, form, where)}
    return to_stored(ops.quantize(weight, form, name=where), padded=True)


def _values(stored: Mapping[str, Tensor], where: str) -> Tensor:
    """F(W) in float32, in memory of its own."""
    if len(stored) == 1:
        return stored[".weight"].to(torch.float32, copy=True)
    return ops.dequantize(from_stored(dict(stored), where))


def _dense(value: Stored, through: str | None, where: str) -> Tensor:
    """W in float32, in memory of its own, dequantized if it is stored or to go through a quantized format."""
    quantized: QuantizedWeight | None = None
    if isinstance(value, QuantizedParts):
        quantized = from_stored(value.tensors, where)
    elif through is not None:
        quantized = ops.quantize(value, through, name=where)
    else:
        return value.to(torch.float32, copy=True)
    return ops.dequantize(quantized)


def _narrowed(value: Tensor, dtype: str, where: str) -> Tensor:
    narrow = value.to(DENSE_DTYPES[dtype])
    if not torch.isfinite(narrow).all():
        raise ValueError(f"{where}: must be finite in {dtype}, holds up to {value.abs().max().item():.3g}")
    return narrow


def _writer(folder: Path, merger: _Merger) -> PthWriter | PlannedWriter:
    """For Meta's own file if weights are dense and in its format, for one safetensors file otherwise."""
    if merger.format == "meta" and merger.plan.stored in DENSE_DTYPES:
        return PthWriter(folder / "consolidated.00.pth")
    return PlannedWriter(folder, [plan_file("model.safetensors", merger.layouts())])


def _digest(parts: Mapping[str, Tensor]) -> str:
    """SHA-256 of the parts of a weight with their names, types and shapes."""
    digest = hashlib.sha256()
    for suffix, tensor in sorted(parts.items()):
        digest.update(f"{suffix} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor_bytes(tensor))
    return digest.hexdigest()


def _check_read_back(folder: Path, digests: Mapping[str, str]) -> None:
    """Raises OSError naming a tensor that does not read back with the digest it was written with."""
    read = {
        name: _digest(value.tensors if isinstance(value, QuantizedParts) else {".weight": value})
        for name, value in open_base(folder).tensors()
    }
    for name in digests.keys() | read.keys():
        if digests.get(name) != read.get(name):
            raise OSError(f"{folder}: {name} does not read back as it was written")


def _record(
    merged: Merged, plan: MergePlan, source: Mapping[str, str], adapter: StoredAdapter, digests: Mapping[str, str]
) -> dict[str, Any]:
    """lowrank.json of the folder: the adapter, the base, the survival, and the hash of every tensor."""
    return {
        "lowrank": __version__,
        "merged": {
            "into": plan.into,
            "base_weights": plan.unmerged,
            "base_fingerprint": source["fingerprint"],
            "weights_sha256": sha256_of(adapter.weights),
            "hat": adapter.record,
        },
        "survival": {part.path: [part.cosine, part.ratio] for part in (merged.overall, *merged.survival)},
        "tensors_sha256": dict(digests),
    }
