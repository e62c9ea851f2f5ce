"""The task `sentiment`: negative, neutral or positive, of the tweets of TFNS's validation split.

An answer is one of the three words and nothing else (case and a full stop apart), or it is unparsable: wrong, and
counted by itself. Two thirds of these tweets are neutral, and who always says so is right on 65.6 %: look at macro F1.

FinGPT's own scoring is shown beside it, under its name, because published tables are made with it (`fingpt`).
"""

from collections.abc import Mapping, Sequence

import numpy as np

from lowrank.data.mixture.layouts import THREE
from lowrank.data.mixture.rows import MixtureRow
from lowrank.extras import need

from ..metrics.fingpt import lenient_label
from ..metrics.metric import Measure, macro_f1, weighted_f1
from .generate import Output
from .task import ENDED, Item, Task

UNPARSABLE = "unparsable"
MEASURES = (
    Measure("accuracy", "accuracy", primary=True),
    Measure("weighted_f1", "weighted F1", form=weighted_f1, primary=True),
    Measure("macro_f1", "macro F1", form=macro_f1, primary=True),
    Measure("unparsable", "unparsable", "lower", primary=True),
    ENDED,
    Measure("fingpt_accuracy", "accuracy, FinGPT's lenient scoring"),
    Measure("fingpt_weighted_f1", "weighted F1, FinGPT's lenient scoring", form=weighted_f1),
)


class Sentiment(Task):
    """Rows with a label of three.  Raises ValueError for another label, or if the extra `eval` is not installed."""

    name = "sentiment"
    measures = MEASURES
    notes = (
        "Unparsable answers count as wrong. FinGPT's lenient scoring looks for the words anywhere, and takes whatever "
        "holds neither for neutral: it is here for comparison with published tables only.",
    )

    def __init__(self, rows: Sequence[MixtureRow]) -> None:
        need("sklearn", "the task sentiment")
        for row in rows:
            if row.label not in THREE:
                raise ValueError(f"row {row.id}: label must be one of {', '.join(THREE)}, got {row.label!r}")
        self.items = [Item(row.id, row.instruction, row.input, row.output) for row in rows]

    def per_item_counts(self, outputs: Sequence[Output]) -> list[Mapping[str, tuple[float, ...]]]:
        """See `Task.per_item_counts`. Accuracy and F1 are held to scikit-learn's."""
        gold = [item.reference for item in self.items]
        predicted = [read_label(output.text) for output in outputs]
        lenient = [lenient_label(output.text) for output in outputs]
        rows = [
            {
                "accuracy": (right == label, 1),
                "weighted_f1": _cell(right, label),
                "macro_f1": _cell(right, label),
                "unparsable": (label == UNPARSABLE, 1),
                "ended": (output.ended, 1),
                "fingpt_accuracy": (right == loose, 1),
                "fingpt_weighted_f1": _cell(right, loose),
            }
            for right, label, loose, output in zip(gold, predicted, lenient, outputs, strict=True)
        ]
        _check_against_sklearn(
            gold, predicted, {m.key: m.value(np.array([r[m.key] for r in rows], float)) for m in MEASURES}
        )
        return list(rows)

    def most_tokens(self, longest_reference: int) -> int:
        """FinGPT's ten, or twice the longest label in a vocabulary that cuts it into more."""
        return max(10, 2 * longest_reference)


def read_label(text: str) -> str:
    """The label that an answer is, or UNPARSABLE: " Positive." is positive, "it is positive" is none."""
    word = text.strip().removesuffix(".").casefold()
    return word if word in THREE else UNPARSABLE


def _cell(right: str, predicted: str) -> tuple[float, ...]:
    """A confusion matrix with one answer in it: a row for each label, a column for each and one for the unparsable."""
    matrix = np.zeros((len(THREE), len(THREE) + 1))
    matrix[THREE.index(right), THREE.index(predicted) if predicted in THREE else len(THREE)] = 1
    return tuple(matrix.flatten().tolist())


def _check_against_sklearn(gold: Sequence[str], predicted: Sequence[str], ours: Mapping[str, float]) -> None:
    metrics = need("sklearn.metrics", "the task sentiment")
    theirs = {"accuracy": metrics.accuracy_score(gold, predicted)}
    for average in ("weighted", "macro"):
        theirs[f"{average}_f1"] = metrics.f1_score(
            gold, predicted, labels=list(THREE), average=average, zero_division=0
        )
    for key, value in theirs.items():
        assert abs(ours[key] - value) < 1e-9, (key, ours[key], value)
