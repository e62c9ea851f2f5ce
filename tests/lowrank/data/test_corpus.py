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


def test_a_restatement_states_every_figure_of_its_record_once_more():
    record, stated = corpus.restatement(Random(1), 6)
    figures = Counter(line.partition(": ")[2] for line in record.text.split("\n"))
    assert figures.total() == 6
    assert all(stated.text.count(figure) >= count for figure, count in figures.items())
    assert (stated.digit_weight, record.digit_weight) == (1.0, corpus.CONTEXT)


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
