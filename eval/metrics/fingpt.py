"""FinGPT's own scoring, rebuilt so that its published tables can be compared; nothing else should be scored like this.

Sentiment (fingpt/FinGPT_Benchmark/benchmarks/tfns.py): "positive" anywhere in the answer is positive; else "negative"
anywhere is negative; **anything else is neutral**, so a model that says nothing is right on every neutral tweet.

Entities (benchmarks/ner.py): the answer in lower case, cut at every comma; a piece "X is a(n) T" marks the first place
in the lower-case sentence, split at spaces, where X stands and nothing is marked yet. What is not in the sentence costs
nothing, and a name with a comma cannot be read. An unknown T marks an entity of the type "O". The reference goes
through the same reader. seqeval scores the tags.
"""

import re
from collections.abc import Sequence

TYPES = {"person": "PER", "organization": "ORG", "location": "LOC"}
_PIECE = re.compile(r"(.*) is an? (.*)")


def lenient_label(text: str) -> str:
    """The label that FinGPT's `change_target` gives an answer."""
    for label in ("positive", "negative"):
        if label in text or label.capitalize() in text:
            return label
    return "neutral"


def lenient_tags(sentence: str, answer: str) -> list[str]:
    """The tags that FinGPT's `cvt_text_to_pred` gives the tokens of a sentence.

    A piece without a name (" is a person") marks nothing here; in FinGPT's code it makes the tags one too many, on
    which seqeval then fails.
    """
    tokens = sentence.lower().split()
    tags = ["O"] * len(tokens)
    for piece in answer.lower().strip(".").split(","):
        match = _PIECE.fullmatch(piece)
        name = match[1].split() if match else []
        if not match or not name:
            continue
        place = _first_free(tokens, name, tags)
        if place is not None:
            type = TYPES.get(match[2].strip(), "O")
            tags[place : place + len(name)] = [f"B-{type}", *[f"I-{type}"] * (len(name) - 1)]
    return tags


def _first_free(tokens: Sequence[str], name: Sequence[str], tags: Sequence[str]) -> int | None:
    """Where a name stands first among tokens that carry no tag; None if it stands nowhere."""
    for place in range(len(tokens) - len(name) + 1):
        span = slice(place, place + len(name))
        if list(tokens[span]) == list(name) and set(tags[span]) == {"O"}:
            return place
    return None
