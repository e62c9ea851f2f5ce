"""The four data sets as they are upstream, in small: the same columns, strings and defects, every text invented.

`COUNTS` below says what the cleaning has to find in them, rule by rule.
"""

import csv
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from lowrank.data.documents.document import make_documents
from lowrank.data.mixture.layouts import NEWS, NEWS_OF_SEVEN, SEVEN, THREE, TWEET
from lowrank.data.mixture.rows import MixtureRow

NER_INSTRUCTION = (
    "Please extract entities and their types from the input sentence, entity types should be chosen from "
    "{person/organization/location}."
)
QA_INSTRUCTIONS = (
    "Utilize your financial knowledge, give your answer or opinion to the input question or subject . Answer format is "
    "not limited.",
    "Offer your insights or judgment on the input financial query or topic using your financial expertise. Reply as "
    "normal question answering",
    "Based on your financial expertise, provide your response or viewpoint on the given financial question or topic. "
    "The response format is open.",
    "Share your insights or perspective on the financial matter presented in the input.",
    "Offer your thoughts or opinion on the input financial query or topic using your financial background.",
)
VOCABULARY = (
    "amber anchor autumn barley basin beacon birch bramble bridge canyon cedar chapel cinder clover copper coral "
    "cotton crater cypress delta ember fallow fennel ferry flint garnet glacier granite harbor hazel heron indigo "
    "island ivory jasper juniper kestrel lagoon lantern linen maple marble meadow mallow nectar nettle ochre "
    "orchard osprey pebble pepper pewter prairie quarry quartz quiver raven ripple saffron sable sierra silver "
    "spruce summit tallow thistle timber topaz valley velvet violet walnut willow "
)
WORDS = VOCABULARY.split()

Record = dict[str, str]

# Rows read, and what each rule drops of them. Every figure is a list of rows below.
COUNTS: dict[str, dict[str, int]] = {
    "fingpt-ner": {
        "read": 53, "no_output": 1, "last_token_lost": 2, "conflict": 2, "duplicate": 2, "near_duplicate": 1,
        "leak": 1, "near_leak": 1, "passage_leak": 1, "clean": 42,
    },
    "twitter-financial-news-sentiment": {
        "read": 112, "no_input": 1, "conflict": 2, "duplicate": 3, "near_duplicate": 1, "leak": 2, "near_leak": 1,
        "clean": 102,
    },
    "fingpt-sentiment-train": {
        "read": 1130, "copy_of_tfns": 222, "no_output": 6, "conflict": 42, "no_input": 2, "duplicate": 745,
        "near_duplicate": 1, "clean": 112,
    },
    "fingpt-fiqa_qa": {
        "read": 190, "no_output": 2, "too_long": 3, "other_answer": 120, "near_duplicate": 1, "passage_leak": 1,
        "clean": 63,
    },
}  # fmt: skip


def sentence(key: str, length: int = 14) -> str:
    """Invented words, the same for the same key and unlike those of any other."""
    return " ".join(Random(key).choices(WORDS, k=length))


def ner_row(input: str, output: str) -> Record:
    return {"input": input, "output": output, "instruction": NER_INSTRUCTION}


def ner_train(test: list[Record]) -> list[Record]:
    names = ["Borrower", "Lender", "Alder Bank", "Cedar Trust , N.A."]
    kinds = ["a person", "a person", "an organization", "an organization"]
    good = [
        ner_row(
            f"{sentence(f'ner {i}')} {names[i % 4]} {sentence(f'tail {i}', 3)} .", f"{names[i % 4]} is {kinds[i % 4]}."
        )
        for i in range(41)
    ]
    several = ner_row(
        f"Borrower in Elm Park &amp; Lender {sentence('several')} .",
        "Borrower is a person, Elm Park is a location, Lender is a person.",
    )
    return [
        *good,
        several,
        ner_row(f"{sentence('lost')} Alder Bank", "."),  # the only entity ends the sentence
        ner_row(f"Borrower {sentence('lost too')} Elm Park", "Borrower is a person."),  # the second of two does
        ner_row(f"Lender {sentence('lost comma')} Cedar Trust , N.A.", "Lender is a person."),
        good[0],  # a duplicate, and one in another case
        good[1] | {"input": good[1]["input"].upper().replace("LENDER", "Lender")},
        good[2] | {"input": good[2]["input"].replace(" .", " , .")},  # a near duplicate
        ner_row(f"{sentence('disputed')} Elm .", "Elm is a location."),
        ner_row(f"{sentence('disputed')} Elm .", "Elm is a person."),
        test[0],  # leaks: the same, nearly the same, a passage
        test[1] | {"input": test[1]["input"].replace(" .", " again .")},
        ner_row(
            f"{sentence('before', 20)} {' '.join(test[2]['input'].split()[:13])} {sentence('after', 20)} Borrower .",
            "Borrower is a person.",
        ),
    ]


def ner_test() -> list[Record]:
    return [ner_row(f"Lender {sentence(f'ner test {i}', 30)} .", "Lender is a person.") for i in range(6)]


def tfns_train(validation: list[Record]) -> list[Record]:
    labels = ["0"] * 18 + ["1"] * 22 + ["2"] * 61
    good = [{"text": f"${WORDS[i % 70]} {sentence(f'tweet {i}', 9)}", "label": label} for i, label in enumerate(labels)]
    good[0]["text"] += ' "quoted", with a comma\nand a second line'
    good[1]["text"] += " https://t.co/AAAA1111"
    good[2]["text"] += " S&amp;P 500"
    good[3]["text"] += " cafe\u0301"  # not composed
    good[4]["text"] += " \u2026"  # cut off
    return [
        *good,
        {"text": f"{sentence('flat')} is flat", "label": "2"},
        {"text": "https://t.co/only", "label": "2"},
        good[1] | {"text": good[1]["text"].replace("AAAA1111", "BBBB2222")},  # duplicates: link, entity, composition
        good[2] | {"text": good[2]["text"].replace("&amp;", "&")},
        good[3] | {"text": good[3]["text"].replace("e\u0301", "\u00e9").upper()},
        good[5] | {"text": good[5]["text"] + "!"},
        {"text": sentence("disputed tweet"), "label": "0"},
        {"text": sentence("disputed tweet"), "label": "1"},
        validation[0],  # leaks: the same, with another link, with another end
        validation[1] | {"text": validation[1]["text"] + " https://t.co/CCCC3333"},
        validation[2] | {"text": validation[2]["text"] + " now"},
    ]


def tfns_validation() -> list[Record]:
    return [{"text": sentence(f"validation {i}", 12), "label": str(i % 3)} for i in range(12)]


def sentiment_row(instruction: str, input: str, output: str) -> Record:
    return {"input": input, "output": output, "instruction": instruction}


def sentiment_train(tweets: list[Record]) -> list[Record]:
    """FinGPT's own making: the PhraseBank 6 times, FiQA-SA 21 times, TFNS twice, NWGI once, shuffled."""
    phrasebank = [sentiment_row(NEWS, sentence(f"fpb {i}"), THREE[i % 3]) for i in range(44)]
    phrasebank.append(phrasebank[0] | {"input": phrasebank[0]["input"] + " ."})  # nearly the same
    phrasebank.append(sentiment_row(NEWS, sentence("no answer"), "nan"))
    headlines = [sentiment_row(NEWS, sentence(f"headline {i}"), THREE[i % 3]) for i in range(6)]
    disputed = [sentiment_row(NEWS, sentence("disputed headline"), label) for label in THREE[:2]]
    posts = [sentiment_row(TWEET, f"$TICK {sentence(f'post {i}', 10)}", THREE[i % 3]) for i in range(20)]
    words = {"0": "negative", "1": "positive", "2": "neutral"}
    copies = [sentiment_row(TWEET, tweet["text"], words[tweet["label"]]) for tweet in tweets]
    nwgi = [sentiment_row(NEWS_OF_SEVEN, sentence(f"nwgi {i}"), SEVEN[i % 7]) for i in range(42)]
    rows = [*phrasebank * 6, *(headlines + disputed + posts) * 21, *copies * 2, *nwgi]
    Random(42).shuffle(rows)
    return rows


def qa_train() -> list[Record]:
    pairs = [
        (f"{sentence(f'question {i}', 8)}?", f"{sentence(f'answer {i} {j}', 20 + j)}.")
        for i in range(60)
        for j in range(3)
    ]
    leaked = " ".join(make_documents(1, seed=7, split="test")[0].output.split()[10:30])
    pairs += [
        ("What is a nan answer?", "nan"),
        ("What is an empty answer?", " "),
        ("Who answers at length?", f"{sentence('long', 400)}."),
        ("Who else does?", f"{sentence('longer', 400)}."),
        ("Who else does?", f"{sentence('longest', 500)}."),
        ("Who else does?", f"{sentence('short', 10)}."),
        (f"{sentence('question 0', 8).title()}!", "A question of before, in other letters."),
        ("What does a covenant promise?", f"See &quot;this&quot; at https://example.org: {sentence('link')}"),
        ("Why is a bond a promise?", f"{sentence('bond')}"),
        ("Who copies a document?", leaked),
    ]
    return [
        {"input": question, "output": answer, "instruction": QA_INSTRUCTIONS[i % 5]}
        for i, (question, answer) in enumerate(pairs)
    ]


def write_parquet(path: Path, rows: list[Any]) -> None:
    """Rows with the columns in upstream's order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {column: [row[column] for row in rows] for column in ("input", "output", "instruction")}
    parquet.write_table(pyarrow.table(columns), path)


def write_csv(path: Path, rows: list[Record]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ("text", "label"))
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture(scope="session")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as --from takes it, to be read only."""
    root = tmp_path_factory.mktemp("raw")
    tweets, validation = root / "twitter-financial-news-sentiment", tfns_validation()
    train = tfns_train(validation)
    write_csv(tweets / "sent_train.csv", train)
    write_csv(tweets / "sent_valid.csv", validation)
    write_parquet(root / "fingpt-ner/data/train-00000-of-00001-aaaa.parquet", ner_train(ner_test()))
    write_parquet(root / "fingpt-ner/data/test-00000-of-00001-bbbb.parquet", ner_test())
    write_parquet(root / "fingpt-sentiment-train/data/train-00000-of-00001-cccc.parquet", sentiment_train(train))
    questions = qa_train()  # in two shards
    write_parquet(root / "fingpt-fiqa_qa/data/train-00000-of-00002-dddd.parquet", questions[:100])
    write_parquet(root / "fingpt-fiqa_qa/data/train-00001-of-00002-eeee.parquet", questions[100:])
    return root


@pytest.fixture(scope="session")
def expected_counts() -> dict[str, dict[str, int]]:
    return COUNTS


@pytest.fixture(scope="session")
def row() -> Callable[..., MixtureRow]:
    """row(3, "tfns", "a text", "neutral"): a row with the id "3" and the instruction that belongs to its source."""
    instructions = {"tfns": TWEET, "fpb": NEWS, "fiqa_sa": NEWS, "nwgi": NEWS_OF_SEVEN}

    def make(id: int, source: str, input: str, output: str = "neutral", instruction: str = "") -> MixtureRow:
        label = output if source in instructions else None
        return MixtureRow(str(id), source, instruction or instructions.get(source, "?"), input, output, label)

    return make
