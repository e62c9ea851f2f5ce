"""The view says what the model is told, no more and no less."""

from collections.abc import Callable

import pytest
import torch

from lowrank.data.documents.document import make_documents
from lowrank.data.encoding.batching import Example, encode
from lowrank.data.encoding.packing import Row, collate_rows, pack, rows_of_one
from lowrank.data.encoding.token_view import Token, count, percentile, show, visible
from lowrank.model import llama
from lowrank.model.llama import Llama
from lowrank.model.loss import IGNORED, next_token_loss

ENTRIES = make_documents(10, seed=1, split="train")


@pytest.fixture(scope="module")
def examples(tokenizer):
    return [encode(entry.conversation, tokenizer, "alpaca") for entry in ENTRIES]


def of_length(id, length):
    """An example that learns the second half of its tokens."""
    given = length // 2
    return Example(id, (5,) * length, (*[IGNORED] * given, *[5] * (length - given)))


def test_a_packed_row_by_hand(tokenizer) -> None:
    one = Example("a", (1, 3, 2), (IGNORED, 3, 2))
    row = Row((one, Example("b", (1, 2), (IGNORED, 2))))
    shown = show(row, tokenizer)
    assert shown.entries == ("a", "b")
    assert shown.tokens == (
        Token("<s>", 1, False, 0, 0),
        Token("\\n", 3, True, 1, 0),
        Token("</s>", 2, True, 2, 0),
        Token("<s>", 1, False, 0, 1),
        Token("</s>", 2, True, 1, 1),
    )
    assert shown.segment(1) == list(shown.tokens[3:])


@pytest.mark.parametrize("packed", [False, True], ids=["own-rows", "packed"])
def test_the_view_is_what_the_model_gets(
    packed, examples, tokenizer, make_llama: Callable[..., Llama], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Positions are those that the rotation is computed from; supervised are the tokens that the loss counts."""
    rows = pack(examples, 700) if packed else rows_of_one(examples)
    model, seen, angles = make_llama(vocab_size=tokenizer.vocab_size, max_seq_len=1024), [], llama.rope_angles
    monkeypatch.setattr(
        llama, "rope_angles", lambda positions, config: seen.append(positions) or angles(positions, config)
    )
    for row in rows:
        shown = show(row, tokenizer)
        tokens, labels, segments = collate_rows([row])
        _, counted = next_token_loss(model, tokens, labels, segments)
        assert [token.position for token in shown.tokens[:-1]] == seen.pop()[0].tolist()
        assert counted == sum(token.supervised for token in shown.tokens)
        assert [token.id for token in shown.tokens] == tokens[0].tolist()


def test_the_pieces_join_to_the_text(examples, tokenizer) -> None:
    shown = show(Row((examples[0],)), tokenizer)
    learned = "".join(token.piece for token in shown.tokens if token.supervised and token.id != tokenizer.eos_id)
    assert learned.replace("▁", " ").replace("\\n", "\n").strip() == ENTRIES[0].output.strip()


@pytest.mark.parametrize(
    ("piece", "seen"),
    [("▁debt", "▁debt"), ("\n", r"\n"), ("\x1b[2J", r"\x1b[2J"), ("日", "日"), ("\u202e", r"\u202e"), ("\t", r"\t")],
    ids=["word", "line-break", "escape", "wide", "right-to-left", "tab"],
)
def test_a_piece_cannot_move_the_cursor(piece, seen) -> None:
    assert visible(piece) == seen


def test_totals_by_hand() -> None:
    examples = [of_length(id, length) for id, length in (("a", 4), ("b", 12), ("c", 6), ("d", 10), ("e", 30))]
    totals = count(examples, max_tokens=12, row_length=16)
    assert (totals.entries, totals.tokens, totals.supervised, totals.over_long) == (5, 32, 16, {"e": 30})
    assert (totals.p50, totals.p95, totals.longest) == (10, 30, 30)
    assert (totals.rows, totals.packing_efficiency) == (2, 1.0)  # 12 + 4 and 10 + 6
    assert totals.supervised_share == totals.to_json()["supervised_share"] == 0.5


def test_totals_where_every_entry_is_too_long() -> None:
    totals = count([of_length("a", 20)], max_tokens=8, row_length=8)
    assert (totals.tokens, totals.rows, totals.packing_efficiency, totals.supervised_share) == (0, 0, 0.0, 0.0)
    assert totals.over_long == {"a": 20}


@pytest.mark.parametrize(
    ("percent", "value"), [(50, 50), (95, 95), (100, 100), (1, 1)], ids=["p50", "p95", "p100", "p1"]
)
def test_a_percentile_is_a_value_that_occurs(percent, value) -> None:
    assert percentile(range(1, 101), percent) == value
    assert percentile([7], percent) == 7


def test_the_loss_counts_what_the_totals_call_supervised(examples, tokenizer, make_llama: Callable[..., Llama]) -> None:
    model = make_llama(vocab_size=tokenizer.vocab_size, max_seq_len=1024)
    with torch.inference_mode():
        counted = sum(next_token_loss(model, *collate_rows([row]))[1] for row in rows_of_one(examples))
    assert count(examples, 1024, 1024).supervised == counted
