"""Sampling by hand-worked probabilities, and against the processors of transformers."""

import pytest
import torch
from torch import Tensor

from lowrank.model.draws import Draws
from lowrank.model.sampling import HEAD, Sampler, Sampling, draw

CPU = torch.device("cpu")


def uniform(count: int) -> Tensor:
    return torch.rand(count, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def drawn(logits: Tensor, count: int, **options: float) -> Tensor:
    return draw(logits.expand(count, -1), Sampling(**{"temperature": 1.0, **options}), uniform(count))


def stays(logits: Tensor, **options: float) -> set[int]:
    return set(drawn(logits, 4000, **options).tolist())


def test_temperature_0_takes_the_likeliest_whatever_the_seed() -> None:
    logits = torch.tensor([[0.0, 3.0, 2.0], [1.0, -5.0, 0.0]])
    for seed in range(5):
        sampler = Sampler(Sampling(seed=seed, top_p=0.1), [[1], [1]], CPU)
        assert sampler.choose(logits, [False, False]).tolist() == [1, 0]


# From the likeliest, tokens 2, 0, 3, 1: the likelier ones have 0, 0.5, 0.75 and 0.9 together.
FOUR = torch.tensor([0.25, 0.1, 0.5, 0.15]).log()


@pytest.mark.parametrize(
    ("top_p", "kept"),
    [(1e-9, {2}), (0.4, {2}), (0.6, {2, 0}), (0.8, {2, 0, 3}), (0.95, {2, 0, 3, 1}), (1.0, {2, 0, 3, 1})],
)
def test_a_token_stays_while_the_likelier_ones_are_at_most_top_p(top_p: float, kept: set[int]) -> None:
    assert stays(FOUR, top_p=top_p) == kept


def test_a_token_stays_when_the_likelier_ones_are_exactly_top_p() -> None:
    assert stays(torch.zeros(2), top_p=0.5) == {0, 1}


@pytest.mark.parametrize(
    ("top_k", "kept"), [(1, {2}), (2, {2, 0}), (3, {2, 0, 3}), (4, {0, 1, 2, 3}), (9, {0, 1, 2, 3})]
)
def test_the_k_likeliest_stay(top_k: int, kept: set[int]) -> None:
    assert stays(FOUR, top_k=top_k) == kept


@pytest.mark.parametrize(
    ("min_p", "kept"), [(0.15, {0, 1, 2, 3}), (0.25, {2, 0, 3}), (0.4, {2, 0}), (0.6, {2}), (1.0, {2})]
)
def test_a_token_stays_with_a_share_of_the_likeliest_ones(min_p: float, kept: set[int]) -> None:
    assert stays(FOUR, min_p=min_p) == kept


def test_each_step_is_taken_on_what_the_one_before_it_left() -> None:
    # Of the two likeliest the first has 2/3: with top_p 0.6 it stands alone, where it did not among four.
    assert stays(FOUR, top_p=0.6) == {2, 0}
    assert stays(FOUR, top_k=2, top_p=0.6) == {2}


def test_what_stays_is_drawn_in_proportion() -> None:
    counts = drawn(torch.tensor([0.5, 0.25, 0.125, 0.125]).log(), 100_000, top_p=0.6).bincount(minlength=4)
    # Two tokens stay, 2 : 1; six standard deviations of a binomial draw.
    assert abs(counts[0] - 100_000 * 2 / 3) < 6 * (100_000 * 2 / 9) ** 0.5
    assert counts[2:].tolist() == [0, 0]


def test_temperature_sharpens() -> None:
    counts = drawn(torch.tensor([0.8, 0.2]).log(), 100_000, temperature=0.5).bincount(minlength=2)
    share = 0.64 / (0.64 + 0.04)
    assert abs(counts[0] - 100_000 * share) < 6 * (100_000 * share * (1 - share)) ** 0.5


@pytest.mark.parametrize("place", [0.0, 1.0 - 2**-53])
def test_the_ends_of_the_draw_are_tokens_that_stay(place: float) -> None:
    logits = torch.tensor([[-float("inf"), 1.0, 2.0, -float("inf")]])
    token = draw(logits, Sampling(temperature=1.0), torch.tensor([place], dtype=torch.float64))
    assert token.tolist() == [2 if place == 0 else 1]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the other program's own
@pytest.mark.parametrize(
    "options",
    [
        {"repetition_penalty": 1.7},
        {"temperature": 0.6},
        {"top_k": 5},
        {"min_p": 0.2},
        {"top_p": 0.7},
        {"repetition_penalty": 1.3, "temperature": 1.4, "top_k": 20, "top_p": 0.8, "min_p": 0.05},
    ],
    ids=lambda options: "-".join(options),
)
def test_what_stays_is_what_stays_in_transformers(options: dict[str, float]) -> None:
    from transformers.generation import logits_process as theirs

    logits = torch.randn(6, 50, generator=torch.Generator().manual_seed(1)) * 2
    held = torch.randint(50, (6, 9), generator=torch.Generator().manual_seed(2))
    expected = logits
    for name, processor in (
        ("repetition_penalty", theirs.RepetitionPenaltyLogitsProcessor),
        ("temperature", theirs.TemperatureLogitsWarper),
        ("top_k", theirs.TopKLogitsWarper),
        ("top_p", theirs.TopPLogitsWarper),
        ("min_p", theirs.MinPLogitsWarper),
    ):
        if name in options:
            expected = processor(options[name])(held, expected)
    upto = torch.softmax(expected.double().sort(-1, descending=True).values, -1).cumsum(-1)
    order = expected.argsort(-1, descending=True)
    for seed in range(40):
        sampler = Sampler(Sampling(**{"temperature": 1.0, **options}, seed=range(seed, seed + 6)), held.tolist(), CPU)
        numbers = [Draws(s, row).next() for s, row in zip(range(seed, seed + 6), held.tolist(), strict=True)]
        at = torch.tensor(numbers, dtype=torch.float64)
        place = torch.searchsorted(upto, at[:, None], right=True)
        assert sampler.choose(logits, [False] * 6).tolist() == order.gather(-1, place).squeeze(-1).tolist()


def test_what_a_row_has_written_is_held_against_it_too() -> None:
    sampler = Sampler(Sampling(repetition_penalty=4.0), [[0], [0]], CPU)
    logits = torch.tensor([[3.0, 2.0, 1.0], [-3.0, -2.0, -1.0]])
    assert sampler.choose(logits, [False, False]).tolist() == [1, 2]
    sampler.take([1, None])
    assert sampler.choose(logits, [False, False]).tolist() == [2, 2]
    sampler.take([2, 2])
    assert sampler.choose(logits, [False, False]).tolist() == [0, 1]


class WithoutSecond:
    """A row that may not write token 1, and writes token 2 or 3 in its place."""

    unfinished = 0

    def is_allowed(self, token: int) -> bool:
        return token != 1

    def instead(self, token: int) -> Tensor:
        assert token == 1
        return torch.tensor([False, False, True, True])

    def take(self, token: int) -> None:
        pass


def test_a_token_that_may_not_be_written_gives_its_share_to_the_likeliest_in_its_place() -> None:
    shares, rows = torch.tensor([0.5, 0.3, 0.15, 0.05]), 4000
    sampler = Sampler(Sampling(temperature=1.0, seed=range(rows)), [[1]] * rows, CPU, [WithoutSecond()] * rows)
    counts = sampler.choose(shares.log().expand(rows, -1), [False] * rows).bincount(minlength=4)
    expected = torch.tensor([0.5, 0.0, 0.45, 0.05]) * rows
    assert ((counts - expected).abs() <= 5 * (expected * (1 - expected / rows)).sqrt()).all(), counts
    greedy = Sampler(Sampling(), [[1]] * 2, CPU, [WithoutSecond(), None])
    assert greedy.choose(torch.tensor([[0.0, 9.0, -5.0, -8.0]] * 2), [False, False]).tolist() == [2, 1]
    assert greedy.choose(torch.tensor([[0.0, 9.0, -5.0, -8.0]] * 2), [True, True]).tolist() == [1, 1]


def by_definition(logits: Tensor, options: Sampling, place: float) -> int:
    """The token that `draw` is to give for one row: every token sorted, what stays, and the first beyond `place`."""
    scaled = (logits.double() - logits.max().double()) / options.temperature
    order = sorted(range(len(scaled)), key=lambda token: (-float(scaled[token]), token))
    order = order[: options.top_k or None]
    shares = torch.softmax(scaled[order], dim=0).tolist()
    kept, before = [], 0.0
    for token, share in zip(order, shares, strict=True):
        if before <= options.top_p and share >= options.min_p * shares[0]:
            kept.append((token, share))
        before += share
    target, upto = place * sum(share for _, share in kept), 0.0
    for token, share in kept:
        upto += share
        if upto > target:
            return token
    return kept[-1][0]


@pytest.mark.slow
@pytest.mark.parametrize("spread", [0.0, 0.5, 6.0])
@pytest.mark.parametrize(
    "options",
    [{}, {"top_k": 5}, {"top_k": 900}, {"top_p": 0.3}, {"top_p": 0.97}, {"min_p": 0.2}, {"min_p": 1e-4, "top_k": 700}],
)
def test_a_draw_is_that_of_the_definition_whether_the_head_tells_it_or_not(
    options: dict[str, float], spread: float
) -> None:
    generator = torch.Generator().manual_seed(0)
    size = 3 * HEAD
    logits = spread * torch.randn(24, size, generator=generator)
    logits[::3] = logits[::3].round()  # ties, within the head and across its end
    places = torch.rand(24, generator=generator, dtype=torch.float64)
    places[0], places[1] = 0.0, 1.0 - 2.0**-30  # nearer to 1 the rounding of the sums decides
    sampling = Sampling(**{"temperature": 0.8, **options})
    found = draw(logits, sampling, places).tolist()
    assert found == [by_definition(row, sampling, float(place)) for row, place in zip(logits, places, strict=True)]
    assert found == [int(draw(row[None], sampling, place[None])) for row, place in zip(logits, places, strict=True)]


def test_a_row_that_has_ended_draws_nothing() -> None:
    logits, sampling = torch.zeros(3, 8), Sampling(temperature=1.0, seed=range(3))
    every, some = (Sampler(sampling, [[1]] * 3, CPU) for _ in range(2))
    for _ in range(4):
        whole, left = every.choose(logits, [False] * 3), some.choose(logits, [False, True, False])
        assert left.tolist() == [whole[0], 0, whole[2]]
    assert some.choose(logits, [True] * 3).tolist() == [0, 0, 0]
