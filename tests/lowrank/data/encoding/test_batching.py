"""Labels of batches: completions and their end are learned; prompts, filling and cut-off texts never."""

from dataclasses import replace

import pytest
import torch

from lowrank.data.documents.document import make_documents
from lowrank.data.encoding.batching import (
    Example,
    collate,
    count_shared,
    encode,
    encode_all,
    epoch_batches,
    name_some,
    prompt_for,
    shared_beginning,
)
from lowrank.data.encoding.packing import rows_of_one
from lowrank.data.encoding.template import TEMPLATES, Conversation, Turn, render
from lowrank.model.loss import IGNORED

ENTRIES = make_documents(10, seed=1, split="train")


def example(id, tokens, given):
    """An example of which the first `given` tokens are not learned."""
    return Example(id, tuple(tokens), (*[IGNORED] * given, *tokens[given:]))


def lengths(batches):
    return [[len(row) for row in batch] for batch in batches]


def filling(batches):
    """The share of the positions of the batches that no token stands at."""
    positions = sum(len(batch) * max(map(len, batch)) for batch in batches)
    return 1 - sum(map(sum, lengths(batches))) / positions


def test_prompt_and_completion_are_tokenized_apart_with_one_begin_and_one_end(tokenizer) -> None:
    entry = ENTRIES[0]
    found = encode(entry.conversation, tokenizer, "alpaca")
    prompt = tokenizer.encode(render("alpaca", entry.instruction, entry.input), bos=True, eos=False)
    assert list(found.tokens[: len(prompt)]) == prompt
    assert tokenizer.decode(found.tokens[len(prompt) :]) == entry.output
    assert found.labels == (*[IGNORED] * len(prompt), *found.tokens[len(prompt) :])
    assert found.supervised == len(found) - len(prompt)


@pytest.mark.parametrize("template", TEMPLATES)
def test_the_end_of_text_is_always_learned_and_never_filling(template, tokenizer) -> None:
    examples = [encode(entry.conversation, tokenizer, template) for entry in ENTRIES]
    tokens, labels = collate(examples)
    for row, found in enumerate(examples):
        assert found.tokens[0] == tokenizer.bos_id and found.tokens[-1] == tokenizer.eos_id
        assert found.tokens.count(tokenizer.bos_id) == found.tokens.count(tokenizer.eos_id) == 1
        assert labels[row, len(found) - 1] == tokenizer.eos_id
        assert (tokens[row, len(found) :] != tokenizer.eos_id).all()
        assert (labels[row, len(found) :] == IGNORED).all()


@pytest.mark.parametrize("template", TEMPLATES)
def test_prompts_of_an_instruction_share_all_but_their_input(template, tokenizer) -> None:
    entry = ENTRIES[0]
    beginning = shared_beginning(template, tokenizer, entry.instruction)
    for input in (entry.input, "0", "\n- x", "ä"):
        prompt = tokenizer.encode(prompt_for(template, tokenizer, entry.instruction, input)[0], bos=True)
        assert len(beginning) - 2 <= count_shared(beginning, prompt) <= len(beginning)
    assert entry.instruction[:-2] in tokenizer.decode(beginning)
    assert [count_shared([1, 2, 3], other) for other in ([], [1], [1, 2, 3, 4], [1, 5, 3])] == [0, 1, 3, 1]


def test_the_prompt_that_is_learned_from_is_the_one_that_is_generated_from(tokenizer) -> None:
    for template in TEMPLATES:
        entry = ENTRIES[3]
        asked = tokenizer.encode(render(template, entry.instruction, entry.input), bos=True, eos=False)
        found = encode(entry.conversation, tokenizer, template)
        assert list(found.tokens[: len(asked)]) == asked
        assert len(found) - found.supervised == len(asked)


def test_labels_are_the_completion_with_its_end_and_nothing_else() -> None:
    tokens, labels = collate([example("a", (1, 5, 6, 2), 2), example("b", (1, 7, 2), 1)])
    assert tokens.tolist() == [[1, 5, 6, 2], [1, 7, 2, 0]]
    assert labels.tolist() == [[-100, -100, 6, 2], [-100, 7, 2, -100]]


def test_labels_do_not_depend_on_token_ids() -> None:
    tokens, labels = collate([example("a", (1, 0, 0, 2), 1)])  # an id of 0 in the completion is not filling
    assert torch.equal(labels[0, 1:], tokens[0, 1:])


@pytest.mark.parametrize("output", ["", " \n"], ids=["empty", "blank"])
def test_an_entry_with_nothing_to_learn_is_named(output, tokenizer) -> None:
    with pytest.raises(ValueError, match=r"^entry e-7: output must not be empty: there is nothing to learn$"):
        encode(replace(ENTRIES[0], id="e-7", output=output).conversation, tokenizer, "alpaca")


@pytest.mark.parametrize(
    "turns", [[Turn("a")], [Turn("a", output="b"), Turn("c", output=" ")], []], ids=["open", "one-empty", "none"]
)
def test_a_conversation_with_nothing_to_learn_is_named(turns, tokenizer) -> None:
    with pytest.raises(ValueError, match="entry e-7: output must not be empty"):
        encode(Conversation("e-7", tuple(turns)), tokenizer, "alpaca")


def test_entries_that_do_not_fit_are_left_out_whole_and_given_back(tokenizer) -> None:
    long = [len(encode(entry.conversation, tokenizer, "alpaca")) for entry in ENTRIES]
    limit = sorted(long)[5]
    kept, dropped = encode_all([entry.conversation for entry in ENTRIES], tokenizer, "alpaca", limit)
    assert lengths([kept]) == [[length for length in long if length <= limit]]
    assert {found.id for found in dropped} == {e.id for e, n in zip(ENTRIES, long, strict=True) if n > limit}
    assert all(found.tokens[-1] == tokenizer.eos_id for found in kept)


def test_nothing_left_to_learn_is_an_error(tokenizer) -> None:
    with pytest.raises(ValueError, match="max_tokens = 8 leaves none of 10 entries"):
        encode_all([entry.conversation for entry in ENTRIES], tokenizer, "alpaca", 8)


def test_ids_are_told_up_to_a_number() -> None:
    assert name_some(["a", "b"]) == "a, b"
    assert name_some(["a", "b", "c", "d"], 2) == "a, b and 2 more"


# The order of an epoch

ROWS = [example(str(i), (1, *[5] * (3 + i * 37 % 101), 2), 1) for i in range(90)]


@pytest.mark.parametrize("group", [False, True], ids=["shuffled", "by-length"])
def test_an_epoch_holds_every_row_once_in_an_order_of_its_own(group) -> None:
    epochs = [epoch_batches(ROWS, 4, 0, epoch, group_by_length=group) for epoch in (0, 1, 0)]
    ids = [[row.id for batch in batches for row in batch] for batches in epochs]
    assert sorted(ids[0]) == sorted(ids[1]) == sorted(row.id for row in ROWS)
    assert ids[0] == ids[2] != ids[1]
    assert sorted(map(len, epochs[0])) == [2, *[4] * 22]


def test_only_the_last_shuffled_batch_is_short() -> None:
    assert [len(batch) for batch in epoch_batches(ROWS[:10], 4, 0, 0)] == [4, 4, 2]


def test_grouping_by_length_leaves_less_filling() -> None:
    shares = [filling(epoch_batches(ROWS, 4, 0, 0, group_by_length=group)) for group in (False, True)]
    assert shares[1] < 0.5 * shares[0]


def test_grouped_batches_hold_neighbours_in_length_but_not_the_same_rows_each_epoch() -> None:
    epochs = [epoch_batches(ROWS, 4, 0, epoch, group_by_length=True) for epoch in (0, 1)]
    sets = [{frozenset(row.id for row in batch) for batch in batches} for batches in epochs]
    assert len(sets[0] & sets[1]) < len(sets[0]) / 2
    assert all(batch == sorted(batch, reverse=True) for batch in lengths(epochs[0]))


def test_grouped_batches_do_not_run_from_long_to_short() -> None:
    longest = [max(batch) for batch in lengths(epoch_batches(ROWS[:40], 4, 0, 0, group_by_length=True))]
    assert longest != sorted(longest, reverse=True)


def test_fewer_rows_than_a_batch_are_one_batch() -> None:
    (batch,) = epoch_batches(rows_of_one(ROWS[:3]), 8, 0, 0, group_by_length=True)
    assert len(batch) == 3
