"""Whole numbers in words, the inverse of what the reader of figures takes."""

from lowrank.data.facts.number_words import NUMBER_WORDS

WORD_OF = {number: word for word, number in NUMBER_WORDS.items()}


def in_words(number: int) -> str:
    """A whole number below 10^12 in words: 512 is "five hundred and twelve", 1200 "one thousand two hundred"."""
    parts: list[str] = []
    for name, size in (("billion", 10**9), ("million", 10**6), ("thousand", 10**3), ("", 1)):
        group, number = divmod(number, size)
        if group:
            parts.append(f"{below_1000(group)} {name}".strip())
    return " ".join(parts) or WORD_OF[0]


def below_1000(number: int) -> str:
    hundreds, rest = divmod(number, 100)
    small = WORD_OF[rest] if rest in WORD_OF else f"{WORD_OF[rest - rest % 10]}-{WORD_OF[rest % 10]}"
    if not hundreds:
        return small
    return f"{WORD_OF[hundreds]} hundred" + (f" and {small}" if rest else "")
