"""A text that ended with end-of-text is distinguished from one that was cut."""

import pytest

import lowrank
from lowrank.eval.tasks.generate import write
from lowrank.model.generate import generate


@pytest.fixture(scope="module")
def model(embedded):
    return lowrank.load(embedded, "fp32")


PROMPTS = ["revenue: $12.5 million\ncash: $3.1 million\n", "### Instruction:\n"]


def test_what_is_written_is_what_generate_gives(model, tokenizer):
    outputs = write(model, tokenizer, PROMPTS, 30)
    assert [output.text for output in outputs] == generate(model, tokenizer, PROMPTS, max_new_tokens=30)


def test_a_cut_text_has_not_ended_and_an_ended_one_has(model, tokenizer, monkeypatch):
    eos = tokenizer.eos_id
    rows = iter([[5, 6], [None, 7], [None, 8]])
    monkeypatch.setattr(
        "lowrank.eval.tasks.generate.generate_tokens", lambda *_, **given: rows if given["eos_id"] == eos else 0
    )
    ended, cut = write(model, tokenizer, PROMPTS, 3)
    assert (ended.ended, ended.tokens, cut.ended, cut.tokens) == (True, 1, False, 3)


def test_when_generation_stops_before_its_limit_every_row_has_ended(model, tokenizer, monkeypatch):
    monkeypatch.setattr("lowrank.eval.tasks.generate.generate_tokens", lambda *_, **__: iter([[5, None], [6, None]]))
    assert [output.ended for output in write(model, tokenizer, PROMPTS, 3)] == [True, True]
