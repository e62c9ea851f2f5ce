"""Writes the tables of `lowrank/data/facts/cldr` from CLDR, by Babel: python tests/golden/make_cldr_tables.py

    currencies.tsv  code, decimals, signs, English names and those of some other languages, most usual first
    locales.tsv     locale, decimal sign, order of day (d), month (m) and year (y) in a short date
    months.tsv      number of a month, its names and abbreviations in LANGUAGES

Of signs and names, what is written: without marks of direction, no letter alone. A test holds that the files are
these. The tables are under the Unicode licence, which is copied beside them.
"""

import re
from collections import Counter
from pathlib import Path

import babel
from babel import Locale, UnknownLocaleError
from babel.core import get_global
from babel.localedata import locale_identifiers
from babel.numbers import get_currency_precision

FOLDER = Path(__file__).parents[2] / "lowrank" / "data" / "facts" / "cldr"
LANGUAGES = ("en", "de", "fr", "es", "it", "pt", "nl", "sv", "da", "nb", "fi", "pl")
NAMED_EVERYWHERE = ("USD", "EUR", "GBP", "JPY", "CHF", "CNY", "INR", "SEK", "NOK", "DKK", "PLN")
DIRECTION = re.compile("[\u200b\u200e\u200f\u061c]")


def locales() -> list[Locale]:
    """Every locale of a language, or of a language and a territory."""
    found = []
    for name in sorted(locale_identifiers()):
        if re.fullmatch(r"[a-z]{2,3}(_[A-Z]{2})?", name):
            try:
                found.append(Locale.parse(name))
            except UnknownLocaleError:
                continue
    return found


def current() -> list[str]:
    """The codes of the currencies that are legal tender somewhere."""
    territories = get_global("territory_currencies")
    return sorted({code for of in territories.values() for code, _, end, tender in of if end is None and tender})


def currencies() -> str:
    """currencies.tsv"""
    signs: dict[str, Counter[str]] = {code: Counter() for code in current()}
    for locale in locales():
        for code, sign in locale.currency_symbols.items():
            sign = DIRECTION.sub("", sign).replace("\u202f", " ").replace("\xa0", " ").strip()
            sign = sign if sign == "F CFA" else sign.replace(" ", "")
            if code in signs and sign != code and not re.fullmatch(r"\w", sign) and sign not in signs:
                signs[code][sign] += 1
    lines = ["code\tdecimals\tsigns\tnames"]
    for code in signs:
        names: dict[str, None] = {}
        for language in LANGUAGES if code in NAMED_EVERYWHERE else LANGUAGES[:1]:
            for count in ("other", "one"):
                name = Locale.parse(language)._data["currency_names_plural"].get(code, {}).get(count)
                if name:
                    names[name.replace("\xa0", " ")] = None
        written = [sign for sign, _ in sorted(signs[code].items(), key=lambda item: (-item[1], item[0]))]
        lines.append(f"{code}\t{get_currency_precision(code)}\t{'|'.join(written)}\t{'|'.join(names)}")
    return "\n".join(lines) + "\n"


def conventions() -> str:
    """locales.tsv"""
    lines = ["locale\tdecimal\tdate"]
    for locale in locales():
        symbols = locale.number_symbols.get("latn")
        if symbols is None or "short" not in locale.date_formats:
            continue
        pattern = locale.date_formats["short"].pattern.lower()
        order = "".join(sorted("dmy", key=lambda letter: pattern.find(letter)))
        if symbols["decimal"] in ".," and all(letter in pattern for letter in "dmy"):
            lines.append(f"{locale}\t{symbols['decimal']}\t{order}")
    return "\n".join(lines) + "\n"


def months() -> str:
    """months.tsv"""
    lines = ["month\tnames"]
    for month in range(1, 13):
        names: dict[str, None] = {}
        for language in LANGUAGES:
            for context in ("format", "stand-alone"):
                for width in ("wide", "abbreviated"):
                    name = Locale.parse(language).months[context][width][month].strip(".").lower()
                    if not name.isdecimal():
                        names[name] = None
        lines.append(f"{month}\t{'|'.join(names)}")
    return "\n".join(lines) + "\n"


def licence() -> str:
    """The Unicode licence as Babel carries it."""
    return (Path(babel.__file__).parent / "locale-data" / "LICENSE.unicode").read_text(encoding="utf-8")


def tables() -> dict[str, str]:
    """File -> text."""
    return {"currencies.tsv": currencies(), "locales.tsv": conventions(), "months.tsv": months(), "LICENSE": licence()}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, text in tables().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
