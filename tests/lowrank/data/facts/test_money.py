"""Money and numbers of the world: what is read, and what is beside a figure makes it another figure."""

from decimal import Decimal

import pytest

from lowrank.data.documents.reading import read_facts
from lowrank.data.facts.fact import Fact, make_fact
from lowrank.data.facts.figure_matching import Record
from lowrank.data.facts.figures import read_figure, read_figures
from lowrank.data.facts.numerals import Convention, convention_of


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("€412.5 million", "EUR", "412500000"),
        ("412,5 Mio. €", "EUR", "412500000"),
        ("412,5 Millionen Euro", "EUR", "412500000"),
        ("5 millions d'euros", "EUR", "5000000"),
        ("€ 1.234,56", "EUR", "1234.56"),
        ("1\u202f234,56\u00a0€", "EUR", "1234.56"),
        ("1.234.567 EUR", "EUR", "1234567"),
        ("CHF 1'234.50", "CHF", "1234.50"),
        ("CHF 1’234.50", "CHF", "1234.50"),
        ("£412", "GBP", "412"),
        ("12.4p", "GBP", "0.124"),
        ("¥412億", "JPY", "41200000000"),
        ("４,１２５億円", "JPY", "412500000000"),
        ("412.5亿元", "CNY", "41250000000"),
        ("₹12,34,567", "INR", "1234567"),
        ("₹412 crore", "INR", "4120000000"),
        ("Rs. 3 lakh", "INR", "300000"),
        ("R$ 5 mi", None, ""),
        ("R$5,2 milhões", "BRL", "5200000"),
        ("kr 12 500", "SEK", "12500"),
        ("zł 5", "PLN", "5"),
        ("$1.2 trillion", "USD", "1200000000000"),
        ("$1.20tn", "USD", "1200000000000"),
        ("US$ 5m", "USD", "5000000"),
        ("$ 5m", "USD", "5000000"),
        ("$5 mln", "USD", "5000000"),
        ("$5MM", "USD", "5000000"),
        ("$5bn", "USD", "5000000000"),
        ("$5 million USD", "USD", "5000000"),
        ("CAD $5m", "CAD", "5000000"),
        ("$5m AUD", "AUD", "5000000"),
        ("EURm 412.5", "EUR", "412500000"),
        ("$5-million", "USD", "5000000"),
        ("a billion dollars", "USD", "1000000000"),
        ("12 cents", "USD", "0.12"),
        ("–€38.9 million", "EUR", "-38900000"),
        ("-€5", "EUR", "-5"),
        ("€-5", "EUR", "-5"),
        ("−5 EUR", "EUR", "-5"),
        ("(€5)", "EUR", "-5"),
        ("€(5)", "EUR", "-5"),
        ("€(12.4)m", "EUR", "-12400000"),
        ("$(5.2m)", "USD", "-5200000"),
        ("$(5.2 million)", "USD", "-5200000"),
        ("$12.50-", "USD", "-12.50"),
        ("1,234.50-", "count", "-1234.50"),
        ("(+5.2%)", "percent", "5.2"),
        ("+€5m", "EUR", "5000000"),
        ("412 T€", "EUR", "412000"),
        ("T€ 412", "EUR", "412000"),
        ("TEUR 412", "EUR", "412000"),
        ("k€ 412", "EUR", "412000"),
        ("M€ 5", "EUR", "5000000"),
        ("5 Md€", "EUR", "5000000000"),
        ("5 Mds €", "EUR", "5000000000"),
        ("5 MSEK", "SEK", "5000000"),
        ("MSEK 5", "SEK", "5000000"),
        ("412 mkr", "SEK", "412000000"),
        ("-38,9 Mkr", "SEK", "-38900000"),
        ("€5T", "EUR", "5000000000000"),
        ("5 млн руб.", "RUB", "5000000"),
        ("412 тыс. руб.", "RUB", "412000"),
        ("412 tys. zł", "PLN", "412000"),
        ("CHF 12'500.-", "CHF", "12500"),
        ("Fr. 12'500.—", "CHF", "12500"),
        ("12.500,- €", "EUR", "12500"),
        ("12 500:- kr", "SEK", "12500"),
        ("₹5 Cr", "INR", "50000000"),
        ("$5 Cr", None, ""),
        ("2 1/2%", "percent", "2.5"),
        ("1 ½ %", "percent", "1.5"),
        ("1/2%", "percent", "0.5"),
        ("$412½ million", "USD", "412500000"),
        ("3⅓%", None, ""),
        ("1/2", None, ""),
        ("412 kt", None, ""),
        ("$412 mil", None, ""),
        ("12,5 %", "percent", "12.5"),
        ("12,5\u00a0%", "percent", "12.5"),
        ("2½%", "percent", "2.5"),
        ("12.5 Prozent", "percent", "12.5"),
        ("2.1 percentage points", "points", "2.1"),
        ("2.1% points", "points", "2.1"),
        ("2.1pp", "points", "2.1"),
        ("150 bps", "basis points", "1.50"),
        ("3.79x", "multiple", "3.79"),
        ("1,204", "count", "1204"),
        ("1 234 567", None, ""),
        ("a million", "count", "1000000"),
        ("1 204", None, ""),
        ("36 months", "count", "36"),
        ("412 full-time employees", "count", "412"),
    ],
)
def test_an_amount_reads_as(text: str, kind: str | None, value: str) -> None:
    figure = read_figure(text)
    if kind is None:
        assert figure is None or figure.kind == "unknown"
        return
    assert figure is not None
    assert (figure.currencies[0] if figure.currencies else figure.kind) == kind
    assert figure.value == Decimal(value)


@pytest.mark.parametrize(
    "text",
    [
        "$412.5 million million", "412 T", "$5 EUR", "412e6", "3.41x10^6", "412°C x", "412nd", "x412", "4²",
        "several million", "a couple of million", "half a billion", "two and a half million",
        "a half million", "three quarters of a million",  "412 hundred", "1.2.3", "$5%", "₿5 USD", "¤5",
    ],
)  # fmt: skip
def test_what_is_not_understood_says_so(text: str) -> None:
    figures = read_figures(text)
    assert any(figure.kind == "unknown" or figure.unit for figure in figures)
    assert Record({"a": make_fact("a", "count", "412"), "b": make_fact("b", "usd", "5")}).wrong(text)


# Facts, a sentence, whether its figures are right. Of B-import-wrongscale, and of its kind.
SENTENCES = [
    ("share price: $1.20", "The group is worth $1.20 trillion.", False),
    ("share price: $1.20", "The group is worth $1.20tn.", False),
    ("share price: $1.20", "A share costs $1.20.", True),
    ("share price: $1.20", "A share costs $1.20 per share, or 120 cents.", True),
    ("share price: $1.20", "A share costs €1.20.", False),
    ("share price: $1.20", "A share costs CAD 1.20.", False),
    ("share price: $1.20", "A share costs 1.20.", False),
    ("headcount: 412", "A bonus of €412 was paid.", False),
    ("headcount: 412", "A bonus of EUR 412 was paid.", False),
    ("headcount: 412", "Revenue was ₹412 crore.", False),
    ("headcount: 412", "Revenue was 412 crore.", False),
    ("headcount: 412", "Revenue was £412.", False),
    ("headcount: 412", "Revenue was 412 trillion.", False),
    ("headcount: 412", "There are 412%.", False),
    ("headcount: 412", "There are 412 basis points.", False),
    ("headcount: 412", "There are 412 shares.", False),
    ("headcount: 412", "There are 412 km.", False),
    ("headcount: 412", "There are 412 months.", False),
    ("headcount: 412", "There are 412 employees.", True),
    ("headcount: 412", "There are 412 full-time staff.", True),
    ("headcount: 412", "A loss of minus 412 people.", False),
    ("headcount: 412", "There are a million.", False),
    ("headcount: 412", "It is worth a billion dollars.", False),
    ("headcount: 412", "There are four hundred and twelve people.", True),
    ("headcount: 412", "There are thirty of them.", False),
    ("headcount: 412", "There are 412.", True),
    ("headcount: 412", "There are ½ of ４１３.", False),
    ("headcount: 412", "There are ４１２.", True),
    ("shares: 412 million", "There are 412 million shares, or 412,000,000.", True),
    ("shares: 412 million", "There are 412 million employees.", False),
    ("net income: $5.2 million", "It made $(5.2m).", False),
    ("net income: -$5.2 million", "It made $(5.2m), $(5.2 million).", True),
    ("net income: -$5.2 million", "It fell by +$5.2 million.", False),
    ("revenue: $412", "Revenue was $412 mil.", False),
    ("revenue: $412", "Revenue was $412 bil this year.", False),
    ("revenue: $412", "Revenue was $412 XYZ.", False),
    ("revenue: $412", "Revenue was XYZ$412.", False),
    ("revenue: $412", "Revenue was k$ 412.", False),
    ("revenue: $412", "Revenue was $412 in May, $412 per UK store, $412 EPS.", True),
    ("revenue: $412", "REVENUE WAS $412 WITH TAX", True),
    ("revenue: EUR 412", "Revenue was T€ 412.", False),
    ("revenue: EUR 412", "Revenue was 412 MEUR.", False),
    ("revenue: EUR 412", "Der Umsatz war 412 € im Jahr, 412 € für uns, 412 € bei der Bank.", True),
    ("revenue: INR 412", "Revenue was ₹412 L.", False),
    ("revenue: RUB 412", "Revenue was ₽412 млн.", False),
    ("emissions: 412", "Emissions were 412 kt CO2e.", False),
    ("emissions: 412", "Emissions were 412 tCO2e.", False),
    ("emissions (kt CO2e): 412", "Emissions were 412 kt CO2e, 412 kt.", True),
    ("emissions (kt CO2e): 412", "Emissions were 412 Mt CO2e.", False),
    ("emissions: 412 kt CO2e", "Emissions were 412 kt CO2e.", True),
    ("emissions: 412 kt CO2e", "Emissions were 412 Mt CO2e.", False),
    ("capacity: 412 MW", "It has 412 MW, 412 megawatts.", True),
    ("capacity: 412 MW", "It has 412 GW.", False),
    ("capacity: 412 MW", "It has 412 MWh.", False),
    ("temperature: 37 °C", "It is 37 °F.", False),
    ("profit: $3 million", "They lost $3 million.", False),
    ("profit: -$3 million", "They lost $3 million.", True),
    ("net loss: $3 million", "They lost $3 million.", True),
    ("Gewinn: 3 Mio. €", "Der Verlust betrug 3 Mio. €.", False),
    ("Gewinn: -3 Mio. €", "Ein Verlust von 3 Mio. €.", True),
    ("Verlust: 3 Mio. €", "Der Verlust betrug 3 Mio. €.", True),
    ("売上高: 412億円", "売上高は412億円でした。売上高は41,200百万円でした。", True),
    ("売上高: 412億円", "売上高は412万円でした。", False),
    ("매출: 5조원", "매출은 5조원이다.", True),
    ("value: -$3 million", "It was written down by $3 million.", True),
    ("value: -$3 million", "It is down $3 million, and fell to $3 million.", True),
    ("value: -$3 million", "It is written down in the agreement as $3 million.", False),
    ("value: -$3 million", "The agreement lays down a value of $3 million.", False),
    ("value: -$3 million", "They set it down as $3 million.", False),
    ("value: -$3 million", "Instalments fall due, of $3 million.", False),
    ("value: -$3 million", "As shown below, it is $3 million.", False),
    ("value: -$3 million", "A short-term value of $3 million, shortly.", False),
    ("rate: 2%", "The rate is 2 1/2%.", False),
    ("rate: 0.5%", "The rate is 1 ½%.", False),
    ("rate: 1.5%", "The rate is 1 ½%, 1 1/2%.", True),
    ("board: 4", "3/4 of the board and ⅔ of us agreed.", False),
    ("rate: 5%", "The rate is ±5%.", False),
    ("rate: 5%", "The rate is +/-5%.", False),
    ("rate: -5%", "The rate is +/-5%.", False),
    ("rate: 5%", "The rate is +5%.", True),
    ("preis: CHF 12'500", "Der Preis ist CHF 12'500.-, 12'500.- Franken.", True),
    ("preis: €12.50", "Der Preis ist 12.500,- €.", False),
    ("term: 36 months", "A 36-month term, 36 months in all.", True),
    ("term: 36 months", "A term of 36 years.", False),
    ("revenue: $412.5 million", "Revenue was $412.5 million million.", False),
    ("revenue: $412.5 million", "Revenue was $412,500 thousand.", True),
    ("revenue: $412.5 million", "Revenue was US$0.4125bn.", True),
    ("revenue: €412.5 million", "Revenue was -€412.5 million.", False),
    ("revenue: €412.5 million", "Revenue was (€412.5 million).", False),
    ("revenue: €412.5 million", "Revenue (€412.5 million) grew.", True),
    ("revenue: €412.5 million", "Revenue was €412.5 million.", True),
    ("revenue: €412.5 million", "Revenue was 412.5 million euros.", True),
    ("revenue: €412.5 million", "Revenue was EUR 412.5m.", True),
    ("revenue: €412.5 million", "Revenue was $412.5 million.", False),
    ("revenue: €412.5 million", "Revenue was a loss of €412.5 million.", False),
    ("net loss: €38.9 million", "The net loss of €38.9 million grew.", True),
    ("net income: -€38.9 million", "A loss of €38.9 million was made.", True),
    ("net income: (€38.9 million)", "A loss of €38.9 million was made.", True),
    ("net income: –$38.9 million", "It lost: –$38.9 million, −$38.9 million, -$38.9 million.", True),
    ("margin: 41.2%", "The margin was 41.2% points higher.", False),
    ("margin: 41.2%", "The margin was 41.2 percentage points.", False),
    ("margin: 41,2 %", "The margin was 41.2%, 41,2 % and 4.120 basis points.", True),
    ("margin change: 2.1%", "It rose by 2.1 percentage points.", True),
    ("ratio: 3.41x", "The ratio was 3.41x10^6.", False),
    ("ratio: 3.41x", "The ratio was 3.41 times, 3.41x.", True),
    ("closing date: 31/03/2025", "It closed on 31 March 2025, on March 31, 2025 and 2025-03-31.", True),
    ("closing date: 31/03/2025", "It closed on 30 March 2025.", False),
    ("closing date: 2025-03-31", "It closed on 31.03.2025 and 31-Mar-25.", True),
    ("period: Q3 2024", "In the third quarter of 2024, Q3\u00a02024 and 3Q24.", True),
    ("period: Q3 2024", "In the second quarter of 2024.", False),
    ("revenue: CAD 5 million", "Revenue was $5 million, C$5m.", True),
    ("revenue: CAD 5 million\nprice: US$1.20", "Revenue was $5 million.", False),
    ("Umsatz: 1.234,5 Mio. €\nGewinn: 1.234 €", "Der Gewinn war 1.234 €, 1234 EUR.", True),
    ("Umsatz: 1.234,5 Mio. €\nGewinn: 1.234 €", "Der Gewinn war 1,234 €.", False),
]  # fmt: skip


@pytest.mark.parametrize(("record", "text", "is_right"), SENTENCES)
def test_a_figure_states_a_fact_or_not(record: str, text: str, is_right: bool) -> None:
    wrong = Record(read_facts(record, {})).wrong(text)
    assert (not wrong) == is_right, [text[start:end] for start, end in wrong]


def test_a_convention_is_told_by_the_other_figures() -> None:
    assert convention_of(["12,5 %", "1.234"]) == Convention(",", settled=True)
    assert convention_of(["12.5%", "1.234"]) == Convention(".", settled=True)
    assert convention_of(["1.234"]) == Convention(".")
    assert convention_of(["1.234.567"]).decimal == ","
    assert Convention.of_locale("de-CH").decimal == "."
    with pytest.raises(ValueError, match="locale: must be one of CLDR's"):
        Convention.of_locale("xx")


def test_a_number_in_doubt_is_told() -> None:
    (figure,) = read_figures("1.234")
    assert figure.in_doubt and figure.magnitude == Decimal("1.234")
    (figure,) = read_figures("1.234", Convention(",", settled=True))
    assert not figure.in_doubt and figure.magnitude == 1234


def test_endless_digits_are_not_understood() -> None:
    (figure,) = read_figures(f"${'9' * 80}")
    assert figure.kind == "unknown"
    assert isinstance(read_facts(f"revenue: ${'9' * 80}", {})["revenue"], Fact)
    assert read_facts(f"revenue: ${'9' * 80}", {})["revenue"].type == "text"
