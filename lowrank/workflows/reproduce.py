"""The write-up in one command: both of its hats, each on 4 bit and on full precision, and its claims beside ours.

    OUT/documents.toml, OUT/mixture.toml   the two runs, as `lowrank train` takes them
    OUT/documents/, OUT/mixture/           what training leaves: hat, log, checkpoint
    OUT/reproduce.json, .md, .html         the claims, the grid, every document side by side

Run again, it goes on where it was: at the last checkpoint, or at the batch of the grid. The same code runs on the
embedded base and on Llama 2; times are those of the machine it runs on.
"""

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .. import __version__
from ..adapters.accounting import base_items
from ..atomic_io import write_json, write_text
from ..checkpoints.embedded import EMBEDDED, base_folder
from ..checkpoints.load import load_tokenizer
from ..checkpoints.open_base import open_base
from ..data.documents.document import make_documents
from ..eval.grid.cache import base_sha256
from ..eval.grid.comparison import Comparison, compare
from ..eval.grid.grid import evaluate_grid
from ..eval.grid.page import render_grid
from ..eval.grid.report import GridReport, Table, markdown, show_difference
from ..eval.tasks import public_data
from ..eval.tasks.documents import Documents
from ..eval.tasks.entities import Entities
from ..eval.tasks.sentiment import Sentiment
from ..eval.tasks.task import Task
from ..train.config import TrainConfig
from ..train.data import DOCUMENTS_SEED, RunData, read_run_data
from ..train.from_config import Result, train_from_config
from .writeup_claims import Claim, claims

DOCUMENTS, MIXTURE = "documents", "mixture"
FOUR_BIT = "nf4-dq"
TEST_SEED = 7
TITLE = "The write-up, run again"

# The shapes are the write-up's: 80 MB is rank 8 on all seven linears, 67.3 MB nearest to rank 16 on the four of
# attention. It names neither rates nor epochs.
Recipe = dict[str, dict[str, Any]]
RECIPES: dict[str, Recipe] = {
    DOCUMENTS: {
        "adapter": {"name": DOCUMENTS, "rank": 8, "alpha": 16.0, "targets": "all"},
        "data": {"train": "documents", "template": "alpaca", "max_tokens": 1024},
        "optimizer": {"lr": 2e-4, "schedule": "cosine", "warmup": 5, "clip": 0.3},
        "run": {"epochs": 3, "batch": 8},
    },
    MIXTURE: {
        "adapter": {"name": MIXTURE, "rank": 16, "alpha": 32.0, "targets": "attention"},
        "data": {"template": "alpaca", "max_tokens": 512, "group_by_length": True},
        "optimizer": {"lr": 2e-4, "schedule": "cosine", "warmup": 20, "clip": 0.3},
        "run": {"epochs": 1, "batch": 8},
    },
}
# A base of three million parameters wants larger steps.
ON_EMBEDDED: Recipe = {"optimizer": {"lr": 2e-3, "clip": 1.0}}


@dataclass(frozen=True)
class Reproduction:
    """Both hats, the claims beside what was found, and the grid."""

    hats: Mapping[str, Path]
    claims: Sequence[Claim]
    report: GridReport


def reproduce(
    base: str,
    mixture: Path,
    out: Path,
    *,
    public_sets: Path | None = None,
    full: str | None = None,
    overrides: Sequence[str] = (),
    n: int = 20,
    device: str = "cpu",
    progress: bool = True,
) -> Reproduction:
    """Trains both hats on 4 bit, evaluates them on both precisions, and writes the reports into `out`.

    base         a full-precision folder, or "embedded"
    mixture      the file that the second hat learns from, such as `lowrank data mixture` writes
    public_sets  where TFNS and fingpt-ner are (see `eval.tasks.public_data`); left out, only documents are evaluated
    full         the full precision; left out: fp32 for the embedded base, else bf16
    overrides    "table.key=value", put over both recipes
    Raises ValueError for a base that is stored in 4 bit, or a file that is missing.
    """
    folder = base_folder(base)
    if open_base(folder).is_quantized:
        raise ValueError(f"{folder}: is quantized already: full precision, which it is compared with, is not in it")
    if not mixture.is_file():
        raise ValueError(f"mixture: {mixture}: no such file")
    full = full or ("fp32" if base == EMBEDDED else "bf16")
    tasks = _tasks(n, public_sets)
    configs = {name: _config(name, base, mixture, out, overrides, device) for name in RECIPES}
    tokenizer = load_tokenizer(folder)
    data = {name: read_run_data(config, tokenizer) for name, config in configs.items()}
    trained = {name: _train(config, data[name], progress) for name, config in configs.items()}
    hats = {name: result.adapter for name, result in trained.items()}
    cells = evaluate_grid(folder, hats, (FOUR_BIT, full), tasks, device=device, state=out / "cells", progress=progress)
    found = [*claims(open_base(folder).config, _measured(folder, trained)), *_results(compare(cells))]
    rows = [claim.cells for claim in found]
    lead = Table("The write-up's numbers, and ours", Claim.HEAD, rows, "What was found is of this base and machine.")
    about = _about(base, folder, mixture, public_sets, configs, device)
    report = GridReport.of(about, cells, title=TITLE, lead=[lead])
    result = Reproduction(hats, found, report)
    write_json(out / "reproduce.json", {"claims": [claim.to_json() for claim in found], **report.to_json()})
    write_text(out / "reproduce.md", markdown(report))
    write_text(out / "reproduce.html", render_grid(report))
    return result


def _tasks(n: int, public_sets: Path | None) -> list[Task]:
    learned = [entry.output for entry in make_documents(100, seed=DOCUMENTS_SEED, split="train")]
    tasks: list[Task] = [Documents(make_documents(n, seed=TEST_SEED, split="test"), training=learned)]
    if public_sets is not None:
        tasks += [Sentiment(public_data.sentiment_rows(public_sets)), Entities(public_data.ner_rows(public_sets))]
    return tasks


def _config(name: str, base: str, mixture: Path, out: Path, overrides: Sequence[str], device: str) -> TrainConfig:
    """The run of a hat, written into OUT as a file and read from there."""
    recipe = {table: dict(values) for table, values in RECIPES[name].items()}
    for table, values in ON_EMBEDDED.items() if base == EMBEDDED else ():
        recipe[table] |= values
    recipe["base"] = {"path": base, "weights": FOUR_BIT, "device": device}
    recipe["run"]["out"] = str(out / name)
    if name == MIXTURE:
        recipe["data"]["train"] = str(mixture)
    path = out / f"{name}.toml"
    write_text(path, "\n".join(_toml(table, values) for table, values in recipe.items()))
    return TrainConfig.read(path, overrides)


def _toml(table: str, values: Mapping[str, Any]) -> str:
    """A table of strings, numbers and truth values, which TOML writes as JSON does."""
    return f"[{table}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())


def _train(config: TrainConfig, data: RunData, progress: bool) -> Result:
    return train_from_config(config, data=data, resume="auto", progress=progress)


def _results(comparisons: Sequence[Comparison]) -> list[Claim]:
    """ "noticeable results on both the quantized and full precision models", hat by hat and task by task."""
    gains = [one for one in comparisons if one.question == "gain" and one.measure.primary]
    rows = []
    for task, before, after in dict.fromkeys((one.task, one.before, one.after) for one in gains):
        of_pair = [one for one in gains if (one.task, one.before, one.after) == (task, before, after)]
        better = [f"{one.measure.name} {show_difference(one)}" for one in of_pair if one.verdict == "better"]
        worse = [one.measure.name for one in of_pair if one.verdict == "worse"]
        verdicts = ["told apart from none"] if better else [] if worse else ["not told apart from none"]
        verdict = "; ".join([*verdicts, *([f"worse: {', '.join(worse)}"] if worse else [])])
        what = f"{after.adapter} hat, {task}, {after.weights}"
        rows.append(Claim(what, "noticeable results", "", ", ".join(better) or "no measure is better", verdict))
    return rows


def _measured(folder: Path, trained: Mapping[str, Result]) -> dict[str, dict[str, float]]:
    """Measurements on this base: the bytes and seconds of each hat, the bytes of the base in both precisions."""
    config = open_base(folder).config
    found = {
        name: {
            "bytes": (result.adapter / "adapter_model.safetensors").stat().st_size,
            "seconds": sum(row["seconds"] for row in result.rows),
            "parameters": result.parameters,
            "entries": json.loads((result.adapter / "lowrank.json").read_text())["data"]["entries"],
        }
        for name, result in trained.items()
    }
    sizes = {name: sum(item.bytes for item in base_items(config, name)) for name in ("bf16", FOUR_BIT)}
    return {**found, "base": {"full": sizes["bf16"], "four_bit": sizes[FOUR_BIT]}}


def _about(
    base: str,
    folder: Path,
    mixture: Path,
    public_sets: Path | None,
    configs: Mapping[str, TrainConfig],
    device: str,
) -> dict[str, str]:
    tested = "not at hand: sentiment and entities were not evaluated" if public_sets is None else str(public_sets)
    rates = ", ".join(f"{name} {c.optimizer.lr:g} for {c.run.epochs:g} epochs" for name, c in configs.items())
    return {
        "base": base,
        "base, SHA-256": base_sha256(folder)[:16],
        "mixture": str(mixture),
        "public sets": tested,
        "learning rates": rates,
        "machine": f"{platform.machine()}, {device}, {torch.get_num_threads()} threads",
        "versions": f"lowrank {__version__}, torch {torch.__version__}, Python {platform.python_version()}",
    }
