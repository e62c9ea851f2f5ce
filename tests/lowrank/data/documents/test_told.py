"""Records tell what they could not read, or read by a guess: units in labels, amounts kept as text, dates, decimals."""

from decimal import Decimal

import pytest

from lowrank.data.documents.amounts import looks_like_amount
from lowrank.data.documents.reading import read_record


@pytest.mark.parametrize(
    ("line", "type", "value", "printed"),
    [
        ("Revenue (T€): 412", "eur", "412000", "€412 thousand"),
        ("Revenue (TEUR): 412", "eur", "412000", "EUR 412 thousand"),
        ("Revenue (MSEK): 5", "sek_m", "5", "SEK 5 million"),
        ("Revenue (USD '000): 5", "usd", "5000", "USD 5 thousand"),
        ("Revenue (US$ '000s): 5", "usd", "5000", "US$5 thousand"),
        ("Revenue EUR million: 5", "eur_m", "5", "EUR 5 million"),
        ("Revenue €m: 5", "eur_m", "5", "€5 million"),
        ("Revenue, in millions of euros: 5", "eur_m", "5", "EUR 5 million"),
        ("Revenue - $m: 5", "usd_m", "5", "$5 million"),
        ("Revenue (USD m): 5.2-", "usd_m", "-5.2", "-USD 5.2 million"),
        ("Price (p): 120", "gbp", "1.20", "120p"),
        ("Other ($m): ($5.2)", "usd_m", "-5.2", "($5.2 million)"),
    ],
)
def test_a_label_gives_its_unit(line: str, type: str, value: str, printed: str) -> None:
    (fact,) = read_record(line, {}).facts.values()
    assert (fact.type, fact.number, fact.print) == (type, Decimal(value), printed)
    assert fact.label in ("Revenue", "Price", "Other")


# A line, and what is told of it.
TOLD = [
    ("Other ($m): $5.2", "line 1: '$5.2' is read as $5.2 million, as its label says"),
    ("Other ($m): €5.2", "line 1: '€5.2' is not in $m, as its label says"),
    ("Other ($m): 5.2k", "line 1: '5.2k' has a scale of its own beside $m, as its label says"),
    ("Price (USD per t): 120", "line 1: '120' is read as a plain number: 'USD per t' is not understood"),
    ("Rate (% p.a.): 5", "line 1: '5' is read as a plain number: '% p.a.' is not understood"),
    ("term: 36M", "line 1: '36M' is read as the number 36,000,000"),
    ("balance: 5 CR", "line 1: '5 CR' is read as the number 50,000,000"),
    ("shipped: 20240304", "line 1: '20240304' is read as the number 20,240,304"),
    ("closing: 31/04/2025", "line 1: '31/04/2025' (closing) is kept as text: no day of the calendar"),
    ("emissions: 412 kt CO2e", "line 1: '412 kt CO2e' (emissions) is kept as text"),
    ("price: $5¹", "line 1: '$5¹' (price) is kept as text: letters behind a number"),
    ("profit: #REF!", "line 1: '#REF!' (profit) is kept as text"),
    ("count: 5 million (2023: 4 million)", "line 1: '5 million (2023: 4 million)' (count) is kept as text"),
    ("preis: 5,000 €", "line 1: '5,000 €' is read as 5000: '.' is the decimal sign"),
    ("a: 1.234,56 €\nb: $1,234.56\nc: 2.345,6\nd: 1.234", "line 4: '1.234' is read as 1234: ',' is the decimal sign"),
    ("a: 1.234,56 €\nb: $1,234.56\nc: 2,345.6\nd: 1,234", "line 4: '1,234' is read as 1234: '.' is the decimal sign"),
]


@pytest.mark.parametrize(("text", "told"), TOLD, ids=[text.replace("\n", " | ") for text, _ in TOLD])
def test_what_is_not_plain_is_told(text: str, told: str) -> None:
    assert told in map(str, read_record(text, {}).notes)


@pytest.mark.parametrize(
    "line",
    ["revenue: $412.5 million", "count: 1,204", "closing: 2024-03-31T00:00:00Z", "closing date: 20240331",
     "Revenue (EUR million): 412.5", "note: 12 High Street", "time: 12:30", "account: 0012", "outlook: 4 March",
     "year: 2024-25", "code: ABC 123", "term: 36 months"],
)  # fmt: skip
def test_of_what_is_plain_nothing_is_told(line: str) -> None:
    assert not read_record(line, {}).notes


@pytest.mark.parametrize("text", ["2024-03-31T00:00:00Z", "2024-03-31 00:00:00", "31/03/2024 00:00", "20240331"])
def test_an_exported_date_is_a_date(text: str) -> None:
    (fact,) = read_record(f"closing date: {text}", {}).facts.values()
    assert (fact.type, fact.value, fact.print) == ("date", "2024-03-31", text)


def test_amounts_are_told_from_other_texts_with_digits() -> None:
    amounts = ["412 kt CO2e", "12 ktCO2e", "5 km²", "2.5:1", "1 in 5", "about 400 stores", "1e6", "3⅓%", "5-7%", "#N/A"]
    others = ["12:30", "4 March", "Mar-24", "0012", "A-1234", "5th", "FY24E", "S&P 500", "12 High Street", "new stores"]
    assert [text for text in amounts if not looks_like_amount(text)] == []
    assert [text for text in others if looks_like_amount(text)] == []
