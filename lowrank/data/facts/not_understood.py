"""Letters, signs and words beside a figure that are not understood, among them those that look like its unit.

An unknown scale, currency or unit makes another figure. A word behind a figure counts as one if it is short, in
capitals, or ends as scales do, and is no everyday word: "412 kt", "$412 mil", "$5 XYZ", but "412 in May", "412 stores".
"""

import re

from .currencies import owners
from .figure_patterns import SCALES_TOO_MANY, UNITS, is_currency_sign, is_joined, signs_behind

IN_A_WORD = "a number in a word"


def _words(listed: str) -> frozenset[str]:
    return frozenset(listed.split())


# Words of up to three letters that are no unit where they stand behind a number.
SHORT_WORDS = _words(
    """a an the in on of at to by as is it if or so us we he no my up for and but nor yet its our was are has had per
    due out off all any not who why how may can set net now new old one two six ten both her his she led via put fed
    met cut ran hit won let saw use pay buy cap low top ago mid pre plus end"""
)
_MORE_ENGLISH = _words(
    """i be do did got get his him me you they own too few far raw key tax oil gas ads men big bad fit fix pop peg sum
    sub vs etc est inc ltd plc co llc corp mr ms dr jr st jan feb mar apr jun jul aug sep oct nov dec mon tue wed
    thu fri sat sun am pm tv pc it hr pr rd vc pe bus van car cab bar pub inn spa zoo ski gym lab app job fan pro
    con add ask beg bid bit box boy cup day dry due ear eat egg era eye fee fly fun god gun hot ice ill ink lay leg
    lie lot map mix nil odd opt pet pie pin pot red rob rod row rub sad sea see sex sit sky son sue tea tie tip toy
    try war way web wet win yes"""
)
_OF_OTHERS = _words(
    """im am an au aus auf bei bis da das dem den der des die du ein er es für hat ist je mal man mit nur ob pro seit
    sie so um und uns von vor war was wie wir wo zu zum zur ab le la les un une de en et est aux sur par son sa ses
    ce ou où ont qui que se ne pas à nos cet y el los las uno del con por su sus sin más fue era hay o e u al lo si
    ya mes año ha han ser il gli una dal dei nel tra fra per sono che di ed ai è i os as uma do no na em ao dos nas
    foi são com mês ano não het een op te van om uit aan bij dan dat zijn met tot in och att av på är var som det
    ett för med till vid år nu og af til ved w z od za po się to jest był dla nie oraz"""
)
EVERYDAY = SHORT_WORDS | _MORE_ENGLISH | _OF_OTHERS
# Capitals that are no currency and no unit, but what a figure is of, or who has it.
ACRONYMS = _words(
    """UK US USA EU UN UAE GDP CPI VAT GST EPS DPS NAV FFO AFFO ARR MRR GMV TCV ACV CAPEX OPEX COGS SGA EBIT EBT NOPAT
    ROE ROI ROA ROCE ROIC RWA CET LTV DCF AUM ETF ETFS IPO SPAC REIT ESG SME SMES ATM ATMS SKU SKUS CEO CFO COO CTO
    HQ YOY QOQ MOM YTD LTM TTM NTM FY CY CAGR GAAP IFRS SEC FDA EMEA APAC NYSE LSE VC PE PC PCS TV AI IT HR PR ABS
    CLO NATO DVD DVDS CD CDS TVS EV EVS LED SUV SUVS PHD MBA"""
)
_UNKNOWN_SCALE = re.compile(r"(?:\w+illi(?:on|ard)s?|tril|trils|bils|mils)", re.IGNORECASE)
_WORD = re.compile(r"[^\W\d_]+(?:[ ]?CO[2₂](?:-?eq?)?)?")
_GOES_ON = re.compile(r"[\d_'$]|[.-]\w")  # "Q3", "p.a.", "on-site"
_REST_OF_WORD = re.compile(r"[^\W_][\w.]*\w|[^\W_]")
_LETTERS_BEFORE = re.compile(r"[^\W_]*$")


def strange_before(text: str, start: int, earliest: int) -> tuple[int, str]:
    """Where a figure begins with what is not understood before it, and what that is; "" for nothing."""
    if start <= earliest:
        return start, ""
    before = text[start - 1]
    if before.isalnum() and text[start].isalnum() and is_joined(before):
        letters = _LETTERS_BEFORE.search(text, earliest, start)
        assert letters is not None, "it matches nothing, too"
        return letters.start(), IN_A_WORD
    if before.isalpha() and is_joined(before) and is_currency_sign(text[start]):
        letters = _LETTERS_BEFORE.search(text, earliest, start)
        assert letters is not None, "it matches nothing, too"
        return letters.start(), "a currency that is not known"
    if is_currency_sign(before) and before not in owners():
        return start - 1, "a currency that is not known"
    if before == "±" or text[max(earliest, start - 2) : start] == "+/":
        return start - 1 - (before == "/"), "an amount of either sign"
    return start, ""


def strange_behind(text: str, end: int, *, is_bare: bool) -> tuple[int, str]:
    """Where a figure ends with what is not understood right behind it, and what that is; "" for nothing.

    is_bare  True of a number without a currency or unit
    """
    following = text[end : end + 1]
    if following and text[end - 1].isalnum() and following.isalnum() and is_joined(following):
        return end_of_word(text, end), "letters behind a number"
    if following and (following in "°‰^" or (is_currency_sign(following) and not text[end + 1 : end + 2].isdigit())):
        return end + 1, "a sign behind a number"
    word = _one_too_many(text, end)
    if word is None or (word in ("times", "fold", "x") and is_bare):
        return end, ""
    return end + (text[end : end + 1] == " ") + len(word), "a scale or unit too many"


def end_of_word(text: str, place: int) -> int:
    """Where letters and digits end that go on at a place."""
    rest = _REST_OF_WORD.match(text, place)
    return place if rest is None else rest.end()


def _one_too_many(text: str, end: int) -> str | None:
    """A scale, unit or currency more than a figure can have."""
    place = end + (text[end : end + 1] == " ")
    word = SCALES_TOO_MANY.at(text, place) or UNITS.at(text, place)
    if word is None and place > end and not text[end - 1].isdigit():
        word = signs_behind().at(text, place)
        if word is not None and text[place + len(word) :][:2].strip().isdigit():
            return None  # the next figure's
    return word


def strange_word(text: str, end: int) -> str:
    """The word behind a figure and a space that would be its scale, currency or unit, but is not known; "" for none."""
    match = _WORD.match(text, end + 1) if text[end : end + 1] == " " else None
    if match is None or _GOES_ON.match(text, match.end()):
        return ""
    word = match[0]
    if not _is_unit_like(word):
        return ""
    line_end = text.find("\n", end)
    line = text[text.rfind("\n", 0, end) + 1 : line_end if line_end >= 0 else len(text)]
    return "" if len(word) > 3 and line.isupper() else word  # a heading in capitals


def _is_unit_like(word: str) -> bool:
    low = word.lower()
    if low in EVERYDAY or word.upper() in ACRONYMS or not is_joined(word[0]):
        return False
    if _UNKNOWN_SCALE.fullmatch(word) or "co2" in low or "co₂" in low:
        return True
    return len(word) <= 3 or (len(word) <= 5 and word.isupper())
