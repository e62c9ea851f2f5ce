"""The numbers that texts are drawn by: uniform, of no machine, and the same where two texts say the same."""

import hashlib
from itertools import pairwise
from typing import Any

import pytest

from lowrank.model.draws import Draws


def numbers(seed: int, tokens: list[int], text: list[int]) -> list[float]:
    """The number of each token of a text behind some tokens."""
    draws, found = Draws(seed, tokens), []
    for token in text:
        found.append(draws.next())
        draws.take(token)
    return found


def test_a_number_is_53_bits_of_a_hash_of_seed_the_two_tokens_before_and_how_often_they_stood_there() -> None:
    for key, found in zip(
        ("7,4,5,0", "7,5,4,0", "7,4,5,1", "7,5,9,0"), numbers(7, [1, 4, 5], [4, 5, 9, 4]), strict=True
    ):
        bits = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little") >> 11
        assert found == bits / 2**53
    assert Draws(0, [1, 2]).next() == 0.11892887681687114  # on every machine


def test_they_are_uniform_and_do_not_follow_from_one_another() -> None:
    n = 40_000
    found = numbers(3, [1], [number % 7 for number in range(n)])  # the same few words over and over
    assert all(0 <= number < 1 for number in found) and len(set(found)) == n
    tenths = [sum(tenth / 10 <= number < (tenth + 1) / 10 for number in found) for tenth in range(10)]
    assert all(abs(count - n / 10) <= 5 * (n * 0.09) ** 0.5 for count in tenths), tenths
    products = sum((a - 0.5) * (b - 0.5) for a, b in pairwise(found)) / (n - 1)
    assert abs(products) <= 5 / 12 / n**0.5  # 1/144 is the variance of such a product


def test_texts_that_part_come_together_again_where_they_say_the_same() -> None:
    common = [8, 9, 10, 11]
    one = numbers(5, [1, 2], [3, 4, 5, *common])
    other = numbers(5, [1, 2], [3, 6, 7, 7, *common])
    assert one[:2] == other[:2] and one[2] != other[2]
    assert one[-2:] == other[-2:]  # behind two words that both have


@pytest.mark.parametrize("change", [{"seed": 6}, {"tokens": [2, 2]}])
def test_another_seed_or_other_words_have_other_numbers(change: dict[str, Any]) -> None:
    start: dict[str, Any] = {"seed": 5, "tokens": [1, 2]}
    assert Draws(**start).next() != Draws(**(start | change)).next()


def test_an_empty_start_has_numbers_too() -> None:
    assert 0 <= Draws(0, []).next() < 1
