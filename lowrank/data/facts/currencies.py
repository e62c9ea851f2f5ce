"""Currencies as people write them, before a number or behind it: signs, codes and names of CLDR's table.

A sign may be several currencies': the first is the one that it stands for where nothing says otherwise. "$" is USD, and
CAD in a record of Canadian dollars alone. What a sign stands for in a text is settled by its record (`Record`).
"""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

FOLDER = Path(__file__).parent / "cldr"

# What CLDR has no word for: signs of everyday use, and coins that are no legal tender anywhere.
_MORE_SIGNS = {
    "USD": ("U.S.$", "U.S. $", "＄"),
    "CAD": ("Can$",),
    "AUD": ("AUS$",),
    "MXN": ("Mex$",),
    "GBP": ("￡", "₤", "STG"),
    "CHF": ("SFr.", "SFr", "sFr.", "Fr."),
    "CNY": ("RMB", "元", "圆", "人民币"),
    "JPY": ("円",),
    "KRW": ("원",),
    "INR": ("Rs.", "₨"),
    "TRY": ("TL",),
    "RUB": ("руб.", "руб"),
    "BGN": ("лв.", "лв"),
    "ILS": ("NIS",),
    "BTC": ("₿",),
    "ETH": (),
    "USDT": (),
    "USDC": (),
}
_MORE_NAMES = {
    "USD": ("U.S. dollars", "US-Dollar", "US-dollar"),
    "EUR": ("euro",),
    "GBP": ("pounds sterling", "pound sterling", "quid"),
    "CNY": ("yuan", "renminbi"),
    "JPY": ("yen",),
    "CHF": ("Schweizer Franken", "Franken"),
    "BTC": ("bitcoins", "bitcoin"),
}
# The sign's own currency where several have it; of other signs, the one whose sign it is in most locales.
_FIRST = {
    "$": "USD",
    "£": "GBP",
    "¥": "JPY",
    "￥": "JPY",
    "C$": "CAD",
    "Rs": "INR",
    "Rs.": "INR",
    "kr": "SEK",
    "元": "CNY",
}
_LETTER_SIGNS = {"kr", "kr.", "zł", "Kč", "Ft", "Rs", "Rs.", "RM", "Rp", "TL", "Ksh", "TSh", "USh", "NIS", "FCFA"}
# Codes that are words of capitals, and are read as codes in capitals alone; the others in lower case too.
_WORDS = {
    "ALL",
    "BAM",
    "COP",
    "CUP",
    "GEL",
    "LAK",
    "MAD",
    "MOP",
    "NAD",
    "PEN",
    "SOS",
    "TOP",
    "TRY",
    "BOB",
    "RUB",
    "RON",
    "PHP",
    "AMD",
}
# A last word of a name that means other things too, or that too many share to be worth reading.
_NOT_NAMES = {"won", "real", "reals", "sol", "som", "gold", "mark", "marks", "dong", "kip", "kips", "lei", "leu"}
_FIRST_NAMES = {
    "dollar": "USD", "pound": "GBP", "franc": "CHF", "rupee": "INR", "peso": "MXN", "krone": "NOK", "kroner": "NOK",
    "krona": "SEK", "kronor": "SEK", "yuan": "CNY", "won": "KRW", "shilling": "KES", "riyal": "SAR", "dinar": "KWD",
    "ruble": "RUB", "lira": "TRY", "real": "BRL", "rouble": "RUB",
}  # fmt: skip
_SPELLINGS = {"rouble": "RUB", "roubles": "RUB", "złoty": "PLN", "reais": "BRL", "dólares": "USD", "pesos": "MXN"}

# A hundredth of a currency: what is written behind a number, and the currencies that have it.
_CENTS = ("USD", "EUR", "CAD", "AUD", "NZD", "SGD", "HKD", "ZAR")
SMALL: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"cents": _CENTS, "cent": _CENTS, "¢": _CENTS, "pence": ("GBP",), "penny": ("GBP",), "GBX": ("GBP",), "p": ("GBP",)}
)


class Currency(NamedTuple):
    """A row of the table: ISO code, decimals of a price, signs and names, the most usual first."""

    code: str
    decimals: int
    signs: tuple[str, ...]
    names: tuple[str, ...]


@cache
def currencies() -> Mapping[str, Currency]:
    """Code -> currency."""
    table: dict[str, Currency] = {}
    lines = (FOLDER / "currencies.tsv").read_text(encoding="utf-8").splitlines()[1:]
    for line in lines:
        code, decimals, signs, names = line.split("\t")
        table[code] = Currency(code, int(decimals), _texts(signs), _texts(names))
    for code, more in _MORE_SIGNS.items():
        known = table.get(code, Currency(code, 2, (), ()))
        table[code] = known._replace(signs=(*known.signs, *more))
    return MappingProxyType(table)


def _texts(cell: str) -> tuple[str, ...]:
    return tuple(filter(None, cell.split("|")))


@cache
def owners() -> Mapping[str, tuple[str, ...]]:
    """A sign, a code or a name in lower case, as it is written -> the currencies that it may stand for, first first."""
    found: dict[str, dict[str, None]] = {}
    for sign, code in _signs():
        found.setdefault(sign, {})[code] = None
    for code in currencies():
        found[code] = {code: None}
        if code not in _WORDS:
            found[code.lower()] = {code: None}
    for name, code in _names():
        found.setdefault(name, {})[code] = None
    for text, codes in found.items():
        first = _FIRST.get(text) or _FIRST_NAMES.get(text) or _FIRST_NAMES.get(text.removesuffix("s"))
        if first in codes:
            found[text] = {first: None, **codes}
    return MappingProxyType({text: tuple(codes) for text, codes in found.items()})


def _signs() -> Iterator[tuple[str, str]]:
    """(sign, code): of signs that are letters alone, only those that are no word or unit."""
    for code, currency in currencies().items():
        for sign in currency.signs:
            if not re.fullmatch(r"[A-Za-zÀ-ſ]{1,2}\.?|[a-zA-Z]{3}\.?|Le", sign) or sign in _LETTER_SIGNS:
                yield sign, code
    for code, signs in _MORE_SIGNS.items():
        for sign in signs:
            yield sign, code


def _names() -> Iterator[tuple[str, str]]:
    """(name, code): "swiss francs", and "francs" for every franc."""
    for code, currency in currencies().items():
        for name in currency.names:
            yield name.casefold(), code
            last = name.casefold().rpartition(" ")[2]
            if last not in _NOT_NAMES and last.isalpha() and name in currency.names[:2]:
                yield last, code
    for code, names in _MORE_NAMES.items():
        for name in names:
            yield name.casefold(), code
    yield from _SPELLINGS.items()


def is_code(text: str) -> bool:
    """True for a code that is no word of capitals: EUR, but not TRY."""
    return text in currencies() and text not in _WORDS


def is_name(text: str) -> bool:
    """True for a currency's name in lower case ("euros"), False for its sign or code."""
    return text in owners() and (text not in _all_signs() and text.upper() not in currencies())


@cache
def _all_signs() -> frozenset[str]:
    return frozenset(sign for sign, _ in _signs())


@cache
def names_of(code: str) -> tuple[str, ...]:
    """The names by which a currency is written out for sure: "euros", "us dollars"; "dollars" if it is their first."""
    found = [name for name, of in owners().items() if of[0] == code and is_name(name)]
    return tuple(sorted(found, key=lambda name: (len(name.split()), len(name))))


@cache
def signs_of(code: str) -> tuple[str, ...]:
    """The signs of a currency, those first that are its own or first its own."""
    signs = [sign for sign, of in _signs() if of == code]
    return tuple(sorted(dict.fromkeys(signs), key=lambda sign: owners()[sign][0] != code))


class Locale(NamedTuple):
    """A row of the table: the decimal sign, and the order of day, month and year in a short date."""

    decimal: str
    date: str


@cache
def locales() -> Mapping[str, Locale]:
    """A locale ("de", "en_US") -> how it writes numbers and dates."""
    lines = (FOLDER / "locales.tsv").read_text(encoding="utf-8").splitlines()[1:]
    rows = (line.split("\t") for line in lines)
    return MappingProxyType({name: Locale(decimal, date) for name, decimal, date in rows})


@cache
def months() -> Mapping[str, int]:
    """The name or abbreviation of a month in lower case, without its point -> its number."""
    lines = (FOLDER / "months.tsv").read_text(encoding="utf-8").splitlines()[1:]
    rows = (line.split("\t") for line in lines)
    return MappingProxyType({name: int(number) for number, names in rows for name in _texts(names)})
