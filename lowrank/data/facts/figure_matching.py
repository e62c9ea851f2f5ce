"""When a figure of a text states a fact of a record: the one rule for whoever checks a text and whoever writes one.

**What a figure is.** Every digit of the text belongs to a figure (`figures`), with three exceptions: the record's own
names, texts and labels wherever the document repeats them ("account 4471", "S&P 500"), its dates and periods, those in
labels too ("revenue 2024"), in any way of writing them ("Q3 2024", "31/03/2025" for 31 March 2025), and the number that
opens a list item or a heading ("2. "). A date or a year that is in no fact is therefore a figure, and a wrong one.

**When it is right.** It is of the kind of a fact, in its currency and unit (per cent with basis points), and equals it
at the figure's own decimals, rounded half up, after rescaling: $0.8124 billion is $812.4 million. A derived fact may
also be stated to more decimals than its record prints, as its declared formula gives them. A figure coarser than the
print keeps two significant digits. In parentheses or after a word of falling it may stand for a negative fact; after
"a loss of" it must, unless the fact's own label is of a loss. What is not understood states nothing.
"""

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from decimal import Decimal, localcontext
from typing import NamedTuple

from .dates import find_dates, find_periods, settle_dates
from .fact import Fact, Facts, evaluate
from .figure import Figure
from .figures import read_figure, read_figures
from .formula import ARITHMETIC, parse
from .labels import named_periods
from .numerals import Convention, convention_of, read_as
from .phrasal import without_phrases
from .units import UNITS_OF, units_of_label

FALLING = re.compile(
    r"\b(?:fell|fall(?:s|en|ing)?|down(?:wards?)?|declin\w*|decreas\w*|drop(?:s|ped|ping)?|lower(?:s|ed|ing)?|loss(?:es)?|below"
    r"|short(?:fall)?|negative(?:ly)?|shr[aiu]nk\w*)\b",
    re.IGNORECASE,
)
LOSS = re.compile(
    r"\b(?P<word>los[st]|deficit|shortfall|negative|minus|verlust|fehlbetrag|perte|pérdida|perda|perdita)(?:es|e|s)?"
    r"(?:[ \u00a0](?:of|was|were|is|at|to|by|came|amounted|reached|about|around|an?|von|war|betrug|beträgt|de|est"
    r"|fue|di))*[ \u00a0:]*$",
    re.IGNORECASE,
)
# What stands before a parenthesis that means a minus: a verb, a colon, a cell of a table, the beginning of a line.
_MEANS_MINUS = re.compile(
    r"(?:\b(?:was|were|is|are|of|to|at|by|totalled)[ \u00a0]+|[:|][ \u00a0*]*|^[ \u00a0]*)\($", re.IGNORECASE
)
_OF_POINTS = re.compile(
    r"\b(?:change|differ\w*|excess|spread|gap|delta|rise|fall|increase|decrease|improvement|decline|headroom"
    r"|out-?performance|under-?performance|premium|discount|margin (?:over|above))\b",
    re.IGNORECASE,
)
_ORDINAL = re.compile(r"^[ \t]*(?:#+[ \t]+)?\d{1,2}[.)][ \t]", re.MULTILINE)
_SENTENCE_END = re.compile(r"[.;!?](?=\s|$)|[\u3002\n]")


@dataclass(frozen=True)
class Stated:
    """A value that a text may state.

    kinds     the kinds of figure that may state it (`figures.KINDS`)
    currency  the code of money, "" for other kinds
    units     the units that its print and its label name
    value     in whole money, per cent, multiples or units
    label     of its fact
    """

    key: str
    kinds: tuple[str, ...]
    currency: str
    units: frozenset[str]
    value: Decimal
    label: str


class Claim(NamedTuple):
    """A figure of a text between the ends of its sentence, the signs that it may have, and the keys it states."""

    figure: Figure
    first: int
    last: int
    signs: tuple[int, ...]
    keys: tuple[str, ...]


def can_round_to(size: Decimal, magnitude: Decimal, quantum: Decimal) -> bool:
    """True if a size, without its sign, rounds half up to a magnitude at the place of its last digit.

    A magnitude that is rounded keeps two significant digits.
    """
    off = size - magnitude
    if off and magnitude < 10 * quantum:
        return False
    return -quantum <= 2 * off < quantum


def is_equal(figure: Figure, signs: tuple[int, ...], exact: Decimal) -> bool:
    """True if `exact` rounds to a figure at its own last place, and has a sign that it may have."""
    if exact and (1 if exact > 0 else -1) not in signs:
        return False
    return can_round_to(abs(exact), figure.magnitude, figure.quantum)


def signs_of(figure: Figure, before: str, after: str) -> tuple[int, ...]:
    """The signs that a figure may have between the rest of its sentence, the likeliest first."""
    if figure.negative:
        return (-1,)
    if figure.enclosed or (before.endswith("(") and after.startswith(")")):
        return (-1,) if _MEANS_MINUS.search(before if before.endswith("(") else f"{before}(") else (-1, 1)
    if LOSS.search(before):
        return (-1,)
    if figure.text.startswith("+"):
        return (1,)
    return (1, -1) if FALLING.search(without_phrases(before)) else (1,)


def is_stated_behind(loss: str, value: Decimal, label: str) -> bool:
    """True if a figure without a sign states a value behind the word of a loss: a negative one, or one so labelled."""
    return value < 0 or names_loss(loss, label)


def names_loss(loss: str, label: str) -> bool:
    """True for the label of a loss, "net loss" behind "lost" too: its value is stated by its own sign."""
    return loss.lower().removesuffix("t") in label.lower()


class Sentences:
    """Where the sentences of a text begin and end; no figure ends one ("412,5 Mio. EUR")."""

    def __init__(self, text: str, figures: Iterable[Figure] = ()) -> None:
        inside = {place for figure in figures for place in range(figure.start, figure.end - 1)}
        self.length = len(text)
        self.ends = [match.span() for match in _SENTENCE_END.finditer(text) if match.start() not in inside]
        self.starts = [start for start, _ in self.ends]

    def around(self, start: int, end: int) -> tuple[int, int]:
        """Start and end of the sentence around a span."""
        place = bisect_right(self.starts, start - 1)
        first = self.ends[place - 1][1] if place else 0
        place = bisect_right(self.starts, end - 1)
        return first, self.starts[place] if place < len(self.starts) else self.length


class Record:
    """The facts that a text may state.

    convention  how the record writes numbers and dates
    stated      every figure; twice for a derived one: as printed, and as its formula gives it
    texts       the prints of everything else
    codes       the currencies of its money
    Raises ValueError for a formula that cannot be evaluated.
    """

    def __init__(self, facts: Facts, convention: Convention | None = None) -> None:
        self.facts = facts
        self.convention = convention or record_convention(facts)
        self.texts = sorted(
            {fact.print for fact in facts.values() if not fact.is_figure and fact.print}, key=len, reverse=True
        )
        labels = [fact.label for fact in facts.values() if fact.is_figure and any(map(str.isdecimal, fact.label))]
        periods = {label[start:end] for label in labels for start, end, _ in named_periods(label)}
        self._printed = _any_of(self.texts)
        self._known = _any_of([*self.texts, *labels, *periods])
        self._dates = {fact.value for fact in facts.values() if fact.type == "date"}
        dated_texts = [fact.label if fact.is_figure else fact.print for fact in facts.values()]
        self._periods = {key for text in dated_texts for _, _, key in find_periods(text)}
        with localcontext(ARITHMETIC):
            self.stated = [
                stated for key, fact in facts.items() if fact.is_figure for stated in self._stated(key, fact)
            ]
        self.codes = frozenset(stated.currency for stated in self.stated if stated.currency)
        self.words = frozenset(
            word for fact in facts.values() for text in (fact.label, "" if fact.is_figure else fact.print)
            for word in re.findall(r"[^\W\d_]+", text.lower())
        )  # fmt: skip

    def _stated(self, key: str, fact: Fact) -> Iterator[Stated]:
        unit = fact.unit
        kinds = kinds_of(fact)
        written = read_figure(fact.print, self.convention)
        units = units_of_label(fact.label) | ({written.unit} if written is not None and written.unit else set())
        currency = unit.dimension.upper() if kinds == ("money",) else ""
        values = [fact.number] if fact.source is None else [fact.number, evaluate(fact.source, self.facts)]
        for value in values:
            yield Stated(key, kinds, currency, frozenset(units), value * unit.scale, fact.label)

    def currency(self, candidates: tuple[str, ...]) -> str | None:
        """The currency that a sign stands for in this record, None if it is of none of the record's, or of several."""
        if candidates and candidates[0] in self.codes:
            return candidates[0]
        of_record = self.codes.intersection(candidates)
        return next(iter(of_record)) if len(of_record) == 1 else None

    def mask(self, text: str) -> str:
        """The text as it is read, with what the record knows and the numbers of lists blanked out: same length."""
        masked = read_as(text)
        for start, end in self.known(text):
            masked = f"{masked[:start]}{'_' * (end - start)}{masked[end:]}"
        return _ORDINAL.sub(lambda match: re.sub(r"\d", "_", match[0]), masked)

    def without_texts(self, text: str) -> str:
        """The text as it is read, with the record's names and texts blanked out, but no labels: same length."""
        masked = read_as(text)
        if self._printed is None:
            return masked
        return self._printed.sub(lambda match: "_" * len(match[0]), masked)

    def known(self, text: str) -> list[tuple[int, int]]:
        """Where the record's names, dates and texts stand in a text, in order."""
        masked = read_as(text)
        spans = [] if self._known is None else [match.span() for match in self._known.finditer(masked)]
        spans += [
            (found.start, found.end)
            for found in find_dates(masked, self.convention)
            if found.date.isoformat() in self._dates
        ]
        spans += [(start, end) for start, end, key in find_periods(masked) if key in self._periods]
        kept: list[tuple[int, int]] = []
        for start, end in sorted(spans, key=lambda span: (span[0], -span[1])):
            if not kept or start >= kept[-1][1]:
                kept.append((start, end))
        return kept

    def figures(self, text: str) -> list[Figure]:
        """The figures of a text, in order: a date that is in no fact is one too."""
        masked = self.mask(text)
        dates = list(find_dates(masked, self.convention))
        for found in dates:
            masked = f"{masked[: found.start]}{'_' * (found.end - found.start)}{masked[found.end :]}"
        read = read_figures(masked, self.convention)
        read += [
            Figure("unknown", Decimal(0), Decimal(1), 0, found.start, found.end, "", reason="a date that is in no fact")
            for found in dates
        ]
        in_order = sorted(map(self._without_own_word, read), key=lambda figure: figure.start)
        return [replace(figure, text=text[figure.start : figure.end]) for figure in in_order]

    def _without_own_word(self, figure: Figure) -> Figure:
        """A figure without a word behind it that looks like a unit, if the record has that word: "412 kt"."""
        word = figure.unit
        if not word or word in UNITS_OF.values() or re.split(r"[\W\d_]", word)[0] not in self.words:
            return figure
        return replace(figure, unit="", end=figure.end - len(word) - 1)

    def claims(self, text: str) -> list[Claim]:
        """The figures of a text with what each states."""
        masked, figures = self.mask(text), self.figures(text)
        sentences = Sentences(masked, figures)
        claims = []
        for figure in figures:
            first, last = sentences.around(figure.start, figure.end)
            before, after = masked[first : figure.start], masked[figure.end : last]
            signs = signs_of(figure, before, after)
            loss = LOSS.search(before)
            claims.append(
                Claim(figure, first, last, signs, tuple(self.keys(figure, signs, loss["word"] if loss else "")))
            )
        return claims

    def keys(self, figure: Figure, signs: tuple[int, ...], loss: str = "") -> list[str]:
        """The keys of the facts that a figure states, in their order.

        loss  the word of a loss right before it: a fact with that word in its label is stated by its own sign
        """
        with localcontext(ARITHMETIC):
            found = [stated.key for stated in self.stated if self.is_statement(figure, signs, stated, loss)]
        return list(dict.fromkeys(found))

    def is_statement(self, figure: Figure, signs: tuple[int, ...], stated: Stated, loss: str = "") -> bool:
        """True if a figure states a value: of its kind, currency and unit, and equal to it."""
        if figure.kind not in stated.kinds:
            return False
        if figure.kind == "money" and self.currency(figure.currencies) != stated.currency:
            return False
        if figure.unit and figure.unit not in stated.units:
            return False
        if loss and names_loss(loss, stated.label):
            signs = (-1, 1)
        return is_equal(figure, signs, stated.value)

    def is_mentioned(self, fact: Fact, text: str) -> bool:
        """True if a text has a name, date, period or text of the record, word for word; a date in any order."""
        masked = read_as(text)
        if fact.type == "date":
            return any(found.date.isoformat() == fact.value for found in find_dates(masked, self.convention))
        keys = {key for _, _, key in find_periods(fact.print)}
        if keys & {key for _, _, key in find_periods(masked)}:
            return True
        words = re.escape(read_as(fact.print)).replace("\\ ", " ").replace(" ", "[ \u00a0]")
        return re.search(rf"(?<!\w){words}(?!\w)", masked, re.IGNORECASE) is not None

    def wrong(self, text: str) -> list[tuple[int, int]]:
        """Where the figures of a text stand that state no fact, in order."""
        return [(claim.figure.start, claim.figure.end) for claim in self.claims(text) if not claim.keys]


def _any_of(texts: Iterable[str]) -> re.Pattern[str] | None:
    """The pattern of any of some texts, the longest first, with any space, no part of a number; None for no text."""
    longest_first = sorted({read_as(text) for text in texts}, key=len, reverse=True)
    listed = "|".join(re.escape(text).replace("\\ ", " ").replace(" ", "[ \u00a0]") for text in longest_first)
    return re.compile(rf"(?<!\w)(?<!\d[.,])(?:{listed})(?!\w|[.,]\d)", re.IGNORECASE) if listed else None


def kinds_of(fact: Fact) -> tuple[str, ...]:
    """The kinds of figure that may state a fact: per cent also in basis points, a difference also in points."""
    dimension = fact.unit.dimension
    if dimension == "pct":
        if fact.type == "bps":
            return ("basis points", "percent", "points")
        is_difference = fact.source is not None and {"+", "-"} & set(parse(fact.source).postfix)
        return ("percent", "basis points") + (("points",) if is_difference or _OF_POINTS.search(fact.label) else ())
    return {"points": ("points", "basis points"), "x": ("multiple",), "count": ("count",)}.get(dimension, ("money",))


def record_convention(facts: Facts) -> Convention:
    """The convention of a record, as its prints say its values, else as they can be read in one way."""
    prints = [fact.print for fact in facts.values() if fact.is_figure or fact.type == "text"]
    convention = convention_of(prints)
    votes = {".": 0, ",": 0}
    for fact in facts.values():
        if fact.is_figure and re.search(r"[.,]\d{3}(?!\d)", fact.print):
            fits = [sign for sign in ".," if _is_print_right(fact, Convention(sign, spaced=True, settled=True))]
            if len(fits) == 1:
                votes[fits[0]] += 1
    if votes["."] != votes[","]:
        decimal = "," if votes[","] > votes["."] else "."
        convention = Convention(decimal, convention.spaced, settled=True)
    money = {fact.type.partition("_")[0] for fact in facts.values() if fact.is_figure and kinds_of(fact) == ("money",)}
    dates = [fact for fact in facts.values() if fact.type == "date"]
    for day_first in (True, False):
        trial = Convention(convention.decimal, convention.spaced, day_first, convention.settled, day_settled=True)
        if (
            dates
            and all(_has_date(fact, trial) for fact in dates)
            and not all(_has_date(fact, Convention(day_first=not day_first, day_settled=True)) for fact in dates)
        ):
            return trial
    return settle_dates(convention, [fact.print for fact in dates], dollars=money == {"usd"})


def _is_print_right(fact: Fact, convention: Convention) -> bool:
    """True if a print says its value by a convention."""
    written = read_figure(fact.print, convention)
    if written is None:
        return False
    return written.magnitude in (abs(fact.number), abs(fact.number * fact.unit.scale))


def _has_date(fact: Fact, convention: Convention) -> bool:
    return any(found.date.isoformat() == fact.value for found in find_dates(fact.print, convention))
