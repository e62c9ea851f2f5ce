"""An automaton over characters: it lets through the texts of which every figure states a fact under its own name.

A digit, a currency's sign or a per cent sign is written only as a part of

    a figure   one of the written forms (`number_forms`) of the fact that the words before it name (`names`)
    a text     one of the record's names, dates and texts, or the period in a label: "Q3 2024", "31 March 2025"
    an ordinal the number of a list item or heading

and of words, those are not written that make a figure another one (a scale, a currency or a unit beside it), are
figures themselves ("a million", "doubled"), or contradict the record (`directions`).

A state (`states`) is the line so far, and a set of readings of its end, one of which will turn out right.
"""

import re
from collections.abc import Iterator

from ..data.facts.fact import Facts
from ..data.facts.figure_matching import LOSS, Record, is_stated_behind
from ..data.facts.labels import named_periods
from ..data.facts.phrasal import without_phrases
from .directions import BEHIND, DOWN, FALLING, IN_FRONT, UP, Directions
from .names import Names, Phrases
from .number_forms import NumberForms
from .states import NONE, Context, Figure, FormNode, Lead, Ordinal, Reading, State, Text
from .vocabulary import Writable
from .words import (
    ALSO_ELSE,
    BEFORE_FIGURE,
    CURRENCIES,
    KNOWN_UNITS,
    OF_PER,
    QUANTITIES,
    SCALES,
    SHORT_SCALES,
    SPELLED_BEFORE,
    TIME_WORDS,
    UNITS,
    can_stand_behind,
    can_start_figure,
    fold,
    is_marked,
    is_unit_like,
    is_word,
    spaced,
    units_behind_spelled,
)

_LINE_START = re.compile(r"[ \t]*(?:#+[ \t]+)?")
_SENTENCE_END = re.compile(r"[.;!?](?=\s)")
_WORD_AT_END = re.compile(r"[^\W\d_]*$")
_BESIDE_FIGURE = re.compile(r"[ \u00a0\u202f-]?[^\W\d_]*")
_BARE_NUMBER = re.compile(r"\d+")


class Rules:
    """Which characters may follow, for one record.

    phrases   key -> names of a fact besides its label
    writable  characters that can be written: a form or text with another one is never begun
    """

    def __init__(self, facts: Facts, phrases: Phrases | None = None, writable: Writable | None = None) -> None:
        self.facts = facts
        self.record = Record(facts)
        self.numbers = NumberForms(self.record)
        known = "|".join(spaced(text) for text in self.record.texts)
        self.known = re.compile(rf"(?<!\w)(?:{known})(?!\w)", re.IGNORECASE) if known else None
        self.names = Names(facts, phrases or {})
        self.directions = Directions(facts, self.names)
        self.writable = writable or Writable()
        labelled = [fact.label for fact in facts.values()]
        periods = {label[start:end] for label in labelled for start, end, _ in named_periods(label)}
        labels = {name for name in self.names.owners if any(map(is_marked, name))}
        texts = {text for text in (*self.record.texts, *periods, *labels) if any(map(is_marked, text))}
        self.texts = [
            (text, next(place for place, letter in enumerate(text) if is_marked(letter)))
            for text in sorted(texts)
            if self.writable.has(text) and not any(map(is_marked, self.record.mask(text)))
        ]
        self.whole_texts = frozenset(self.record.texts)
        words_of_record = {word for text in self.record.texts for word in re.findall(r"[^\W\d_]+", text.lower())}
        words_of_record |= {word for name in self.names.owners for word in re.findall(r"[^\W\d_]+", name)}
        self.words = frozenset(words_of_record)
        self.quantities = QUANTITIES - words_of_record
        self.codes = frozenset(word for word in CURRENCIES if len(word) == 3) - words_of_record
        # word -> the texts that it is a part of, and what stands before it there
        self.values = [
            (f"{fold(fact.label)}: ", fact.print) for fact in facts.values() if not fact.is_figure and fact.print
        ]
        self.inside: dict[str, list[tuple[str, str]]] = {}
        for text in self.record.texts:
            for found in re.finditer(r"[^\W\d_]+", text):
                self.inside.setdefault(fold(found[0]), []).append((text, text[: found.start()]))
        self.forms: dict[tuple[tuple[str, ...], bool], FormNode] = {}
        prints = (fact.print for key, fact in facts.items() if fact.is_figure)
        self.letters = {letter for text in (*prints, "USD") for letter in text if letter.isalpha()}
        self.deniable = [
            (word, [fold(start) for _, start in places])
            for word, places in self.inside.items()
            if word in self.quantities | KNOWN_UNITS | UP | DOWN | IN_FRONT | BEHIND
        ]
        self.unions: dict[tuple[frozenset[str], tuple[str, ...]], frozenset[str]] = {}
        self.beginnings: dict[str, frozenset[str]] = {}
        self.last: tuple[tuple[str, int, frozenset[str]], Context] | None = None

    def step(self, state: State, letter: str) -> State | None:
        """The state behind one more character, None if it must not be written."""
        line, mark, last_keys, free = state.line, state.mark, state.last_keys, state.free
        if free and not state.open and letter.isalpha() and letter not in self.letters and not is_marked(letter):
            return State(line + letter, mark, last_keys, state.open, True)  # a word goes on, and no figure begins
        after: set[Reading] = set()
        led = False
        for reading in state.open:
            match reading:
                case Figure(node, size):
                    if letter in node.branches:
                        after.add(Figure(node.branches[letter], size + 1))
                    if node.keys and can_stand_behind(letter):
                        free, mark, last_keys = True, len(line), node.keys
                case Text(text, size) if size < len(text):
                    if fold(letter) == fold(text[size]):
                        after.add(Text(text, size + 1))
                case Lead(text, size):
                    if fold(letter) == fold(text[size]):
                        led = led or size + 1 == len(text)
                        after.update([Lead(text, size + 1)] if size + 1 < len(text) else [])
                case Text():
                    free = free or not (is_word(letter) or is_marked(letter))
                case Ordinal(text):
                    if text[-1] in ".)":
                        free = free or letter in " \t"
                    elif letter in ".)" or (letter.isdecimal() and len(text) == 1):
                        after.add(Ordinal(text + letter))
        if free:
            context = self.context(line, mark, last_keys)
            after.update(self._begun(context, letter))
            free = not is_marked(letter) and (letter.isalpha() or not context.wrong)
            if context.wrong and not letter.isalpha():
                after.update(self._goes_on(line, context.word, letter))
                free = free or (not is_marked(letter) and self._is_text_end(line, context.word))
        free = free or led
        if not (free or after):
            return None
        if letter == "\n":
            return State("", -1, last_keys, frozenset(after), free)
        return State(line + letter, mark, last_keys, frozenset(after), free)

    def can_end(self, state: State) -> bool:
        """True if the text may end in this state."""
        after = self.step(state, "\n")
        return after is not None and after.free

    def expected(self, state: State) -> set[str]:
        """The characters with which something open goes on."""
        found: set[str] = set()
        for reading in state.open:
            match reading:
                case Figure(node, _):
                    found.update(node.branches)
                case Text(text, size) if size < len(text):
                    found.add(text[size])
                    if size == 0:
                        found.update(form for form in (text[0].upper(), text[0].lower()) if len(form) == 1)
                case Lead(text, size):
                    found.add(text[size])
                case Ordinal(text):
                    found.update(" \t" if text[-1] in ".)" else "0123456789.)" if len(text) == 1 else ".)")
        return found

    def openers(self, context: Context) -> set[str]:
        """The characters with which something begins."""
        found = {form for text, size in context.texts for form in (text[size], text[size].upper(), text[size].lower())}
        if context.heads:
            found.update("0123456789")
        if context.keys and context.starts:
            found.update(self._node(context).branches)
        return found

    def possible(self, context: Context) -> set[str]:
        """The characters of figures with which something could begin behind one more character."""
        found = {form for text, size in self.texts for form in (text[size], text[size].upper(), text[size].lower())}
        return found.union(self._node(context).branches) if context.keys else found

    def is_date_expected(self, line: str) -> bool:
        """True if a number behind a line would be of a date, or of one of the record's texts."""
        word = re.search(r"(\w+)\W*$", line)
        return word is not None and (word[1].lower() in TIME_WORDS - ALSO_ELSE or word[1].lower() in self.inside)

    def can_close(self, state: State) -> bool:
        """True if something open is over if the next character is none of it."""
        return any(
            bool(reading.node.keys) if isinstance(reading, Figure) else reading.size == len(reading.text)
            for reading in state.open
            if isinstance(reading, Figure | Text)
        )

    def context(self, line: str, mark: int, last_keys: frozenset[str]) -> Context:
        """The context behind a line whose last figure, of the facts `last_keys`, ends at `mark`."""
        if self.last is None or self.last[0] != (line, mark, last_keys):
            self.last = (line, mark, last_keys), self._context(line, mark, last_keys)
        return self.last[1]

    def _context(self, line: str, mark: int, last_keys: frozenset[str]) -> Context:
        masked = self._blank(line)
        start = 0
        for end in _SENTENCE_END.finditer(masked):
            start = end.end()
        sentence = masked[start:]
        names = self.names.find(sentence)
        window = max(mark - start, 0)
        keys = self.names.about(sentence, names, window, line[start:])
        if (loss := LOSS.search(sentence)) is not None:
            keys = tuple(key for key in keys if self._is_stated_behind(loss["word"], key))
        word = _WORD_AT_END.search(line, max(mark, 0))
        assert word is not None, "it matches nothing, too"
        beside = mark >= 0 and _BESIDE_FIGURE.fullmatch(line, mark) is not None
        before = line[: word.start()].rstrip(" \u00a0\u202f-")
        counted = _WORD_AT_END.search(before)
        spelled = SPELLED_BEFORE.search(before) is not None and before != line[: word.start()]
        denied = self._denied(self.directions.denied_in(sentence, names), keys)
        units = NONE
        if beside:  # "3 percent"
            units = KNOWN_UNITS - self._units_of(last_keys)
        elif spelled:  # "three percent"
            units = units_behind_spelled()
        elif counted is not None and counted[0].lower() == "per":
            units = OF_PER
        low = fold(line)
        before = low[: word.start()]
        wrong = denied
        inner = [word for word, starts in self.deniable if any(before.endswith(start) for start in starts)]
        if inner:
            denied = denied.difference(inner)
        return Context(
            keys,
            FALLING.search(without_phrases(sentence), window) is not None,
            can_start_figure(line, is_named=bool(names) and names[-1].end == len(sentence.rstrip())),
            beside,
            word[0],
            bool(word[0])
            and (
                word[0].lower() in wrong
                or word[0].lower() in units
                or (beside and self._is_unit(word[0], last_keys))
                or (spelled and word[0].lower() in SHORT_SCALES)
            ),
            denied,
            units,
            beside and mark == len(line),
            tuple(
                (text, size)
                for text, size in self.texts
                if self._has_begun(line, low, text, size, keys)
                and not (mark >= 0 and self.names.is_other_period(text, line[mark : len(line) - size], last_keys))
            ),
            _LINE_START.fullmatch(line) is not None,
            line[-1:] in (".", ";", "!", "?"),
        )

    def _is_stated_behind(self, loss: str, key: str) -> bool:
        fact = self.facts[key]
        return not fact.is_figure or is_stated_behind(loss, fact.number, fact.label)

    def _blank(self, line: str) -> str:
        """A line with the record's texts blanked out: same length."""
        return line if self.known is None else self.known.sub(lambda found: "_" * len(found[0]), line)

    def _denied(self, against: frozenset[str], keys: tuple[str, ...]) -> frozenset[str]:
        """Words that may not be written: those, quantities, and the codes of currencies in which no figure begins."""
        if (against, keys) not in self.unions:
            begun = NONE.union(*(self._codes_of(key) for key in keys))
            self.unions[against, keys] = against | self.quantities | (self.codes - begun)
        return self.unions[against, keys]

    def _codes_of(self, key: str) -> frozenset[str]:
        """The three letters, in lower case, with which a form of a fact begins: codes of currencies among them."""
        if key not in self.beginnings:
            forms = self.numbers.texts(key, falling=True)
            self.beginnings[key] = frozenset(form[:3].lower() for form in forms)
        return self.beginnings[key]

    def _has_begun(self, line: str, low: str, text: str, size: int, keys: tuple[str, ...]) -> bool:
        """True if a line ends with a text's characters before its first digit. A bare number needs a word of time."""
        if not low.endswith(fold(text[:size])) or (size < len(low) and is_word(low[len(low) - size - 1])):
            return False
        if not size and line and line[-1] not in BEFORE_FIGURE:
            return False  # a point or comma before a number makes another number
        completed = line[: len(line) - size] + text
        if text in self.whole_texts and any(map(is_marked, self._blank(completed)[len(line) - size :])):
            return False  # another text has taken a part of it
        if size or not keys or not _BARE_NUMBER.fullmatch(text):
            return True
        word = re.search(r"(\w+)\W*$", low)
        return word is not None and word[1] in TIME_WORDS

    def _begun(self, context: Context, letter: str) -> Iterator[Reading]:
        """The readings that begin with a character."""
        if context.keys and context.starts:
            branch = self._node(context).branches.get(letter)
            if branch is not None:
                yield Figure(branch, 1)
        for text, size in context.texts:
            if fold(letter) == fold(text[size]):
                yield Text(text, size + 1)
        if context.heads and letter.isdecimal() and letter.isascii():
            yield Ordinal(letter)

    def _goes_on(self, line: str, word: str, letter: str) -> Iterator[Text]:
        """The texts of the record that a word which must not stand alone is a part of, and goes on with."""
        low = fold(line)
        for text, before in self.inside.get(fold(word), ()):
            size = len(before) + len(word)
            if size < len(text) and low.endswith(fold(text[:size])) and fold(letter) == fold(text[size]):
                yield Text(text, size + 1)

    def _is_text_end(self, line: str, word: str) -> bool:
        """True if a word which must not stand alone is the last of a text of the record."""
        low = fold(line)
        return any(
            len(before) + len(word) == len(text) and low.endswith(fold(text))
            for text, before in self.inside.get(fold(word), ())
        )

    def _is_unit(self, word: str, last_keys: frozenset[str]) -> bool:
        low = word.lower()
        known = low in SCALES or low in CURRENCIES or low in UNITS
        return is_unit_like(word) and low not in self._units_of(last_keys) and (known or low not in self.words)

    def _units_of(self, last_keys: frozenset[str]) -> frozenset[str]:
        """Words that may stand behind a count: those of its label, "24 months" for "term in months"."""
        counts = (self.facts[key].label for key in last_keys if self.facts[key].type == "count")
        return frozenset(word for label in counts for word in re.findall(r"[^\W\d_]+", label.lower()))

    def _is_whole(self, form: str) -> bool:
        """True if none of the record's texts is a part of a form."""
        return self.known is None or all(found.span() == (0, len(form)) for found in self.known.finditer(form))

    def _node(self, context: Context) -> FormNode:
        """The written forms of the facts that a context names."""
        if (context.keys, context.falling) not in self.forms:
            self.forms[context.keys, context.falling] = FormNode(
                [
                    (form, key)
                    for key in context.keys
                    for form in self.numbers.texts(key, falling=context.falling)
                    if self.writable.has(form) and self._is_whole(form)
                ]
            )
        return self.forms[context.keys, context.falling]
