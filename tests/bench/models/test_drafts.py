"""The bench of drafts: what it counts, and what it is compared with."""

import pytest

from lowrank.bench.models.drafts import NAMES, compare
from lowrank.model.drafts import Lookup


def test_a_text_that_differs_by_one_way_is_counted_and_told() -> None:
    told: list[str] = []

    def write(number: int, drafts: bool | Lookup) -> list[int]:
        return [1, 2, 3 if number == 2 and drafts is True else 4]

    figures, different = compare(5, write, told.append)
    assert different == figures["different"] == 1 and told == ["text 2 differs"]
    assert figures["texts"] == 5 and figures["tokens"] == 15 and "llama.cpp" not in figures


def test_a_peer_writes_as_many_tokens_and_its_time_is_over_that_of_each_way() -> None:
    asked: list[tuple[int, int]] = []

    def beside(number: int, tokens: int) -> float:
        asked.append((number, tokens))
        return 1e3

    figures, _ = compare(4, lambda number, _: [0] * (number + 1), print, beside)
    assert asked == [(0, 1), (1, 2), (2, 3), (3, 4)]
    assert figures["llama.cpp"]["tokens_a_second"] == pytest.approx(7 / 2e3)  # without the first two
    assert all(figures[name]["times_as_fast_as_llama.cpp"] > 1e3 for name in NAMES)
