"""The grammar of formulas and conditions, by hand-computed cases."""

import re
from decimal import Decimal, localcontext

import pytest

from lowrank.data.facts.fact import evaluate, make_fact, round_half_up
from lowrank.data.facts.formula import parse, parse_condition

VALUES = {"a": Decimal(2), "b": Decimal(3), "c": Decimal(4), "rate": Decimal("0.5"), "opinion": "adverse"}
TYPES = {key: type(value) for key, value in VALUES.items()}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a + b * c", 14),
        ("(a + b) * c", 20),
        ("a * b + c", 10),
        ("a - b - c", -5),
        ("a - (b - c)", 3),
        ("c / a / a", 1),
        ("c / (a / a)", 4),
        ("c / a * a", 4),
        ("b / c", "0.75"),
        ("100 * (b / a - 1)", 50),
        ("-a + b", 1),
        ("-a * b", -6),
        ("a * -b", -6),
        ("a - -b", 5),
        ("--a", 2),
        ("-(a + b)", -5),
        ("a*b", 6),
        ("  a\t*\nb ", 6),
        ("((((a))))", 2),
        ("rate * 10", 5),
        ("007", 7),
    ],
)
def test_a_formula_has_the_precedence_of_arithmetic(text: str, value: int | str) -> None:
    assert parse(text).type(TYPES) is Decimal
    assert parse(text).evaluate(VALUES) == Decimal(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a < b", True),
        ("b <= b", True),
        ("b > b", False),
        ("b >= b", True),
        ("a + 1 == b", True),
        ("a != b - 1", False),
        ("b >= 2.50", True),
        ("rate < 0.5", False),
        ("a > -0.5", True),
        ("opinion == 'adverse'", True),
        ("opinion != 'unqualified'", True),
        ("opinion == 'and or'", False),
        ("a > b or b > a and c > b", True),
        ("b > a or b > a and a > b", True),  # and binds tighter: true or (true and false)
        ("(b > a or b > a) and a > b", False),
        ("a > b and c > b or b > a", True),
        ("a + b > c and a * b > c + 1", True),
    ],
)
def test_a_condition_compares_before_and_before_or(text: str, value: bool) -> None:
    assert parse_condition(text).type(TYPES) is bool
    assert parse_condition(text).evaluate(VALUES) is value


def test_a_division_has_60_digits_and_rounds_the_last_half_up() -> None:
    third = parse("2 / 3").evaluate({})
    assert str(third) == "0." + "6" * 59 + "7"
    with localcontext() as context:
        context.prec = 2
        assert parse("2 / 3").evaluate({}) == third


@pytest.mark.parametrize(
    ("debt", "ebitda", "type", "printed"),
    [
        ("68.1", "20.0", "ratio", "3.41x"),  # 3.405
        ("-68.1", "20.0", "ratio", "-3.41x"),
        ("68.0", "20.0", "ratio", "3.40x"),
        ("1.0", "8.0", "pct", "0.1%"),  # 0.125
        ("-0.2", "5.0", "pct", "0.0%"),  # -0.04
        ("5.0", "2.0", "count", "3"),
    ],
)
def test_a_derived_figure_is_rounded_half_up_to_the_decimals_of_its_type(
    debt: str, ebitda: str, type: str, printed: str
) -> None:
    facts = {"debt": make_fact("debt", "usd_m", debt), "ebitda": make_fact("EBITDA", "usd_m", ebitda)}
    assert make_fact("leverage", type, evaluate("debt / ebitda", facts)).print == printed


def test_no_step_of_a_formula_is_rounded() -> None:
    assert round_half_up(evaluate("10 / 3 * 3", {}), 2) == Decimal("10.00")
    assert evaluate("(1 / 8) * 8", {}) == 1


def test_keys_are_listed_once_in_order() -> None:
    assert parse("b * a + b / 100").keys == ("b", "a")
    assert parse_condition("opinion == 'a' and b > a").keys == ("opinion", "b", "a")
    assert parse("société + sales_2").keys == ("société", "sales_2")


def test_words_of_conditions_are_keys_in_a_formula() -> None:
    assert parse("and + or").evaluate({"and": Decimal(1), "or": Decimal(2)}) == 3


@pytest.mark.parametrize(
    ("text", "token"),
    [
        ("a ** b", "'*'"),
        ("a b", "'b'"),
        ("2 a", "'a'"),
        ("a // b", "'/'"),
        ("a % b", "'%'"),
        ("a > b", "'>'"),
        ("f(a)", "'('"),
        ("a.b", "'.'"),
        ("a[0]", "'['"),
        ("1.5 * a", "'1.5'"),
        ("1e5", "'e5'"),
        ("1_000", "'_000'"),
        ("0x10", "'x10'"),
        ("+a", "'+'"),
        ("a + * b", "'*'"),
        ("a)", "')'"),
        ("()", "')'"),
        ("lambda: a", "':'"),
        ("a if b else c", "'if'"),
        ("'text'", "\"'text'\""),
        ("a; b", "';'"),
    ],
)
def test_what_is_no_arithmetic_is_refused(text: str, token: str) -> None:
    with pytest.raises(
        ValueError, match=rf"^formula .*: {re.escape(token)} is neither arithmetic nor a figure"
    ) as error:
        parse(text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", " ", "a +", "(a", "((a + b)", "-", "a * (", "a -"])
def test_a_formula_that_is_not_finished_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"must be arithmetic over keys of the record"):
        parse(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("profit > a", "unknown key 'profit'; known: a, b"),
        ("a + opinion > b", "'\\+' cannot take a number and a text"),
        ("opinion < 'b'", "'<' cannot take a text and a text"),
        ("opinion == a", "'==' cannot take a text and a number"),
        ("a < b < c", "'<' cannot take a condition and a number"),
        ("a and b", "'and' cannot take a number and a number"),
        ("(a > b) == (b > a)", "'==' cannot take a condition and a condition"),
        ("-opinion == a", "'unary -' cannot take a text"),
    ],
)
def test_a_condition_on_values_that_do_not_fit_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=rf"^condition .*: {message}"):
        parse_condition(text).type(TYPES)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a / (b - b)", "divides by zero"),
        ("(b - b) / (a - a)", "divides by zero"),
        ("profit * a", "'profit' is neither arithmetic nor a figure of the record"),
    ],
)
def test_a_value_that_there_is_not_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=rf"^formula .*: {message}"):
        parse(text).evaluate(VALUES)


def test_a_number_that_is_too_large_is_refused() -> None:
    with pytest.raises(ValueError, match="the result is too large"):
        parse("a * a").evaluate({"a": Decimal("1e600000")})


def test_length_and_depth_of_a_formula_have_no_limit() -> None:
    assert parse(" + ".join(["a"] * 20_000)).evaluate(VALUES) == 40_000
    assert parse("(" * 20_000 + "a" + ")" * 20_000).evaluate(VALUES) == 2
