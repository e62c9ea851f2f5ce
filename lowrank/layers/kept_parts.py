"""Keys and values of parts of prompts, the least used dropped first.

L layers, G key/value heads, T tokens of a part, h head dim, D model dim.
"""

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Self

from torch import Tensor

from ..model.llama import KVCache


@dataclass(frozen=True)
class Part:
    """Keys and values of some tokens of a prompt, k, v [L, 1, G, T, h].

    hidden  of the last of them, [1, 1, D], where the prompt ends with it
    number  of a part that is kept: another one for each
    """

    k: Tensor
    v: Tensor
    hidden: Tensor | None = None
    number: int | None = None

    @classmethod
    def of(cls, cache: KVCache, begin: int = 0, hidden: Tensor | None = None) -> Self:
        """All that a cache holds from a position on: views of it."""
        return cls(cache.k[:, :, :, begin : cache.length], cache.v[:, :, :, begin : cache.length], hidden)

    @property
    def length(self) -> int:
        """Its tokens."""
        return self.k.shape[3]

    @property
    def nbytes(self) -> int:
        """The size of its tensors."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Its tensors, by name."""
        held = {"k": self.k, "v": self.v}
        return held if self.hidden is None else {**held, "hidden": self.hidden}

    def fill(self, cache: KVCache) -> None:
        """Puts it behind what a cache holds."""
        now = slice(cache.length, cache.length + self.length)
        cache.k[:, :, :, now].copy_(self.k)
        cache.v[:, :, :, now].copy_(self.v)
        cache.length += self.length


class KeptParts:
    """Copies of parts by a key, up to a limit in bytes."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes, self.bytes = limit_bytes, 0
        self._parts: OrderedDict[Hashable, Part] = OrderedDict()
        self._count = 0

    def find(self, key: Hashable) -> Part | None:
        """A part, as one that was used last."""
        part = self._parts.get(key)
        if part is not None:
            self._parts.move_to_end(key)
        return part

    def keep(self, key: Hashable, part: Part) -> int | None:
        """The number of a part from now on; None if it is larger than all that may be kept."""
        if (known := self._parts.get(key)) is not None:
            return known.number
        if part.nbytes > self.limit_bytes:
            return None
        while self.bytes + part.nbytes > self.limit_bytes:
            _, oldest = self._parts.popitem(last=False)
            self.bytes -= oldest.nbytes
        self._count += 1
        copied = {name: tensor.clone() for name, tensor in part.tensors.items()}
        self._parts[key] = kept = Part(**copied, number=self._count)
        self.bytes += kept.nbytes
        return kept.number
