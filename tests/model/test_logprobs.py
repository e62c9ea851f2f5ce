"""Probabilities of the tokens that were written: those of the model's own logits, whichever way a token was chosen."""

from collections.abc import Callable

import pytest
import torch
from letters import Letters

from lowrank.model.generate import complete, generate_tokens, stream
from lowrank.model.llama import Llama
from lowrank.model.logprobs import token_logprob

Make = Callable[..., Llama]
SAMPLED = {"temperature": 1.3, "top_k": 12, "repetition_penalty": 1.4, "seed": 5}


def expected(model: Llama, prompt: list[int], tokens: tuple[int, ...]) -> list[float]:
    """By one forward pass over the whole text."""
    logits = model(torch.tensor([[*prompt, *tokens]]))[0, len(prompt) - 1 : -1].double()
    return logits.log_softmax(-1).gather(-1, torch.tensor(tokens)[:, None])[:, 0].tolist()


def test_a_hand_computed_logarithm() -> None:
    found = token_logprob(torch.tensor([1.0, 2.0, 4.0, 1.0]).log(), 1, 2)
    assert found.token == 1 and found.logprob == pytest.approx(torch.tensor(0.25).double().log().item(), abs=1e-7)
    assert [token for token, _ in found.top] == [2, 1]
    assert found.top[1][1] == found.logprob and found.top[0][1] == pytest.approx(-0.6931471805599453, abs=1e-7)


def test_a_row_without_a_piece_is_not_named_among_the_likeliest() -> None:
    found = token_logprob(torch.tensor([3.0, 9.0, 1.0, 2.0]), 0, 20, never=[1])
    assert [token for token, _ in found.top] == [0, 3, 2] and found.logprob < -5


@pytest.mark.parametrize("options", [{}, SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize("fixed_shapes", [False, True], ids=["ordinary", "fixed"])
def test_they_are_those_of_a_forward_pass_over_the_whole_text(
    options: dict[str, float], fixed_shapes: bool, make_llama: Make
) -> None:
    model = make_llama()
    prompts = [[1, 9, 8, 7, 6], [1, 11]]
    written = complete(model, Letters(), prompts, max_new_tokens=12, logprobs=3, fixed_shapes=fixed_shapes, **options)
    for prompt, completion in zip(prompts, written, strict=True):
        assert completion.logprobs is not None
        assert tuple(one.token for one in completion.logprobs) == completion.tokens
        found = [one.logprob for one in completion.logprobs]
        assert found == pytest.approx(expected(model, prompt, completion.tokens), rel=0, abs=2e-5)
        for one in completion.logprobs:
            likeliest = [value for _, value in one.top]
            assert len(one.top) == 3 and likeliest == sorted(likeliest, reverse=True)
            if not options:
                assert one.top[0] == (one.token, one.logprob)


def test_a_stream_has_those_of_the_whole_and_they_are_none_unless_they_are_asked_for(make_llama: Make) -> None:
    model, pieces = make_llama(), []
    steps = stream(model, Letters(), [1, 9, 8], max_new_tokens=6, logprobs=0)
    while True:
        try:
            pieces.append(next(steps))
        except StopIteration as stop:
            streamed = stop.value
            break
    (whole,) = complete(model, Letters(), [[1, 9, 8]], max_new_tokens=6, logprobs=0)
    assert streamed == whole and all(one.top == () for one in whole.logprobs or ())
    assert complete(model, Letters(), [[1, 9, 8]], max_new_tokens=6)[0].logprobs is None


def test_a_token_that_ends_the_text_has_none_and_a_row_that_has_ended_gets_no_more(make_llama: Make) -> None:
    model, told = make_llama(), list[tuple[int, int]]()
    free = list(generate_tokens(model, [[1, 9, 8], [1, 5, 7]], max_new_tokens=8))
    eos = next(first for first, _ in free if first not in [second for _, second in free])
    assert eos is not None
    steps = generate_tokens(
        model,
        [[1, 9, 8], [1, 5, 7]],
        max_new_tokens=8,
        eos_id=eos,
        drawn=lambda row, token, logits: told.append((row, token)),
    )
    written = [(row, token) for step in steps for row, token in enumerate(step) if token is not None]
    assert told == written and (0, eos) not in told


@pytest.mark.parametrize("count", [-1, 21, 1.0, True])
def test_a_number_of_likeliest_tokens_out_of_range_is_refused(count: int, make_llama: Make) -> None:
    with pytest.raises(ValueError, match=r"logprobs must be 0 to 20 likeliest tokens, or None, got"):
        complete(make_llama(), Letters(), [[1, 2]], max_new_tokens=1, logprobs=count)
