"""The task `documents`: from an unseen record to its document, every figure looked up.

The figures' own measures are those of `faithfulness`; what else a document may get wrong has a room for each:
`identities`, `mentions`, `form`, `repetition`, `memorisation`, `overlap`.
"""

from collections.abc import Mapping, Sequence

from lowrank.data.documents.document import Entry

from ..metrics.faithfulness import check
from ..metrics.format_check import FORMATS, defects
from ..metrics.identities import check_identities
from ..metrics.memorisation import check_memory
from ..metrics.mentions import check_mentions
from ..metrics.metric import Measure
from ..metrics.overlap import chrf, rouge, self_bleu
from ..metrics.repetition import distinct, longest_repeat, rep_n
from .generate import Output
from .task import ENDED, LENGTH, Item, Task, length

FIGURES = (
    Measure("sections", "sections", primary=True),
    Measure("figure_precision", "figure precision", primary=True),
    Measure("figure_recall", "figure recall", primary=True),
    Measure("binding", "right label", primary=True),
)
REST = (
    Measure("identities_printed", "identities printed"),
    Measure("identities_held", "of those, held"),
    Measure("names", "names"),
    Measure("dates", "dates"),
    Measure("dates_right", "dates right"),
    Measure("figures", "figures a document", "", unit="figures"),
    Measure("format_valid", "valid format"),
    ENDED,
    LENGTH,
    Measure("rep_4", "repeated 4-grams", "lower"),
    Measure("longest_repeat", "longest repeat", "lower"),
)
MEMORY = (
    Measure("copied", "copied from training", "lower"),
    Measure("copied_masked", "the same without figures", ""),
    Measure("wrong_from_training", "wrong figures from training", "lower"),
)
OVERLAP = (
    Measure("rouge1", "ROUGE-1"),
    Measure("rouge2", "ROUGE-2"),
    Measure("rougeLsum", "ROUGE-Lsum"),
    Measure("chrf", "chrF"),
)


class Documents(Task):
    """Documents of entries.

    training  texts that hats were trained on; without them, memorisation is not measured
    overlap   whether ROUGE, chrF and self-BLEU are measured (the extra `eval`)
    Raises ValueError for an entry in a format that is not known.
    """

    name = "documents"

    def __init__(self, entries: Sequence[Entry], *, training: Sequence[str] = (), overlap: bool = False) -> None:
        for entry in entries:
            if entry.format not in FORMATS:
                raise ValueError(f"entry {entry.id}: format must be one of {', '.join(FORMATS)}, got {entry.format!r}")
        self.entries = list(entries)
        self.training = list(training)
        self.overlap = overlap
        self.items = [Item(entry.id, entry.instruction, entry.input, entry.output) for entry in entries]
        self.measures = (*FIGURES, *REST, *(MEMORY if self.training else ()), *(OVERLAP if overlap else ()))
        self.notes = (
            "Sections, figure precision, figure recall and right label are means over documents; identities, names, "
            "dates and wrong figures are counted over all documents together.",
        )

    def per_item_counts(self, outputs: Sequence[Output]) -> list[Mapping[str, tuple[float, ...]]]:
        """See `Task.per_item_counts`."""
        rows = [_item_counts(entry, output) for entry, output in zip(self.entries, outputs, strict=True)]
        texts = [output.text for output in outputs]
        if self.training:
            wrong = [
                [figure for figure in check(entry, text).figures if not figure.right]
                for entry, text in zip(self.entries, texts, strict=True)
            ]
            for row, memory in zip(rows, check_memory(texts, wrong, self.training), strict=True):
                row["copied"] = (memory.copied, 1)
                row["copied_masked"] = (memory.copied_masked, 1)
                row["wrong_from_training"] = (memory.wrong_from_training, memory.wrong)
        if self.overlap:
            for row, text, item in zip(rows, texts, self.items, strict=True):
                row |= {name: (share, 1) for name, share in rouge(text, item.reference).items()}
                row["chrf"] = (chrf(text, item.reference), 1)
        return list(rows)

    def corpus_metrics(self, outputs: Sequence[Output]) -> dict[str, float]:
        """distinct-1, distinct-2 and, with overlap, self-BLEU."""
        texts = [output.text for output in outputs]
        metrics = {"distinct_1": distinct(texts, 1), "distinct_2": distinct(texts, 2)}
        return metrics | ({"self_bleu": self_bleu(texts)} if self.overlap else {})


def _item_counts(entry: Entry, output: Output) -> dict[str, tuple[float, ...]]:
    result = check(entry, output.text)
    arithmetic = check_identities(entry, result.figures)
    mentions = check_mentions(entry, output.text)
    return {
        "sections": _of_one(result.sections),
        "figure_precision": _of_one(result.precision),
        "figure_recall": _of_one(result.recall),
        "binding": _of_one(result.binding),
        "identities_printed": (arithmetic.printed, arithmetic.count),
        "identities_held": (arithmetic.held, arithmetic.printed),
        "names": (mentions.names_found, mentions.names),
        "dates": (mentions.dates_found, mentions.dates),
        "dates_right": (mentions.dates_right, mentions.dates_written),
        "figures": (len(result.figures), 1),
        "format_valid": (not defects(output.text, entry.format), 1),
        "ended": (output.ended, 1),
        "length": length(output, entry.output),
        "rep_4": (rep_n(output.text), 1),
        "longest_repeat": (longest_repeat(output.text), 1),
    }


def _of_one(share: float | None) -> tuple[float, float]:
    """A share of a document in a mean over documents: 0 of 0 does not count."""
    return (0, 0) if share is None else (share, 1)
