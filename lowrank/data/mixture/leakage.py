"""No test text may be in the training text: TFNS's validation, NER's test, and our own documents.

A row leaks if its text is that of a test entry, exactly or nearly (`duplicates`), whatever either asks; and, since a
long text can hold a passage of another, if it has 13 words in a row with one in common (the rule of GPT-3, arXiv
2005.14165, appendix C). Tweets are too short and too much alike for the last.

The tests of the Financial PhraseBank and of FiQA-SA are in none of the four data sets, and are not looked at here.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..documents.document import make_documents
from .clean import comparable
from .duplicates import NearIndex, Shingles, is_tweet, tweet_shingles, word_shingles, words
from .rows import MixtureRow

PASSAGE_WORDS = 13
DOCUMENTS = 200
DOCUMENTS_SEED = 7


class LeakageError(Exception):
    """A row to learn from is also in a test."""


@dataclass(frozen=True)
class HeldOutTexts:
    """tweets: inputs of test entries that are tweets. texts: every other input, and every document."""

    tweets: Sequence[str]
    texts: Sequence[str]

    @classmethod
    def of(cls, rows: Sequence[MixtureRow]) -> "HeldOutTexts":
        """Those of evaluation rows, and of the documents that `lowrank data documents` tests with."""
        documents = make_documents(DOCUMENTS, seed=DOCUMENTS_SEED, split="test")
        return cls(
            [row.input for row in rows if is_tweet(row)],
            [row.input for row in rows if not is_tweet(row)]
            + [text for entry in documents for text in (entry.input, entry.output)],
        )


class Guard:
    """Finds rows to learn from in the texts of a test; each method is a rule like those of `clean`."""

    def __init__(self, tests: HeldOutTexts) -> None:
        self._exact = {comparable(text) for text in (*tests.tweets, *tests.texts)}
        self._near = (_index(tweet_shingles, tests.tweets), _index(word_shingles, tests.texts))
        self._passages = {passage for text in tests.texts for passage in _passages(text)}

    def same(self, rows: Sequence[MixtureRow]) -> set[str]:
        """The text is that of a test entry."""
        return {row.id for row in rows if comparable(row.input) in self._exact}

    def nearly_same(self, rows: Sequence[MixtureRow]) -> set[str]:
        """The text is nearly that of a test entry."""
        return {row.id for row in rows if any(index.has_near_duplicate(row.input) for index in self._near)}

    def same_passage(self, rows: Sequence[MixtureRow]) -> set[str]:
        """The text, or an answer that is text and no label, has 13 words in a row in common with a test entry."""
        return {
            row.id for row in rows if not is_tweet(row) and not _passages(*_free_texts(row)).isdisjoint(self._passages)
        }

    def check(self, rows: Sequence[MixtureRow]) -> None:
        """Raises LeakageError naming the rows that leak, if any is left."""
        left = sorted(self.same(rows) | self.nearly_same(rows) | self.same_passage(rows))
        if left:
            shown = ", ".join(left[:5]) + (" ..." if len(left) > 5 else "")
            raise LeakageError(f"{len(left)} rows to learn from are in a test set: {shown}; nothing was written")


def _index(shingles: Shingles, texts: Iterable[str]) -> NearIndex:
    index = NearIndex(shingles)
    for text in texts:
        index.add(text)
    return index


def _free_texts(row: MixtureRow) -> tuple[str, ...]:
    return (row.input, row.output) if row.source == "fiqa_qa" else (row.input,)


def _passages(*texts: str) -> set[str]:
    """Every 13 words in a row; a shorter text has none."""
    long = [text for text in texts if len(words(text)) >= PASSAGE_WORDS]
    return {passage for text in long for passage in word_shingles(text, PASSAGE_WORDS)}
