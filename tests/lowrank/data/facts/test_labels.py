"""Labels that differ in their period alone, and which of them a sentence is about."""

import re

import pytest

from lowrank.data.facts.labels import name_key, named_periods, of_period, period_keys, without_period


@pytest.mark.parametrize(
    ("label", "bare", "keys"),
    [
        ("revenue 2024", "revenue", {"2024"}),
        ("Revenue (USD m), FY 2024", "Revenue", {"fy 2024"}),
        ("EBITDA FY25", "EBITDA", {"fy 2025"}),
        ("Q3 2024 net income", "net income", {"q3 2024"}),
        ("cash at Q1", "cash", {"q1"}),
        ("S&P 500 level", "S&P 500 level", set()),
        ("revenue", "revenue", set()),
    ],
)
def test_a_label_has_a_name_and_a_period(label: str, bare: str, keys: set[str]) -> None:
    assert (without_period(label), period_keys(label)) == (bare, keys)


def test_a_name_is_compared_as_a_pattern_of_any_case_finds_it() -> None:
    for one, other in (("ı", "I"), ("İ", "i"), ("Net\u00a0Debt", "net  debt"), ("ſum", "SUM"), ("Straße", "STRASSE")):
        assert name_key(one) == name_key(other)
    assert re.fullmatch("ı", "I", re.IGNORECASE)  # so a name that was found has a key


def test_a_number_that_is_no_year_names_no_period() -> None:
    assert named_periods("$2,024.5 and 1.2024, 2024.5, 12024") == []
    assert [text for _, _, text in named_periods("2023, and 2024.")] == ["2023", "2024"]


@pytest.mark.parametrize(
    ("told", "keys"),
    [
        (("in 2024 it was",), ("a",)),
        (("", "of 2023"), ("b",)),
        (("2023", "2024"), ("b",)),
        (("2023 and 2024",), ()),
        (("2022",), ()),
        (("it was",), ()),
    ],
)
def test_the_period_that_is_told_first_decides(told: tuple[str, ...], keys: tuple[str, ...]) -> None:
    periods = {"a": frozenset({"2024"}), "b": frozenset({"2023"})}
    assert of_period(("a", "b"), periods, *told) == keys
    assert of_period(("a",), periods, *told) == ("a",)


def test_where_no_period_is_told_the_label_without_one_is_meant() -> None:
    periods = {"a": frozenset({"2024"}), "b": frozenset({"2023"}), "c": frozenset[str]()}
    assert of_period(("a", "b", "c"), periods, "it was") == ("c",)
    assert of_period(("a", "b", "c"), periods, "in 2023") == ("b",)
    assert of_period(("a", "b", "c"), periods, "in 2022") == ()
