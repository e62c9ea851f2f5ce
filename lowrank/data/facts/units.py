"""Scales and units as they are written behind a number (some scales also between a currency and its number).

A unit has a name of its own: "employees", "staff" and "FTEs" are people, "36 months" and "a 36-month term" months. What
is counted by a noun that is not listed ("1,204 stores") has no unit.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType

# Scale -> power of ten, in words and abbreviations of any case.
SCALES: Mapping[str, int] = MappingProxyType(
    {
        "thousand": 3, "thousands": 3, "tausend": 3, "tsd.": 3, "tsd": 3, "miles": 3,
        "lakhs": 5, "lakh": 5, "lacs": 5, "lac": 5,
        "million": 6, "millions": 6, "mln.": 6, "mln": 6, "mio.": 6, "mio": 6, "mill.": 6, "millionen": 6,
        "millones": 6, "millón": 6, "milhões": 6, "milhão": 6, "milioni": 6, "milione": 6, "miljoen": 6,
        "miljoner": 6, "millioner": 6, "milionów": 6,
        "crores": 7, "crore": 7, "cr.": 7, "cr": 7,
        "billion": 9, "billions": 9, "bln.": 9, "bln": 9, "mrd.": 9, "mrd": 9, "mld.": 9, "mld": 9, "mia.": 9,
        "milliarde": 9, "milliarden": 9, "milliard": 9, "milliards": 9, "miljard": 9, "miljarder": 9,
        "miliardi": 9, "miliardo": 9, "bilhões": 9, "mil millones": 9,
        "trillion": 12, "trillions": 12, "trn": 12, "billionen": 12, "lakh crores": 12, "lakh crore": 12,
        "quadrillion": 15, "hundred": 2, "dozen": 0,
        "тыс.": 3, "тыс": 3, "млн": 6, "млрд": 9, "трлн": 12, "tys.": 3, "tys": 3, "mill": 6,
        "k": 3, "m": 6, "mn": 6, "mm": 6, "bn": 9, "b": 9, "tn": 12, "t": 12,
        "百万": 6, "万": 4, "萬": 4, "億": 8, "亿": 8, "兆": 12, "만": 4, "억": 8, "조": 12, "千": 3,
    }
)  # fmt: skip
_NOT_SCALES = frozenset({"dozen", "hundred"})  # "412 hundred": no way to write an amount
_CRORE = frozenset({"cr", "cr."})  # beside other money it is an account's credit
_RUPEES = frozenset({"INR", "PKR", "BDT", "NPR", "LKR"})
MONEY_SCALES = frozenset({"mm", "t"})  # without a currency, millimetres and tonnes

PERCENT = (
    "%",
    "percent",
    "per cent",
    "pct.",
    "pct",
    "prozent",
    "pour cent",
    "por ciento",
    "por cento",
    "per cento",
    "procent",
)
POINTS = (
    "percentage points", "percentage point", "percent points", "percent point", "% points", "%-points", "%-pts", "%pts",
    "% pts", "ppts", "ppt", "p.p.", "pps", "pp", "prozentpunkte", "%-punkte", "points de pourcentage",
    "puntos porcentuales", "pontos percentuais", "punti percentuali", "procentenheter",
)  # fmt: skip
BASIS_POINTS = ("basis points", "basis point", "bps", "bp", "basispunkte", "points de base", "puntos básicos")
MULTIPLE = ("times", "x", "×", "-fold", "fold")

_UNITS: Mapping[str, tuple[str, ...]] = {
    "people": (
        "employees", "employee", "people", "persons", "person", "staff", "workers", "worker", "ftes", "fte",
        "colleagues", "personnel", "mitarbeiter", "mitarbeitende", "salariés", "collaborateurs", "empleados",
        "dipendenti", "medewerkers", "anställda", "人", "名", "명",
    ),
    "shares": ("shares", "share", "aktien", "actions", "acciones", "azioni"),
    "hours": ("hours", "hour", "hrs", "hr"),
    "minutes": ("minutes", "minute", "mins", "min"),
    "seconds": ("seconds", "second", "secs"),
    "days": ("days", "day", "tage", "jours", "días", "giorni"),
    "weeks": ("weeks", "week", "wochen"),
    "months": ("months", "month", "mths", "mos", "monate", "mois", "meses", "mesi"),
    "quarters": ("quarters",),
    "years": ("years", "year", "yrs", "yr", "jahre", "années", "ans", "años", "anni", "年"),
    "kilometres": ("km", "kilometres", "kilometers", "kilometre", "kilometer"),
    "miles": ("mi",),
    "metres": ("metres", "meters", "metre", "meter"),
    "feet": ("feet", "foot", "ft"),
    "centimetres": ("cm",),
    "millimetres": ("millimetres", "millimeters"),
    "kilograms": ("kg", "kilograms", "kilos"),
    "tonnes": ("tonnes", "tonne", "tons", "ton", "mt", "t"),
    "ounces": ("ounces", "ounce", "oz"),
    "pounds in weight": ("lbs", "lb"),
    "litres": ("litres", "liters", "litre", "liter"),
    "gallons": ("gallons", "gallon"),
    "barrels": ("barrels", "barrel", "bbl"),
    "barrels of oil equivalent": ("boe",),
    "barrels a day": ("bpd",),
    "barrels of oil equivalent a day": ("boepd",),
    "square metres": ("square metres", "square meters", "sqm", "sq m", "m²", "m2"),
    "square feet": ("square feet", "sq ft", "sqft"),
    "hectares": ("hectares", "hectare", "ha"),
    "acres": ("acres", "acre"),
    "kilowatts": ("kw", "kilowatts", "kilowatt"),
    "megawatts": ("mw", "megawatts", "megawatt"),
    "gigawatts": ("gw", "gigawatts", "gigawatt"),
    "kilowatt-hours": ("kwh", "kilowatt-hours"),
    "megawatt-hours": ("mwh", "megawatt-hours"),
    "gigawatt-hours": ("gwh", "gigawatt-hours"),
    "terawatt-hours": ("twh", "terawatt-hours"),
    "degrees": ("°", "degrees"),
    "degrees Celsius": ("°c",),
    "degrees Fahrenheit": ("°f",),
    "kilobytes": ("kb",),
    "megabytes": ("mb",),
    "gigabytes": ("gb",),
    "terabytes": ("tb",),
    "per mille": ("‰",),
    "points": ("points", "point", "pts", "punkte"),
}  # fmt: skip
UNITS_OF: Mapping[str, str] = MappingProxyType({word: unit for unit, words in _UNITS.items() for word in words})

# What a label says of the unit of its count, beyond the units themselves.
_LABEL_UNITS = {
    "people": (
        "headcount", "head count", "workforce", "members", "attendees", "participants", "guests", "visitors", "team",
        "patients", "students", "residents", "tenants", "users", "heads", "jobs", "belegschaft", "effectif",
        "plantilla",
    ),
}  # fmt: skip
_LABEL_UNITS_OF = dict(UNITS_OF) | {word: unit for unit, words in _LABEL_UNITS.items() for word in words}
ADJECTIVES = (
    "full-time", "part-time", "full time", "new", "ordinary", "common", "issued", "outstanding", "preferred",
    "calendar", "business", "working", "trading", "consecutive", "more", "further", "additional", "average", "million",
)  # fmt: skip


class Lexicon:
    """Words that are looked for at a place of a text, the longest first; of any case unless they are `exact`.

    A word of a script with spaces between its words begins and ends where a word does.
    """

    def __init__(self, words: Iterable[str], exact: Iterable[str] = ()) -> None:
        self.first: dict[str, list[tuple[str, bool]]] = {}
        self.last: dict[str, list[tuple[str, bool]]] = {}
        listed = [(word, False) for word in words] + [(word, True) for word in exact]
        for word, is_exact in sorted(listed, key=lambda item: -len(item[0])):
            self.first.setdefault(word[0].lower(), []).append((word, is_exact))
            self.last.setdefault(word[-1].lower(), []).append((word, is_exact))

    def at(self, text: str, place: int) -> str | None:
        """The longest word that begins at a place."""
        for word, is_exact in self.first.get(text[place : place + 1].lower(), ()):
            end = place + len(word)
            if _is_same(text[place:end], word, is_exact) and not (
                _is_spaced(word[-1]) and text[end : end + 1].isalnum()
            ):
                return word
        return None

    def before(self, text: str, place: int) -> str | None:
        """The longest word that ends before a place."""
        for word, is_exact in self.last.get(text[place - 1 : place].lower(), ()) if place else ():
            start = place - len(word)
            if start < 0 or not _is_same(text[start:place], word, is_exact):
                continue
            if not (start and _is_spaced(word[0]) and text[start - 1].isalpha()):
                return word
        return None


def _is_same(piece: str, word: str, is_exact: bool) -> bool:
    return piece == word or (not is_exact and piece.lower() == word)


def _is_spaced(letter: str) -> bool:
    """True for a letter of a script that puts spaces between words."""
    return letter.isalpha() and letter < "\u0530"


_SCALE_LEXICON = Lexicon(SCALES)
_UNIT_LEXICON = Lexicon(UNITS_OF)
_LABEL_LEXICON = Lexicon(_LABEL_UNITS_OF)
_ADJECTIVE_LEXICON = Lexicon(ADJECTIVES)
_WORD_START = re.compile(r"(?<!\w)\w")

# Behind a space these mean other things more often than a unit: "5 min", but "412 share prices".
_ONLY_GLUED = frozenset({"mi", "t", "mt", "second", "day", "point", "mos", "ft", "share", "foot", "quarters"})


def is_scale_of(scale: str, currencies: Collection[str]) -> bool:
    """True if a number may be written in a scale, of money in one of some currencies or, for none, of anything."""
    return scale not in _NOT_SCALES and not (scale in _CRORE and currencies and _RUPEES.isdisjoint(currencies))


def scale_at(text: str, place: int) -> str | None:
    """The scale that begins at a place."""
    return _SCALE_LEXICON.at(text, place)


def unit_at(text: str, place: int) -> tuple[str, int] | None:
    """The word of the unit behind a number that ends at a place, and its end: "months" of "36 months", "36-month"."""
    glued = _UNIT_LEXICON.at(text, place)
    if glued is not None:
        return glued, place + len(glued)
    if text[place : place + 1] not in (" ", "-"):
        return None
    has_space = text[place] == " "
    place += 1
    for _ in range(2):
        if (adjective := _ADJECTIVE_LEXICON.at(text, place)) and text[place + len(adjective) :][:1] in (" ", "-"):
            place += len(adjective) + 1
    word = _UNIT_LEXICON.at(text, place)
    return None if word is None or (has_space and word in _ONLY_GLUED) else (word, place + len(word))


def units_of_label(label: str) -> frozenset[str]:
    """The units that a label names: "term in months" has months, "headcount" people."""
    text = label.lower()
    words = (_LABEL_LEXICON.at(text, match.start()) for match in _WORD_START.finditer(text))
    return frozenset(_LABEL_UNITS_OF[word] for word in words if word)
