"""The random numbers of a text, each by the words that it follows and not by its place.

    u = H(seed, a, b, n)        for the token behind a, b, where a, b have been drawn behind n times before

H is BLAKE2b, 53 bits of it as a number in [0, 1). No key comes twice in a text, so its numbers are as independent as
those of a generator. And two texts of one seed that part, being of other hats, other facts or grounded and free, come
together again where they say the same: what differs between them is theirs, and not the luck of other draws (common
random numbers).
"""

from collections import Counter
from collections.abc import Sequence
from hashlib import blake2b

CONTEXT = 2  # tokens that a number goes by


class Draws:
    """The numbers of one text; `tokens` are those that it begins with, its prompt."""

    def __init__(self, seed: int, tokens: Sequence[int]) -> None:
        self.seed = seed
        self.last = tuple(tokens[-CONTEXT:])
        self.drawn: Counter[tuple[int, ...]] = Counter()

    def next(self) -> float:
        """A number in [0, 1), for the token that comes next."""
        key = ",".join(map(str, (self.seed, *self.last, self.drawn[self.last])))
        self.drawn[self.last] += 1
        return (int.from_bytes(blake2b(key.encode(), digest_size=8).digest(), "little") >> 11) / 2**53

    def take(self, token: int) -> None:
        """The text goes on with a token."""
        self.last = (*self.last, token)[-CONTEXT:]
