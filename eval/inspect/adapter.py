"""A hat under the microscope: its spectrum, its size beside W and beside what 4 bit costs W, and a second hat.

Files hold lora_B in Hugging Face's order of the rows; beside a base they are put in that base's own order first.
N out_features, K in_features, r rank.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lowrank.adapters.algebra.factored import Factored, factor
from lowrank.adapters.files import Pair, StoredAdapter, read_adapter
from lowrank.checkpoints import fingerprint
from lowrank.checkpoints.chunked_quantize import quantize_chunks
from lowrank.checkpoints.load import bytes_bar
from lowrank.checkpoints.open_base import open_base
from lowrank.checkpoints.stored_weight import from_stored
from lowrank.kernels import ops
from lowrank.kernels.weights.quantized_weight import QUANTIZED_NAMES
from lowrank.model.checkpoint import Checkpoint, Parameter, QuantizedParts
from lowrank.progress import ProgressBar

from .delta import Angles, Spectrum, angles, spectrum
from .intruders import Intruders, find_intruders

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Beside:
    """delta W beside W [N, K] and beside E = W - Q(W), what quantizing takes from it

    weight_norm  |W|, and to_weight = |delta W| / |W|
    error_norm   |E|, and to_error = |delta W| / |E|; None where the base is stored quantized, and E is not there
    along_error  <delta W, E> / (|delta W| |E|): above zero where the hat gives back what 4 bit took
    """

    weight_norm: float
    to_weight: float
    error_norm: float | None
    to_error: float | None
    along_error: float | None


@dataclass(frozen=True)
class AdapterLinear:
    """One linear of a hat. `beside` and `intruders` need a base, `angles` a second hat that covers this linear too."""

    path: str
    shape: tuple[int, int]
    rank: int
    alpha: float
    scaling: float
    spectrum: Spectrum
    beside: Beside | None = None
    intruders: Intruders | None = None
    angles: Angles | None = None


@dataclass(frozen=True)
class AdapterXray:
    """Every linear of a hat, in the order of the model. `stored_as` is the format of a base that is quantized."""

    folder: str
    base: str | None
    other: str | None
    weights: str | None
    stored_as: str | None
    parameters: int
    linears: tuple[AdapterLinear, ...]


@dataclass(frozen=True)
class IntruderSearch:
    """Count of leading singular vectors of W + delta W, the cosine to W's below which one intrudes, and the method."""

    count: int = 10
    threshold: float = 0.5
    exact: bool = False

    def check(self) -> None:
        """Raises ValueError for numbers out of range."""
        if not (self.count >= 1 and 0 < self.threshold < 1):
            got = f"{self.count} and {self.threshold}"
            raise ValueError(f"intruders: look at 1 or more, with a threshold between 0 and 1, got {got}")


def inspect_adapter(
    folder: str | Path,
    base: str | Path | None = None,
    *,
    other: str | Path | None = None,
    weights: str | None = None,
    intruders: IntruderSearch | None = None,
    force: bool = False,
    progress: bool = False,
) -> AdapterXray:
    """The figures of a hat. A tensor of the base is held at a time; without a base only the hat's files are read.

    base     W, and Q(W) in the format `weights` ("nf4-dq" if left out)
    other    a second hat, for the angles between the two
    Raises ValueError for a hat of another base (unless `force`), hats of different shapes, intruders without a base,
    and a format asked for beside a base that is stored quantized already.
    """
    if intruders is not None:
        intruders.check()
    if base is None and (intruders or weights):
        raise ValueError("intruder dimensions and the error of a format need the base: name it behind the adapter")
    checkpoint = None if base is None else open_base(base)
    stored_as, format = (None, None) if checkpoint is None else _formats(checkpoint, weights)
    adapter, second = _adapters(folder, other, checkpoint, force)
    linears = []
    for path, pair, parameter in _pairs(adapter, checkpoint, progress):
        w = None if parameter is None else dense_weight(parameter, str(base))
        delta, config = factor(pair, w), pair.config
        shape = (len(pair.lora_B), pair.lora_A.shape[1])
        found = AdapterLinear(path, shape, config.rank, config.alpha, config.scaling, spectrum(delta))
        if second is not None and path in second.pairs:
            found = replace(found, angles=_angles(delta, shape, second, path, checkpoint, w))
        if parameter is not None and w is not None:
            found = replace(found, beside=_beside(w, pair, found.spectrum.norm, format, f"{base}: {parameter.name}"))
            if intruders is not None:
                sought = find_intruders(w, delta, intruders.count, intruders.threshold, intruders.exact)
                found = replace(found, intruders=sought)
        del w  # before the next is read: two would be held otherwise
        linears.append(found)
    if second is not None and not any(linear.angles for linear in linears):
        raise ValueError(f"{folder} and {other} have no linear in common: there are no angles between them")
    return AdapterXray(
        str(folder),
        None if base is None else str(base),
        None if other is None else str(other),
        format,
        stored_as,
        sum(part.numel() for pair in adapter.pairs.values() for part in pair[1:] if part is not None),
        tuple(linears),
    )


def sum_of_squares(values: Tensor) -> float:
    """In float64, some rows at a time."""
    return sum(float(part.double().square().sum()) for part in values.split(1024))


def _adapters(
    folder: str | Path, other: str | Path | None, checkpoint: Checkpoint | None, force: bool
) -> tuple[StoredAdapter, StoredAdapter | None]:
    """The x-ray of both hats, compared with the base if there is one."""
    config, source = None, None
    if checkpoint is not None:
        config = checkpoint.config
        source = None if force else {"fingerprint": fingerprint.fingerprint_of(checkpoint)}
    adapter = read_adapter(folder, config, source)
    return adapter, None if other is None else read_adapter(other, config, source)


def _formats(checkpoint: Checkpoint, weights: str | None) -> tuple[str | None, str | None]:
    """(the format that the base is stored in, if it is quantized; the format whose error is taken, if it can be)"""
    for parameter in checkpoint.parameters():
        if parameter.dtype is None:
            value = parameter.read()
            assert isinstance(value, QuantizedParts)
            stored_as = from_stored(value.tensors, f"{checkpoint.folder}: {parameter.name}").name
            if weights is not None:
                raise ValueError(
                    f"{checkpoint.folder}: is stored as {stored_as}, so the error of {weights} is not known: "
                    "name the full-precision base"
                )
            return stored_as, None
    weights = weights or "nf4-dq"
    if weights not in QUANTIZED_NAMES:
        raise ValueError(f"weights must be one of {', '.join(QUANTIZED_NAMES)}, got {weights!r}")
    return None, weights


def _pairs(
    adapter: StoredAdapter, checkpoint: Checkpoint | None, progress: bool
) -> Iterator[tuple[str, Pair, Parameter | None]]:
    """Every linear that the hat covers, with its weight in the base where there is one, under a bar."""
    if checkpoint is None:
        for path, pair in ProgressBar(adapter.pairs.items(), "inspect", unit="linear", disable=not progress):
            yield path, pair, None
        return
    parameters = [item for item in checkpoint.parameters() if item.name.removesuffix(".weight") in adapter.pairs]
    with bytes_bar("inspect", parameters, progress) as bar:
        for parameter in parameters:
            path = parameter.name.removesuffix(".weight")
            yield path, adapter.reorder_rope_rows(path, checkpoint.config), parameter
            bar.update(parameter.nbytes)


def dense_weight(parameter: Parameter, base: str) -> Tensor:
    """W [N, K], float32."""
    value = parameter.read()
    if isinstance(value, QuantizedParts):
        return ops.dequantize(from_stored(value.tensors, f"{base}: {parameter.name}"))
    return value.to(torch.float32, copy=True)


def _beside(w: Tensor, pair: Pair, norm: float, format: str | None, where: str) -> Beside:
    """<delta W, E> = scaling * sum lora_B * (E lora_A^T), which needs no delta W; of a DoRA from delta W itself."""
    weight_norm = sum_of_squares(w) ** 0.5
    to_weight = norm / weight_norm if weight_norm else 0.0
    if format is None:
        return Beside(weight_norm, to_weight, None, None, None)
    error = ops.dequantize(quantize_chunks(w, format, CPU, where)).sub_(w).neg_()
    error_norm = sum_of_squares(error) ** 0.5
    if pair.magnitude is None:
        product = pair.config.scaling * float((pair.lora_B.double() * (error @ pair.lora_A.T).double()).sum())
    else:
        product = float((pair.delta(w).double() * error.double()).sum())
    size = norm * error_norm
    return Beside(
        weight_norm,
        to_weight,
        error_norm,
        norm / error_norm if error_norm else 0.0,
        product / size if size else 0.0,
    )


def _angles(
    delta: Factored,
    shape: tuple[int, int],
    second: StoredAdapter,
    path: str,
    checkpoint: Checkpoint | None,
    w: Tensor | None,
) -> Angles:
    other_pair = second.pairs[path] if checkpoint is None else second.reorder_rope_rows(path, checkpoint.config)
    other = (len(other_pair.lora_B), other_pair.lora_A.shape[1])
    if other != shape:
        raise ValueError(
            f"{second.folder}: {path} is of a {other[0]} x {other[1]} linear, the other hat's of "
            f"{shape[0]} x {shape[1]}: the hats are of different bases"
        )
    return angles(delta, factor(other_pair, w))


def to_json(xray: AdapterXray) -> dict[str, Any]:
    """All fields as JSON, with the counts of intruders that follow from their cosines."""
    figures = asdict(xray)
    for linear, row in zip(xray.linears, figures["linears"], strict=True):
        if linear.intruders:
            row["intruders"] |= {"found": linear.intruders.found, "undecided": linear.intruders.undecided}
    return figures
