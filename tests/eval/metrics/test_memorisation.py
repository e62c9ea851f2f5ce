"""Shared pieces against a search that tries every one, and figures that come from training."""

from random import Random

import pytest

from lowrank.data.documents.document import make_documents
from lowrank.eval.metrics.faithfulness import check
from lowrank.eval.metrics.memorisation import MASK, check_memory, longest_shared, mask_figures


def by_trying(text, training):
    pieces = (text[i:j] for i in range(len(text)) for j in range(i + 1, len(text) + 1))
    return max((len(piece) for piece in pieces if any(piece in other for other in training)), default=0)


@pytest.mark.parametrize("seed", range(30))
def test_the_longest_shared_piece_is_the_one_that_trying_every_piece_finds(seed) -> None:
    rng = Random(seed)
    texts, training = ([("".join(rng.choices("ab", k=rng.randint(0, 14)))) for _ in range(4)] for _ in range(2))
    assert longest_shared(texts, training) == [by_trying(text, training) for text in texts]


def test_a_piece_does_not_run_from_one_training_text_into_the_next() -> None:
    assert longest_shared(["abcd"], ["ab", "cd"]) == [2]


def test_without_training_texts_nothing_is_shared() -> None:
    assert longest_shared(["abc", ""], []) == [0, 0]


def test_a_copy_is_copied_and_a_template_with_other_figures_only_without_them() -> None:
    training = ["Revenue was $812.4 million and cash was $3.1 million."]
    copy, template = training[0], "Revenue was $99.9 million and cash was $7.7 million."
    same, filled = check_memory([copy, template], [[], []], training)
    assert (same.copied, same.copied_masked) == (1.0, 1.0)
    assert filled.copied < 0.5
    assert filled.copied_masked == 1.0
    assert mask_figures(copy) == f"Revenue was {MASK} and cash was {MASK}."


def test_wrong_figures_are_looked_for_in_training_by_value_not_by_print() -> None:
    entry = make_documents(1, seed=3, split="test")[0]
    text = "The fee was $0.5 million, then $0.7 million."
    wrong = [figure for figure in check(entry, text).figures if not figure.right]
    (memory,) = check_memory([text], [wrong], ["A fee of $500 thousand."])
    assert (memory.wrong, memory.wrong_from_training) == (2, 1)
