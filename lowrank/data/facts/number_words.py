"""Numbers in words: "one hundred and five", "twelve million", "two point five billion", "a million".

A number in words is a figure if it is thirteen or more, has a hundred or a scale in it, or has a unit behind it: "three
times" and "one of two" are none.
"""

import re
from decimal import Decimal

ONES = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_TEENS = (
    "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
NUMBER_WORDS = (
    {"zero": 0}
    | {word: number for number, word in enumerate(ONES + _TEENS, start=1)}
    | {word: 10 * number for number, word in enumerate(_TENS, start=2)}
)
SCALE_EXPONENTS = {"thousand": 3, "lakh": 5, "million": 6, "crore": 7, "billion": 9, "trillion": 12}

_DIGIT = f"(?:zero|{'|'.join(ONES)})"
_SMALL = rf"(?:(?:{'|'.join(_TENS)})(?:[ -](?:{'|'.join(ONES)}))?|{'|'.join(_TEENS)}|{_DIGIT})\b"
_LARGE = rf"(?:(?:{'|'.join(_TENS)})(?:[ -](?:{'|'.join(ONES)}))?|{'|'.join(_TEENS[3:])})\b"
_POINT = rf"(?:[ ]point(?:[ ]{_DIGIT})+\b)?"
_HUNDREDS = rf"(?:(?:{_SMALL}|an?)[ -]hundred\b(?:(?:[ ]and)?[ ]{_SMALL})?)"
_GROUP = rf"(?:{_HUNDREDS}|{_SMALL}){_POINT}"
_SCALED = rf"(?:{_GROUP}|an?)[ -](?:{'|'.join(SCALE_EXPONENTS)})\b"

# Of a verbose pattern that ignores case. What only a unit makes a figure is SPELLED_SMALL.
SPELLED = rf"""{_SCALED}(?:,?[ ](?:and[ ])?{_SCALED})*(?:,?[ ](?:and[ ])?{_GROUP})?
    | {_HUNDREDS}{_POINT}
    | {_LARGE}{_POINT}"""
SPELLED_SMALL = _GROUP


def in_digits(words: str) -> tuple[Decimal, int, int]:
    """Number, the exponent of its last place, and that of its last scale: "two point five million" is 2500000, 5, 6."""
    total, group = Decimal(0), Decimal(0)
    decimals, behind_point, scale, last = 0, False, 0, 0
    for word in re.findall(r"[a-z]+", words.lower()):
        if word == "point":
            behind_point = True
        elif word in ("a", "an"):
            group = Decimal(1)
        elif word == "hundred":
            group *= 100
        elif word in SCALE_EXPONENTS:
            scale = SCALE_EXPONENTS[word]
            total += group.scaleb(scale)
            last, group, decimals, behind_point = scale - decimals, Decimal(0), 0, False
        elif word in NUMBER_WORDS:
            scale = 0
            decimals += behind_point
            group += Decimal(NUMBER_WORDS[word]).scaleb(-decimals)
            last = -decimals
    return total + group, last, scale
