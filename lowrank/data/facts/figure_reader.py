"""One figure of a text, read from its first digit or word both ways: the class behind `figures`."""

import re
from decimal import Decimal

from .currencies import SMALL, is_code, is_name
from .figure import Figure
from .figure_patterns import (
    GLUED_CODE,
    GLUED_SCALE,
    GLUED_SCALES,
    NO_MINUS_BEHIND,
    NUMBER,
    OF,
    SCALE_BEFORE_SIGN,
    SCALES_BEFORE,
    SLASHED,
    SMALL_WORDS,
    SPACED_NUMBER,
    SPELLED_UNITS,
    UNITS,
    VAGUE_AMOUNT,
    WORDS,
    is_currency_sign,
    kind_of_unit,
    owners_of,
    signs,
    signs_behind,
)
from .not_understood import IN_A_WORD, end_of_word, strange_before, strange_behind, strange_word
from .number_words import in_digits
from .numerals import MAX_DIGITS, Convention, numeral
from .units import (
    MONEY_SCALES,
    MULTIPLE,
    SCALES,
    UNITS_OF,
    is_scale_of,
    scale_at,
    unit_at,
)


class FigureReader:
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
        self.is_aside = False  # a parenthesis stands before the number, and none right behind it
        self.unit = ""
        self.strange_unit = ""
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
        elif (vague := VAGUE_AMOUNT.match(self.plain, self.start)) is not None:
            self.end = vague.end()
            self.reasons.append("an amount that is no number")
        else:
            words = self._words()
            if words is None:
                return None
            self._before()
            number, place, spoken = in_digits(words)
        is_unit = self._behind(is_number=first.isdigit())
        if self.is_aside and self.owned and self.plain[self.end : self.end + 1] == ")":  # "$(5.2m)"
            self.is_open = True
            self.end += 1
        if self.is_open and self.plain[self.start] != "(":  # no aside stands behind its currency
            self.is_open, self.is_negative = False, True
        self._beside(is_unit)
        return self._made(number, place, spoken, in_doubt)

    def _made(self, number: Decimal, place: int, spoken: int, in_doubt: bool) -> Figure:
        exponent = sum(SCALES[scale] for scale in self.scales) - 2 * self.in_hundredths
        currencies = tuple(code for code in self.owned[0] if all(code in of for of in self.owned)) if self.owned else ()
        kind = kind_of_unit(self.unit)
        if self.owned:
            if not currencies:
                self.reasons.append("two currencies")
            if kind != "count" or self.unit:
                self.reasons.append("a unit that money does not have")
            kind = "money"
        elif MONEY_SCALES & set(self.scales):
            self.reasons.append("a unit that is not known")
        if len(self.scales) > 1 or not all(is_scale_of(scale, currencies) for scale in self.scales):
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
            unit=self.strange_unit or (UNITS_OF.get(self.unit, "") if kind == "count" else ""),
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
        elif inner and self._is_minus(place - 1):
            self.start, self.is_open, self.is_negative = place - 1, is_open, True
        elif is_open:
            self.is_open = True
            self.start = place
        if found is not None and not inner and self.start > self.earliest and self._is_minus(self.start - 1):
            self.is_negative = True
            self.start -= 1
        elif self.start > self.earliest and self._is_minus(self.start - 1, "+"):
            self.start -= 1

    def _is_minus(self, place: int, sign: str = "-") -> bool:
        """True if a minus stands there, or a plus, and not a hyphen or the dash of a range."""
        if self.plain[place] != sign:
            return False
        before = self.plain[place - 1 : place]
        return not (before.isalnum() or before == "_" or before in NO_MINUS_BEHIND or is_currency_sign(before))

    def _currency_before(self, place: int) -> int | None:
        """Where the currency before a place begins, taken with its scale; None if there is none."""
        text = self.plain
        place -= text[place - 1 : place] == " " and place - 1 > self.earliest
        scale = SCALES_BEFORE.before(text, place)
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
        self.owned.append(owners_of(sign))
        start = place - len(sign)
        if (glued := SCALE_BEFORE_SIGN.search(text, self.earliest, start)) is not None:  # "T€ 412", "MSEK 412"
            self.scales.append(GLUED_SCALES[glued[0]])
            return glued.start()
        further = start - (text[start - 1 : start] == " ")
        if (second := self._sign(further)) is not None:
            self.owned.append(owners_of(second))
            start = further - len(second)
        return start

    def _sign(self, end: int) -> str | None:
        """The sign or code that ends at a place, behind the figure before."""
        if end <= self.earliest:
            return None
        if self.plain[end - 1] == "R" and end == self.start and not self.plain[end - 2 : end - 1].isalnum():
            return "R"
        sign = signs().before(self.plain, end)
        if sign is None and (glued := GLUED_CODE.search(self.plain, self.earliest, end)) and is_code(glued["code"]):
            return glued["code"]
        return sign if sign is not None and end - len(sign) >= self.earliest else None

    # The number

    def _digits(self, place: int) -> str:
        """The digits from a place on, with their signs."""
        spaced = SPACED_NUMBER.match(self.plain, place)
        if (slashed := SLASHED.match(self.plain, place)) is not None:  # "2 1/2"
            self.end = slashed.end()
            return slashed[0]
        if spaced is not None and " " in self.masked[spaced.start() : spaced.end()]:
            is_money = bool(self.owned) or self._is_currency_behind(spaced.end())
            match = spaced if is_money or self.convention.spaced else NUMBER.match(self.masked, place)
        else:
            match = NUMBER.match(self.masked, place)
        assert match is not None, "it begins with a digit"
        self.end = match.end()
        if self.is_open:
            if self.plain[self.end : self.end + 1] == ")":
                self.end += 1
            else:
                self.is_open, self.is_aside = False, True
                if not self.owned:
                    self.start += 1 if self.plain[self.start] == "(" else 0
        return match[0]

    def _is_currency_behind(self, place: int) -> bool:
        text = self.plain
        place += text[place : place + 1] == " "
        if (scale := scale_at(text, place)) is not None:
            place += len(scale)
            place += text[place : place + 1] == " "
        return signs_behind().at(text, place) is not None

    def _words(self) -> str | None:
        """The number in words from the anchor on; None for words that are no figure."""
        match = WORDS.match(self.plain, self.start)
        if match is None:
            match = SMALL_WORDS.match(self.plain, self.start)
            if match is None or not self._is_unit_of_words(match.end()):
                return None
        self.end = match.end()
        return match[0]

    def _is_unit_of_words(self, place: int) -> bool:
        """True for a unit that makes a small number in words a figure."""
        text = self.plain
        place += text[place : place + 1] == " "
        unit = UNITS.at(text, place)
        if unit is not None:
            return unit not in MULTIPLE
        beside = unit_at(text, place - 1)
        word = signs_behind().at(text, place)
        is_name_behind = word is not None and (is_name(word) or word in SMALL)
        return is_name_behind or (beside is not None and beside[0] in SPELLED_UNITS)

    # Behind the number

    def _behind(self, *, is_number: bool) -> bool:
        """Takes scale, unit and currency behind the number into the figure; True if it is a count with a unit."""
        text = self.plain
        place = self.end + (text[self.end : self.end + 1] == " ")
        hyphened = self.end + (text[self.end : self.end + 1] == "-")
        glued = GLUED_SCALE.match(text, place)
        if glued is not None and (not glued["code"] or is_code(glued["code"])):  # "412 T€", "412 MSEK"
            self.scales.append(GLUED_SCALES[glued[0]])
            self._take_currency(glued.end() + (text[glued.end() : glued.end() + 1] == " "))
            return False
        scale = scale_at(text, place)
        if scale is None and hyphened > self.end and (long := scale_at(text, hyphened)) and len(long) > 3:
            scale, place = long, hyphened
        if scale is not None:
            self.scales.append(" ".join(scale.split()))
            self.end = place + len(scale)
            place = self.end + (text[self.end : self.end + 1] in (" ", "-"))
        if (unit := UNITS.at(text, place)) is not None and text[place - 1 : place] != "-":
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
        if (of := OF.match(text, place)) is not None and signs_behind().at(text, of.end()):
            place = of.end()
        word = signs_behind().at(text, place)
        if word is None:
            return False
        end = place + len(word)
        is_written = is_name(word) or word in SMALL
        if text[end : end + 1].isdigit() or (text[place - 1 : place] == "-" and not is_written):
            return False
        if not is_written and self.owned and text[end : end + 2].strip().isdigit():  # "$5 $6": the next one's
            return False
        self.in_hundredths = word in SMALL
        self.owned.append(SMALL[word] if word in SMALL else owners_of(word))
        self.end = end
        scale = SCALES_BEFORE.at(text, end + 1) if text[end : end + 1] == " " else None
        if scale is not None and len(scale) > 1:
            self.scales.append(scale)
            self.end = end + 1 + len(scale)
        return True

    def _beside(self, is_unit: bool) -> None:
        """Takes what stands beside the figure and is not understood."""
        self.start, reason = strange_before(self.plain, self.start, self.earliest)
        if reason:
            self.reasons.append(reason)
        if reason == IN_A_WORD:
            self.end = end_of_word(self.plain, self.end)
        elif not is_unit:
            is_bare = not self.owned and not self.unit
            self.end, reason = strange_behind(self.plain, self.end, is_bare=is_bare)
            if reason:
                self.reasons.append(reason)
            elif (self.owned or is_bare) and (word := strange_word(self.plain, self.end)):
                self.strange_unit = word.lower()
                self.end += 1 + len(word)
