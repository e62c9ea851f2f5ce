"""The checker: gold scores one, and each way of being wrong lowers exactly the share it should."""

import itertools
import random
from dataclasses import replace
from decimal import Decimal

import pytest

from lowrank.data.documents.document import Entry, make_documents, make_entry
from lowrank.data.documents.kind import STYLES
from lowrank.data.documents.kinds import KINDS
from lowrank.data.documents.names import NAMES
from lowrank.data.facts.fact import Fact, make_fact, print_value, render_input
from lowrank.eval.metrics.faithfulness import Check, check

SECTIONS = ("Certification", "Calculation", "Conclusion")
FACTS = {
    "company": make_fact("company", "name", "Tarvane Foods Inc."),
    "period": make_fact("period", "period", "Q3 2024"),
    "test_date": make_fact("test date", "date", "2025-03-31"),
    "total_debt": make_fact("total debt", "usd_m", "812.4"),
    "ebitda": make_fact("EBITDA", "usd_m", "238.2"),
    "leverage": make_fact("leverage", "ratio", "3.41", "total_debt / ebitda"),
    "max_leverage": make_fact("limit", "ratio", "3.25"),
    "headroom": make_fact("headroom", "ratio", "-0.16", "max_leverage - leverage"),
    "rate": make_fact("interest rate", "pct", "7.5"),
}
GOLD = """# Covenant Compliance Certificate

## Certification
Tarvane Foods Inc. certifies this test as of 31 March 2025 for Q3 2024.

## Calculation
Total debt was $812.4 million and EBITDA $238.2 million, so leverage was 3.41x. The interest rate is 7.5%.

## Conclusion
The limit is 3.25x, giving negative headroom of -0.16x.
"""


def entry_of(facts: dict[str, Fact]) -> Entry:
    return replace(
        make_entry("covenant_certificate", 0, seed=0, split="train"),
        facts=facts,
        required_sections=SECTIONS,
        input=render_input(facts),
        output=GOLD,
    )


ENTRY = entry_of(FACTS)


def shares(result: Check) -> tuple[float, float, float, float]:
    return result.sections, result.precision, result.recall, result.binding


def line(text: str) -> Check:
    """The check of one sentence against the record."""
    return check(ENTRY, text)


def swap(text: str, one: tuple[int, int], other: tuple[int, int]) -> str:
    """The text with two spans exchanged."""
    (a, b), (c, d) = one, other
    return text[:a] + text[c:d] + text[b:c] + text[a:b] + text[d:]


@pytest.mark.long
@pytest.mark.parametrize("split", NAMES)
def test_gold_scores_one(split: str) -> None:
    for entry in make_documents(300, seed=13, split=split):
        result = check(entry, entry.output)
        assert shares(result) == (1.0, 1.0, 1.0, 1.0), entry.id
        assert all(figure.right and figure.bound for figure in result.figures)
        assert {figure.fact for figure in result.figures} == {
            key for key, fact in entry.facts.items() if fact.is_figure
        }


@pytest.mark.slow
@pytest.mark.parametrize("style", STYLES)
def test_every_wording_scores_one(style: str) -> None:
    for entry in make_documents(10, seed=13, split="corpus"):
        for seed in range(60):
            document = KINDS[entry.kind].write(entry.facts, random.Random(seed), style=style, unseen=True)
            assert shares(check(entry, document)) == (1.0, 1.0, 1.0, 1.0), document


def test_figures_point_into_the_text() -> None:
    figures = check(ENTRY, GOLD).figures
    assert [figure.text for figure in figures] == [
        "$812.4 million", "$238.2 million", "3.41x", "7.5%", "3.25x", "-0.16x",
    ]  # fmt: skip
    assert [GOLD[figure.start : figure.end] for figure in figures] == [figure.text for figure in figures]
    assert [figure.fact for figure in figures] == [
        "total_debt", "ebitda", "leverage", "rate", "max_leverage", "headroom",
    ]  # fmt: skip
    assert figures[0].value == Decimal(812_400_000)
    assert figures[-1].value == Decimal("-0.16")


@pytest.mark.slow
def test_any_two_figures_exchanged_keep_precision_and_lose_binding() -> None:
    for entry in make_documents(40, seed=17, split="test"):
        figures = check(entry, entry.output).figures
        values = [figure.value for figure in figures]
        for one, other in itertools.combinations(figures, 2):
            if values.count(one.value) == values.count(other.value) == 1:
                result = check(entry, swap(entry.output, (one.start, one.end), (other.start, other.end)))
                assert result.precision == result.recall == 1.0
                assert result.binding <= 1.0 - 2 / len(figures) + 1e-9, f"{entry.id} {one.text} {other.text}"


@pytest.mark.long
def test_a_changed_digit_is_wrong_99_times_of_100() -> None:
    rng, tried, missed = random.Random(0), 0, 0
    for entry in make_documents(200, seed=19, split="validation"):
        for figure in check(entry, entry.output).figures:
            place = rng.choice([i for i in range(figure.start, figure.end) if entry.output[i].isdigit()])
            digit = rng.choice([digit for digit in "0123456789" if digit != entry.output[place]])
            text = entry.output[:place] + digit + entry.output[place + 1 :]
            tried += 1
            missed += check(entry, text).precision == 1.0
    assert tried > 1000
    assert missed <= 0.01 * tried


@pytest.mark.slow
def test_a_random_figure_is_wrong_99_times_of_100() -> None:
    rng, types = random.Random(0), ("usd", "usd_m", "pct", "rate", "bps", "ratio", "count")
    tried, missed = 0, 0
    for entry in make_documents(100, seed=23, split="test"):
        for type in types:
            decimals = 0 if type in ("bps", "count") else 2 if type in ("usd", "rate", "ratio") else 1
            value = str(Decimal(rng.randint(10, 99_999)).scaleb(-decimals))
            tried += 1
            missed += check(entry, f"{entry.output}The figure is {print_value(type, value)}.").precision == 1.0
    assert missed <= 0.01 * tried


@pytest.mark.parametrize(
    ("text", "share"),
    [
        (GOLD.replace("## Conclusion", "Conclusion"), 2 / 3),
        (
            GOLD.replace("Total debt was", "## Empty\nTotal debt was").replace("## Calculation", "## Calculation\n"),
            2 / 3,
        ),
        (GOLD.replace("Certification", "X").replace("Calculation", "Certification").replace("X", "Calculation"), 2 / 3),
        (GOLD.replace("## Calculation", "### 2. CALCULATION:"), 1.0),
        (GOLD.replace("## Calculation", "## **Calculation**"), 1.0),
        ("", 0.0),
    ],
    ids=["missing", "empty", "wrong-order", "numbered", "bold", "nothing"],
)
def test_sections(text: str, share: float) -> None:
    assert check(ENTRY, text).sections == pytest.approx(share)


@pytest.mark.parametrize(
    "text",
    [
        "Total debt was $812.4 million.",
        "Total debt was $812,400,000.",
        "Total debt was $812.4m.",
        "Total debt was $0.8124 billion.",
        "Total debt was $0.81 billion.",
        "Total debt was $812 million.",
        "Total debt was 812.4 million dollars.",
        "Total debt was $812.4M.",
        "Total debt was US$812.4 million.",
        "Total debt was USD 812.4 million.",
        "Borrowings were USD 812,400,000.",
        "| Total debt | **$812.4 million** |",
        "$812.4 million of total debt is outstanding.",
        "The interest rate was 7.5 percent.",
        "The interest rate was 7.5 per cent.",
        "The interest rate was 7.5 %.",
        "The interest rate was 750 bp.",
        "The interest rate was 7.50%.",
        "The interest rate was 750 bps.",
        "The interest rate was 750 basis points.",
        "Leverage was 3.41 times.",
        "Gearing was 3.41 x.",
        "Leverage was 3.411x.",
        "Leverage was 3.4x.",
        "Headroom was (0.16x).",
        "Headroom was −0.16x.",
        "Headroom was short by 0.16x.",
        "2. Leverage was 3.41x on 31 March 2025, the end of q3 2024.",
    ],
)
def test_right_ways_to_print(text: str) -> None:
    result = line(text)
    assert [(figure.right, figure.bound) for figure in result.figures] == [(True, True)]
    assert result.recall == result.binding == pytest.approx(1 / 6)


@pytest.mark.parametrize(
    "text",
    [
        "Total debt was $812.4.",
        "Total debt was $812.4 billion.",
        "Total debt was 812.4 million.",
        "Total debt was $812.43 million.",
        "Total debt was $813 million.",
        "Total debt was USD -812.4 million.",
        "Total debt was -USD 812.4 million.",
        "Total debt was USD 812.4.",
        "Total debt was $0.8 billion.",
        "Total debt was -$812.4 million.",
        "The interest rate was 7.5x.",
        "The interest rate was 8%.",
        "Leverage was 3.42x.",
        "Leverage was 3.412x.",
        "Headroom was 0.16x.",
        "As of 2025.",
        "As of Q3.",
        "On 1 March.",
        "There were 4 lenders.",
    ],
)
def test_wrong_figures(text: str) -> None:
    result = line(text)
    assert [(figure.right, figure.bound, figure.fact) for figure in result.figures] == [(False, False, None)]
    assert (result.precision, result.recall, result.binding) == (0.0, 0.0, 0.0)


def test_an_invented_date_is_wrong_though_it_contains_a_known_one() -> None:
    result = line("On 131 March 2025 and 31 March 20255.")
    assert not any(figure.right for figure in result.figures)
    assert len(result.figures) == 4


def test_a_name_with_a_period_does_not_end_a_sentence() -> None:
    assert line("Total debt of Tarvane Foods Inc. was $812.4 million.").figures[0].bound
    assert not line("Total debt. It was $812.4 million.").figures[0].bound


def test_the_last_phrase_before_a_figure_is_its_label() -> None:
    result = line("Total debt and EBITDA were $812.4 million and $238.2 million.")
    assert [(figure.right, figure.bound) for figure in result.figures] == [(True, False), (True, True)]
    assert result.binding == pytest.approx(1 / 6)


def test_a_fact_is_bound_only_if_every_mention_is() -> None:
    both = line("Total debt is $812.4 million. EBITDA is $812.4 million.")
    assert both.precision == 1.0
    assert both.binding == 0.0


def test_equal_figures_go_to_the_label_they_stand_under() -> None:
    twins = entry_of(FACTS | {"ebitda": make_fact("EBITDA", "usd_m", "812.4")})
    figures = check(twins, "EBITDA is $812.4 million and total debt $812.4 million.").figures
    assert [(figure.fact, figure.bound) for figure in figures] == [("ebitda", True), ("total_debt", True)]


def test_a_text_without_figures() -> None:
    silent = check(ENTRY, "## Certification\nAll is well.")
    assert (silent.precision, silent.recall, silent.binding, silent.figures) == (None, 0.0, 0.0, ())
    free = check(entry_of({"company": FACTS["company"]}), "All is well.")
    assert (free.precision, free.recall, free.binding) == (None, None, None)
    assert check(entry_of({"company": FACTS["company"]}), "All 7 are well.").precision == 0.0


def test_an_optional_fact_may_be_left_out() -> None:
    optional = entry_of(FACTS | {"rate": replace(FACTS["rate"], required=False)})
    result = check(optional, GOLD.replace(" The interest rate is 7.5%.", ""))
    assert shares(result) == (1.0, 1.0, 1.0, 1.0)


def test_a_kind_of_ones_own_is_checked_by_its_labels() -> None:
    assert shares(check(replace(ENTRY, kind="poem"), GOLD)) == (1.0, 1.0, 1.0, 1.0)


def test_endless_digits_are_a_wrong_figure() -> None:
    result = line(f"Total debt was ${'8' * 5000}.{'1' * 5000} billion.")
    assert [figure.right for figure in result.figures] == [False]


def test_a_label_that_is_there_twice_binds_both_its_figures() -> None:
    twice = entry_of({"a": make_fact("revenue", "usd_m", "5.0"), "b": make_fact("revenue", "usd_m", "6.0")})
    assert all(
        figure.bound for figure in check(twice, "Revenue was $5.0 million, then revenue was $6.0 million.").figures
    )


@pytest.mark.parametrize(
    ("text", "bound"),
    [
        ("Revenue 2024 was $5.0 million.", [True]),
        ("Revenue 2024 was $6.0 million.", [False]),
        ("Revenue in 2023 was $6.0 million.", [True]),
        ("In 2023, revenue was $5.0 million.", [False]),
        ("Revenue was $5.0 million in 2024, against $6.0 million in 2023.", [True, True]),
        ("Revenue 2024 was $5.0 million, against $6.0 million in 2023.", [True, True]),
        ("Revenue was $5.0 million.", [False]),
    ],
)
def test_of_labels_that_differ_in_their_period_the_sentence_says_which(text: str, bound: list[bool]) -> None:
    years = entry_of({"a": make_fact("revenue 2024", "usd_m", "5.0"), "b": make_fact("revenue 2023", "usd_m", "6.0")})
    figures = check(years, text).figures
    assert [figure.bound for figure in figures] == bound and all(figure.right for figure in figures)


def test_a_year_of_the_record_is_no_part_of_a_number() -> None:
    years = entry_of({"a": make_fact("year", "text", "2024"), "b": make_fact("revenue 2023", "usd", "7")})
    figures = check(years, "In 2024: 2024.50 bps, $1.2023 and 2,023.").figures
    assert [figure.text for figure in figures] == ["2024.50 bps", "$1.2023", "2,023"]


@pytest.mark.parametrize(
    ("label", "text"),
    [("Maßnahmen", "Maßnahmen: 400."), ("MASSNAHMEN", "Massnahmen: 400."), ("ısı", "ISI: 400."), ("İş", "İş: 400.")],
)
def test_a_name_is_found_in_any_case_and_script(label: str, text: str) -> None:
    (figure,) = check(entry_of({"a": make_fact(label, "count", "400")}), text).figures
    assert figure.bound


def test_a_number_in_a_label_is_no_figure() -> None:
    index = entry_of({"a": make_fact("S&P 500 level", "count", "4000")})
    assert [figure.text for figure in check(index, "The S&P 500 level is 4,000 of 500.").figures] == ["4,000", "500"]


def test_a_long_label_binds_without_what_is_set_apart_in_it() -> None:
    label = "Net cash provided by (used in) operating activities, continuing operations"
    (figure,) = check(
        entry_of({"a": make_fact(label, "usd_m", "12.3")}),
        "Net cash provided by operating activities was $12.3 million.",
    ).figures
    assert figure.bound


def test_what_is_not_understood_is_counted_and_not_right() -> None:
    result = line("Total debt was $812.4 million million, and several million more.")
    assert [figure.right for figure in result.figures] == [False, False]
    assert result.not_understood == 2
    assert result.precision == 0.0
