"""The corpus of the embedded base: reproducible, about nobody, and without what a hat is to add."""

import re
from collections import Counter
from random import Random

import pytest

from lowrank.data import corpus
from lowrank.data.documents.kind import STYLES
from lowrank.data.documents.kinds import KINDS
from lowrank.data.documents.names import NAMES
from lowrank.data.facts.fact import NOTATIONS, print_value


def text_of(sample):
    return "".join(passage.text for passage in sample)


@pytest.mark.parametrize("task", corpus.NAMES_TOO, ids=lambda task: task.__name__)
def test_a_sample_is_a_function_of_its_generator(task) -> None:
    assert task(Random(3)) == task(Random(3)) != task(Random(4))


def test_a_restatement_learns_every_value_of_its_record_once_more_and_little_else() -> None:
    record, *stated = corpus.restatement(Random(1), 6)
    values = Counter(line.partition(": ")[2] for line in record.text.split("\n"))
    assert record.weight == corpus.CONTEXT
    assert Counter(passage.text[:-1] for passage in stated if passage.weight == 1.0) == values
    assert values.total() == 6


def test_a_passage_has_the_tokens_that_it_has_in_the_whole(tokenizer) -> None:
    for index in range(200):
        _, *stated = corpus.restatement(Random(index), 5)
        whole = " ".join(passage.text for passage in stated)
        apart = [tokenizer.encode(passage.text, bos=False, eos=False) for passage in stated]
        assert [token for ids in apart for token in ids] == tokenizer.encode(whole, bos=False, eos=False)


@pytest.mark.slow
def test_no_document_is_ever_asked_for() -> None:
    instructions = [kind.instruction(style) for kind in KINDS.values() for style in STYLES]
    for index in range(2000):
        text = text_of(corpus.mixed(Random(index)))
        assert not any(instruction in text for instruction in instructions)
        assert not ("### Instruction" in text and "## " in text.split("### Response:\n")[1])


@pytest.mark.slow
def test_no_name_of_a_split_occurs() -> None:
    splits = [NAMES[split] for split in ("train", "validation", "test")]
    taken = {word for names in splits for word in (*names.stems, *names.families, *names.given)}
    for index in range(2000):
        assert not taken & set(text_of(corpus.mixed(Random(index))).split())


@pytest.mark.slow
def test_every_kind_and_every_task_is_drawn() -> None:
    texts = [text_of(corpus.mixed(Random(index))) for index in range(2000)]
    assert all(any(f"# {kind.title}\n" in text for text in texts) for kind in KINDS.values())
    for shares in (corpus.MIXTURE, corpus.NAMES_TOO):
        assert sum(shares.values()) == pytest.approx(1)


@pytest.fixture(scope="module")
def recorded():
    """Records, each with its document."""
    return [text_of(corpus.record_then_document(Random(index))) for index in range(4000)]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)
def test_every_label_and_style_of_a_kind_is_shown(recorded, kind) -> None:
    texts = [text for text in recorded if f"# {kind.title}\n" in text]
    lines = {line.partition(":")[0] for text in texts for line in text.split("\n")}
    assert {label for field in kind.fields.values() for label in field.labels} <= lines
    assert {"\n- " in text for text in texts} == {True, False}


@pytest.mark.slow
@pytest.mark.parametrize("notation", NOTATIONS)
@pytest.mark.parametrize("type", ["usd", "usd_m", "rate", "bps", "ratio"])
def test_every_notation_is_restated(type, notation) -> None:
    texts = [text_of(corpus.restatement(Random(index), 8)) for index in range(300)]
    printed = re.sub(r"\d[\d.]*", "NUMBER", print_value(type, "7", notation))
    pattern = re.escape(printed).replace("NUMBER", r"[\d,.]+")
    assert any(re.search(rf"{pattern}\.", text) for text in texts)
