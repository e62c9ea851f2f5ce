"""The four upstream layouts -> rows.

Parquet with the columns input, output, instruction; CSV with text, label. Texts are taken out of their HTML entities,
composed (Unicode NFC) and stripped; labels become words.
"""

import csv
import html
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from ...extras import need
from .clean import comparable
from .fetch import RawFile
from .rows import MixtureRow
from .sources import SENTIMENT, TFNS

NEWS = "What is the sentiment of this news? Please choose an answer from {negative/neutral/positive}."
TWEET = "What is the sentiment of this tweet? Please choose an answer from {negative/neutral/positive}."
NEWS_OF_SEVEN = (
    "What is the sentiment of this news? Please choose an answer from {strong negative/moderately negative/"
    "mildly negative/neutral/mildly positive/moderately positive/strong positive}."
)
THREE = ("negative", "neutral", "positive")
SEVEN = (
    "strong negative", "moderately negative", "mildly negative", "neutral",
    "mildly positive", "moderately positive", "strong positive",
)  # fmt: skip
ANSWERS: Mapping[str, Sequence[str]] = MappingProxyType({NEWS: THREE, TWEET: THREE, NEWS_OF_SEVEN: SEVEN})

# Bearish, Bullish, Neutral: not the order of the Financial PhraseBank, whose 1 is neutral.
TFNS_LABELS: Mapping[str, str] = MappingProxyType({"0": "negative", "1": "positive", "2": "neutral"})

COLUMNS = ("input", "output", "instruction")
# FinGPT wrote each row of FiQA-SA this often, each of the PhraseBank 6 times.
FIQA_SA_COPIES = 21

Record = tuple[str, dict[str, str]]  # where it is, for an error; column -> text


def normalise(text: str) -> str:
    """Out of HTML entities, composed, without space around it."""
    return unicodedata.normalize("NFC", html.unescape(text)).strip()


def read_files(files: Sequence[RawFile]) -> list[MixtureRow]:
    """The rows of one split of one data set, whose files are parts of one table.

    Raises ValueError naming file, row, column and what was expected there.
    """
    data, split = files[0].data, files[0].split
    reader = _csv if data is TFNS else _parquet
    records = [record for file in files for record in reader(file.path)]
    prefix = data.name if split == "train" else f"{data.name}-{split}"
    ids = [f"{prefix}-{index:05d}" for index in range(len(records))]
    if data is TFNS:
        return [_tweet(id, *record) for id, record in zip(ids, records, strict=True)]
    rows = [_row(id, next(iter(data.parts)), fields) for id, (_, fields) in zip(ids, records, strict=True)]
    if data is not SENTIMENT:
        return rows
    return _with_parts([_with_label(row, place) for row, (place, _) in zip(rows, records, strict=True)])


def _row(id: str, part: str, fields: Mapping[str, str]) -> MixtureRow:
    texts = {column: normalise(fields[column]) for column in COLUMNS}
    return MixtureRow(id, part, texts["instruction"], texts["input"], texts["output"])


def _tweet(id: str, place: str, fields: Mapping[str, str]) -> MixtureRow:
    label = fields["label"].strip()
    if label not in TFNS_LABELS:
        raise ValueError(f"{place}: label: expected 0 (bearish), 1 (bullish) or 2 (neutral), got {label!r}")
    word = TFNS_LABELS[label]
    return MixtureRow(id, "tfns", TWEET, normalise(fields["text"]), word, word)


def _with_label(row: MixtureRow, place: str) -> MixtureRow:
    """The row with its answer as a label. An answer that says nothing is left for the cleaning to count."""
    if row.instruction not in ANSWERS:
        raise ValueError(
            f"{place}: instruction: expected one of the three of {SENTIMENT.name}, got {row.instruction!r}"
        )
    answers = ANSWERS[row.instruction]
    word = row.output.casefold()
    if word not in (*answers, "", "nan", "."):
        raise ValueError(f"{place}: output: expected one of {', '.join(answers)}, got {row.output!r}")
    return MixtureRow(row.id, row.source, row.instruction, row.input, word, word)


def _with_parts(rows: Sequence[MixtureRow]) -> list[MixtureRow]:
    """The rows of sentiment-train, each with the part that it came from, as far as a row shows it.

    seven answers        NWGI, certainly
    a tweet              FiQA-SA; TFNS's own, which look the same, are dropped later by their text
    three answers, news  FiQA-SA if the text is there a multiple of 21 times, else the PhraseBank (6 times)

    What cannot be told apart: nothing in a row but the number of its copies tells a headline of FiQA-SA from a sentence
    of the PhraseBank. A text that both hold (27 copies) counts as the PhraseBank's, one of the PhraseBank that is there
    7 times over (42 copies) as FiQA-SA's, and in a copy of the data set that is already free of duplicates every
    headline counts as the PhraseBank's.
    """
    copies = Counter((row.instruction, comparable(row.input)) for row in rows)

    def part(row: MixtureRow) -> str:
        if row.instruction == NEWS_OF_SEVEN:
            return "nwgi"
        headline = copies[row.instruction, comparable(row.input)] % FIQA_SA_COPIES == 0
        return "fiqa_sa" if row.instruction == TWEET or headline else "fpb"

    return [MixtureRow(row.id, part(row), row.instruction, row.input, row.output, row.label) for row in rows]


def _parquet(path: Path) -> Iterator[Record]:
    """(place, {input, output, instruction}) of every row."""
    parquet = need("pyarrow.parquet", "data mixture")
    try:
        file = parquet.ParquetFile(path)
    except need("pyarrow", "data mixture").ArrowInvalid:
        raise ValueError(f"{path}: not a Parquet file (a Git LFS pointer? then `git lfs pull`)") from None
    _known_columns(path, file.schema_arrow.names, COLUMNS)
    for number, record in enumerate(file.read(columns=list(COLUMNS)).to_pylist(), start=1):
        yield _checked(f"{path}: row {number}", record, COLUMNS)


def _csv(path: Path) -> Iterator[Record]:
    """(place, {text, label}) of every row."""
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        try:
            _known_columns(path, reader.fieldnames or (), ("text", "label"))
            for number, record in enumerate(reader, start=1):
                yield _checked(f"{path}: row {number}", record, ("text", "label"))
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: line {reader.line_num + 1}: expected UTF-8 text,label: {error}") from None


def _known_columns(path: Path, found: Iterable[str], expected: Sequence[str]) -> None:
    columns = list(found)
    if missing := [column for column in expected if column not in columns]:
        raise ValueError(
            f"{path}: expected the columns {', '.join(expected)}, {', '.join(missing)} is missing of {columns}"
        )


def _checked(place: str, record: Mapping[str, object], columns: Sequence[str]) -> Record:
    texts = {}
    for column in columns:
        value = record[column]
        if not isinstance(value, str):
            raise ValueError(f"{place}: {column}: expected a string, got {'nothing' if value is None else repr(value)}")
        texts[column] = value
    return place, texts
