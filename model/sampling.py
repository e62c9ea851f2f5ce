"""The choice of the next token: a filter of the logits, and a draw from what it leaves.

B rows, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypedDict

import torch
from torch import Tensor

from .draws import Draws

HEAD = 256  # tokens of a row that are sorted at first


class SamplingOptions(TypedDict, total=False):
    """The fields of `Sampling`, as keywords of the functions that generate."""

    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    seed: int | Sequence[int]


@dataclass(frozen=True)
class Sampling:
    """The choice of a token. The steps are taken in this order, each on the result of the one before:

    repetition_penalty   l -> l / penalty for l > 0, else l * penalty, for each token of the row, its prompt
                         included; 1 is off    (CTRL, arXiv 1909.05858)
    temperature          p = softmax(l / temperature); 0 takes the likeliest, and the rest does not matter
    top_k                the k likeliest stay; 0 is off
    top_p                a token stays while the likelier ones have at most top_p together, as in Meta's code; 1 is off
                         (nucleus sampling, arXiv 1904.09751)
    min_p                a token stays if it has at least min_p times the likeliest one's; 0 is off (arXiv 2407.01082)
    seed                 of the draws: one for all rows, or one a row

    Each row has numbers of its own (`draws`): it draws what it would draw alone, on any device.
    Raises ValueError for a value out of range.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | Sequence[int] = 0

    def __post_init__(self) -> None:
        rules = {
            "temperature": ("0 or more", 0 <= self.temperature < float("inf")),
            "top_k": ("0 or more", self.top_k >= 0),
            "top_p": ("in (0, 1]", 0 < self.top_p <= 1),
            "min_p": ("in [0, 1]", 0 <= self.min_p <= 1),
            "repetition_penalty": ("above 0", 0 < self.repetition_penalty < float("inf")),
        }
        for name, (rule, is_valid) in rules.items():
            if not is_valid:
                raise ValueError(f"{name} must be {rule}, got {getattr(self, name)!r}")


class Constraint(Protocol):
    """The tokens that one row may write.

        x ~ p                        drawn as if there were no constraint
        y = argmax p over A(x)       if x may not come next: the likeliest of the tokens that may in its place

    So a token keeps the share that the model gives it, and one that may not be written hands its share to the best of
    what the constraint has in its place. Drawn from p over A(x), at a high temperature it would often be a token of the
    tail: where the refused one was nearly certain, the rest is noise.
    """

    def is_allowed(self, token: int) -> bool:
        """True if a token may come next."""

    def instead(self, token: int) -> Tensor:
        """bool [V] on the CPU: A(x), the tokens that may come next in the place of one that may not; at least one."""

    def take(self, token: int) -> None:
        """The row continues with an allowed token."""

    @property
    def unfinished(self) -> int:
        """The number of characters at the end of the text that must not remain if nothing follows them."""


class Sampler:
    """The choice of tokens for the rows of one batch, with the state that `Sampling` needs.

    prompts      the tokens of each row so far
    constraints  one a row; None for a row that is free
    never        tokens that no row draws
    """

    def __init__(
        self,
        sampling: Sampling,
        prompts: Sequence[Sequence[int]],
        device: torch.device,
        constraints: Sequence[Constraint | None] | None = None,
        never: Sequence[int] = (),
    ) -> None:
        seeds = [sampling.seed] * len(prompts) if isinstance(sampling.seed, int) else list(sampling.seed)
        for name, values in (("seeds", seeds), ("constraints", constraints or prompts)):
            if len(values) != len(prompts):
                raise ValueError(f"{name}: one a row, got {len(values)} for {len(prompts)} rows")
        self.sampling = sampling
        self.draws = [Draws(seed, prompt) for seed, prompt in zip(seeds, prompts, strict=True)]
        self.constraints = constraints or [None] * len(prompts)
        self.never = torch.tensor(never, dtype=torch.int64, device=device) if never else None
        self.row_tokens = [torch.tensor(sorted(set(prompt)), device=device) for prompt in prompts]

    def choose(self, logits: Tensor, ended: Sequence[bool]) -> Tensor:
        """logits float32 [B, V] -> int64 [B]; what stands for a row that has ended does not matter."""
        options = self.sampling
        if self.never is not None or options.repetition_penalty != 1:
            logits = logits.clone()
        if self.never is not None:
            logits[:, self.never] = float("-inf")
        if (penalty := options.repetition_penalty) != 1:
            for row, tokens in zip(logits, self.row_tokens, strict=True):
                values = row[tokens]
                # A tiny penalty must not make infinities, between which there is no choice.
                most = torch.finfo(values.dtype).max
                row[tokens] = torch.where(values > 0, values / penalty, values * penalty).clamp(max=most)
        chosen = self._first(logits, ended)
        refused, places = [], []
        for row, constraint in enumerate(self.constraints):
            if constraint is None or ended[row]:
                continue
            token = int(chosen[row])
            if not constraint.is_allowed(token):
                places.append(constraint.instead(token))
                refused.append(row)
        if refused:
            bounds = torch.zeros(len(refused), logits.shape[-1], dtype=torch.bool)
            for bound, place in zip(bounds, places, strict=True):
                bound[: len(place)] = place
            left = logits[refused].masked_fill(~bounds.to(logits.device), float("-inf"))
            assert left.isfinite().any(-1).all(), "a constraint must leave a token"
            chosen[refused] = left.argmax(-1)
        return chosen

    def _first(self, logits: Tensor, ended: Sequence[bool]) -> Tensor:
        """A token for each row, as if there were no constraints; 0 for one that has ended."""
        if self.sampling.temperature == 0 or not any(ended):
            return self._draw(logits, range(len(logits)))
        rows = [row for row, has_ended in enumerate(ended) if not has_ended]
        chosen = torch.zeros(len(logits), dtype=torch.int64, device=logits.device)
        if rows:
            chosen[rows] = self._draw(logits[rows], rows)
        return chosen

    def _draw(self, logits: Tensor, rows: Sequence[int]) -> Tensor:
        """A token for each of some rows, by their own numbers;  float32 [rows, V] -> int64 [rows]"""
        if self.sampling.temperature == 0:
            return logits.argmax(-1)
        uniform = torch.tensor([self.draws[row].next() for row in rows], dtype=torch.float64)
        return draw(logits, self.sampling, uniform.to(logits.device))

    def take(self, tokens: Sequence[int | None]) -> None:
        """Every row continues with its token; None for one that has ended."""
        for row, token in enumerate(tokens):
            if token is None:
                continue
            self.draws[row].take(token)
            constraint = self.constraints[row]
            if constraint is not None:
                constraint.take(token)
            if self.sampling.repetition_penalty != 1:
                known = self.row_tokens[row]
                self.row_tokens[row] = torch.cat([known, known.new_tensor([token])]).unique()


def draw(logits: Tensor, options: Sampling, uniform: Tensor) -> Tensor:
    """The token at which the cumulative share of those that stay first exceeds `uniform`, the likeliest first

    logits float32 [B, V], uniform float64 [B] in [0, 1) -> int64 [B]

    Tokens that are as likely stand in the order of their ids. A row is sorted whole only where its `HEAD` likeliest
    tokens do not tell the one that is drawn: sorting 49,152 takes as long as a token's pass through a small model.
    """
    # Less the largest, in float64: a temperature near 0 must not make infinities of healthy logits.
    scaled = (logits.double() - logits.amax(-1, keepdim=True).double()) / options.temperature
    size = logits.shape[-1]
    kept = options.top_k if 0 < options.top_k < size else size
    head = max(HEAD, kept + 1) if kept < size else HEAD
    if head >= size:
        return _drawn(scaled, kept, options, uniform, size)[0]
    tokens, is_sure = _drawn(scaled, kept, options, uniform, head)
    if not is_sure.all():
        unsure = ~is_sure
        tokens[unsure], _ = _drawn(scaled[unsure], kept, options, uniform[unsure], size)
    return tokens


def _drawn(scaled: Tensor, kept: int, options: Sampling, uniform: Tensor, head: int) -> tuple[Tensor, Tensor]:
    """The tokens by the `head` likeliest of each row, and True where those that are less likely could change nothing.

    scaled  logits less the largest, over the temperature, float64 [B, V]
    kept    what top_k leaves of V
    """
    size = scaled.shape[-1]
    if head < size:
        order, place = scaled.topk(head).indices.sort(dim=-1)
        values, place = scaled.gather(-1, order).sort(dim=-1, descending=True, stable=True)
        order = order.gather(-1, place)
    else:
        values, order = scaled.sort(dim=-1, descending=True, stable=True)
    weights = values[:, :kept].exp()
    upto = weights.cumsum(-1)
    mass = (scaled if kept == size else values[:, :kept]).exp().sum(-1, keepdim=True)
    stays = weights > 0
    if is_cut := options.top_p < 1 or options.min_p > 0:
        stays &= (upto - weights <= options.top_p * mass) & (weights >= options.min_p * weights[:, :1])
    last = stays.sum(-1, keepdim=True) - 1  # the likeliest tokens are those that stay
    if is_cut:
        mass = upto.gather(-1, last)
    target = uniform[:, None] * mass
    place = torch.searchsorted(upto, target, right=True).minimum(last)  # rounding must not take it beyond what stays
    is_known = last + 1 < weights.shape[-1] if is_cut else target < upto[:, -1:]
    # What is as likely as the last of the head may stand outside of it.
    is_sure = (is_known | (kept <= head)) & (values.gather(-1, place) > values[:, -1:])
    return order.gather(-1, place).squeeze(-1), is_sure.squeeze(-1)
