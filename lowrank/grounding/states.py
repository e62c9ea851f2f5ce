"""A state of the automaton: the line so far, and a set of readings of its end, one of which will turn out right.

A reading is what has begun and is not over; in a `free` state one of them has nothing open.
"""

from typing import NamedTuple


class FormNode:
    """A beginning of written forms, of which the next characters are found when they are asked for.

    keys  the facts of the forms that end here
    """

    __slots__ = ("_branches", "_depth", "_forms", "keys")

    def __init__(self, forms: list[tuple[str, str]], depth: int = 0) -> None:
        self._forms = forms
        self._depth = depth
        self._branches: dict[str, FormNode] | None = None
        self.keys = frozenset(key for form, key in forms if len(form) == depth)

    @property
    def branches(self) -> "dict[str, FormNode]":
        """By the next character."""
        if self._branches is None:
            groups: dict[str, list[tuple[str, str]]] = {}
            for form, key in self._forms:
                if len(form) > self._depth:
                    groups.setdefault(form[self._depth], []).append((form, key))
            self._branches = {letter: FormNode(forms, self._depth + 1) for letter, forms in groups.items()}
        return self._branches


class Figure(NamedTuple):
    """A figure that has begun: its place in the written forms, and its characters so far."""

    node: FormNode
    size: int


class Text(NamedTuple):
    """The first `size` characters of a text that is written whole."""

    text: str
    size: int


class Lead(NamedTuple):
    """The first `size` characters of what is written before a figure: a name, and the word that joins them."""

    text: str
    size: int


class Ordinal(NamedTuple):
    """The number of a list item or heading: one or two digits, and then a point or parenthesis."""

    text: str


Reading = Figure | Text | Lead | Ordinal


class State(NamedTuple):
    """State behind a text.

    line  its last line
    mark  the offset behind the last figure in it, -1 for none
    last_keys  the facts that the last figure states, of this line or one before
    open  what has begun
    free  True if a reading has nothing open
    """

    line: str
    mark: int
    last_keys: frozenset[str]
    open: frozenset[Reading]
    free: bool


NONE: frozenset[str] = frozenset()
START = State("", -1, NONE, frozenset(), True)


class Context(NamedTuple):
    """All that the end of a line decides.

    keys      the facts that a figure may state here
    falling   True if a word of falling stands before it
    starts    True if a figure may stand right behind the last character
    beside    True if the last word, or the next one, stands right behind a figure
    word      the letters at the end of the line
    wrong     True if this word must not end here
    denied    words that may not be written here, in lower case
    units     words that the last word may not be, or become
    close     True if the last character is a figure's
    texts     texts that have begun before their first digit, with the number of characters
    heads     True if the number of a list item may stand here
    stops     True if a space would end the sentence
    """

    keys: tuple[str, ...]
    falling: bool
    starts: bool
    beside: bool
    word: str
    wrong: bool
    denied: frozenset[str]
    units: frozenset[str]
    close: bool
    texts: tuple[tuple[str, int], ...]
    heads: bool
    stops: bool
