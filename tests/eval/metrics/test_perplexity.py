"""Losses of completions and of a text, against log-softmax over every position."""

import math
from pathlib import Path

import pytest
import torch

import lowrank
from lowrank.data.documents.document import make_documents
from lowrank.data.encoding.batching import encode_all
from lowrank.eval.metrics.perplexity import completion_loss, completion_losses, text_perplexity

ENTRIES = make_documents(3, seed=5, split="test")
TEXT = ENTRIES[0].output[:300]


@pytest.fixture(scope="module")
def model(embedded: Path):
    return lowrank.load(embedded)


@pytest.fixture(scope="module")
def examples(tokenizer):
    return encode_all([entry.conversation for entry in ENTRIES], tokenizer, "alpaca", 512)[0]


def by_position(model, ids, first=1):
    """-log p of every token from `first` on, the whole text in one pass."""
    with torch.inference_mode():
        scores = model(torch.tensor([ids[:-1]]))[0].double().log_softmax(-1)
    return [-scores[place - 1, ids[place]].item() for place in range(first, len(ids))]


@pytest.mark.slow
def test_the_completion_loss_does_not_depend_on_the_batches(model, examples) -> None:
    one_by_one = completion_loss(model, examples, batch_size=1)
    assert completion_loss(model, examples, batch_size=3) == pytest.approx(one_by_one, rel=1e-6)


def test_each_loss_is_the_sum_over_its_own_completion(model, examples) -> None:
    for loss, example in zip(completion_losses(model, examples), examples, strict=True):
        first = len(example) - example.supervised
        assert loss == pytest.approx(sum(by_position(model, example.tokens, first)), rel=1e-5)


def test_a_text_that_fits_is_predicted_in_one_window(model, tokenizer) -> None:
    found = text_perplexity(model, tokenizer, TEXT)
    ids = tokenizer.encode(TEXT, bos=True, eos=False)
    assert found.nats == pytest.approx(sum(by_position(model, ids)), rel=1e-5)
    assert (found.tokens, found.bytes) == (len(ids) - 1, len(TEXT.encode()))
    assert found.per_token == pytest.approx(math.exp(found.nats / found.tokens))
    assert found.bits_per_byte == pytest.approx(found.nats / math.log(2) / found.bytes)


@pytest.mark.slow
@pytest.mark.parametrize(("window", "stride"), [(16, 8), (16, 15), (16, 1), (33, 7), (2, 1)])
def test_every_token_is_predicted_once_from_the_window_before_it(model, tokenizer, window, stride) -> None:
    ids = tokenizer.encode(TEXT[:120], bos=True, eos=False)
    expected = sum(by_position(model, ids[:window]))
    done = min(window, len(ids))
    while done < len(ids):
        end = min(len(ids), done + stride)
        start = max(0, end - window)
        expected += sum(by_position(model, ids[start:end], done - start))
        done = end
    found = text_perplexity(model, tokenizer, TEXT[:120], window=window, stride=stride)
    assert found.nats == pytest.approx(expected, rel=1e-5)
    assert found.tokens == len(ids) - 1


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"window": 1}, "window must be in 2 .. 4096"),
        ({"window": 4097}, "got 4097"),
        ({"window": 8, "stride": 8}, "got 8 and 8"),
    ],
)
def test_a_window_that_makes_no_sense_is_refused(model, tokenizer, options, expected) -> None:
    with pytest.raises(ValueError, match=expected):
        text_perplexity(model, tokenizer, TEXT, **options)


def test_an_empty_text_is_refused(model, tokenizer) -> None:
    with pytest.raises(ValueError, match="at least one token"):
        text_perplexity(model, tokenizer, "")
