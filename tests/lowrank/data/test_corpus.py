"""The corpus of the embedded base: reproducible, about nobody, and without what a hat is to add."""

from collections import Counter
from random import Random

import pytest

from lowrank.data import corpus
from lowrank.data.kinds import KINDS
from lowrank.data.names import NAMES


def text_of(sample):
    return "".join(passage.text for passage in sample)


@pytest.mark.parametrize("task", corpus.TASKS, ids=lambda task: task.__name__)
def test_a_sample_is_a_function_of_its_generator(task):
    assert task(Random(3)) == task(Random(3)) != task(Random(4))


def test_a_restatement_learns_every_value_of_its_record_once_more_and_little_else():
    record, *stated = corpus.restatement(Random(1), 6)
    values = Counter(line.partition(": ")[2] for line in record.text.split("\n"))
    assert record.weight == corpus.CONTEXT
    assert Counter(passage.text[:-1] for passage in stated if passage.weight == 1.0) == values
    assert values.total() == 6


def test_a_passage_has_the_tokens_that_it_has_in_the_whole(tokenizer):
    for index in range(200):
        _, *stated = corpus.restatement(Random(index), 5)
        whole = " ".join(passage.text for passage in stated)
        apart = [tokenizer.encode(passage.text, bos=False, eos=False) for passage in stated]
        assert [token for ids in apart for token in ids] == tokenizer.encode(whole, bos=False, eos=False)


def test_no_document_is_ever_asked_for():
    instructions = [kind.instruction for kind in KINDS.values()]
    for index in range(2000):
        text = text_of(corpus.mixed(Random(index)))
        assert not any(instruction in text for instruction in instructions)
        assert not ("### Instruction" in text and "## " in text.split("### Response:\n")[1])


def test_no_name_of_a_split_occurs():
    taken = {stem for split in ("train", "validation", "test") for stem in NAMES[split].stems}
    for index in range(2000):
        assert not taken & set(text_of(corpus.mixed(Random(index))).split())


def test_every_kind_and_every_task_is_drawn():
    texts = [text_of(corpus.mixed(Random(index))) for index in range(2000)]
    assert all(any(f"# {kind.title}\n" in text for text in texts) for kind in KINDS.values())
    assert sum(corpus.TASKS.values()) == pytest.approx(1)
