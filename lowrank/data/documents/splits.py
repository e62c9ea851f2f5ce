"""The splits of the document set, and the ranges and names by which they differ.

    s(v) = the second significant digit of v        s(812.4) = 1, s(0.38) = 8, s(5.0) = 0
    train: s(v) in 0..5      validation: s(v) in 6, 7      test: s(v) in 8, 9

The rule holds for every given figure v of a record, so in every field [k.0, k.6), [k.6, k.8) and [k.8, k + 1), times a
power of ten, are the ranges of the three splits. A derived figure follows from the given ones, wherever that leads.

No name of one split occurs in another (`names`). Labels, notations and wordings marked `unseen` occur in every split
but train. The split "corpus", of which the embedded base learns, has every range, label, notation and wording.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType

from lowrank.data.documents.names import NAMES, Names
from lowrank.data.facts.fact import NOTATIONS, SEEN_NOTATION


@dataclass(frozen=True)
class Split:
    """Names, ranges and wordings of a split's records and documents.

    names          its companies, funds and people
    second_digits  the second significant digits that a given figure may have
    unseen         True if the labels, notations and wordings that training never shows occur as well
    """

    names: Names
    second_digits: range
    unseen: bool

    @property
    def notations(self) -> tuple[str, ...]:
        """The ways in which its figures and dates print."""
        return tuple(NOTATIONS) if self.unseen else (SEEN_NOTATION,)

    def has_figure(self, figure: Decimal) -> bool:
        """True if a given figure is in the split's ranges."""
        return second_digit(figure) in self.second_digits


def second_digit(figure: Decimal) -> int:
    """s(v): the second significant digit, 0 if there is none."""
    return (*figure.as_tuple().digits, 0)[1]


SPLITS: Mapping[str, Split] = MappingProxyType(
    {
        "train": Split(NAMES["train"], range(0, 6), unseen=False),
        "validation": Split(NAMES["validation"], range(6, 8), unseen=True),
        "test": Split(NAMES["test"], range(8, 10), unseen=True),
        "corpus": Split(NAMES["corpus"], range(0, 10), unseen=True),
    }
)
