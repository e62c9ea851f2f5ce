"""Does influence predict what a document does? The quickstart's hat beside runs without documents, and on halves.

    python -m lowrank.workflows.influence runs/influence

    actual[z, i]   nats of test document z after the run without training document i, less those after the whole run
    rho            Spearman's rank correlation over i of actual[z, i] with what was predicted, for each z
    LDS            the same over halves of the documents: the sum of the predictions of those that a half leaves out,
                   with the nats after it (the linear datamodeling score, arXiv 2303.14186, after arXiv 2202.00622)

Their means over test documents, with intervals over these, and wider ones over these and the runs. Beside the two
methods of `train.influence`: random numbers, and how alike two documents are by the base's mean hidden state and by
their words. Run again, it goes on where it was; FOLDER/influence.json and .html are of the runs that are there.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..atomic_io import new_file, write_json, write_text
from ..bench.rows import Row, read
from ..checkpoints.embedded import EMBEDDED
from ..checkpoints.load import load
from ..data.encoding.batching import Example
from ..eval.metrics.bootstrap import Interval
from ..eval.metrics.metric import Array
from ..eval.metrics.rank_correlation import interval_over_runs, mean_correlation, rank_correlation
from ..model.loss import IGNORED
from ..train.influence.effects import METHODS, effects, steps_taken
from ..train.influence.gradients import Products
from ..train.influence.run import CHECKPOINTS, LoadedRun, read_run
from ..train.influence.trace import products_of_run
from .influence_page import render
from .influence_runs import REFERENCE, RETRAINS, Task, retrain
from .quickstart import FOUR_BIT

RANDOM, HIDDEN, WORDS = "random", "hidden states", "words"
PARTS = ("between", "own")  # of `Products`


@dataclass(frozen=True)
class Score:
    """A way to predict, by its rank correlations: with runs without a document, and with runs on halves.

    single, half            intervals over test documents
    single_wide, half_wide  intervals over test documents and runs
    beside                  the difference of its LDS from that of `HIDDEN`, None for `HIDDEN` itself
    """

    name: str
    single: Interval
    half: Interval
    single_wide: Interval
    half_wide: Interval
    beside: Interval | None


@dataclass(frozen=True)
class Validation:
    """Scores of every way to predict.

    singles, halves  how many runs they are of
    actual           nats: the median of |actual| over singles and test documents
    predicted        by method, the median of |predicted| there
    points           (predicted by the best method, actual), nats, of every single run and test document
    """

    scores: tuple[Score, ...]
    singles: int
    halves: int
    tests: int
    checkpoints: tuple[int, ...]
    actual: float
    predicted: Mapping[str, float]
    points: tuple[tuple[float, float], ...]
    about: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Every figure but the points; None for a correlation that too few runs do not have."""
        found = {key: value for key, value in asdict(self).items() if key != "points"}
        for one in found["scores"]:
            for name, interval in one.items():
                if isinstance(interval, dict):
                    one[name] = {key: None if value != value else value for key, value in interval.items()}
        return found


def validate(task: Task, *, progress: bool = True) -> Validation:
    """The scores of the runs that are in the folder; writes influence.json and influence.html beside them."""
    rows = read(task.folder / RETRAINS)
    predictions = predicted(task, progress=progress)
    found = score(predictions, [example.id for example in task.examples], rows, advised(task.steps))
    write_json(task.folder / "influence.json", found.to_json())
    write_text(task.folder / "influence.html", render(found))
    return found


def predicted(task: Task, *, progress: bool = True) -> dict[str, Array]:
    """[M, N] by the name of the way: what each test document would cost more without each training document."""
    run = read_run(task.folder / REFERENCE)
    kept = advised(task.steps)
    products = _products(task, kept, progress)
    steps = steps_taken(task.examples, run.examples, run.config, run.log, kept)
    tokens = [example.supervised for example in task.examples]
    found = {}
    for method in METHODS:
        found[method], _ = effects(steps, {at: by[method] for at, by in products.items()}, tokens, method)
    shape = (len(task.test), len(task.examples))
    return found | {
        HIDDEN: cosines(*hidden_states(task.test, task.examples)),
        WORDS: cosines(*word_weights(task.test, task.examples)),
        RANDOM: np.random.default_rng(0).standard_normal(shape),
    }


def score(
    predictions: Mapping[str, Array], ids: Sequence[str], rows: Sequence[Row], checkpoints: Sequence[int]
) -> Validation:
    """The correlation of predictions [M, N] with the runs, N documents in the order of `ids`.

    checkpoints  that the gradients were taken at
    """
    reference = next(row for row in rows if not row["excluded"])
    whole, places = np.array(reference["losses"]), {id: place for place, id in enumerate(ids)}
    single = {row["excluded"][0]: np.array(row["losses"]) for row in rows if len(row["excluded"]) == 1}
    halves = [row for row in rows if len(row["excluded"]) > 1]
    columns = [places[id] for id in single]
    actual = np.array([losses - whole for losses in single.values()]).T  # [M, singles]
    left_out = np.zeros((len(ids), len(halves)))
    for number, row in enumerate(halves):
        left_out[[places[id] for id in row["excluded"]], number] = 1
    of_halves = np.array([row["losses"] for row in halves]).T  # [M, halves]
    rhos = {
        name: (_rhos(values[:, columns], actual), _rhos(values @ left_out, of_halves))
        for name, values in predictions.items()
    }
    scores = tuple(
        Score(
            name,
            mean_correlation(one),
            mean_correlation(half),
            interval_over_runs(predictions[name][:, columns], actual),
            interval_over_runs(predictions[name] @ left_out, of_halves),
            None if name == HIDDEN else mean_correlation(half, rhos[HIDDEN][1]),
        )
        for name, (one, half) in rhos.items()
    )
    best = max(METHODS, key=lambda method: float(np.mean(rhos[method][1])))
    return Validation(
        scores,
        singles=len(single),
        halves=len(halves),
        tests=len(whole),
        checkpoints=tuple(checkpoints),
        actual=float(np.median(np.abs(actual))),
        predicted={method: float(np.median(np.abs(predictions[method][:, columns]))) for method in METHODS},
        points=tuple(zip(predictions[best][:, columns].ravel().tolist(), actual.ravel().tolist(), strict=True)),
        about={key: reference[key] for key in ("epochs", "machine", "threads", "versions", "commit", "date")},
    )


def _rhos(predicted: Array, actual: Array) -> list[float]:
    """A test document each."""
    return [rank_correlation(one, other) for one, other in zip(predicted, actual, strict=True)]


def advised(steps: int) -> list[int]:
    """The checkpoints that a run keeps which is trained as `lowrank inspect data` asks: every quarter, and the end."""
    every = -(-steps // CHECKPOINTS)
    return sorted({*range(every, steps + 1, every), steps})[-CHECKPOINTS:]


def _products(task: Task, kept: Sequence[int], progress: bool) -> dict[int, dict[str, Products]]:
    """Those of each checkpoint, from FOLDER/products-STEPS.npz if they are there."""
    loaded: LoadedRun | None = None
    found: dict[int, dict[str, Products]] = {}
    for steps in kept:
        path = task.folder / f"products-{steps}.npz"
        if not path.exists():
            loaded = loaded or LoadedRun(read_run(task.folder / REFERENCE), progress=progress)
            (fresh,) = products_of_run(loaded, [steps], task.examples, task.test, METHODS, progress).values()
            with new_file(path) as aside, aside.open("wb") as file:
                np.savez(
                    file, **{f"{method}-{part}": getattr(of, part) for method, of in fresh.items() for part in PARTS}
                )
        with np.load(path) as stored:
            found[steps] = {method: Products(*(stored[f"{method}-{part}"] for part in PARTS)) for method in METHODS}
    return found


def cosines(test: Array, train: Array) -> Array:
    """[M, d] and [N, d] -> the cosines [M, N]"""
    one, other = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (test, train))
    return np.asarray(one @ other.T)


@torch.inference_mode()
def hidden_states(*groups: Sequence[Example]) -> tuple[Array, ...]:
    """The base's last hidden state, its mean over the learned tokens of each document, for each group [documents, D]"""
    model = load(EMBEDDED, FOUR_BIT, torch.float32)

    def mean(example: Example) -> Array:
        hidden = model.hidden(torch.tensor(example.tokens)[None])[0]
        return np.asarray(hidden[torch.tensor(example.labels) != IGNORED].double().mean(0).numpy())

    means = [np.array([mean(example) for example in group]) for group in groups]
    centre = np.concatenate(means).mean(0)  # what all documents share says nothing
    return tuple(rows - centre for rows in means)


def word_weights(*groups: Sequence[Example]) -> tuple[Array, ...]:
    """TF-IDF over tokens, for each group [documents, V]:    count * ln(documents / documents that have the token)"""
    size = 1 + max(token for group in groups for example in group for token in example.tokens)
    counts = [
        np.array([np.bincount(one.tokens, minlength=size) for one in group], dtype=np.float64) for group in groups
    ]
    seen = sum((rows > 0).sum(0) for rows in counts)
    weights = np.log(sum(map(len, groups)) / np.maximum(seen, 1))
    return tuple(rows * weights for rows in counts)


def main(arguments: Sequence[str]) -> None:
    """Trains what is missing, and writes the figures."""
    parser = argparse.ArgumentParser(prog="python -m lowrank.workflows.influence", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--at-most", type=int, metavar="N", help="retrains of this call (default: all that are left)")
    args = parser.parse_args(arguments)
    task = Task(args.folder)
    retrain(task, at_most=args.at_most)
    found = validate(task)
    for one in found.scores:
        print(one)
    print(f"{args.folder / 'influence.html'}: the page")


if __name__ == "__main__":
    main(sys.argv[1:])
