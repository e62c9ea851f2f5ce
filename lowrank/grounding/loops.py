"""Loops: a model that is refused a figure over and over may write "US - - - - -", or go on with what it wrote there.

A round is a sequence of tokens that comes twice in a row. It does not come a third time where a token in it, or before
it on its line, stands in another's place; nor does a line of such a token, wherever.
"""

from collections import Counter
from collections.abc import Iterator

LONGEST_ROUND = 32  # tokens


class Loops:
    """The last tokens of a text, and which of them stand in the place of another."""

    def __init__(self) -> None:
        self._tail: list[int] = []
        self._replaced: list[bool] = []
        self._is_on_line = False  # a token in another's place
        self._lines: Counter[str] = Counter()  # that had one

    def take(self, token: int, line: str, *, is_replaced: bool, ends_line: bool) -> None:
        """The text, whose last line this is, goes on with a token."""
        self._is_on_line = self._is_on_line or is_replaced
        if ends_line:
            if line and (self._is_on_line or line in self._lines):
                self._lines[line] += 1
            self._is_on_line = False
        self._tail.append(token)
        self._replaced.append(is_replaced)
        del self._tail[: -3 * LONGEST_ROUND], self._replaced[: -3 * LONGEST_ROUND]

    def ends_third(self, token: int) -> bool:
        """True if a third round would end with this token that must not come."""
        if not self._is_on_line and True not in self._replaced:
            return False
        return any(
            last == token and (self._is_on_line or True in self._replaced[begin:]) for begin, last in self._thirds()
        )

    def is_third(self, line: str) -> bool:
        """True if this line must not end here: it came twice."""
        return self._lines[line] >= 2

    def last_of_thirds(self) -> list[int]:
        """The tokens with which a third round would end."""
        return [last for _, last in self._thirds()]

    def _thirds(self) -> Iterator[tuple[int, int]]:
        """The rounds that have come twice and all but once more: where the first begins, and their last token."""
        tail = self._tail
        for size in range(1, (len(tail) + 1) // 3 + 1):
            begin = len(tail) - size + 1  # of the third
            first, second = tail[begin - 2 * size : begin - size], tail[begin - size : begin]
            if first == second and tail[begin:] == second[:-1]:
                yield begin - 2 * size, second[-1]
