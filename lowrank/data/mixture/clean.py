"""Rules that drop unfit rows. A rule takes the rows that earlier rules left, and gives the ids that it drops.

Rows are compared by their text in lower case, with runs of white space as one space and without t.co links.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from .rows import MixtureRow
from .sources import TASKS

Rule = Callable[[Sequence[MixtureRow]], set[str]]

# FinGPT turned an empty answer into "nan" and a sentence whose only entity was lost into ".".
NO_OUTPUT = ("", "nan", ".")

# An answer and its question within 512 tokens of Llama 2's tokenizer, at 3.5 characters a token and 112 tokens for
# template and question. Here no tokenizer is at hand; training counts tokens, and leaves out what does not fit.
ANSWER_CHARACTERS = 1400

_LINK = re.compile(r"https?://t\.co/\S*")
_ENTITY = re.compile(r"(.+?) is an? (?:person|organization|location)(?:, |\.$)")


def comparable(text: str) -> str:
    """A text as it is compared: equal for two texts that say the same."""
    return " ".join(unicodedata.normalize("NFC", _LINK.sub(" ", text).casefold()).split())


def question(row: MixtureRow) -> tuple[str, str]:
    """The question of a row: its task, and the text it asks about."""
    return TASKS[row.source], comparable(row.input)


def by_question(rows: Iterable[MixtureRow]) -> list[list[MixtureRow]]:
    """The rows in groups that ask the same, each in the order of ids."""
    groups: dict[tuple[str, str], list[MixtureRow]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: row.id):
        groups[question(row)].append(row)
    return list(groups.values())


def without_output(rows: Sequence[MixtureRow]) -> set[str]:
    """The answer is empty, "nan" or "."."""
    return {row.id for row in rows if row.output.casefold() in NO_OUTPUT}


def without_input(rows: Sequence[MixtureRow]) -> set[str]:
    """There is nothing to ask about, at most a t.co link."""
    return {row.id for row in rows if not comparable(row.input)}


def entities(output: str) -> list[str]:
    """The names in an answer: "X, Y is an organization, Z is a person." -> ["X, Y", "Z"]"""
    return _ENTITY.findall(output)


def last_token_lost(rows: Sequence[MixtureRow]) -> set[str]:
    """The sentence ends in a name: its entity is missing from the answer.

    FinGPT's converter wrote an entity down at the token after it, so one that ends the sentence was never written, and
    every sentence that ends in an entity has a wrong answer. A name is what any answer of the data set calls an entity;
    one that is nowhere else escapes this test.
    """
    ner = [row for row in rows if row.source == "ner"]
    names = tuple({f" {name}" for row in ner for name in entities(row.output)})
    return {row.id for row in ner if f" {row.input}".endswith(names)}


def copies_of_tfns(rows: Sequence[MixtureRow]) -> set[str]:
    """A tweet of sentiment-train that is a row of TFNS, which would count twice."""
    tfns = {question(row) for row in rows if row.source == "tfns"}
    return {row.id for row in rows if row.source == "fiqa_sa" and question(row) in tfns}


def too_long(rows: Sequence[MixtureRow]) -> set[str]:
    """An answer of FiQA_QA over ANSWER_CHARACTERS."""
    return {row.id for row in rows if row.source == "fiqa_qa" and len(row.output) > ANSWER_CHARACTERS}


def other_answers(rows: Sequence[MixtureRow]) -> set[str]:
    """Every answer to a question of FiQA_QA but the longest."""
    dropped = set()
    for group in by_question(row for row in rows if row.source == "fiqa_qa"):
        longest = max(group, key=lambda row: len(row.output))  # the first of several
        dropped |= {row.id for row in group if row is not longest}
    return dropped
