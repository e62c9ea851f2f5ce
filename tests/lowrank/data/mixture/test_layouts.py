"""The upstream layouts: which part a row belongs to, what its label is called, and what is said of a broken file."""

from collections import Counter
from pathlib import Path
from shutil import copytree

import pyarrow
import pytest
from pyarrow import parquet

from lowrank.data.mixture.fetch import local_files
from lowrank.data.mixture.layouts import NEWS, NEWS_OF_SEVEN, TWEET, normalise, read_files
from lowrank.data.mixture.rows import MixtureRow
from lowrank.data.mixture.sources import DATA_SETS


@pytest.fixture
def raw_copy(raw: Path, tmp_path: Path) -> Path:
    """The raw folder, to be damaged."""
    return copytree(raw, tmp_path / "raw")


def read(raw: Path, name: str, split: str = "train") -> list[MixtureRow]:
    return read_files([file for file in local_files(raw) if file.data.name == name and file.split == split])


def rewrite(path: Path, **columns: list[object]) -> None:
    parquet.write_table(pyarrow.table(columns), path)


def test_text_comes_out_of_entities_composed_and_stripped() -> None:
    assert normalise(" S&amp;P cafe\u0301 &quot;x&quot;\n") == 'S&P caf\u00e9 "x"'


def test_the_pinned_revisions_are_whole_commits() -> None:
    for data in DATA_SETS:
        assert len(data.revision) == 40 and int(data.revision, 16)


def test_tfns_labels_are_words_in_its_own_order(raw: Path) -> None:
    rows = read(raw, "twitter-financial-news-sentiment")
    assert Counter(row.label for row in rows[:101]) == {"negative": 18, "positive": 22, "neutral": 61}
    assert {(row.instruction, row.output == row.label) for row in rows} == {(TWEET, True)}
    assert rows[0].input.endswith('"quoted", with a comma\nand a second line')


def test_ids_count_the_rows_of_all_shards(raw: Path) -> None:
    rows = read(raw, "fingpt-fiqa_qa")
    assert [row.id for row in rows] == [f"fingpt-fiqa_qa-{i:05d}" for i in range(190)]
    assert len({row.instruction for row in rows}) == 5
    assert read(raw, "fingpt-ner", "test")[0].id == "fingpt-ner-test-00000"


def test_parts_of_sentiment_train_are_told_by_answers_kind_of_text_and_number_of_copies(raw: Path) -> None:
    rows = read(raw, "fingpt-sentiment-train")
    assert Counter((row.source, row.instruction) for row in rows) == {
        ("nwgi", NEWS_OF_SEVEN): 42,
        ("fpb", NEWS): 46 * 6,
        ("fiqa_sa", NEWS): 8 * 21,
        ("fiqa_sa", TWEET): 20 * 21 + 112 * 2,  # TFNS's among them
    }


def test_a_text_in_the_phrasebank_and_in_fiqa_sa_counts_as_the_phrasebanks(raw_copy: Path) -> None:
    path = next(raw_copy.glob("fingpt-sentiment-train/data/train-*"))
    rewrite(path, input=["a"] * 27 + ["b"] * 42, output=["neutral"] * 69, instruction=[NEWS] * 69)
    parts = {row.input: row.source for row in read(raw_copy, "fingpt-sentiment-train")}
    assert parts == {"a": "fpb", "b": "fiqa_sa"}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"input": ["a"], "output": ["neutral"]}, "expected the columns input, output, instruction, instruction is"),
        ({"input": ["a"], "output": [None], "instruction": [NEWS]}, "row 1: output: expected a string, got nothing"),
        ({"input": [1], "output": ["neutral"], "instruction": [NEWS]}, "row 1: input: expected a string, got 1"),
        ({"input": ["a"], "output": ["up"], "instruction": [NEWS]}, "row 1: output: expected one of negative, neutral"),
        (
            {"input": ["a"], "output": ["neutral"], "instruction": ["?"]},
            "row 1: instruction: expected one of the three",
        ),
    ],
)
def test_a_broken_parquet_file_is_told_with_row_and_column(
    columns: dict[str, list[object]], message: str, raw_copy: Path
) -> None:
    path = next(raw_copy.glob("fingpt-sentiment-train/data/train-*"))
    rewrite(path, **columns)
    with pytest.raises(ValueError, match=message) as error:
        read(raw_copy, "fingpt-sentiment-train")
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


def test_a_git_lfs_pointer_is_no_parquet_file(raw_copy: Path) -> None:
    path = next(raw_copy.glob("fingpt-ner/data/train-*"))
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    with pytest.raises(ValueError, match=r"not a Parquet file .*git lfs pull"):
        read(raw_copy, "fingpt-ner")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"text,label\nup,3\n", "row 1: label: expected 0 .bearish., 1 .bullish. or 2 .neutral., got '3'"),
        (b"text,label\nup, 5% today,1\n", "row 1: label: expected 0"),  # a comma without quotes
        (b"text,label\nup\n", "row 1: label: expected a string, got nothing"),
        (b"text,sentiment\nup,1\n", "expected the columns text, label, label is missing"),
        (b"", "expected the columns text, label"),
        (b"text,label\nok,1\n\xff,1\n", "expected UTF-8 text,label"),
        (b'text,label\n"up"s,1\n', "line 2: expected UTF-8 text,label: ',' expected after '\"'"),
    ],
)
def test_a_broken_csv_file_is_told_with_its_place(content: bytes, message: str, raw_copy: Path) -> None:
    path = raw_copy / "twitter-financial-news-sentiment/sent_train.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        read(raw_copy, "twitter-financial-news-sentiment")
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)
