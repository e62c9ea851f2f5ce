"""An automaton over characters: it lets through the texts of which every figure states a fact of the record.

The judge is `data.facts.figure_matching`, of figures as it reads them. What is added here is foresight: while a figure
is being written, only what can still become a right one may follow, of the forms in `number_forms`; and none begins
in a word.

A state is a set of readings of what was written, one of which the checker will take: a figure that has begun, a name
or date of the record that has a digit in it, the number of a list item, or nothing that is open.
"""

import re
from enum import Enum
from typing import NamedTuple

from .number_forms import (
    BEHIND_NUMBER,
    BEHIND_SCALE,
    NUMBER,
    WORD_BEGINNINGS,
    WORDS_BESIDE,
    Forms,
    begins_one,
    is_more,
    next_letters,
)
from .old_figures import FIGURE, NUMBER_WORDS
from .old_matching import FALLING, Record, read_number, sentence

_PREFIX = re.compile(r"\(?[-−]?(?:(?:us)?\$|usd ?)?[-−]?\(?", re.IGNORECASE)
_LINE_START = re.compile(r"[ \t]*(?:#+[ \t]+)?")
_MARKS = frozenset("0123456789 .,()%$-−\n\t")
_FIRST_LETTERS = frozenset(word[0] for word in NUMBER_WORDS)


class Phase(Enum):
    """Progress of a figure at its last character.

    GOING   it must go on                               ENOUGH  it is right as it stands, and may go on
    HELD    its last letter must turn out a word's      OVER    it is right, or none, and the last character behind it
    WRONG   it cannot become right
    """

    GOING = 1
    ENOUGH = 2
    HELD = 3
    OVER = 4
    WRONG = 5


class Figure(NamedTuple):
    """A figure that has begun, from its sign or currency on; `falling` tells of a word of falling before it."""

    text: str
    falling: bool
    spelled: bool


class Text(NamedTuple):
    """The first `size` characters of one of the record's texts; a digit is among them."""

    text: str
    size: int


class Ordinal(NamedTuple):
    """The number of a list item or heading: one or two digits, and then a point or parenthesis."""

    text: str


Reading = Figure | Text | Ordinal


class State(NamedTuple):
    """State behind a text: its last line, the open readings, and `free`: True if a reading has nothing open."""

    line: str
    open: frozenset[Reading]
    free: bool


START = State("", frozenset(), True)


class Rules:
    """Which characters may follow, for one record."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self.texts = [text.lower() for text in record.texts]
        self.initials = {text[0] for text in self.texts}
        self.dated = [
            (low, next(place for place, letter in enumerate(low) if letter.isdecimal()))
            for low in self.texts
            if any(map(str.isdecimal, low))
        ]
        self.phases: dict[Figure, tuple[Phase, int]] = {}
        self.opened: tuple[str, tuple[str, bool]] = ("", self._context(""))
        self.forms = Forms(record)

    def step(self, state: State, letter: str) -> State | None:
        """The state behind one more character, None if it must not be written."""
        line = state.line + letter
        readings: set[Reading] = set()
        free = state.free
        for reading in state.open:
            match reading:
                case Figure(text, falling, spelled):
                    figure = Figure(text + letter, falling, spelled)
                    phase, end = self.phase(figure)
                    if phase is Phase.OVER:
                        after = self._again(line, len(line) - (len(figure.text) - end))
                        if after is not None:
                            readings |= after.open
                            free = free or (after.free and not letter.isdecimal())
                    elif phase is not Phase.WRONG:
                        readings.add(figure)
                case Text(text, size) if size < len(text):
                    if letter.lower() == text[size]:
                        readings.add(Text(text, size + 1))
                case Text():
                    free = free or not is_word(letter)
                case Ordinal(text):
                    if text[-1] in ".)":
                        free = free or letter in " \t"
                    elif letter in ".)" or (letter.isdecimal() and len(text) == 1):
                        readings.add(Ordinal(text + letter))
        if free and letter.isdecimal():
            readings |= self._begun(state.line, letter)
            free = False
        elif free and letter.lower() in _FIRST_LETTERS and not (state.line and is_word(state.line[-1])):
            prefix, falling = self.context(state.line)
            readings.add(Figure(prefix + letter, falling, True))
            free = False
        if not (free or readings):
            return None
        return State("" if letter == "\n" else line, frozenset(readings), free)

    def quiet(self, state: State) -> bool:
        """True if no figure is near: nothing is open but a word that may become that of a number."""
        return all(
            isinstance(reading, Figure) and reading.spelled and _last_word(reading.text) not in NUMBER_WORDS
            for reading in state.open
        )

    def telling(self, state: State) -> frozenset[str]:
        """The characters that may mean something to what is open; of others, any letter, or mark, stands for all."""
        found: set[str] = set()
        for reading in state.open:
            match reading:
                case Text(text, size):
                    found.update(text[size : size + 1])
                case Figure(text, _, True):
                    found.update(next_letters(_words(text)[-1], spelled=True))
                case Figure(text, _, False):
                    low = text.lower()
                    number = NUMBER.search(low)
                    found.update(next_letters(low[number.end() :].lstrip(")") if number else "", spelled=False))
                    for place in range(1, len(low)):
                        found.update(name[len(low) - place] for name in self.texts if is_more(name, low[place:]))
        return _MARKS.union(found, map(str.upper, found))

    def may_end(self, state: State) -> bool:
        """True if the text may end in this state."""
        after = self.step(state, "\n")
        return after is not None and after.free

    def begins(self, line: str) -> tuple[object, ...]:
        """All that decides which digit may follow a line with nothing open."""
        low = line.lower()
        texts = tuple(text for text, size in self.dated if _ends_with(low, text[:size]))
        return (*self.context(line), texts, _LINE_START.fullmatch(line) is not None, line[-1:].isalpha())

    def _begun(self, line: str, digit: str) -> set[Reading]:
        """The readings of a line's next character, a digit, if nothing is open before it."""
        prefix, falling = self.context(line)
        figure, low = Figure(prefix + digit, falling, False), line.lower()
        in_a_word = not prefix and line[-1:].isalpha()
        readings: set[Reading] = set() if in_a_word or self.phase(figure)[0] is Phase.WRONG else {figure}
        readings |= {
            Text(text, size + 1) for text, size in self.dated if text[size] == digit and _ends_with(low, text[:size])
        }
        if _LINE_START.fullmatch(line):
            readings.add(Ordinal(digit))
        return readings

    def _again(self, line: str, end: int) -> State | None:
        """The state behind a line, of which a figure took what is before `end`: what is behind it is read anew."""
        state: State | None = State(line[:end], frozenset(), True)
        for letter in line[end:]:
            state = self.step(state, letter) if state is not None else None
        return state

    def context(self, line: str) -> tuple[str, bool]:
        """The sign, currency and parenthesis that a figure behind a line has, and whether a word of falling is near."""
        if self.opened[0] != line:
            self.opened = line, self._context(line)
        return self.opened[1]

    def _context(self, line: str) -> tuple[str, bool]:
        masked = self.record.mask(f"{line}0)")  # a digit, and what encloses it if a parenthesis is open
        *_, match = FIGURE.finditer(masked)
        start = match.start() - masked[: match.start()].endswith("(")
        first, _ = sentence(masked, match.start())
        return masked[start : len(line)], FALLING.search(masked[first:start]) is not None

    # Figures

    def phase(self, figure: Figure) -> tuple[Phase, int]:
        """Phase of a figure, and the offset of its end if it is over."""
        if figure not in self.phases:
            self.phases[figure] = self._spelled_phase(figure) if figure.spelled else self._phase(figure)
        return self.phases[figure]

    def _phase(self, figure: Figure) -> tuple[Phase, int]:
        text = figure.text
        leads_on = self._leads_on(figure)
        if not leads_on and self.phases.get(figure._replace(text=text[:-1]), (None, 0))[0] is Phase.GOING:
            return Phase.WRONG, 0
        match = FIGURE.search(text)
        assert match is not None, "it begins with a digit"
        right, rest = self._right(match, figure), text[match.end() :].lower()
        if leads_on:
            return (Phase.ENOUGH if right else Phase.GOING), 0
        if rest and not self._extends(match, rest):
            over = right and not self._cut(text, match, begun=True)
            return (Phase.OVER if over else Phase.WRONG), match.end()
        if right and not self._cut(text, match, begun=False):
            return Phase.ENOUGH, 0
        return (Phase.HELD if not rest and self._may_be_a_word(figure) else Phase.WRONG), 0

    def _extends(self, match: re.Match[str], rest: str) -> bool:
        """True if the characters behind a figure may be the beginning of its decimals, its scale or its unit."""
        if match["unit"]:
            return False
        if match["scale"]:
            return rest in BEHIND_SCALE
        return rest in BEHIND_NUMBER or (rest in (".", ",") and not match["open"])

    def _right(self, match: re.Match[str], figure: Figure) -> bool:
        before = "fell " * figure.falling + figure.text[: match.start()]
        return bool(self.record.stated(read_number(match, before, figure.text[match.end() :])))

    def _may_be_a_word(self, figure: Figure) -> bool:
        """True if the last letter, which reads as a scale or unit, may begin a word behind a right figure: "12 m"."""
        text = figure.text
        before = text[:-1]
        if text[-1].lower() not in "kmbx" or not before.endswith(" "):
            return False
        return self.phase(figure._replace(text=before))[0] is Phase.ENOUGH

    def _cut(self, text: str, match: re.Match[str], *, begun: bool) -> bool:
        """True if one of the record's texts covers a part of a figure, or has begun to; it may cover all of it."""
        low = text.lower()
        first, last = match.span("number" if match["number"] else "words")
        for place in range(match.end()):
            if low[place] not in self.initials or (place and is_word(low[place - 1])):
                continue
            rest = low[place:]
            for name in self.texts:
                end = place + len(name)
                whole = rest.startswith(name) and not is_word(low[end : end + 1] or " ")
                if whole and end > match.start() and not (place <= first and last <= end):
                    return True
                if begun and place > first and name.startswith(rest):
                    return True
        return False

    def _leads_on(self, figure: Figure) -> bool:
        """True if a figure so far is the beginning, or all, of one that states a fact."""
        head = _head(figure.text).lower()
        body = figure.text[len(head) :]
        usd, minus = "$" in head or "usd" in head, "-" in head or "−" in head
        bare = (-1,) if minus else (1, -1) if figure.falling else (1,)
        enclosed = (-1,) if minus else (1, -1)
        inner, outer = head.endswith("("), head.startswith("(")
        if self.forms.fits(body, usd and not (inner and not outer), bare):
            return True
        if outer and self.forms.fits(body, usd, enclosed, behind=")"):
            return True
        return inner and self.forms.fits(body, usd, enclosed, between=")")

    # Figures in words

    def _spelled_phase(self, figure: Figure) -> tuple[Phase, int]:
        text = figure.text
        words = _words(text)
        matches = list(FIGURE.finditer(f"{text[:-1]}_" if text[-1].isdecimal() else text))  # a digit is the next one's
        wrong = [match for match in matches if not self._right(match, figure)]
        if all(word in NUMBER_WORDS or word in WORDS_BESIDE for word in words[:-1]) and (
            not words[-1] or words[-1] in WORD_BEGINNINGS
        ):
            if not wrong:
                return Phase.ENOUGH, 0
            if wrong[0] is not matches[-1]:
                return Phase.WRONG, 0
            start = text[matches[-1].start() :].lower()
            head = _head(start)
            minus = "-" in head or "−" in head
            spoken = self.forms.spoken[(-1,) if minus else (1, -1) if figure.falling else (1,)]
            if begins_one(spoken, start[len(head) :]):
                return Phase.GOING, 0
            return (Phase.HELD if self._may_be_a_word(figure) else Phase.WRONG), 0
        if wrong or any(self._cut(text, match, begun=True) for match in matches):
            return Phase.WRONG, 0
        return Phase.OVER, len(text) - 1


def _last_word(text: str) -> str:
    """The word of a text that is one word, behind its sign and currency; of another, a number word."""
    *others, word = _words(text)
    return "one" if others else word


def _words(text: str) -> list[str]:
    """The words behind a figure's sign and currency, in lower case; the last one may be a part, or empty."""
    return re.split(r"[ ,-]+", text[len(_head(text)) :].lower())


def _head(text: str) -> str:
    """The sign, currency and parenthesis that a figure begins with."""
    match = _PREFIX.match(text)
    assert match is not None, "it matches nothing, too"
    return match[0]


def is_word(letter: str) -> bool:
    """True for a character of a word (\\w of a regular expression)."""
    return letter == "_" or letter.isalnum()


def _ends_with(line: str, text: str) -> bool:
    """True if a line ends with a text that begins at a word's beginning."""
    return line.endswith(text) and (len(line) == len(text) or not is_word(line[-len(text) - 1] if text else line[-1]))
