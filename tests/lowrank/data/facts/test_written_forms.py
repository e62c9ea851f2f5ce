"""Reader and writer are inverses: every written form of a fact reads back as a figure that states it."""

import random
from collections.abc import Iterator
from decimal import Decimal

import pytest
from spoken import in_words

from lowrank.data.documents.reading import read_facts
from lowrank.data.facts.currencies import names_of, owners
from lowrank.data.facts.fact import Facts, make_fact
from lowrank.data.facts.figure_matching import Record, Stated
from lowrank.data.facts.figures import read_figures
from lowrank.data.facts.written_forms import written_forms

RECORDS: dict[str, Facts] = {
    "dollars": read_facts("debt: $812.4 million\nfee: $12,000,000\nloss: -$3.1 million\nprice: $1.20", {}),
    "euros": read_facts("Umsatz: 412,5 Mio. €\nGewinn: 1.234.567,89 EUR\nMarge: 41,2 %\nSchuld: 2,5 Mrd. EUR", {}),
    "rupees": read_facts("revenue: ₹412 crore\nprofit: ₹12,34,567\nmargin: 4.5%", {}),
    "francs": read_facts("Ertrag: CHF 1'234.50\nBilanz: CHF 12 million", {}),
    "mixed": read_facts("a: €5.5 million\nb: CAD 7.5 million\nc: £3.25\nd: kr 12 500", {}),
    "percent": read_facts("rate: 7.25%\nspread: 150 bps\nchange in margin: 2.1 percentage points\ncover: 3.41x", {}),
    "counts": read_facts("headcount: 1,204\nterm: 36 months\nshares: 412 million\nnone: 0", {}),
    "yen": read_facts("売上高：4,125億円\n利益：¥12,345", {}),
    "derived": {
        "debt": make_fact("debt", "usd_m", "812.4"),
        "ebitda": make_fact("EBITDA", "usd_m", "238.2"),
        "leverage": make_fact("leverage", "ratio", "3.41", "debt / ebitda"),
    },
}


@pytest.mark.parametrize("name", RECORDS)
def test_every_form_reads_back_as_the_fact_that_it_is_of(name: str) -> None:
    record = Record(RECORDS[name])
    forms = list(written_forms(record))
    assert {form.stated.key for form in forms} == {key for key, fact in RECORDS[name].items() if fact.is_figure}
    rng = random.Random(0)
    for form in forms:
        texts = list(form.texts())
        for text in rng.sample(texts, min(8, len(texts))):
            figures = read_figures(f"It is {text}, so.", record.convention)
            assert [figure.text for figure in figures] == [text]
            assert form.stated.key in record.keys(figures[0], (form.sign or 1,)), (text, figures[0])
            assert figures[0].kind == form.kind


SPOKEN_UNITS = {"percent": " percent", "basis points": " basis points", "points": " percentage points"}
SPOKEN_SCALES = {0: "", 3: " thousand", 6: " million", 9: " billion", 12: " trillion"}


def spoken_forms(record: Record) -> Iterator[tuple[Stated, str]]:
    """The whole values of a record in words: "twelve million dollars", "one hundred and fifty basis points"."""
    for form in written_forms(record):
        whole = next((number for number in form.numbers if number.isdecimal()), None)
        if whole is None or form.exponent not in (*SPOKEN_SCALES, -2) or int(whole) >= 10**12:
            continue
        if form.exponent > 0 and int(whole) >= 1000:
            continue
        scale = SPOKEN_SCALES.get(form.exponent, "")
        if form.kind == "money":
            if form.heads != ("",):
                continue
            names = [name for name in names_of(form.stated.currency) if record.currency(owners()[name]) is not None]
            yield from ((form.stated, f"{in_words(int(whole))}{scale} {name}") for name in names[:2])
        elif form.kind != "multiple":
            yield form.stated, f"{in_words(int(whole))}{scale}{SPOKEN_UNITS.get(form.kind, '')}"


@pytest.mark.parametrize("name", RECORDS)
def test_every_form_in_words_reads_back_too(name: str) -> None:
    record = Record(RECORDS[name])
    for stated, text in spoken_forms(record):
        figures = read_figures(f"It is {text}.", record.convention)
        sign = -1 if stated.value < 0 else 1
        if figures:  # "twelve" alone is no figure
            assert [figure.text for figure in figures] == [text]
            assert stated.key in record.keys(figures[0], (sign,)), text


@pytest.mark.parametrize(
    "type", ["usd", "usd_m", "eur_m", "jpy", "inr", "gbp_m", "pct", "rate", "bps", "points", "ratio", "count"]
)
def test_random_values_read_back_in_every_form(type: str) -> None:
    rng = random.Random(type)
    for _ in range(12):
        size = Decimal(rng.randint(1, 10 ** rng.randint(1, 9))).scaleb(-rng.choice((0, 1, 2)))
        record = Record({"a": make_fact("a", type, size * rng.choice((1, -1)))})
        for form in written_forms(record):
            for text in rng.sample(list(form.texts()), 1):
                (figure,) = read_figures(f"It is {text}.", record.convention)
                assert "a" in record.keys(figure, (form.sign or 1,)), (record.facts["a"], text)
