"""The whole path on the embedded base: quantize, train a hat on 100 documents, evaluate, write documents, report.

It is the same code that a 7B runs through; only the recipe is made for two CPU cores and a few minutes.
"""

import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from .. import __version__
from ..atomic_io import write_json, write_text
from ..checkpoints.embedded import EMBEDDED, base_folder
from ..checkpoints.load import load
from ..checkpoints.open_base import open_base
from ..checkpoints.quantize_folder import quantize_folder
from ..data.documents.document import Entry, make_documents, write_jsonl
from ..eval.grid.document_page import Report, Written, render
from ..eval.grid.grid import Cell, evaluate_grid
from ..eval.grid.score_table import score_table
from ..eval.grid.summary import findings
from ..eval.tasks.documents import Documents
from ..kernels.weights.quantized_weight import stored_bytes
from ..layers.quant_linear import QuantLinear
from ..train.config import TrainConfig
from ..train.data import DOCUMENTS_SEED
from ..train.from_config import train_from_config

NAME = "finance"
FOUR_BIT, FULL = "nf4-dq", "fp32"
TEST_DOCUMENTS = 20
TEST_SEED = 7
SHOWN = 4

RECIPE: dict[str, dict[str, Any]] = {
    "base": {"path": EMBEDDED, "weights": FOUR_BIT, "dtype": "fp32"},
    "adapter": {"name": NAME, "rank": 8, "alpha": 16.0, "targets": "all"},
    "data": {"train": "documents", "template": "alpaca", "max_tokens": 512},
    "optimizer": {"lr": 2e-3, "schedule": "cosine", "warmup": 5, "clip": 1.0},
    "run": {"epochs": 4, "batch": 8},
}


NOTES = (
    "Loss is measured on reference documents that were never trained on; the shares are of documents that the model "
    "wrote by itself, taking the likeliest token each time.",
    "The companies, people and figures are invented, and those of the test documents do not occur in training.",
    "The embedded base is small: a hat on it may write lists where paragraphs are asked for, and miss a name.",
    "A hat's size follows from its rank, its targets and its type, never from the data set it was trained on.",
)


def quickstart(out: Path, *, seed: int = 0, progress: bool = True) -> list[Cell]:
    """Writes into `out` the NF4 base, the hat, the data, eval.json, the documents and report.html; returns the grid.

    The same seed gives the same figures on the same machine.
    """
    started = time.monotonic()
    base = base_folder(EMBEDDED)
    out.mkdir(parents=True, exist_ok=True)
    quantized = quantize_folder(base, out / "base-nf4-dq", FOUR_BIT, progress=progress)
    entries = make_documents(TEST_DOCUMENTS, seed=TEST_SEED, split="test")
    write_jsonl(out / "test.jsonl", entries)

    recipe = {**RECIPE, "run": {**RECIPE["run"], "out": str(out), "seed": seed}}
    trained = train_from_config(TrainConfig.from_dict(recipe), overwrite=True, progress=progress)

    training_texts = [entry.output for entry in make_documents(100, seed=DOCUMENTS_SEED, split="train")]
    tasks = [Documents(entries, training=training_texts)]
    grid = evaluate_grid(base, {NAME: trained.adapter}, (FOUR_BIT, FULL), tasks, dtype=torch.float32, progress=progress)
    rows = [cell.to_json() for cell in grid]
    write_json(out / "eval.json", rows)
    write_documents(out / "documents", entries, grid)
    write_text(out / "facts.txt", entries[3].input + "\n")
    seconds = time.monotonic() - started
    report = Report(
        title="A hat for financial documents, on 4 bit and on full precision",
        run=_about(seed, seconds, trained.parameters),
        training=trained.rows,
        grid=rows,
        parts=parts(base, quantized, trained.adapter),
        documents=[
            Written(entry, cell.column.adapter, cell.column.weights, cell.texts[index])
            for index, entry in enumerate(entries[:SHOWN])
            for cell in grid
        ],
        notes=NOTES,
    )
    write_text(out / "report.html", render(report))
    print(score_table(grid))
    print("\n".join(findings(rows)))
    print(f"\n{seconds:.0f} s. Open {out / 'report.html'}, or write a document:")
    print(
        f"  lowrank generate {quantized} --adapter {NAME}={trained.adapter} --use {NAME} "
        f"--facts {out / 'facts.txt'} --kind {entries[3].kind}"
    )
    return grid


def write_documents(folder: Path, entries: Sequence[Entry], grid: Sequence[Cell]) -> None:
    """Every text of every cell as `ENTRY.HAT.WEIGHTS.md`."""
    for cell in grid:
        for entry, text in zip(entries, cell.texts, strict=True):
            name = f"{entry.id}.{cell.column.adapter or 'base'}.{cell.column.weights}.md"
            write_text(folder / name, text)


def parts(base: Path, quantized: Path, adapter: Path) -> list[tuple[str, int]]:
    """(what, bytes) of each part as it lies on the disk, and of the 4-bit weights themselves."""
    linears = [module for module in load(quantized).modules() if isinstance(module, QuantLinear)]
    codes = sum(layer.quantized.tensors()["codes"].numel() for layer in linears)
    four_bit = sum(stored_bytes(layer.quantized) for layer in linears)
    dense = open_base(base).config
    linear_count = dense.n_layers * sum(rows * columns for rows, columns in dense.linear_shapes().values())
    return [
        ("base, fp16 file", (base / "consolidated.00.pth").stat().st_size),
        ("its block linears in fp16", 2 * linear_count),
        ("the same as NF4 codes", codes),
        ("and their statistics", four_bit - codes),
        ("base, NF4 file", (quantized / "model.safetensors").stat().st_size),
        ("hat, fp32 file", (adapter / "adapter_model.safetensors").stat().st_size),
    ]


def _about(seed: int, seconds: float, parameters: int) -> dict[str, str]:
    return {
        "seed": str(seed),
        "time": f"{seconds:.0f} s, of which training is the largest part",
        "trained parameters": f"{parameters:,}",
        "test documents": f"{TEST_DOCUMENTS}, companies not seen in training",
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "versions": f"lowrank {__version__}, torch {torch.__version__}, Python {platform.python_version()}",
    }
