"""Grounded texts of random records from random logits, on three kinds of tokenizer: see `grounding_fuzz`."""

import random
from functools import cache

import pytest
from grounding_fuzz import outcome, random_record, tokenizers

from lowrank.grounding.vocabulary import Vocabulary
from lowrank.model.tokenizer import Tokenizer

RECORDS = 100


@cache
def prepared() -> dict[str, tuple[Tokenizer, Vocabulary]]:
    return {name: (tokenizer, Vocabulary(tokenizer)) for name, tokenizer in tokenizers().items()}


@pytest.mark.long
@pytest.mark.parametrize("name", ["embedded", "byte-level BPE", "Llama 2"])
def test_random_logits_write_right_figures_under_their_names(name: str, request: pytest.FixtureRequest) -> None:
    if name == "Llama 2":
        request.getfixturevalue("llama2_tokenizer")
    tokenizer, vocabulary = prepared()[name]
    figures, faults = 0, []
    for seed in range(RECORDS):
        found = outcome(random_record(random.Random(seed)), vocabulary, tokenizer, seed)
        figures += found.figures
        if found.faults:
            faults.append(f"seed {seed}: {found.faults}: {found.text!r}")
    assert not faults, "\n".join(faults)
    assert figures > RECORDS / 2, figures
