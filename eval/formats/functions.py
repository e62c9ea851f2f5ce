"""The x-rays of number formats as Python functions, among those of `lowrank.inspect`."""

from collections.abc import Sequence
from pathlib import Path

from lowrank.checkpoints.embedded import base_folder

from ..inspect.documents import documents
from ..inspect.functions import Xray
from .beside import FormatStudy, study_formats
from .mixed import CHOICES, MixedXray, inspect_mixed
from .page import format_rows, mixed_tables, render_formats, render_mixed
from .simulated import formats as known_formats

DOCUMENTS = 40


def formats(
    folder: str | Path,
    only: str | Sequence[str] | None = None,
    *,
    data: str | Path | None = None,
    n: int = DOCUMENTS,
    state: str | Path | None = None,
    progress: bool = False,
) -> Xray[FormatStudy]:
    """4-bit formats beside NF4: bits a weight, error, and loss with its interval.

    only   their names; left out, all
    data   a file of documents whose loss is measured (ours), n of them at most; n = 0: errors alone
    state  a folder that keeps each format as it is measured: a study that was interrupted goes on there
    Raises ValueError for a format that is none, and as `study_formats` does.
    """
    known = known_formats()
    names = list(known) if only is None else [only] if isinstance(only, str) else list(only)
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"only must name formats of {', '.join(known)}, got {unknown[0]!r}")
    base = base_folder(folder)
    examples = documents(base, None if data is None else Path(data), n)
    kept = None if state is None else Path(state)
    study = study_formats(base, {name: known[name] for name in names}, examples, state=kept, progress=progress)
    return Xray(study, lambda of: [format_rows(of)], FormatStudy.to_json, render_formats)


def mixed(
    folder: str | Path,
    bits: float,
    choices: Sequence[str] = CHOICES,
    *,
    data: str | Path | None = None,
    n: int = DOCUMENTS,
    measure: int = 0,
    progress: bool = False,
) -> Xray[MixedXray]:
    """The linears that deserve more bits, for a budget of `bits` a weight: sensitivities, the best plan, its curve.

    choices  formats to choose among
    data     a file of documents (ours): the gradients of n of them are taken
    measure  the plan is measured on so many others, beside its formats alone and random plans of its size
    Raises ValueError as `inspect_mixed` does.
    """
    if measure < 0:
        raise ValueError(f"measure must be at least 0, got {measure}")
    base = base_folder(folder)
    every = documents(base, None if data is None else Path(data), n + measure if n else 0)
    xray = inspect_mixed(base, bits, every[:n], choices, others=every[n:], progress=progress)
    return Xray(xray, mixed_tables, MixedXray.to_json, render_mixed)
