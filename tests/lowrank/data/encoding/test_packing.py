"""Packing: rows are filled well, and no example knows of its neighbours.

Packed and unpacked compute the same sums in another order. The bound is by rule: against the float64 result, packed
float32 is at most twice as far off as unpacked float32, plus one ulp at the largest value.
"""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from error_bounds import ulp
from torch import Tensor

from lowrank.adapters import adapter_parameters, add_adapter, use_adapter
from lowrank.data.encoding.batching import Example, collate
from lowrank.data.encoding.packing import FILLING, Row, collate_rows, filled, pack, rows_of_one
from lowrank.model import llama, packed_texts
from lowrank.model.llama import Llama
from lowrank.model.loss import IGNORED, next_token_loss


def example(id, tokens, given=1):
    """An example of which the first `given` tokens are not learned."""
    return Example(id, tuple(tokens), (*[IGNORED] * given, *tokens[given:]))


def of_lengths(*lengths):
    return [example(str(number), (1, *[5] * (length - 2), 2)) for number, length in enumerate(lengths)]


@pytest.fixture(scope="module")
def examples():
    """Eight examples of random tokens, 4 to 13 long; one of them learns its first token as well."""
    generator = torch.Generator().manual_seed(3)
    lengths = [9, 4, 13, 7, 5, 11, 6, 4]
    rows = [torch.randint(3, 64, (length,), generator=generator).tolist() for length in lengths]
    return [example(str(number), row, given=number % 4) for number, row in enumerate(rows)]


# Which examples share a row


@pytest.mark.parametrize(
    ("lengths", "rows"),
    [
        ((7, 5, 3, 3, 2), [[7, 3], [5, 3, 2]]),
        ((6, 5, 4, 3, 2), [[6, 4], [5, 3, 2]]),
        ((8, 7, 2, 3), [[8, 2], [7, 3]]),  # first fit would have put 3 nowhere else either, but 2 beside 7
        ((6, 7, 3), [[7, 3], [6]]),  # the fullest row that has room, not the first
        ((10, 10), [[10], [10]]),
    ],
    ids=str,
)
def test_each_example_goes_where_it_leaves_the_least_room(lengths, rows) -> None:
    packed = pack(of_lengths(*lengths), 10)
    assert [[len(part) for part in row.examples] for row in packed] == rows


def test_no_example_is_lost_cut_or_put_in_twice() -> None:
    generator = torch.Generator().manual_seed(0)
    examples = of_lengths(*torch.randint(3, 100, (500,), generator=generator).tolist())
    rows = pack(examples, 128)
    assert sorted(part.id for row in rows for part in row.examples) == sorted(one.id for one in examples)
    assert {part.id: part for row in rows for part in row.examples} == {one.id: one for one in examples}
    assert max(map(len, rows)) <= 128
    assert filled(rows, 128) > 0.98
    assert sum(row.supervised for row in rows) == sum(one.supervised for one in examples)


def test_an_example_longer_than_a_row_is_named() -> None:
    with pytest.raises(ValueError, match=r"^entry 1: 11 tokens do not fit into a row of 10$"):
        pack(of_lengths(4, 11), 10)


def test_a_batch_of_packed_rows_by_hand() -> None:
    one, two, three = example("a", (1, 5, 2)), example("b", (1, 6, 7, 2), 2), example("c", (1, 2))
    tokens, labels, segments = collate_rows([Row((one, two)), Row((three,))])
    assert tokens.tolist() == [[1, 5, 2, 1, 6, 7, 2], [1, 2, 0, 0, 0, 0, 0]]
    assert labels.tolist() == [[-100, 5, 2, -100, -100, 7, 2], [-100, 2, *[-100] * 5]]
    assert segments.tolist() == [[0, 0, 0, 1, 1, 1, 1], [0, 0, *[FILLING] * 5]]


def test_rows_of_one_are_an_ordinary_batch(examples) -> None:
    tokens, labels, segments = collate_rows(rows_of_one(examples))
    assert segments is None
    assert all(torch.equal(ours, theirs) for ours, theirs in zip((tokens, labels), collate(examples), strict=True))


# What packing must not change


@pytest.fixture
def model(make_llama: Callable[..., Llama]):
    """A small Llama with a hat whose B is not zero, so that both of its matrices have a gradient."""
    made = make_llama()
    add_adapter(made, "hat", rank=4)
    use_adapter(made, "hat")
    generator = torch.Generator().manual_seed(5)
    for name, parameter in adapter_parameters(made, "hat").items():
        if "lora_B" in name:
            parameter.data.normal_(std=0.3, generator=generator)
    return made


def loss_and_gradients(model, rows, batch_size):
    """Nats of all rows together, and the hat's gradients as one vector."""
    parameters = list(adapter_parameters(model, "hat").values())
    loss = torch.zeros((), dtype=parameters[0].dtype)
    for start in range(0, len(rows), batch_size):
        nats, _ = next_token_loss(model, *collate_rows(rows[start : start + batch_size]))
        loss = loss + nats
    return torch.cat([loss.detach().reshape(1), *(g.flatten() for g in torch.autograd.grad(loss, parameters))]).double()


class Float64(llama.TorchOps):
    """The two operations that round to float32 whatever they are given, without doing so."""

    def rms_norm(self, x, weight, eps):
        return x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt() * weight

    def rope(self, x, cos, sin, layout):
        assert layout == "interleaved"
        a, b = x.unflatten(-1, (-1, 2)).unbind(-1)
        return torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1).flatten(-2)


def in_float64(model):
    """The model, changed in place to compute in float64 throughout, its logits as well."""
    for module in model.double().modules():
        if hasattr(module, "ops"):
            module.ops = Float64()
    model.logits = model.output.forward
    return model


def errors(model, examples, length=24):
    """(packed, unpacked): the largest error of loss and of gradients against float64, and the bound's one ulp."""
    packed, unpacked = pack(examples, length), rows_of_one(examples)
    assert max(len(row.examples) for row in packed) >= 3
    ours, plain = loss_and_gradients(model, packed, 2), loss_and_gradients(model, unpacked, 1)
    exact = loss_and_gradients(in_float64(model), unpacked, 1)
    step = torch.stack([ulp(part, torch.float32) for part in (exact[0], exact[1:])])
    far = [torch.stack([(found - exact)[0].abs(), (found - exact)[1:].abs().max()]) for found in (ours, plain)]
    return far[0], 2 * far[1] + step


@pytest.mark.slow
def test_packed_loss_and_gradients_are_those_of_rows_of_their_own(model, examples) -> None:
    error, bound = errors(model, examples)
    assert (error <= bound).all(), f"loss and gradient are off by {error.tolist()}, allowed is {bound.tolist()}"


def test_in_float64_they_agree_to_twelve_digits(model, examples) -> None:
    exact = in_float64(model)
    packed, unpacked = (loss_and_gradients(exact, rows, 2) for rows in (pack(examples, 24), rows_of_one(examples)))
    torch.testing.assert_close(packed, unpacked, rtol=1e-12, atol=1e-12 * unpacked[1:].abs().max().item())


def test_gradient_checkpointing_keeps_the_segments(model, examples) -> None:
    plain = loss_and_gradients(model, pack(examples, 24), 2)
    model.gradient_checkpointing = True
    assert torch.equal(loss_and_gradients(model, pack(examples, 24), 2), plain)


def as_one_text(start, length, first, device):
    return MASK(start, length, torch.zeros_like(first), device)


def one_block_too_long(segments):
    """Starts as if the second segment of a row belonged to the first."""
    return STARTS(segments.clamp(min=1))


MASK, STARTS = packed_texts.attention_mask, packed_texts.segment_starts
MUTATIONS = {
    "no mask": (packed_texts, "attention_mask", as_one_text),
    "two segments seen as one": (llama, "segment_starts", one_block_too_long),
    "segments not told apart": (llama, "segment_starts", torch.zeros_like),
}


@pytest.mark.slow
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_the_bound_sees_an_example_that_looks_at_its_neighbour(
    mutation, model, examples, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, name, replacement = MUTATIONS[mutation]
    monkeypatch.setattr(module, name, replacement)
    error, bound = errors(model, examples)
    assert (error > 100 * bound).all()


def test_the_first_token_of_a_segment_is_never_predicted(model) -> None:
    examples = [example(str(number), (3 + number, 9, 10, 2), given=0) for number in range(5)]
    packed = collate_rows(pack(examples, 24))
    alone = [next_token_loss(model, *collate_rows([row])) for row in rows_of_one(examples)]
    _, count = next_token_loss(model, *packed)
    assert count == sum(counted for _, counted in alone) == 5 * 3
    tokens, labels, _ = packed
    assert next_token_loss(model, tokens, labels)[1] == count + 4  # as it would be with the segments not told


def test_no_token_depends_on_another_segment(model, examples) -> None:
    """Exactly: whatever stands in the neighbours, the hidden states of a segment keep their bits."""
    tokens, _, segments = collate_rows(pack(examples, 24))
    before = model.hidden(tokens, segments=segments)
    other = torch.where(segments == 1, tokens, (tokens + 7) % 64)
    after = model.hidden(other, segments=segments)
    assert torch.equal(before[segments == 1], after[segments == 1])
    assert not torch.equal(before[segments == 0], after[segments == 0])


# The model's side


def test_segment_starts_by_hand() -> None:
    segments = torch.tensor([[0, 0, 0, 1, 1, 2], [0, 1, 1, -1, -1, -1], [3, 3, 0, 0, 3, 3]])
    assert packed_texts.segment_starts(segments).tolist() == [
        [0, 0, 0, 3, 3, 5],
        [0, 1, 1, 3, 3, 3],
        [0, 0, 2, 2, 4, 4],
    ]


def test_the_block_diagonal_mask_by_hand() -> None:
    starts = packed_texts.segment_starts(torch.tensor([[0, 0, 1, 1, -1]]))
    mask = packed_texts.attention_mask(0, 5, starts, torch.device("cpu"))
    assert mask[0, 0].int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [0, 0, 1, 0, 0],
        [0, 0, 1, 1, 0],
        [0, 0, 0, 0, 1],
    ]


def test_one_segment_is_the_plain_model(make_llama: Callable[..., Llama], random_tokens: Callable[..., Tensor]) -> None:
    made, tokens = make_llama(), random_tokens(2, 9)
    torch.testing.assert_close(made.hidden(tokens, segments=torch.zeros_like(tokens)), made.hidden(tokens))


def test_a_packed_row_may_be_longer_than_the_context(
    make_llama: Callable[..., Llama], random_tokens: Callable[..., Tensor]
) -> None:
    made, tokens = make_llama(), random_tokens(1, 40)
    row, segments = tokens.repeat(1, 3), torch.arange(3).repeat_interleave(40)[None]
    torch.testing.assert_close(made.hidden(row, segments=segments), made.hidden(tokens).repeat(1, 3, 1))


def test_segments_with_a_cache_or_padding_are_refused(
    make_llama: Callable[..., Llama], random_tokens: Callable[..., Tensor]
) -> None:
    made, tokens = make_llama(), random_tokens(1, 4)
    cache = llama.KVCache(made.config, 1, 8, torch.float32, torch.device("cpu"))
    for others in ({"cache": cache}, {"padding": torch.tensor([1])}):
        with pytest.raises(ValueError, match="segments are of whole rows"):
            made.hidden(tokens, segments=F.pad(torch.zeros(1, 3, dtype=torch.int64), (0, 1)), **others)
