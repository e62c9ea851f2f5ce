"""The x-rays as Python functions: `lowrank.inspect`.

    xray = lowrank.inspect.quant("embedded")
    xray.result.total["nf4-dq"].snr_db       a figure, typed
    print(xray.table())                      the tables of the command line
    xray.to_json(), xray.plot().save("quant.html")

Each does what `lowrank inspect` does under its name. In a notebook an x-ray shows its page.
"""

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from torch import nn

from lowrank.adapters.accounting import ADAPTER_TYPES, COMMON_RANKS
from lowrank.atomic_io import write_text
from lowrank.checkpoints.embedded import base_folder
from lowrank.checkpoints.model_shape import shape_of
from lowrank.text_table import table as text_table

from ..html.page import Rows
from . import adapter_page, base_page, forgetting_page, linear_page, quant_page, sizes_page
from .adapter import AdapterXray, IntruderSearch, inspect_adapter
from .adapter import to_json as adapter_json
from .base import BaseXray, inspect_base
from .base import to_json as base_json
from .forgetting import DOCUMENTS, Forgetting, forgetting_of
from .levels import LevelStudy, normal_distribution, study
from .linear import LinearXray, inspect_linear
from .linear import to_json as linear_json
from .quant import FORMATS, QuantXray, inspect_quant
from .quant import to_json as quant_json
from .sizes import FORMATS as SIZE_FORMATS
from .sizes import WRITE_UP_BYTES, Params, Sizes, Summary, check_one_or_more, count_params, count_sizes, summarize

Result = TypeVar("Result")


@dataclass(frozen=True)
class Page:
    """A page of an x-ray, as text: it needs no network, no script and no file beside it."""

    text: str

    def save(self, path: str | Path) -> Path:
        """Writes it in UTF-8, whole or not at all; returns the path."""
        write_text(Path(path), self.text)
        return Path(path)

    def _repr_html_(self) -> str:
        return f'<iframe srcdoc="{html.escape(self.text)}" style="width: 100%; height: 40rem; border: 0"></iframe>'


@dataclass(frozen=True)
class Xray(Generic[Result]):
    """Figures, and how they are shown.

    result  the figures, each under its name and type
    """

    result: Result
    _tables: Callable[[Result], Sequence[Rows]] = field(repr=False)
    _json: Callable[[Result], Mapping[str, Any]] = field(repr=False)
    _page: Callable[[Result], str] = field(repr=False)

    def table(self, width: int | None = None) -> str:
        """The figures as plain text; width in columns, the terminal's if it is left out."""
        return "\n\n".join(text_table(rows, head, width) for head, rows in self._tables(self.result))

    def to_json(self) -> dict[str, Any]:
        """Every figure, as `--json` prints it."""
        return dict(self._json(self.result))

    def plot(self) -> Page:
        """The page with its figures, as `--html` writes it."""
        return Page(self._page(self.result))

    def _repr_html_(self) -> str:
        return self.plot()._repr_html_()


def params(
    model: str | Path | int = "7b", *, rank: int = 8, targets: str | Sequence[str] = "all", dtype: str = "fp32"
) -> Xray[Params]:
    """The parameters of a hat: the shapes of A and B, their share of the model, the bytes of the file.

    model  "7b", "13b", "70b", "embedded", a folder, a GGUF file or a config; or d for one d x d matrix
    Raises ValueError for a model, target or dtype that is none, and a rank below 1.
    """
    found = count_params(model if isinstance(model, int) else shape_of(model), rank=rank, targets=targets, dtype=dtype)
    return Xray(found, lambda of: [sizes_page.params_table(of)], Params.to_json, sizes_page.render_params)


def sizes(
    model: str | Path = "7b",
    *,
    weights: Sequence[str] = SIZE_FORMATS,
    adapter_bytes: Sequence[float] = WRITE_UP_BYTES,
    within: float = 0.005,
    ranks: Sequence[int] | None = COMMON_RANKS,
    targets: Sequence[str | Sequence[str]] | None = None,
    dtypes: Sequence[str] = ADAPTER_TYPES,
) -> Xray[Sizes]:
    """The bytes of a base in every format, and the adapters whose file has a given size: see `count_sizes`."""
    found = count_sizes(
        shape_of(model),
        str(model),
        weights=weights,
        adapter_bytes=adapter_bytes,
        within=within,
        ranks=ranks,
        targets=targets,
        dtypes=dtypes,
    )
    return Xray(found, _size_tables, Sizes.to_json, sizes_page.render_sizes)


def _size_tables(found: Sizes) -> list[Rows]:
    tables: list[Rows] = [sizes_page.base_table(found, name) for name in found.bases]
    return tables + [sizes_page.adapters_table(found, size) for size, shapes in found.adapters.items() if shapes]


def summary(model: nn.Module) -> Xray[Summary]:
    """A model in memory: its parameters, those that are trained, and bytes as stored, part by part.

    Raises ValueError for what is no model.
    """
    if not isinstance(model, nn.Module):
        raise ValueError(f"model must be one in memory, as lowrank.load gives it, got {type(model).__name__}")
    return Xray(summarize(model), lambda of: [sizes_page.summary_table(of)], Summary.to_json, sizes_page.render_summary)


def base(folder: str | Path, *, hashes: bool = True) -> Xray[BaseXray]:
    """A folder of weights: config, files and hashes, every tensor and its outliers.  Raises as `open_base` does."""
    found = inspect_base(base_folder(folder), hashes=hashes)
    return Xray(
        found,
        lambda of: [base_page.file_table(of), base_page.tensor_table(of), of.outliers.table()],
        base_json,
        base_page.render,
    )


def quant(
    folder: str | Path, weights: Sequence[str] = FORMATS, *, layers: Sequence[int] | None = None
) -> Xray[QuantXray]:
    """The cost of each number format to a base, per tensor and head.

    layers  only these; left out, all
    Raises ValueError for a base that is quantized already, a format that is none, and a layer that is not there.
    """
    found = inspect_quant(base_folder(folder), list(weights), layers=None if layers is None else list(layers))
    return Xray(found, _quant_tables, quant_json, quant_page.render)


def _quant_tables(found: QuantXray) -> list[Rows]:
    return [quant_page.tensor_table(found), quant_page.total_table(found), *_level_tables(found.study)]


def levels(blocksize: int = 64) -> Xray[LevelStudy]:
    """The levels of NF4 beside the best ones, for independent normal weights in blocks of `blocksize`, at least 1."""
    check_one_or_more("blocksize", blocksize)
    found = study(normal_distribution(blocksize), blocksize)
    return Xray(found, _level_tables, asdict, quant_page.render_levels)


def _level_tables(found: LevelStudy) -> list[Rows]:
    return [quant_page.levels_table(found), quant_page.level_errors(found)]


def adapter(
    hat: str | Path,
    folder: str | Path | None = None,
    *,
    other: str | Path | None = None,
    weights: str | None = None,
    force: bool = False,
) -> Xray[AdapterXray]:
    """A hat: spectrum and rank of what it adds, and, with its base, its size beside W and beside W - Q(W).

    other  a second hat, for the angles between the two; weights: the format of Q ("nf4-dq")
    Raises as `inspect_adapter` does.
    """
    return _of_adapter(inspect_adapter(hat, _base(folder), other=other, weights=weights, force=force))


def intruders(
    hat: str | Path,
    folder: str | Path,
    *,
    count: int = 10,
    threshold: float = 0.5,
    exact: bool = False,
    force: bool = False,
) -> Xray[AdapterXray]:
    """Intruder dimensions among the `count` leading singular vectors of W + delta W (arXiv 2410.21228).

    threshold  a vector intrudes if its largest cosine with one of W is below it; exact: by SVDs
    Raises as `inspect_adapter` does.
    """
    search = IntruderSearch(count, threshold, exact)
    return _of_adapter(inspect_adapter(hat, _base(folder), intruders=search, force=force))


def _of_adapter(found: AdapterXray) -> Xray[AdapterXray]:
    return Xray(found, lambda of: [adapter_page.figures_table(of)], adapter_json, adapter_page.render)


def forgetting(
    folder: str | Path,
    hats: str | Path | Mapping[str, str | Path],
    *,
    data: str | Path | None = None,
    kept: str | Path | None = None,
    n: int = DOCUMENTS,
    force: bool = False,
) -> Xray[Forgetting]:
    """The gain of hats on a task and the loss of their base on what it knew, in nats a token with intervals.

    hats  one, or several by name: from the second on the difference from the first is told too, such as what came back
          after `mitigate_intruders`
    data  a file of documents of the task (ours); kept: one of what the base knew (of the embedded base: what it was
          taught);  n: of each, at most
    Raises as `forgetting_of` does.
    """
    adapters = hats if isinstance(hats, Mapping) else {"the hat": hats}
    found = forgetting_of(folder, adapters, data=_path(data), kept=_path(kept), n=n, force=force)
    return Xray(found, Forgetting.tables, Forgetting.to_json, forgetting_page.render)


def linear(
    folder: str | Path,
    path: str,
    *,
    text: str,
    row: int = 0,
    block: int = 0,
    token: int = -1,
    hat: str | Path | None = None,
    weights: str | None = None,
    force: bool = False,
) -> Xray[LinearXray]:
    """The microscope: the 64 weights of a block as they are stored, and one output of the forward pass, taken apart.

    path  such as layers.0.attention.wq; text: what the model reads; row, block, token: which of each, from 0
    Raises as `inspect_linear` does.
    """
    found = inspect_linear(
        base_folder(folder),
        path,
        row=row,
        block=block,
        text=text,
        token=token,
        adapter=hat,
        weights=weights,
        force=force,
    )
    return Xray(
        found,
        lambda of: [linear_page.block_table(of.block), linear_page.product_table(of)],
        linear_json,
        linear_page.render,
    )


def _path(file: str | Path | None) -> Path | None:
    return None if file is None else Path(file)


def _base(folder: str | Path | None) -> Path | None:
    return None if folder is None else base_folder(folder)
