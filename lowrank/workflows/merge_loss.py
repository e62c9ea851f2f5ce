"""Loss after a merge into 4 bits, of hats that were trained for it and of ordinary ones, on the quickstart's task.

    python -m lowrank.workflows.merge_loss 1,2,3 bench/results/merge_aware.jsonl

For every seed a hat by each way, and the nats of each document of `unseen_loss`, worn unmerged and merged. Rows
that the file has already are not made again.
"""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from ..bench import machine
from ..bench.rows import Row, append, read
from ..checkpoints.embedded import EMBEDDED, base_folder
from ..checkpoints.load import load, load_tokenizer
from ..data.encoding.batching import Example
from ..eval.metrics.bootstrap import LEVEL, RESAMPLES
from ..eval.metrics.perplexity import completion_losses
from ..train.config import TrainConfig
from ..train.data import read_run_data
from ..train.merge_aware import MergeAware
from ..train.trainer import train
from .quickstart import FOUR_BIT, RECIPE
from .unseen_loss import unseen_examples

ORDINARY, AWARE, AFTERWARDS, EVERY_4 = "ordinary", "merge-aware", "merge-aware afterwards", "merge-aware every 4"
# Over the quickstart's recipe. AFTERWARDS: an epoch more, from the ordinary hat.
WAYS: dict[str, dict[str, dict[str, Any]]] = {
    ORDINARY: {},
    AWARE: {"adapter": {"merge_aware": FOUR_BIT}},
    AFTERWARDS: {"adapter": {"merge_aware": FOUR_BIT}, "optimizer": {"lr": 5e-4}, "run": {"epochs": 1}},
    EVERY_4: {"adapter": {"merge_aware": FOUR_BIT, "requantize_every": 4}},
}


def run(seeds: Sequence[int], out: Path) -> None:
    """Appends a row a seed and way: the nats of every document, unmerged (of an ordinary hat) and merged."""
    done = {(row["seed"], row["way"]) for row in (read(out) if out.exists() else [])}
    test = unseen_examples()
    with TemporaryDirectory() as scratch:
        for seed in seeds:
            for way in WAYS:
                if (seed, way) not in done:
                    append(out, [_row(seed, way, Path(scratch), test)])
                    print(f"seed {seed}, {way}: done", file=sys.stderr)


def intervals(rows: Sequence[Row], way: str, against: str) -> tuple[float, float, float]:
    """The mean over seeds of loss(way, merged) - loss(ordinary, `against`), and its 95 % interval, nats a token

    against: "unmerged" or "merged". Bootstrap over seeds and documents, both drawn with replacement.
    """
    by_seed = {(row["seed"], row["way"]): row for row in rows}
    seeds = sorted({seed for seed, name in by_seed if name == way and (seed, ORDINARY) in by_seed})
    moved = np.array(
        [np.subtract(by_seed[seed, way]["merged"], by_seed[seed, ORDINARY][against]) for seed in seeds]
    )  # [seeds, documents]
    tokens = np.array(by_seed[seeds[0], way]["tokens"])
    generator = np.random.default_rng(0)
    drawn = []
    for _ in range(RESAMPLES):
        of_seeds = generator.integers(len(seeds), size=len(seeds))
        of_documents = generator.integers(len(tokens), size=len(tokens))
        drawn.append(moved[of_seeds][:, of_documents].sum() / (len(seeds) * tokens[of_documents].sum()))
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(moved.sum() / (len(seeds) * tokens.sum())), float(low), float(high)


def _row(seed: int, way: str, scratch: Path, test: Sequence[Example]) -> Row:
    tables = {table: {**values, **WAYS[way].get(table, {})} for table, values in RECIPE.items()}
    tables["run"] |= {"out": str(scratch / f"{way}-{seed}"), "seed": seed}
    if way == AFTERWARDS:
        tables["adapter"] = {**WAYS[way]["adapter"], "from": str(scratch / f"{ORDINARY}-{seed}" / "hat")}
    config = TrainConfig.from_dict(tables)
    model = load(EMBEDDED, FOUR_BIT, torch.float32)
    started = time.process_time()
    rows = train(model, read_run_data(config, load_tokenizer(base_folder(EMBEDDED))).examples, config, progress=False)
    found: Row = {
        "bench": "merge_aware",
        "seed": seed,
        "way": way,
        "cpu_seconds": round(time.process_time() - started, 1),
        "last_loss": rows[-1]["loss"],
        "tokens": [example.supervised for example in test],
    }
    if way == ORDINARY:
        found["unmerged"] = _rounded(completion_losses(model, test))
        MergeAware(model, config.adapter.name, FOUR_BIT, 1)
    return {**found, "merged": _rounded(completion_losses(model, test)), **_where()}


def _rounded(nats: Sequence[float]) -> list[float]:
    return [round(one, 4) for one in nats]


def _where() -> Mapping[str, Any]:
    return {
        "machine": machine.name(torch.device("cpu")),
        "threads": torch.get_num_threads(),
        "versions": machine.versions(["torch"]),
        "commit": machine.commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


if __name__ == "__main__":
    seeds, file = [int(seed) for seed in sys.argv[1].split(",")], Path(sys.argv[2])
    run(seeds, file)
    rows = read(file)
    for way in WAYS:
        if any(row["way"] == way for row in rows):
            for against in ("unmerged", "merged"):
                mean, low, high = intervals(rows, way, against)
                print(json.dumps({"way": way, "against": against, "difference": mean, "low": low, "high": high}))
