"""Figures as they are written: the one reader, for facts, documents, the checker and grounding.

    "$812.4 million"  "EUR -12,4"  "₹12,34,567"  "412,5 Mio. €"  "(8.4)%"  "150 bps"  "3.41x"  "12.4p"  "1'204"
    "twelve million dollars"  "a billion euros"  "seven point five per cent"

    magnitude = number * 10^exponent     exponent: 3, 6, 9 ... by its scale, -2 for basis points and for cents
    quantum = the place of the number's last digit, in the same

Every digit of a text belongs to a figure. What is written beside one is a part of it: a scale, a currency or a unit
that this module does not know, or two that do not go together, make a figure that is `unknown`, and states nothing.
"""

import re
import unicodedata
from dataclasses import dataclass, replace
from decimal import Decimal, localcontext
from functools import cache, lru_cache

from .currencies import SMALL, is_name, owners
from .formula import ARITHMETIC
from .number_words import NUMBER_WORDS, SCALE_EXPONENTS, SPELLED, SPELLED_SMALL, in_digits
from .numerals import ENGLISH, FRACTION, MAX_DIGITS, Convention, numeral, read_as
from .units import (
    BASIS_POINTS,
    MONEY_SCALES,
    MULTIPLE,
    NOT_SCALES,
    PERCENT,
    POINTS,
    SCALES,
    UNITS_OF,
    Lexicon,
    scale_at,
    unit_at,
)

KINDS = ("money", "percent", "points", "basis points", "multiple", "count", "unknown")


@dataclass(frozen=True)
class Figure:
    """A figure as written, from `start` to `end` of its text.

    kind        one of KINDS: what its number is of
    magnitude   without its sign, in whole money, per cent, multiples or units
    quantum     the place of its last digit, in the same
    exponent    the power of ten that its scale, its cents or its basis points stand for
    currencies  of money: those that its sign may stand for, the likeliest first
    unit        of a count: its unit by `units.UNITS_OF`, "" for none
    negative    True if it has a minus sign
    enclosed    True if its number is in parentheses, "$(3.10)", as negative ones are
    in_doubt    True if the convention had to decide between two readings of its number
    reason      of an unknown one: what is not understood
    """

    kind: str
    magnitude: Decimal
    quantum: Decimal
    exponent: int
    start: int
    end: int
    text: str
    currencies: tuple[str, ...] = ()
    unit: str = ""
    negative: bool = False
    enclosed: bool = False
    in_doubt: bool = False
    reason: str = ""

    @property
    def value(self) -> Decimal:
        """The magnitude with its sign; negative also if it is enclosed."""
        return -self.magnitude if self.negative or self.enclosed else self.magnitude


def read_figures(text: str, convention: Convention = ENGLISH) -> list[Figure]:
    """The figures of a text, in order."""
    masked = read_as(text)
    plain = masked.replace("\u00a0", " ")
    found: list[Figure] = []
    position = 0
    with localcontext(ARITHMETIC):
        while (anchor := _ANCHOR.search(plain, position)) is not None:
            figure = _Reader(masked, plain, convention, position).figure(anchor)
            if figure is None:
                position = anchor.end()
                continue
            found.append(replace(figure, text=text[figure.start : figure.end]))
            position = figure.end
    return found


@lru_cache(maxsize=4096)
def read_figure(text: str, convention: Convention = ENGLISH) -> Figure | None:
    """The figure that a text is as a whole, its unit included, None if it is none; in parentheses it is enclosed."""
    inner = text[1:-1] if text.startswith("(") and text.endswith(")") else text
    figures = read_figures(inner, convention)
    if len(figures) != 1 or figures[0].start:
        return None
    figure = figures[0]
    if figure.end < len(inner):
        beside = unit_at(read_as(inner).replace("\u00a0", " "), figure.end) if figure.unit else None
        if beside is None or beside[1] < len(inner):
            return None
    return replace(figure, start=0, end=len(text), text=text, enclosed=figure.enclosed or inner is not text)


# Lexicons

_UNITS = Lexicon((*PERCENT, *POINTS, *BASIS_POINTS, *MULTIPLE))
_SCALES_BEFORE = Lexicon(
    word for word in SCALES if word.isascii() and SCALES[word] > 2 and word not in ("b", "t", "cr", "cr.", "miles")
)
_SCALES_TOO_MANY = Lexicon(word for word in SCALES if word.isascii() and SCALES[word] > 2 and len(word) > 1)
_OF = re.compile(r"d'|d[eio] |of ", re.IGNORECASE)  # "millions d'euros", "milhões de reais"
_SPELLED_UNITS = frozenset({"employees", "employee", "people", "shares", "staff", "ftes"})
_VAGUE = "half an?|couple of|several|few|hundreds of|tens of|dozens of"


@cache
def _signs() -> Lexicon:
    """Pattern of what may stand before a number: signs and codes."""
    return Lexicon((), exact=(text for text in owners() if not is_name(text)))


@cache
def _behind() -> Lexicon:
    """Pattern of what may stand behind one: signs, codes, names and hundredths."""
    names = [text for text in owners() if is_name(text)]
    signs = [text for text in owners() if not is_name(text)]
    return Lexicon((*names, *(text for text in SMALL if text.islower() and text != "p")), exact=(*signs, "GBX", "¢"))


# Numbers. An anchor is where the digits or the words of a figure begin.

_FIRST_WORDS = "|".join(sorted(NUMBER_WORDS, key=len, reverse=True))
_ANCHOR = re.compile(
    rf"\d|{FRACTION}|(?<![\w.,])\.(?=\d)|(?<!\w)(?i:{_FIRST_WORDS}"
    rf"|an?(?=[ -](?:hundred|{'|'.join(SCALE_EXPONENTS)}))|{_VAGUE})\b"
)
_GROUPS = r"\d{1,3}(?:[ ]\d{3})+(?!\d)(?:[.,]\d+)?"
_NUMBER = re.compile(
    rf"(?:\d{{1,3}}(?:['\u00a0]\d{{3}})+(?!\d)(?:[.,]\d+)?|(?<!\w)\d{{1,3}}(?:[ ]\d{{3}})+,\d\d?(?![\d,])"
    rf"|\d+(?:[.,]\d+)*|\.\d+){FRACTION}?|{FRACTION}"
)
_SPACED_NUMBER = re.compile(rf"(?<!\w){_GROUPS}")
_WORDS = re.compile(SPELLED, re.VERBOSE | re.IGNORECASE)
_SMALL_WORDS = re.compile(SPELLED_SMALL, re.VERBOSE | re.IGNORECASE)
_VAGUE_AMOUNT = re.compile(rf"(?:{_VAGUE}) (?:hundred|{'|'.join(SCALE_EXPONENTS)})\b", re.IGNORECASE)
_REST_OF_WORD = re.compile(r"[^\W_][\w.]*\w|[^\W_]")
_LETTERS_BEFORE = re.compile(r"[^\W_]*$")
_NO_MINUS_BEHIND = frozenset("%)]")


class _Reader:
    """One figure of a text, from its anchor both ways.

    masked    the text as it is read, no-break spaces apart; `plain` has common ones for them
    earliest  where the figure before ends
    """

    def __init__(self, masked: str, plain: str, convention: Convention, earliest: int) -> None:
        self.masked = masked
        self.plain = plain
        self.convention = convention
        self.earliest = earliest
        self.start = self.end = 0
        self.scales: list[str] = []
        self.owned: list[tuple[str, ...]] = []
        self.in_hundredths = False
        self.is_negative = False
        self.is_open = False
        self.unit = ""
        self.reasons: list[str] = []

    def figure(self, anchor: re.Match[str]) -> Figure | None:
        """The figure, None for words that are none."""
        self.start = self.end = anchor.start()
        number, place, spoken, in_doubt = Decimal(0), 0, 0, False
        first = self.plain[anchor.start()]
        if first.isdigit() or not (first.isalpha()):
            in_front_of = self.start
            self._before()
            text = self._digits(in_front_of)
            read = numeral(text, self.convention)
            if read is None:
                self.reasons.append("digits that are no number")
            elif sum(map(str.isdigit, text)) > MAX_DIGITS:
                self.reasons.append(f"a number of over {MAX_DIGITS} digits")
                number, place, in_doubt = read
            else:
                number, place, in_doubt = read
        elif (vague := _VAGUE_AMOUNT.match(self.plain, self.start)) is not None:
            self.end = vague.end()
            self.reasons.append("an amount that is no number")
        else:
            words = self._words()
            if words is None:
                return None
            self._before()
            number, place, spoken = in_digits(words)
        is_unit_glued = self._behind(is_number=first.isdigit())
        self._beside(is_unit_glued)
        return self._made(number, place, spoken, in_doubt)

    def _made(self, number: Decimal, place: int, spoken: int, in_doubt: bool) -> Figure:
        exponent = sum(SCALES[scale] for scale in self.scales) - 2 * self.in_hundredths
        currencies = tuple(code for code in self.owned[0] if all(code in of for of in self.owned)) if self.owned else ()
        kind = _kind(self.unit)
        if self.owned:
            if not currencies:
                self.reasons.append("two currencies")
            if kind != "count" or self.unit:
                self.reasons.append("a unit that money does not have")
            kind = "money"
        elif MONEY_SCALES & set(self.scales):
            self.reasons.append("a unit that is not known")
        if len(self.scales) > 1 or NOT_SCALES & set(self.scales):
            self.reasons.append("a scale that is not known")
        exponent -= 2 * (kind == "basis points")
        return Figure(
            kind="unknown" if self.reasons else kind,
            magnitude=number.scaleb(exponent),
            quantum=Decimal((0, (1,), place + exponent)),
            exponent=exponent + spoken,
            start=self.start,
            end=self.end,
            text="",
            currencies=currencies,
            unit=UNITS_OF.get(self.unit, "") if kind == "count" else "",
            negative=self.is_negative,
            enclosed=self.is_open,
            in_doubt=in_doubt,
            reason=self.reasons[0] if self.reasons else "",
        )

    # Before the number

    def _before(self) -> None:
        """Takes parenthesis, minus, scale and currency before the number into the figure."""
        text, place = self.plain, self.start
        if place > self.earliest and text[place - 1] == "(":
            place -= 1
        is_open = place < self.start
        inner = place > self.earliest and text[place - 1] == "-"
        behind_sign = place - inner
        found = self._currency_before(behind_sign)
        if found is not None:
            self.start = found
            self.is_open, self.is_negative = is_open, inner
        elif inner and self._may_be_minus(place - 1):
            self.start, self.is_open, self.is_negative = place - 1, is_open, True
        elif is_open:
            self.is_open = True
            self.start = place
        if found is not None and not inner and self.start > self.earliest and self._may_be_minus(self.start - 1):
            self.is_negative = True
            self.start -= 1

    def _may_be_minus(self, place: int) -> bool:
        """True if a minus stands there, and not a hyphen or the dash of a range."""
        if self.plain[place] != "-":
            return False
        before = self.plain[place - 1 : place]
        return not (before.isalnum() or before == "_" or before in _NO_MINUS_BEHIND or _is_currency_sign(before))

    def _currency_before(self, place: int) -> int | None:
        """Where the currency before a place begins, taken with its scale; None if there is none."""
        text = self.plain
        place -= text[place - 1 : place] == " " and place - 1 > self.earliest
        scale = _SCALES_BEFORE.before(text, place)
        sign = self._sign(place)
        if sign is None:
            # "EURm 412": the scale is glued to a code, or stands behind it.
            scale = scale or next((short for short in ("m", "bn", "mn", "k") if text[:place].endswith(short)), None)
            if scale is None:
                return None
            inner = place - len(scale)
            inner -= text[inner - 1 : inner] == " "
            sign = self._sign(inner)
            if sign is None:
                return None
            self.scales.append(scale)
            place = inner
        self.owned.append(_owners(sign))
        start = place - len(sign)
        further = start - (text[start - 1 : start] == " ")
        if (second := self._sign(further)) is not None:
            self.owned.append(_owners(second))
            start = further - len(second)
        return start

    def _sign(self, end: int) -> str | None:
        """The sign or code that ends at a place, behind the figure before."""
        if end <= self.earliest:
            return None
        if self.plain[end - 1] == "R" and end == self.start and not self.plain[end - 2 : end - 1].isalnum():
            return "R"
        sign = _signs().before(self.plain, end)
        return sign if sign is not None and end - len(sign) >= self.earliest else None

    # The number

    def _digits(self, place: int) -> str:
        """The digits from a place on, with their signs."""
        spaced = _SPACED_NUMBER.match(self.plain, place)
        if spaced is not None and " " in self.masked[spaced.start() : spaced.end()]:
            is_money = bool(self.owned) or self._is_currency_behind(spaced.end())
            match = spaced if is_money or self.convention.spaced else _NUMBER.match(self.masked, place)
        else:
            match = _NUMBER.match(self.masked, place)
        assert match is not None, "it begins with a digit"
        self.end = match.end()
        if self.is_open:
            if self.plain[self.end : self.end + 1] == ")":
                self.end += 1
            else:  # an aside
                self.is_open = False
                if not self.owned:
                    self.start += 1 if self.plain[self.start] == "(" else 0
        return match[0]

    def _is_currency_behind(self, place: int) -> bool:
        text = self.plain
        place += text[place : place + 1] == " "
        if (scale := scale_at(text, place)) is not None:
            place += len(scale)
            place += text[place : place + 1] == " "
        return _behind().at(text, place) is not None

    def _words(self) -> str | None:
        """The number in words from the anchor on; None for words that are no figure."""
        match = _WORDS.match(self.plain, self.start)
        if match is None:
            match = _SMALL_WORDS.match(self.plain, self.start)
            if match is None or not self._is_unit_of_words(match.end()):
                return None
        self.end = match.end()
        return match[0]

    def _is_unit_of_words(self, place: int) -> bool:
        """True for a unit that makes a small number in words a figure."""
        text = self.plain
        place += text[place : place + 1] == " "
        unit = _UNITS.at(text, place)
        if unit is not None:
            return unit not in MULTIPLE
        beside = unit_at(text, place - 1)
        word = _behind().at(text, place)
        is_name_behind = word is not None and (is_name(word) or word in SMALL)
        return is_name_behind or (beside is not None and beside[0] in _SPELLED_UNITS)

    # Behind the number

    def _behind(self, *, is_number: bool) -> bool:
        """Takes scale, unit and currency behind the number into the figure; True if it is a count with a unit."""
        text = self.plain
        place = self.end + (text[self.end : self.end + 1] == " ")
        hyphened = self.end + (text[self.end : self.end + 1] == "-")
        scale = scale_at(text, place)
        if scale is None and hyphened > self.end and (long := scale_at(text, hyphened)) and len(long) > 3:
            scale, place = long, hyphened
        if scale is not None:
            self.scales.append(" ".join(scale.split()))
            self.end = place + len(scale)
            place = self.end + (text[self.end : self.end + 1] in (" ", "-"))
        if (unit := _UNITS.at(text, place)) is not None and text[place - 1 : place] != "-":
            self.unit = unit
            self.end = place + len(unit)
            return False
        if self._take_currency(place):
            return False
        if is_number and text.startswith("p", self.end) and not text[self.end + 1 : self.end + 2].isalnum():
            self.owned.append(SMALL["p"])
            self.in_hundredths = True
            self.end += 1
            return False
        beside = unit_at(text, self.end)
        if beside is None or self.owned:
            return False
        self.unit = beside[0]
        if beside[1] == self.end + len(beside[0]):
            self.end = beside[1]
            return True
        return True

    def _take_currency(self, place: int) -> bool:
        """Takes a currency at a place, with a scale behind it ("5 EUR million"); False if there is none."""
        text = self.plain
        if (of := _OF.match(text, place)) is not None and _behind().at(text, of.end()):
            place = of.end()
        word = _behind().at(text, place)
        if word is None:
            return False
        end = place + len(word)
        is_written = is_name(word) or word in SMALL
        if text[end : end + 1].isdigit() or (text[place - 1 : place] == "-" and not is_written):
            return False
        if not is_written and self.owned and text[end : end + 2].strip().isdigit():  # "$5 $6": the next one's
            return False
        self.in_hundredths = word in SMALL
        self.owned.append(SMALL[word] if word in SMALL else _owners(word))
        self.end = end
        scale = _SCALES_BEFORE.at(text, end + 1) if text[end : end + 1] == " " else None
        if scale is not None and len(scale) > 1:
            self.scales.append(scale)
            self.end = end + 1 + len(scale)
        return True

    def _beside(self, is_unit: bool) -> None:
        """The words beside the figure that are not understood."""
        text, start = self.plain, self.start
        if start > self.earliest and text[start - 1].isalnum() and text[start].isalnum():
            letters = _LETTERS_BEFORE.search(text, self.earliest, start)
            assert letters is not None, "it matches nothing, too"
            self.start = letters.start()
            self._take_rest()
            self.reasons.append("a number in a word")
            return
        before = text[start - 1 : start]
        if before and start > self.earliest and _is_currency_sign(before) and before not in owners():
            self.reasons.append("a currency that is not known")
            self.start -= 1
        if is_unit:
            return
        following = text[self.end : self.end + 1]
        if following and text[self.end - 1].isalnum() and (following.isalnum() and _is_joined(following)):
            self._take_rest()
            self.reasons.append("letters behind a number")
        elif following and (following in "°‰^" or (_is_currency_sign(following) and not self._begins_another())):
            self.end += 1
            self.reasons.append("a sign behind a number")
        else:
            self._too_many()

    def _begins_another(self) -> bool:
        """True if the sign at the end is that of a figure that follows: "$5/$6", "5 €6"."""
        return self.plain[self.end + 1 : self.end + 2].isdigit()

    def _take_rest(self) -> None:
        if (rest := _REST_OF_WORD.match(self.plain, self.end)) is not None:
            self.end = rest.end()

    def _too_many(self) -> None:
        """A scale, unit or currency more than a figure can have."""
        text = self.plain
        place = self.end + (text[self.end : self.end + 1] == " ")
        word = _SCALES_TOO_MANY.at(text, place) or _UNITS.at(text, place)
        if word is None and place > self.end and not text[self.end - 1].isdigit():
            word = _behind().at(text, place)
            if word is not None and text[place + len(word) :][:2].strip().isdigit():
                return
        if word is None or (word in ("times", "fold", "x") and self.unit == "" and not self.owned):
            return
        self.end = place + len(word)
        self.reasons.append("a scale or unit too many")


def _kind(unit: str) -> str:
    """The kind of figure that a unit makes."""
    for kind, words in (
        ("percent", PERCENT),
        ("points", POINTS),
        ("basis points", BASIS_POINTS),
        ("multiple", MULTIPLE),
    ):
        if unit in words:
            return kind
    return "count"


def _owners(sign: str) -> tuple[str, ...]:
    return ("ZAR",) if sign == "R" else owners()[sign]


def _is_joined(letter: str) -> bool:
    """True for a letter that belongs to the number before it; scripts without spaces go on with the next word."""
    return letter < "\u0530" or not letter.isalpha()


def _is_currency_sign(letter: str) -> bool:
    return len(letter) == 1 and unicodedata.category(letter) == "Sc"
