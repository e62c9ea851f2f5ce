"""Figures as they are written, in digits and in words."""

from decimal import Decimal

import pytest
from spoken import in_words

from lowrank.data.facts.figures import read_figure, read_figures

DIMENSIONS = {"percent": "pct", "basis points": "pct", "multiple": "x", "count": "count"}


@pytest.mark.parametrize(
    ("text", "magnitude", "quantum", "dimension"),
    [
        ("$812.4 million", "812400000", "100000", "usd"),
        ("USD -12.4", "12.4", "0.1", "usd"),
        ("$(3.10) million", "3100000", "10000", "usd"),
        ("(8.4)%", "8.4", "0.1", "pct"),
        ("150 bps", "1.50", "0.01", "pct"),
        ("1,204", "1204", "1", "count"),
        ("3.41 times", "3.41", "0.01", "x"),
        ("twelve million dollars", "12000000", "1000000", "usd"),
        ("Twelve Million Dollars", "12000000", "1000000", "usd"),
        ("$twelve million", "12000000", "1000000", "usd"),
        ("two point five billion", "2500000000", "100000000", "count"),
        ("one hundred and five", "105", "1", "count"),
        ("five hundred and twelve thousand", "512000", "1000", "count"),
        ("two million, three hundred thousand dollars", "2300000", "1000", "usd"),
        ("twelve thousand five hundred", "12500", "1", "count"),
        ("seven point five per cent", "7.5", "0.1", "pct"),
        ("twenty-five basis points", "0.25", "0.01", "pct"),
        ("seventeen percent", "17", "1", "pct"),
    ],
)
def test_a_figure_says(text: str, magnitude: str, quantum: str, dimension: str) -> None:
    written = read_figure(text)
    assert written is not None
    read = written.currencies[0].lower() if written.currencies else DIMENSIONS[written.kind]
    assert (written.magnitude, written.quantum, read) == (Decimal(magnitude), Decimal(quantum), dimension)


@pytest.mark.parametrize(
    "text",
    ["three times", "one of two", "Twelve months", "one by one", "millions of dollars", "point five"],
)
def test_words_that_count_nothing_of_a_record_are_no_figures(text: str) -> None:
    assert read_figures(text) == []


def test_parentheses_around_a_whole_figure_are_not_of_its_number() -> None:
    (figure,) = read_figures("(0.16x)")
    assert figure.text == "0.16x"
    assert not figure.enclosed


@pytest.mark.parametrize(
    "number", [7, 20, 21, 99, 100, 105, 512, 1200, 999_999, 1_000_001, 12_000_000, 999_999_999_999]
)
def test_a_number_in_words_says_the_number(number: int) -> None:
    figure = read_figure(f"{in_words(number)} dollars")
    assert figure is not None
    assert figure.magnitude == number


def test_zero_in_words() -> None:
    assert in_words(0) == "zero"
