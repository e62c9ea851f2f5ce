"""Words that decide what a figure says: scales, units, number words, and those that make another name of a name.

All are in lower case. Scales and units that are not listed are told by their form: see `is_unit_like`.
"""

import re
import unicodedata
from functools import cache

from ..data.facts.figures import read_figures
from ..data.facts.not_understood import SHORT_WORDS
from ..data.facts.units import ADJECTIVES, BASIS_POINTS, MULTIPLE, PERCENT, UNITS_OF


def words(listed: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(listed.split())


SCALES = words(
    "hundred hundreds thousand thousands million millions billion billions trillion trillions quadrillion "
    "milliard mln mio mrd mill bln trn tn mn bn mm lakh lakhs crore crores tsd"
)
CURRENCIES = words(
    "dollar dollars cent cents euro euros pound pounds sterling pence yen yuan renminbi rupee rupees franc francs "
    "rouble roubles ruble rubles krona kronor krone kroner zloty lira liras real reais rand won peso pesos dirham "
    "dinar shekel shekels baht forint koruna usd eur gbp chf jpy cny inr rs cad aud nzd sek nok dkk pln"
)
UNITS = words(
    "percent per-cent pct percentage points point bps bp basis times fold turns days day weeks week months month "
    "quarters years year hours hour minutes tonnes tons kg km miles barrels"
)
# In free text these are always figures, so they are written as a part of one only.
QUANTITIES = SCALES | words(
    "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty thirty forty fifty "
    "sixty seventy eighty ninety dozen dozens score doubled doubling tripled tripling quadrupled halved twofold "
    "threefold tenfold twice thrice"
)
# Words that must not stand alone, and that many others begin with: "ten" of "tenor", "aud" of "audit".
BEGINNINGS = frozenset({"ten", "grow", "score", "aud"})
BEFORE_FIGURE = frozenset(" \t\u00a0\u202f(*_|\"'“‘[:=~≈—/")  # what may stand right before a figure
SMALL_NUMBERS = words("zero one two three four five six seven eight nine a an half several")
SPELLED = SMALL_NUMBERS - {"a", "an", "half", "several"}
# What may stand behind a spelled number, "three days", and what may not: "three b" is three billion.
PLAIN_UNITS = frozenset({"times"}) | {
    word for word in UNITS if word[:3] in ("day", "wee", "mon", "qua", "yea", "hou", "min", "poi")
}
SHORT_SCALES = words("k m b t bn mn tn mm cr")
OF_PER = words("cent cents mil mille")  # "five per cent": only the forms of a figure have it
SPELLED_BEFORE = re.compile(
    rf"(?:^|[^\w-])(?:{'|'.join(sorted(SPELLED))})(?:[ \u00a0-](?:{'|'.join(ADJECTIVES)}))*$", re.IGNORECASE
)
KNOWN_UNITS = frozenset(word for word in SCALES | CURRENCIES | UNITS if len(word) > 2)
TIME_WORDS = words(
    "in for during by until till since from to through of year fiscal fy end ended ending quarter half q1 q2 q3 "
    "q4 h1 h2 on at as and january february march april may june july august september october november december"
)
ALSO_ELSE = words("of from to through on at as and by for")  # words of time that stand before figures too
# In front of a name, or behind it, these make the name of something else: "deferred revenue", "revenue growth".
BEFORE_NAME = re.compile(
    r"\b(?:deferred|unearned|costs? of|share of|part of|percentage of|proportion of"
    r"|(?:growth|change|increase|decrease|decline|rise|fall|reduction|gain) in|prior|previous|earlier|gross|net"
    r"|operating|adjusted|forecast|former|budgeted|pre-tax|non-\w+)[ \u00a0]$"
)
BEHIND_NAME = re.compile(
    r"[ \u00a0-](?:growth|margin|ratio|per|rate|target|forecast|guidance|costs?|expenses?|increase|decrease|change"
    r"|limit|before|after|excluding|coverage|multiple|flows?|tax|income|less|plus|minus)\b"
)
# Nouns of accounts: one that stands between a name and a figure is what the figure would be of.
ACCOUNTS = re.compile(
    r"\b(?:revenues?|sales|turnover|costs?|expenses?|income|profits?|loss(?:es)?|earnings|margins?|assets|liabilities|equity|debts?"
    r"|borrowings|cash|capital|tax(?:es)?|interest|fees?|dividends?|prices?|returns?|yields?|shares?|loans?|deposits?|ratios?|value"
    r"|spending|expenditure|exposure|benchmark|index|provisions?|reserves?|budget|forecast|guidance|ebitda|ebit|eps|nav)\b"
)
COUPLING = re.compile(r"[ \u00a0]*(?:,?[ \u00a0]*(?:and|or)|&|/)[ \u00a0]+(?:(?:the|its|our)[ \u00a0]+)?")


@cache
def units_behind_spelled() -> frozenset[str]:
    """Words that make a figure of a spelled number before them, as the reader has it: "two shares", not "two days"."""
    known = (*UNITS_OF, *PERCENT, *BASIS_POINTS, *MULTIPLE)
    counted = {word for word in known if word.isalpha() and read_figures(f"two {word}")}
    return (KNOWN_UNITS - PLAIN_UNITS) | counted


def is_unit_like(word: str) -> bool:
    """True if a word right behind a figure would be its scale, currency or unit, or an abbreviation of one.

    Raises nothing: a word that is not known is one if it is short, in capitals, or ends like a scale.
    """
    low = word.lower()
    if low in SCALES or low in CURRENCIES or low in UNITS:
        return True
    if low.rstrip("s").endswith(("illion", "illiard")):
        return True
    if len(word) <= 3:
        return low not in SHORT_WORDS
    return len(word) <= 5 and word.isupper()


def spaced(text: str) -> str:
    """The pattern of a text, of which any space may be a no-break one."""
    return r"[ \u00a0]".join(map(re.escape, re.split(r"[ \u00a0]", text)))


def is_word(letter: str) -> bool:
    """True for a character of a word (\\w of a regular expression)."""
    return letter == "_" or letter.isalnum()


def is_marked(letter: str) -> bool:
    """True for a character that is a figure's: a digit or another numeral, a currency's sign, per cent, a degree."""
    if letter.isascii():
        return letter.isdigit() or letter in "$%"
    return letter.isnumeric() or unicodedata.category(letter) == "Sc" or letter in "‰‱°￥"


def can_stand_behind(letter: str) -> bool:
    """True for a character that leaves the figure before it as it is."""
    return not (is_word(letter) or is_marked(letter) or letter in "'’^+")


def can_start_figure(line: str, *, is_named: bool) -> bool:
    """True if a figure may stand right behind a line: nothing before it makes it another one.

    is_named  True if the line ends with a name
    """
    if line and line[-1] not in BEFORE_FIGURE:
        return False
    bare = line.rstrip(" \t\u00a0\u202f(*_|\"'“‘[")
    if bare[-1:] in ("-", "−", "–", "+", "±") and bare.strip(" \t|-*") != "":
        return False
    if bare[-1:] and is_marked(bare[-1]) and not bare[-1].isdecimal():
        return False
    word = re.search(r"([^\W\d_]+)\.?$", bare)
    if word is None or is_named:
        return True
    low = word[1].lower()
    return low not in ("minus", "plus", "no", "nr") and low not in (CURRENCIES | SCALES | SMALL_NUMBERS) - {
        "a",
        "an",
        "one",
    }


def fold(text: str) -> str:
    """In lower case, character by character, so that places stay what they are."""
    low = text.lower()
    return low if len(low) == len(text) else "".join(of if len(of := one.lower()) == 1 else one for one in text)
