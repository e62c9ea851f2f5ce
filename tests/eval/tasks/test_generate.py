"""A text that ended with end-of-text is distinguished from one that was cut."""

from pathlib import Path

import pytest

import lowrank
from lowrank.eval.tasks.generate import write
from lowrank.model.generate import complete, generate


@pytest.fixture(scope="module")
def model(embedded: Path):
    return lowrank.load(embedded, "fp32")


PROMPTS = ["revenue: $12.5 million\ncash: $3.1 million\n", "### Instruction:\n"]


def test_what_is_written_is_what_generate_gives(model, tokenizer) -> None:
    outputs = write(model, tokenizer, PROMPTS, 30)
    assert [output.text for output in outputs] == generate(model, tokenizer, PROMPTS, max_new_tokens=30, answer=True)


def test_a_cut_text_has_not_ended_and_an_ended_one_has(model, tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    (free,) = complete(model, tokenizer, PROMPTS[0], max_new_tokens=3)
    monkeypatch.setattr(tokenizer, "eos_ids", (free.tokens[1],))
    ended, cut = write(model, tokenizer, PROMPTS, 3)
    assert (ended.ended, ended.tokens, cut.ended, cut.tokens) == (True, 1, False, 3)
