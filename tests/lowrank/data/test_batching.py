"""What is learned and what is not: completions and their end, never prompts, filling or cut-off texts."""

import pytest
import torch

from lowrank.data.batching import Example, collate, encode_all, encode_example, epoch_batches
from lowrank.data.documents import make_documents
from lowrank.data.template import render

ENTRIES = make_documents(10, seed=1, split="train")


def test_prompt_and_completion_are_tokenized_apart_with_one_begin_and_one_end(tokenizer):
    entry = ENTRIES[0]
    example = encode_example(entry, tokenizer, "alpaca")
    prompt = tokenizer.encode(render("alpaca", entry.instruction, entry.input), bos=True, eos=False)
    assert list(example.tokens[: example.prompt_length]) == prompt
    assert tokenizer.decode(example.tokens[example.prompt_length :]) == entry.output
    assert example.tokens.count(tokenizer.bos_id) == example.tokens.count(tokenizer.eos_id) == 1
    assert example.tokens[-1] == tokenizer.eos_id


def test_labels_are_the_completion_with_its_end_and_nothing_else():
    tokens, labels = collate([Example("a", (1, 5, 6, 2), 2), Example("b", (1, 7, 2), 1)])
    assert tokens.tolist() == [[1, 5, 6, 2], [1, 7, 2, 0]]
    assert labels.tolist() == [[-100, -100, 6, 2], [-100, 7, 2, -100]]


def test_entries_that_do_not_fit_are_left_out_whole_and_given_back(tokenizer):
    lengths = [len(encode_example(entry, tokenizer, "alpaca").tokens) for entry in ENTRIES]
    limit = sorted(lengths)[5]
    kept, dropped = encode_all(ENTRIES, tokenizer, "alpaca", limit)
    assert [len(example.tokens) for example in kept] == [length for length in lengths if length <= limit]
    assert len(kept) + len(dropped) == len(ENTRIES)


def test_nothing_left_to_learn_is_an_error(tokenizer):
    with pytest.raises(ValueError, match="max_tokens = 8 leaves none of 10 entries"):
        encode_all(ENTRIES, tokenizer, "alpaca", 8)


def test_an_epoch_holds_every_example_once_in_an_order_of_its_own():
    examples = [Example(str(i), (1, 2), 1) for i in range(10)]
    epochs = [[example.id for batch in epoch_batches(examples, 4, 0, i) for example in batch] for i in (0, 1, 0)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == [str(i) for i in range(10)]
    assert epochs[0] == epochs[2] != epochs[1]
    assert [len(batch) for batch in epoch_batches(examples, 4, 0, 0)] == [4, 4, 2]


def test_an_unknown_template_is_refused_by_name():
    with pytest.raises(ValueError, match="template must be one of alpaca, fingpt, got 'chatml'"):
        render("chatml", "do", "this")


def test_labels_do_not_depend_on_token_ids():
    tokens, labels = collate([Example("a", (1, 0, 0, 2), 1)])  # an id of 0 in the completion is not filling
    assert torch.equal(labels[0, 1:], tokens[0, 1:])
