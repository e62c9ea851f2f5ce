"""Grounded decoding: of a figure, only what can become a right one under its own name keeps probability.

    p(token | text) = 0 if no text that begins with text + token has only right figures under their names, else what the
                      model says

`automaton` decides it for characters, `vocabulary` has a tokenizer's tokens by theirs. Most tokens that a model draws
are right, and are looked at alone; all others are only where one has been refused. **Leading** (`leads`): where a token
that was drawn begins a figure, and nothing says of what, a name is written first: that of a fact which the text has not
stated yet. So a figure that may not be written becomes another one, and not silence. **No loops** (`loops`): what
stands in another token's place does not come three times running.

V vocabulary.
"""

import numpy as np
import torch
from torch import Tensor

from ..data.facts.fact import Facts
from .automaton import Rules
from .leads import find_leads, unstated
from .loops import Loops
from .names import Phrases
from .states import START, Context, Figure, Lead, Ordinal, State, Text
from .vocabulary import NOTHING, Mask, Node, Spelling, Vocabulary, completions, last_byte, whole_characters
from .words import BEGINNINGS, is_marked

KEPT_MASKS = 4096
MOST_IDLE = 4  # figures that a text wants without a name once it has stated everything


class Grounding:
    """The tokens that may follow one text; a `Constraint` of `generate`.

    facts       the facts that its figures may state
    vocabulary  of the tokenizer that writes it; may be shared between texts
    phrases     key -> names that a fact has besides its label: those of its kind of document, and the user's
    stated      the facts that a figure of the text states, so far
    """

    def __init__(self, facts: Facts, vocabulary: Vocabulary, phrases: Phrases | None = None) -> None:
        self.vocabulary = vocabulary
        spoken = [*(fact.print for fact in facts.values()), *(fact.label for fact in facts.values())]
        self.rules = Rules(
            facts, phrases, vocabulary.writable([*spoken, "$−-0123456789.,()%USDx thousandmilbkMBpercentps"])
        )
        self.state = START
        self.partial = b""  # the first bytes of a character
        self.stated: set[str] = set()
        self.masks: dict[object, Tensor] = {}
        self.cleared: dict[frozenset[str], Mask] = {}
        self.loops = Loops()
        self.has_refused = False  # a token that would have come next
        self.idle = 0  # number of figures that were wanted without a name when all were stated

    def is_allowed(self, token: int) -> bool:
        """True if every figure is right under its name behind a token, or can become so, and no loop goes on."""
        vocabulary = self.vocabulary
        if token >= vocabulary.size or (not self.state.open and self._is_third(token)):
            return False
        if token in vocabulary.eos_ids:
            return not self.partial and self.rules.can_end(self.state)
        spelling = vocabulary.spellings.get(token)
        context = None if self.partial else self._context()
        if spelling is not None and context is not None and (self.state.free or not spelling.is_joined):
            if _is_free(spelling, context):
                return True
            if not self.state.open:
                return False
        return bool(self.allowed()[token])

    def allowed(self) -> Tensor:
        """bool [V]: all the tokens behind which every figure is right under its name, or can become so."""
        if self.partial:
            return torch.from_numpy(self._allow_parts(np.zeros(self.vocabulary.size, dtype=np.bool_)))
        context = self._context()
        key = self._key(context)
        if key not in self.masks:
            if len(self.masks) >= KEPT_MASKS:
                self.masks.clear()
            self.masks[key] = torch.from_numpy(self._mask(context))
        return self.masks[key]

    def instead(self, token: int) -> Tensor:
        """bool [V]: what may be written in the place of a token that may not.

        A figure where nothing says of what: the names of facts, one of which is written first. Another figure: those
        that may begin here, if any may. A word: the words. None that completes the third round of a loop. Where the
        text has stated everything and wants another figure over and over, its end.
        """
        self.has_refused = True
        figures = self.vocabulary.figures
        wants_figure = self._is_figure_start(token)
        if wants_figure:
            context = self._context()
            if context is not None and not context.keys:
                wanted = self.vocabulary.spelled[token].decode()
                leads = find_leads(self.rules, self.state.line, wanted, self.stated)
                if leads:
                    self.state = self.state._replace(open=leads, free=False)
                else:
                    self.idle += not unstated(self.rules, self.stated)
                    if self.idle > MOST_IDLE and self.rules.can_end(self.state):
                        return self._end()
        allowed = self.allowed()
        if self.state.open:
            return allowed
        alike = allowed & torch.from_numpy(figures if wants_figure else ~figures)
        return self._without_loops(alike if alike.any() else allowed)

    def take(self, token: int) -> None:
        """The text goes on with an allowed token."""
        if token in self.vocabulary.eos_ids:
            return
        text, self.partial, _ = whole_characters(self.partial + self.vocabulary.spelled[token])
        ends_line = bool(self.vocabulary.ends_line[token])
        self.loops.take(token, self.state.line, is_replaced=self.has_refused, ends_line=ends_line)
        self.has_refused = False
        for letter in text:
            after = self.rules.step(self.state, letter)
            assert after is not None, f"{letter!r} must not follow {self.state.line!r}"
            self.state = after
            self.stated |= after.last_keys

    @property
    def unfinished(self) -> int:
        """Number of characters at the end that belong to something that is not right yet."""
        if self.rules.can_end(self.state):
            return 0
        return max((_size(reading) for reading in self.state.open), default=0)

    def _end(self) -> Tensor:
        """bool [V]: the tokens that end a text."""
        end = torch.zeros(self.vocabulary.size, dtype=torch.bool)
        end[list(self.vocabulary.eos_ids)] = True
        return end

    def _is_third(self, token: int) -> bool:
        """True if a token would end what must not come a third time."""
        ends_line = self.vocabulary.ends_line[token]
        return self.loops.ends_third(token) or bool(ends_line and self.loops.is_third(self.state.line))

    def _without_loops(self, allowed: Tensor) -> Tensor:
        """Without the tokens behind which the text would end in three times the same; all if no other is left."""
        left = allowed.clone()
        left[self.loops.last_of_thirds()] = False
        if self.loops.is_third(self.state.line):
            left &= torch.from_numpy(~self.vocabulary.ends_line)
        return left if left.any() else allowed

    def _is_figure_start(self, token: int) -> bool:
        """True if a token begins a figure, where nothing is open."""
        if token >= self.vocabulary.size or self.partial or not self.state.free or self.state.open:
            return False
        if self.vocabulary.figures[token]:
            return True
        spelling = self.vocabulary.spellings.get(token)  # a currency's code, alone, begins one too
        return spelling is not None and not spelling.others and (spelling.head or spelling.spaced) in self.rules.codes

    # Masks

    def _context(self) -> Context | None:
        """The context behind the text, None if something is open and cannot be over."""
        state = self.state
        if state.free:
            return self.rules.context(state.line, state.mark, state.last_keys)
        if not self.rules.can_close(state):
            return None
        mark, last_keys = state.mark, state.last_keys
        for reading in state.open:
            if isinstance(reading, Figure) and reading.node.keys:
                mark, last_keys = len(state.line), reading.node.keys
        return self.rules.context(state.line, mark, last_keys)

    def _key(self, context: Context | None) -> object:
        """The cache key of a mask: everything that it depends on."""
        if context is None:
            return self.state.open
        word = context.word.lower()
        if word and not any(denied.startswith(word) for denied in context.denied | context.units):
            context = context._replace(word="_")
        return context, self.state.open, self.state.free

    def _mask(self, context: Context | None) -> Mask:
        vocabulary, state = self.vocabulary, self.state
        if context is None:
            allowed = np.zeros(vocabulary.size, dtype=np.bool_)
        else:
            allowed = self._free(context)
            if not state.free:
                allowed[vocabulary.joined] = False
                allowed[vocabulary.first_parts] = False
            self._begin(context, allowed)
        self._go_on(vocabulary.root, state, allowed)
        for token in vocabulary.eos_ids:
            allowed[token] = self.rules.can_end(state)
        if any(not letter.isascii() for letter in self.rules.expected(state)):
            self._allow_parts(allowed)
        return allowed

    def _free(self, context: Context) -> Mask:
        """The tokens without a figure's character that may follow, for their words."""
        vocabulary = self.vocabulary
        word = context.word.lower()
        if context.denied not in self.cleared:
            self.cleared[context.denied] = self._cleared(context.denied)
        allowed = self.cleared[context.denied].copy()
        if not word:
            removed = [vocabulary.words.get(denied) for denied in context.denied - BEGINNINGS]
            removed += [(vocabulary.spaced if context.close else vocabulary.words).get(unit) for unit in context.units]
        else:
            heard = (*(context.denied - BEGINNINGS), *context.units)
            begun = [denied for denied in heard if denied.startswith(word)]
            removed = [vocabulary.words.get(denied[len(word) :]) for denied in begun]
        for tokens in removed:
            if tokens is not None:
                allowed[tokens] = False
        if context.wrong:
            allowed[vocabulary.headless] = False
            allowed[vocabulary.first_parts] = False
        return allowed

    def _cleared(self, denied: frozenset[str]) -> Mask:
        """All tokens without a figure's character, but those that have a denied word behind another character."""
        allowed = self.vocabulary.plain.copy()
        for word in denied - BEGINNINGS:
            allowed[self.vocabulary.spaced.get(word, NOTHING)] = False
        for token, words in self.vocabulary.several:
            if words & denied:
                allowed[token] = False
        return allowed

    def _begin(self, context: Context, allowed: Mask) -> None:
        """Allows the tokens with a figure's character in which something begins."""
        openers, possible = self.rules.openers(context), self.rules.possible(context)
        for letter, branch in self.vocabulary.marked.branches.items():
            if letter in openers if is_marked(letter) else not possible.isdisjoint(branch.letters):
                after = self.rules.step(self.state, letter)
                if after is not None:
                    allowed[branch.exact] = True
                    self._walk(branch, after, allowed)

    def _walk(self, node: Node, state: State, allowed: Mask) -> None:
        """Allows the tokens below a node, as far as they may be written behind the state that it led to."""
        for letter, branch in node.branches.items():
            after = self.rules.step(state, letter)
            if after is not None:
                allowed[branch.exact] = True
                self._walk(branch, after, allowed)

    def _go_on(self, node: Node, state: State, allowed: Mask) -> None:
        """Allows the tokens that go on with what is open."""
        for letter in self.rules.expected(state):
            branch = node.branches.get(letter)
            after = self.rules.step(state, letter) if branch is not None else None
            if branch is None or after is None:
                continue
            allowed[branch.exact] = True
            if branch.branches:
                self._go_on(branch, after, allowed)
                if self.rules.can_close(after):
                    self._close(branch, after, allowed)

    def _close(self, node: Node, state: State, allowed: Mask) -> None:
        """Allows the tokens in which something open is over, and other characters follow."""
        expected = self.rules.expected(state)
        for letter, branch in node.branches.items():
            after = self.rules.step(state, letter) if letter not in expected else None
            if after is not None:
                allowed[branch.exact] = True
                self._walk(branch, after, allowed)

    def _allow_parts(self, allowed: Mask) -> Mask:
        """Bytes that are no whole characters may begin one that may follow, and complete it."""
        for part, tokens in self.vocabulary.parts.items():
            text, rest, complete = whole_characters(self.partial + part)
            state: State | None = self.state
            for letter in text:
                state = self.rules.step(state, letter) if state is not None else None
            allowed[tokens] = complete and state is not None and (not rest or self._can_begin(state, rest))
        return allowed

    def _can_begin(self, state: State, rest: bytes) -> bool:
        """True if a character that begins with some bytes may follow."""
        if state.free and not self.rules.context(state.line, state.mark, state.last_keys).wrong:
            return len(rest) < last_byte(rest) or any(self.rules.step(state, letter) for letter in completions(rest))
        return any(letter.encode("utf-8", "surrogatepass").startswith(rest) for letter in self.rules.expected(state))


def _is_free(spelling: Spelling, context: Context) -> bool:
    """True if the words of a token may stand in a context; what `Grounding._free` says of it."""
    head, word, denied = spelling.head, context.word.lower(), context.denied
    if (spelling.spaced in denied and spelling.spaced not in BEGINNINGS) or not denied.isdisjoint(spelling.others):
        return False
    if context.wrong and not head:
        return False
    if word:
        ended = word + head
        return not head or not ((ended in denied and ended not in BEGINNINGS) or ended in context.units)
    if head in denied and head not in BEGINNINGS:
        return False
    return (spelling.spaced if context.close else head) not in context.units


def _size(reading: Figure | Text | Lead | Ordinal) -> int:
    return len(reading.text) if isinstance(reading, Ordinal) else reading.size
