"""The task `qa`: questions of FiQA that no hat was trained on, each with its longest answer as the reference.

fingpt-fiqa_qa has no test split; what is asked here are the questions that the training files leave over. Answers are
opinions from a forum, and a good one may share few words with the reference: the loss says more than ROUGE and chrF.
"""

from collections.abc import Mapping, Sequence

from lowrank.data.mixture.rows import MixtureRow

from ..metrics.metric import Measure
from ..metrics.overlap import chrf, rouge
from ..metrics.repetition import distinct, rep_n
from .documents import OVERLAP
from .generate import Output
from .task import ENDED, LENGTH, Item, Task, length

MOST_TOKENS = 400


class Questions(Task):
    """Questions with a reference each.  Raises ValueError if the extra `eval` is not installed."""

    name = "qa"
    measures = (*OVERLAP, ENDED, LENGTH, Measure("rep_4", "repeated 4-grams", "lower"))
    notes = ("An answer is cut after 400 tokens. ROUGE and chrF are against one reference, where many would do.",)

    def __init__(self, rows: Sequence[MixtureRow]) -> None:
        rouge("", "")  # tells now, not after an hour, that the extra is missing
        chrf("", "")
        self.items = [Item(row.id, row.instruction, row.input, row.output) for row in rows]

    def per_item_counts(self, outputs: Sequence[Output]) -> list[Mapping[str, tuple[float, ...]]]:
        """See `Task.per_item_counts`."""
        return [
            {name: (share, 1) for name, share in rouge(output.text, item.reference).items()}
            | {
                "chrf": (chrf(output.text, item.reference), 1),
                "ended": (output.ended, 1),
                "length": length(output, item.reference),
                "rep_4": (rep_n(output.text), 1),
            }
            for item, output in zip(self.items, outputs, strict=True)
        ]

    def corpus_metrics(self, outputs: Sequence[Output]) -> dict[str, float]:
        """distinct-1 and distinct-2."""
        texts = [output.text for output in outputs]
        return {"distinct_1": distinct(texts, 1), "distinct_2": distinct(texts, 2)}

    def most_tokens(self, longest_reference: int) -> int:
        """400, or what the longest reference has."""
        return min(MOST_TOKENS, 2 * longest_reference)
