"""Fewer passes: tokens that the text so far suggests, verified in one pass of the model.

    the text ends with n tokens that stood before: what followed them there is the draft, d_1 .. d_k
    one pass over (last token, d_1, .. d_k) gives the logits behind each of them
    a token is chosen from the logits behind the last one, as ever; if it is d_1, those behind d_1 are there already

Every token is chosen from the logits that plain decoding has for it, by the same draw: greedy or sampled, with a
constraint or without, the text is the same. Seen as rejection sampling (arXiv 2211.17192) of a draft that is certain:
d is kept with its probability p(d), and else another token comes with the share that it has in p without d. For that
the logits of a pass over several tokens must have the bits that each has alone, which `FusedBlocks.logits_of_each`
answers for.

How many tokens are drafted follows from counts of what was accepted, and from what a pass over several costs, which is
a table and never timed: a machine takes the same passes every time. Where little is accepted nothing is drafted.

V vocabulary.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from .llama import KVCache, Llama, LogitsOfEach

LONGEST = 4  # tokens that are looked up, at most
MOST_TOKENS = 1 << 16  # that a look-up remembers: then it begins anew
# Share of drafts whose first token is accepted, by tokens looked up, and of their further tokens, before any is known:
# of 160 documents by quickstart's hat, 40 each free and grounded, greedy and drawn at 0.8.
FIRST, FURTHER = (0.27, 0.5, 0.5, 0.7), 0.75
CERTAINTY = 6.0  # drafts that these count for
FADING = 0.95  # of what was counted, with each further draft


class Lookup:
    """Tokens seen so far, and what followed their n-grams; the longest n-gram is looked up first, the last place wins.

    It may be shared by texts one after another: the words of one are drafts for the next.
    """

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self._after: tuple[dict[tuple[int, ...], int], ...] = tuple({} for _ in range(LONGEST))
        self._first = [[CERTAINTY * share, CERTAINTY] for share in FIRST]
        self._further = [CERTAINTY * FURTHER, CERTAINTY]

    def add(self, tokens: Sequence[int]) -> None:
        """The text goes on with some tokens, or a new one begins with them."""
        if len(self.tokens) + len(tokens) > MOST_TOKENS:
            self.tokens.clear()
            for places in self._after:
                places.clear()
        seen = self.tokens
        for token in tokens:
            end = len(seen)
            for count, places in enumerate(self._after, start=1):
                if count <= end:
                    places[tuple(seen[end - count :])] = end
            seen.append(token)

    def draft(self, costs: Sequence[float]) -> tuple[int, list[int]]:
        """(n, tokens that are worth verifying behind the last one, found by an n-gram); none if none are

        costs  of a pass over 1, 2, .. tokens: so many, less one, are drafted at most
        """
        seen, end = self.tokens, len(self.tokens)
        for count in range(min(LONGEST, end), 0, -1):
            place = self._after[count - 1].get(tuple(seen[end - count :]))
            if place is not None:
                return count, seen[place : place + self._worth(count, costs)]
        return 0, []

    def _worth(self, count: int, costs: Sequence[float]) -> int:
        """The k with the most tokens to be expected for the cost of a pass:  max_k (1 + a (1 + b + .. b^(k-1))) / c_k

        a, b: the shares in which the first and each further token of a draft are accepted.
        """
        first, further = self._first[count - 1][0] / self._first[count - 1][1], self._further[0] / self._further[1]
        best, most, expected, share = 0, 1 / costs[0], 1.0, first
        for k, cost in enumerate(costs[1:], start=1):
            expected += share
            share *= further
            if expected / cost > most:
                best, most = k, expected / cost
        return best

    def learn(self, count: int, drafted: int, accepted: int) -> None:
        """Counts a draft that an n-gram of `count` tokens found: its tokens, and those accepted."""
        _fade(self._first[count - 1], min(accepted, 1), 1)
        if accepted:
            _fade(self._further, accepted - 1, min(accepted, drafted - 1))


def _fade(counted: list[float], accepted: int, tried: int) -> None:
    if tried:
        counted[0] = counted[0] * FADING + accepted
        counted[1] = counted[1] * FADING + tried


class DraftedLogits:
    """The logits behind each further token of one text, by passes over drafts.

    cache   holds the prompt
    lookup  has the prompt's tokens; what is chosen is added to it
    The model's weights must stay as they are until the text ends. Adapters, hooks and modules may change: logits that
    are there already are then computed again.
    """

    def __init__(self, model: Llama, cache: KVCache, lookup: Lookup) -> None:
        assert model.fused_blocks is not None
        self._model, self._cache, self._lookup, self._fused = model, cache, lookup, model.fused_blocks
        self._costs = self._fused.costs_of_rows(model)
        self._count, self._draft, self._accepted, self._begin = 0, list[int](), 0, cache.length
        self._pass: LogitsOfEach | None = None

    def kept(self, chosen: Tensor) -> Tensor | None:
        """chosen int64 [1]: the token that the text goes on with -> float32 [1, V], if the last pass has its logits."""
        token = int(chosen)
        self._lookup.add([token])
        if self._pass is None:
            return None
        if token == self._draft[self._accepted] and self._pass.is_current():
            self._accepted += 1
            if self._accepted == len(self._draft):
                return self._ended(self._pass)
            return self._pass.logits[self._accepted, None]
        self._ended(self._pass)
        return None

    def _ended(self, over: LogitsOfEach) -> Tensor:
        """The logits behind the last token of a draft that is accepted; the cache keeps those and no others."""
        self._lookup.learn(self._count, len(self._draft), self._accepted)
        self._cache.length = self._begin + 1 + self._accepted
        self._pass = None
        return over.logits[self._accepted, None]

    def verified(self, chosen: Tensor) -> Tensor:
        """chosen int64 [1], for which nothing is kept -> float32 [1, V], with those behind a draft kept."""
        cache = self._cache
        self._begin, self._accepted = cache.length, 0
        self._count, self._draft = self._lookup.draft(self._costs[: cache.capacity - cache.length])
        if self._draft:
            tokens = torch.tensor([[int(chosen), *self._draft]], device=chosen.device)
            self._pass = self._fused.logits_of_each(self._model, tokens, cache)
            if self._pass is not None:
                return self._pass.logits[:1]
        return self._model.logits(self._model.hidden(chosen[:, None], cache)[:, -1])
