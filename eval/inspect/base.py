"""A folder of weights as it is: its config, its files and their hashes, and every tensor with its outliers.

Each tensor is read once, and held alone.  N out_features, K in_features.
"""

import hashlib
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lowrank.atomic_io import sha256_of
from lowrank.checkpoints import fingerprint as provenance
from lowrank.checkpoints.load import bytes_bar
from lowrank.checkpoints.open_base import open_base
from lowrank.checkpoints.quantize_folder import MANIFEST
from lowrank.checkpoints.stored_weight import from_stored
from lowrank.kernels import ops
from lowrank.kernels.weights.quantized_weight import Blockwise4bit, NestedAbsmax, stored_bytes
from lowrank.model.checkpoint import Checkpoint, Parameter, QuantizedParts
from lowrank.model.config_json import read_json
from lowrank.model.meta_checksums import CHECKLISTS, verify_checklist
from lowrank.model.param_names import is_block_linear
from lowrank.model.tensor_file import tensor_bytes
from lowrank.progress import ProgressBar

from .outliers import OutlierSums

DEVIATIONS = 6  # beyond so many of its tensor's standard deviations a weight is called an outlier
ROWS = 1024  # looked at at a time, in float64


@dataclass(frozen=True)
class FileFound:
    """One file of the folder. check: which list has its hash and that it is the same, "" if none lists it"""

    name: str
    bytes: int
    sha256: str
    check: str


@dataclass(frozen=True)
class TensorFound:
    """One parameter. sha256: of its bytes as they are stored, all parts of a quantized one by name, one after another

    outliers         how many |w - mean| > 6 deviations; a normal distribution has two in a thousand million
    largest          max |w|, at `largest_at`; deviations: how many standard deviations that is from the mean
    kurtosis         E (w - mean)^4 / deviation^4 - 3: 0 for a normal distribution
    column_ratio     the norm of the largest input column over that of the median one, and which it is; row_ratio alike
    """

    name: str
    stored_as: str
    shape: tuple[int, ...]
    bytes: int
    bits_per_number: float
    sha256: str
    mean: float
    deviation: float
    largest: float
    largest_at: tuple[int, ...]
    deviations: float
    outliers: int
    kurtosis: float
    column_ratio: float | None
    column: int | None
    row_ratio: float | None
    row: int | None


@dataclass(frozen=True)
class BaseXray:
    """The folder. fingerprint: what hats know it by; layout: which two channels of a head RoPE turns together"""

    folder: str
    format: str
    layout: str
    config: dict[str, Any]
    parameters: int
    fingerprint: str
    checklist: tuple[str, ...]
    files: tuple[FileFound, ...]
    tensors: tuple[TensorFound, ...]
    outliers: OutlierSums


def inspect_base(base: str | Path, *, hashes: bool = True, progress: bool = False) -> BaseXray:
    """Reads every file and every tensor once

    hashes  left out, files are not hashed: tensors are in any case
    Raises ValueError for whatever does not fit (see `model.checkpoint`), and for a file that is not the one that
    checklist.chk or quantization.json lists.
    """
    checkpoint = open_base(base)
    parameters = checkpoint.parameters()
    checklist = _checklist(checkpoint.folder) if hashes else ()
    files = tuple(_files(checkpoint.folder, checklist, hashes, progress))
    tensors, fingerprint, outliers = [], provenance.Fingerprint(), OutlierSums()
    with bytes_bar("tensors", parameters, progress) as bar:
        for parameter in parameters:
            tensors.append(_tensor(parameter, fingerprint, outliers, str(base)))
            bar.update(parameter.nbytes)
    return BaseXray(
        str(base),
        _format(checkpoint, tensors),
        "interleaved: channels 2i and 2i + 1 (Meta's)"
        if checkpoint.config.rope_layout == "interleaved"
        else "half: channels i and i + h / 2 (Hugging Face's)",
        asdict(checkpoint.config),
        sum(math.prod(tensor.shape) for tensor in tensors),
        fingerprint.hexdigest(checkpoint),
        checklist,
        files,
        tuple(tensors),
        outliers,
    )


def to_json(xray: BaseXray) -> dict[str, Any]:
    """All fields as JSON."""
    return asdict(replace(xray, outliers=OutlierSums())) | {"outliers": xray.outliers.to_json()}


def _checklist(folder: Path) -> tuple[str, ...]:
    """The files whose MD5 sums were compared; none if the folder has no list."""
    return verify_checklist(folder) if any((folder / name).is_file() for name in CHECKLISTS) else ()


def _files(folder: Path, checklist: tuple[str, ...], hashes: bool, progress: bool) -> Iterator[FileFound]:
    """Every file with its hash, which is compared with quantization.json's."""
    manifest = folder / MANIFEST
    expected = read_json(manifest).get("sha256", {}) if manifest.is_file() else {}
    paths = [folder] if folder.is_file() else sorted(path for path in folder.iterdir() if path.is_file())
    for path in ProgressBar(paths, "files", unit="file", disable=not progress or not hashes):
        sha256 = sha256_of(path) if hashes else ""
        if hashes and expected.get(path.name, sha256) != sha256:
            raise ValueError(f"{path}: has the SHA-256 {sha256[:16]}, {MANIFEST} says {str(expected[path.name])[:16]}")
        checks = [MANIFEST] if hashes and path.name in expected else []
        checks += ["checklist.chk"] if path.name in checklist else []
        yield FileFound(path.name, path.stat().st_size, sha256, ", ".join(checks))


def _format(checkpoint: Checkpoint, tensors: list[TensorFound]) -> str:
    naming = "Meta's names" if checkpoint.config.rope_layout == "interleaved" else "Hugging Face's names"
    kinds = dict.fromkeys(tensor.stored_as for tensor in tensors if is_block_linear(tensor.name))
    return f"{naming}, {len(checkpoint.files)} file(s), block linears in {', '.join(kinds)}"


def _tensor(parameter: Parameter, fingerprint: provenance.Fingerprint, outliers: OutlierSums, base: str) -> TensorFound:
    value = parameter.read()
    digest = hashlib.sha256()
    if isinstance(value, QuantizedParts):
        for _, part in sorted(value.tensors.items()):
            digest.update(tensor_bytes(part))
        weight = from_stored(value.tensors, f"{base}: {parameter.name}")
        blocks = ""
        if isinstance(weight, Blockwise4bit):
            nested = weight.absmax.nested_blocksize if isinstance(weight.absmax, NestedAbsmax) else None
            blocks = f" (blocks of {weight.blocksize}{f', maxima of {nested}' if nested else ''})"
        stored_as, bits, w = f"{weight.name}{blocks}", 8 * stored_bytes(weight), ops.dequantize(weight)
    else:
        digest.update(tensor_bytes(value))
        stored_as = parameter.format or str(value.dtype).removeprefix("torch.")
        bits = 8 * (parameter.nbytes if parameter.format else value.nbytes)
        if not is_block_linear(parameter.name):
            fingerprint.add(parameter.name, value)
        w = value
    figures, places = _figures(w, f"{base}: {parameter.name}")
    if is_block_linear(parameter.name):
        outliers.add(parameter.name, places, w.numel())
    return TensorFound(
        parameter.name,
        stored_as,
        tuple(w.shape),
        parameter.nbytes,
        bits / w.numel(),
        digest.hexdigest(),
        **figures,
    )


def _figures(w: Tensor, where: str) -> tuple[dict[str, Any], Tensor]:
    """Moments, the largest, outliers, the largest column and row: in float64, some rows at a time; places of outliers

    The places are int64 [n, 2], row and column.
    """
    if not torch.isfinite(w).all():
        raise ValueError(f"{where}: holds NaN or infinity")
    rows = w.view(len(w), -1) if w.dim() > 1 else w.view(1, -1)
    count = w.numel()
    mean = sum(float(part.double().sum()) for part in rows.split(ROWS)) / count
    second = fourth = 0.0
    largest, at, places = -1.0, 0, torch.empty(0, 2, dtype=torch.int64)
    row_squares, column_squares = [], torch.zeros(rows.shape[1], dtype=torch.float64)
    for number, part in enumerate(rows.split(ROWS)):
        wide = part.double()
        squares = (wide - mean).square()
        second += float(squares.sum())
        fourth += float(squares.square().sum())
        row_squares.append(wide.square().sum(dim=1))
        column_squares += wide.square().sum(dim=0)
        magnitude, place = wide.abs().flatten().max(dim=0)
        if float(magnitude) > largest:
            largest, at = float(magnitude), number * ROWS * rows.shape[1] + int(place)
    deviation = math.sqrt(second / count)
    if deviation:
        far = (((part.double() - mean).abs() > DEVIATIONS * deviation).nonzero() for part in rows.split(ROWS))
        places = torch.cat([part + torch.tensor([number * ROWS, 0]) for number, part in enumerate(far)])
    place = (at,) if w.dim() == 1 else (at // rows.shape[1], at % rows.shape[1])
    found: dict[str, Any] = {
        "mean": mean,
        "deviation": deviation,
        "largest": largest,
        "largest_at": place,
        "deviations": abs(float(w[place].double()) - mean) / deviation if deviation else 0.0,
        "outliers": len(places),
        "kurtosis": (fourth / count) / (second / count) ** 2 - 3 if second else 0.0,
    }
    for name, parts in (("column", column_squares), ("row", torch.cat(row_squares))):
        ratio, which = (None, None) if w.dim() == 1 else _largest(parts.sqrt())
        found |= {f"{name}_ratio": ratio, name: which}
    return found, places


def _largest(norms: Tensor) -> tuple[float, int]:
    """The largest over the median, and which it is."""
    middle = float(norms.median())
    return (float(norms.max()) / middle if middle else math.inf if norms.any() else 1.0), int(norms.argmax())
