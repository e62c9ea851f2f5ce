"""Drafts from a look-up, and how much of one is worth a pass."""

from lowrank.model import drafts
from lowrank.model.drafts import Lookup

FREE = (1.0,) * 8


def test_the_longest_ngram_and_its_last_place_win() -> None:
    lookup = Lookup()
    lookup.add([1, 2, 3, 4, 9, 2, 3, 5, 9, 7, 3])
    assert lookup.draft(FREE) == (1, [5, 9, 7, 3])
    lookup.add([4])
    assert lookup.draft(FREE) == (2, [9, 2, 3, 5, 9, 7, 3])
    lookup.add([8])
    assert lookup.draft(FREE) == (0, [])


def test_nothing_is_drafted_where_a_pass_over_two_costs_what_two_cost() -> None:
    lookup = Lookup()
    lookup.add([1, 2, 3] * 4)
    assert lookup.draft((1.0, 2.0, 3.0, 4.0)) == (4, [])
    assert lookup.draft((1.0,)) == (4, [])


def test_more_is_drafted_the_less_a_further_row_costs() -> None:
    lookup = Lookup()
    lookup.add([*range(20), *range(8)])
    lengths = [len(lookup.draft([1 + slope * k for k in range(8)])[1]) for slope in (0.05, 0.2, 0.3, 0.5, 0.9)]
    assert lengths == sorted(lengths, reverse=True) and lengths[0] >= 5 and lengths[-1] == 0


def test_what_is_never_accepted_is_soon_not_drafted_and_what_is_always_is_drafted_again() -> None:
    lookup, costs = Lookup(), [1 + 0.15 * k for k in range(8)]
    lookup.add([*range(20), *range(8)])
    failed = 0
    while lookup.draft(costs)[1]:
        lookup.learn(4, 3, 0)
        failed += 1
    assert 1 <= failed < 40
    for _ in range(40):
        lookup.learn(4, 3, 3)
    assert lookup.draft(costs)[1]


def test_a_lookup_begins_anew_when_it_is_full(monkeypatch) -> None:
    monkeypatch.setattr(drafts, "MOST_TOKENS", 10)
    lookup = Lookup()
    lookup.add([1, 2, 3, 1])
    assert lookup.draft(FREE)[1] == [2, 3, 1]
    lookup.add([5, 6, 7, 8, 9, 1, 1])
    assert len(lookup.tokens) == 7 and lookup.draft(FREE) == (1, [1])
