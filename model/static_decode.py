"""Decoding in shapes that stay as they are: one token a row and call, which a CUDA graph can hold and replay.

A step of the ordinary kind attends to one position more each time, and counts positions on the host. Here the position
in the cache is a tensor, a window of the cache is attended to, and a mask hides the positions not filled yet: a step is
the same launches on the same memory every time. On a CUDA device they are captured once and replayed as one, which
takes away the time that the host needs to launch them; elsewhere the same step runs as it is. When the window is full
it grows by `WINDOW` positions, and is captured again.

B rows, G key/value heads, S positions of the window, V vocabulary, h head dim.
"""

from threading import Lock

import torch
from torch import Tensor

from .llama import KVCache, Llama

WINDOW = 512
CAPTURING = Lock()  # CUDA captures one graph at a time


class FixedCache:
    """The first S positions of a `KVCache`, written at `position`, int64 [1], and read whole.

    padding  int64 [B]: the positions at the left of each row that a mask hides
    """

    def __init__(self, cache: KVCache, position: Tensor, window: int, padding: Tensor) -> None:
        self.cache = cache
        self.position = position
        self.window = window
        self.padding = padding

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Stores k, v [B, G, 1, h] at `position`; returns the window, [B, G, S, h]."""
        seen_k, seen_v = (buffer[layer, :, :, : self.window] for buffer in (self.cache.k, self.cache.v))
        return seen_k.index_copy_(2, self.position, k), seen_v.index_copy_(2, self.position, v)


class DecodeStep:
    """tokens [B, 1] -> logits of the next ones, after the tokens in a cache

    cache    filled by `Llama.hidden`; each call fills one more of its positions
    padding  int64 [B] as in `Llama.forward`, or None; all of it is in the filled part of the cache
    A graph is of the model as it was captured, with its active adapters and their weights: after a change make a new
    step. The cache must not hold NaN where it is not filled: a masked position has weight 0, and 0 * NaN is NaN.
    """

    def __init__(self, model: Llama, cache: KVCache, padding: Tensor | None = None) -> None:
        device, batch = cache.k.device, cache.k.shape[1]
        self.model = model
        self.cache = cache
        self.tokens = torch.zeros(batch, 1, dtype=torch.int64, device=device)
        self.position = torch.zeros(1, dtype=torch.int64, device=device)
        self.padding = torch.zeros(batch, dtype=torch.int64, device=device) if padding is None else padding
        self.window = 0
        self.captured: tuple[torch.cuda.CUDAGraph, Tensor] | None = None

    @torch.inference_mode()
    def __call__(self, tokens: Tensor) -> Tensor:
        """tokens int64 [B, 1] -> logits float32 [B, V], which the next call may overwrite.

        Raises ValueError if the cache is full.
        """
        if self.cache.length == self.cache.capacity:
            raise ValueError(f"the cache holds {self.cache.capacity} positions, got {self.cache.length} + 1")
        self.tokens.copy_(tokens)
        self.position.fill_(self.cache.length)
        if self.cache.length >= self.window:
            self.widen()
            self.captured = self._capture() if self.tokens.is_cuda else None
        self.cache.length += 1
        if self.captured is None:
            return self.logits()
        graph, logits = self.captured
        graph.replay()
        return logits

    def widen(self) -> None:
        """Makes the window the next multiple of `WINDOW`, or all of the cache."""
        self.window = min((self.cache.length // WINDOW + 1) * WINDOW, self.cache.capacity)
        self.fixed = FixedCache(self.cache, self.position, self.window, self.padding)
        self.columns = torch.arange(self.window, device=self.tokens.device)[None]
        self.cos, self.sin = (angles[0, : self.window] for angles in self.cache.angles)  # [S, 1, h/2]

    def logits(self) -> Tensor:
        """The captured step: nothing in it waits for the device or depends on a number of the host."""
        turned = (self.position - self.padding).clamp(min=0)  # [B]
        rotation = self.cos[turned, None], self.sin[turned, None]  # [B, 1, 1, h/2]
        seen = (self.columns <= self.position) & (self.columns >= self.padding[:, None])  # [B, S]
        hidden = self.model.blocks(self.tokens, rotation, seen[:, None, None], self.fixed)
        return self.model.logits(hidden[:, -1])

    def _capture(self) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        """The graph of a step, and the logits that it writes.

        The runs before it compile kernels and set libraries up, which a capture must not do, on a stream of their own,
        as CUDA asks. They write to the position in the cache that the step is about to write to anyway.
        """
        current, side = torch.cuda.current_stream(self.tokens.device), torch.cuda.Stream(self.tokens.device)
        side.wait_stream(current)
        with torch.cuda.stream(side):
            for _ in range(2):
                self.logits()
        current.wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        # In the mode "global", which is torch's default, an allocation by any other thread would break the capture.
        with CAPTURING, torch.cuda.graph(graph, capture_error_mode="thread_local"):
            logits = self.logits()
        return graph, logits
