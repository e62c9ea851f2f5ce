"""A cell of a spreadsheet is what it shows; what each format shows was worked out by Excel's rules, by hand."""

import datetime
from types import SimpleNamespace

import pytest

from lowrank.data.documents.cell_format import shown


@pytest.mark.parametrize(
    ("value", "format", "text"),
    [
        (412.5, "General", "412.5"),
        (412.5, "0", "413"),  # half up, as spreadsheets round
        (-1.25, "0.0_);(0.0)", "-1.3"),
        (0.125, "0%", "13%"),
        (0.125, "0.0%", "12.5%"),
        (12.5, '0.0"%"', "12.5%"),  # a per cent sign in quotes multiplies nothing
        (12.5, "0.0\\%", "12.5%"),
        (0.125, "0.0 %", "12.5 %"),
        (0.125, "+0.0%;-0.0%", "+12.5%"),
        (1234567, "#,##0", "1,234,567"),
        (1234.5, "0.00", "1234.50"),
        (2024, "0", "2024"),
        (1234, "000000", "001234"),
        (12.5, "#.##", "12.5"),
        (12, "0.##", "12"),
        (1234567, "#,##0,", "1,235"),
        (412500000, '0.0,,"M"', "412.5M"),
        (412500000, '"EUR "#,##0.0,,"m"', "EUR 412.5m"),
        (412500000, '[>=1000000]0.0,,"M";0', "412.5M"),
        (412, '[>=1000000]0.0,,"M";0', "412"),
        (5.2, '"USD m "0.0', "USD m 5.2"),
        (412, '#,##0 "kt CO2e"', "412 kt CO2e"),
        (412.5, '0.0 "Mio. €"', "412.5 Mio. €"),
        (2.5, "0.00x", "2.50x"),
        (150, '0" bps"', "150 bps"),
        (-1234, '"$"#,##0_);("$"#,##0)', "-$1,234"),
        (-1234.5, '_-* #,##0.00\\ "€"_-;\\-* #,##0.00\\ "€"_-', "-1,234.50 €"),
        (1234.5, "[$€-407]#,##0.00", "€1,234.50"),
        (12.5, "[$CHF] #,##0.00", "CHF 12.50"),
        (5, "#,##0 kr", "5 kr"),
        (-0.001, "0.00", "0.00"),
        (412500000, "0.0E+00", "412500000"),
        (1.5, "# ?/?", "1.5"),
        (1234567, "##\\,##\\,##0", "1234567"),
        (0, '0;-0;"-"', "0"),
        (None, "0", ""),
        (True, "0", "True"),
        ("two\nlines", "@", "two lines"),
        (datetime.date(2025, 3, 31), "dd/mm/yyyy", "2025-03-31"),
        (datetime.datetime(2025, 3, 31, 14, 5), "dd/mm/yyyy hh:mm", "2025-03-31"),
        (datetime.datetime(2025, 3, 1), "mmm-yy", "Mar 2025"),
        (datetime.datetime(2025, 1, 1), "yyyy", "2025"),
    ],
)
def test_a_cell_shows_its_value_by_its_format(value: object, format: str, text: str) -> None:
    assert shown(SimpleNamespace(value=value, number_format=format)) == text
