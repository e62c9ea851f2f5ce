"""Several texts one behind another in the rows of a batch, none of which sees another.

B batch, T time.
"""

from functools import cached_property

import torch
from torch import Tensor


class PackedTexts:
    """Where each text begins. A kernel for texts of different lengths takes `bounds`; any other attention the `mask`.

    first  int64 [B, T]: of each token, the place in its row where its text begins (`segment_starts`)
    """

    def __init__(self, first: Tensor) -> None:
        self.first = first

    @cached_property
    def mask(self) -> Tensor:
        """bool [B, 1, T, T], true where a query may look: the causal mask cut into blocks on the diagonal."""
        mask = attention_mask(0, self.first.shape[1], self.first, self.first.device)
        assert mask is not None
        return mask

    @cached_property
    def bounds(self) -> Tensor:
        """int32 [texts + 1]: where each text begins among all B T tokens, and B T. The device is waited for."""
        place = torch.arange(self.first.shape[1], device=self.first.device)
        begins = (self.first == place).flatten().nonzero()[:, 0]
        return torch.cat([begins, begins.new_tensor([self.first.numel()])]).int()


def segment_starts(segments: Tensor) -> Tensor:
    """start[t] = the last s <= t where s = 0 or segments[s] != segments[s - 1];  int64 [B, T] -> int64 [B, T]"""
    begins = torch.ones_like(segments, dtype=torch.bool)
    begins[:, 1:] = segments[:, 1:] != segments[:, :-1]
    place = torch.arange(segments.shape[1], device=segments.device)
    return (place * begins).cummax(dim=1).values


def attention_mask(start: int, length: int, first: Tensor | None, device: torch.device) -> Tensor | None:
    """True where a query may look: at itself, and at earlier tokens from `first` on; [B or 1, 1, T, S], S = start + T

    first int64 [B, 1 or T]: the first real token of a row, or the first of the query's own segment. With segments
    this is the causal mask cut into blocks on the diagonal. A filler token, which stands before the first real one,
    sees itself, so that no row is empty. None stands for the plain causal mask: the queries are the last T of S, and
    the last of them sees all.
    """
    if first is None:
        return None
    query = torch.arange(start, start + length, device=device)[:, None]
    key = torch.arange(start + length, device=device)[None, :]
    mask = (key <= query)[None, None]
    return (mask & (key >= first[:, :, None])[:, None]) | (key == query)
