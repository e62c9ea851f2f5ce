"""The committed tables are what the script makes of CLDR."""

import importlib.util
from pathlib import Path

import pytest

from lowrank.data.facts.currencies import FOLDER, currencies, locales, months, owners


@pytest.mark.slow
def test_the_tables_are_what_babel_gives(golden: Path) -> None:
    spec = importlib.util.spec_from_file_location("make_cldr_tables", golden / "make_cldr_tables.py")
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    for name, text in script.tables().items():
        assert (FOLDER / name).read_text(encoding="utf-8") == text, name


def test_a_sign_stands_for_its_first_currency() -> None:
    first = {text: owners()[text][0] for text in ("$", "£", "¥", "€", "₹", "CA$", "kr", "Rs", "dollars", "francs")}
    assert first == {
        "$": "USD", "£": "GBP", "¥": "JPY", "€": "EUR", "₹": "INR", "CA$": "CAD", "kr": "SEK", "Rs": "INR",
        "dollars": "USD", "francs": "CHF",
    }  # fmt: skip
    assert "CAD" in owners()["$"]


def test_the_tables_hold_what_is_read_from_them() -> None:
    assert len(currencies()) > 150
    assert currencies()["JPY"].decimals == 0
    assert (locales()["de"].decimal, locales()["en_US"].date, locales()["en_GB"].date) == (",", "mdy", "dmy")
    assert months()["märz"] == months()["mar"] == 3
