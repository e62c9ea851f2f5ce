"""The four data sets: where each is, which revision of it, under what licence, and how many rows it gives of 15,000.

None of their rows is part of this package. Three of them declare no licence, so whoever builds the set keeps it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

NONE_DECLARED = "none declared"


@dataclass(frozen=True)
class DataSet:
    """One data set.

    repository  its name on the hub; the last part is its folder under --from, and begins its rows' ids
    revision    the commit that the build was written against
    licence     what its card declares
    note        what else is known of its licence
    files       split -> pattern of its files
    parts       part -> rows of 15,000
    """

    repository: str
    revision: str
    licence: str
    note: str
    files: Mapping[str, str]
    parts: Mapping[str, int]

    @property
    def name(self) -> str:
        """The last part of the repository's name."""
        return self.repository.rpartition("/")[2]

    @property
    def rows(self) -> int:
        """Rows of 15,000."""
        return sum(self.parts.values())


NER = DataSet(
    "FinGPT/fingpt-ner",
    "6e416e215fec9436d718528483f831e9ef1e2652",
    NONE_DECLARED,
    "the corpus it was made from, of Salinas Alvarado et al. 2015, is CC BY 3.0",
    {"train": "data/train-*.parquet", "test": "data/test-*.parquet"},
    {"ner": 488},
)
TFNS = DataSet(
    "zeroshot/twitter-financial-news-sentiment",
    "ccbe24de388e287beb92dd393a335c376b350ac3",
    "MIT",
    "",
    {"train": "sent_train.csv", "validation": "sent_valid.csv"},
    {"tfns": 4500},
)
SENTIMENT = DataSet(
    "FinGPT/fingpt-sentiment-train",
    "a2701f2155c1371ba38b92a2c41e8b0c0fca7614",
    NONE_DECLARED,
    "the Financial PhraseBank in it is CC BY-NC-SA 3.0; the labels of NWGI were written by ChatGPT",
    {"train": "data/train-*.parquet"},
    {"fpb": 2500, "fiqa_sa": 900, "nwgi": 1612},
)
FIQA_QA = DataSet(
    "FinGPT/fingpt-fiqa_qa",
    "c65953e39aaea4779efc54805c64769429c554c8",
    NONE_DECLARED,
    "answers of a public forum; it holds the dev and test questions of BEIR's FiQA, so never evaluate on those",
    {"train": "data/train-*.parquet"},
    {"fiqa_qa": 5000},
)

DATA_SETS = (NER, TFNS, SENTIMENT, FIQA_QA)
PARTS: Mapping[str, DataSet] = MappingProxyType({part: data for data in DATA_SETS for part in data.parts})
TOTAL = sum(data.rows for data in DATA_SETS)

# What is asked of a row. Two rows with one task and one input ask the same, whatever the wording of the instruction.
TASKS: Mapping[str, str] = MappingProxyType(
    {"ner": "entities", "tfns": "sentiment of 3", "fpb": "sentiment of 3", "fiqa_sa": "sentiment of 3"}
    | {"nwgi": "sentiment of 7", "fiqa_qa": "answer"}
)
