"""Prompts that begin alike: the keys and values of what they share are computed once.

A prompt is read in chunks of CHUNK tokens, [0, C), [C, 2 C), .., and a rest of 1 to C. The keys and values of a whole
chunk are kept under all tokens up to its end; a prompt that begins with kept chunks takes them over and reads the rest.

Why a hit gives the bits of a miss: whichever chunks are kept, one that is computed is the same call in both, of the
same tokens, shapes and strides, on the same keys and values. Chunks are read in a cache of their own, whose capacity is
the next multiple of ROOM, and those of another capacity are other ones. Nothing is asked of products in other shapes,
for which a vendor's library promises nothing. A prompt that is read without a `PrefixCache` is read whole: its bits may
differ from those of either.

Kept chunks are of one state of the model: its active adapters, and every tensor, by its identity and the changes made
in place. Numbers that change behind torch's back (`.data`) are not seen.
"""

from collections import OrderedDict
from collections.abc import Generator, Sequence
from typing import Any
from weakref import ref

import torch
from torch import Tensor
from torch.nn.modules.module import _has_any_global_hook

from ..model.llama import KVCache, Llama, is_hooked
from .adapter_selection import PerRow, SelectingModule, selection_of

CHUNK = 64  # tokens
ROOM = 512  # positions
LIMIT_BYTES = 256 << 20

Chunk = tuple[int, tuple[int, ...]]  # the number of the chunk before, 0 for none, and the tokens


class PrefixCache:
    """Keys and values of the beginnings of prompts of one model, up to a limit in bytes, the least used dropped first.

    It is used by one thread at a time.  Raises ValueError for a limit below zero.
    """

    def __init__(self, limit_bytes: int = LIMIT_BYTES) -> None:
        if limit_bytes < 0:
            raise ValueError(f"a prefix cache must have a limit of 0 bytes or more, got {limit_bytes}")
        self.limit_bytes = limit_bytes
        self.tokens_read = self.tokens_taken = 0
        self._state: _State | None = None
        self._clear()

    def _clear(self) -> None:
        self._chunks: OrderedDict[tuple[object, Chunk], tuple[int, Tensor, Tensor]] = OrderedDict()
        self._count = self.bytes = 0

    def read(self, model: Llama, tokens: Tensor, cache: KVCache) -> Generator[None, None, Tensor]:
        """`Llama.hidden` of the last token of a prompt, whose keys and values fill the cache;  [1, 1, D]

        It stops after each chunk that it reads but the last: what happens there, other prompts read among it, changes
        no byte of it. Once another state of the model is kept, nothing more is.
        tokens int64 [1, T]; the cache is empty.
        """
        assert len(tokens) == 1 and cache.length == 0
        active = None if type(cache) is not KVCache else _active_adapters(model)
        if active is None:
            return model.hidden(tokens, cache)[:, -1:]
        if self._state is None or not self._state.is_unchanged(model):
            self._clear()
            self._state = _State(model)
        state, prompt = self._state, tokens[0].tolist()
        device, length = cache.k.device, len(prompt)
        room = KVCache(model.config, 1, -(-length // ROOM) * ROOM, cache.k.dtype, device)
        group = active, room.capacity
        found = self._found(group, prompt)
        for key in found:
            _, k, v = self._chunks[key]
            for kept, whole in ((k, room.k), (v, room.v)):
                whole[:, :, :, room.length : room.length + CHUNK].copy_(kept)
            room.length += CHUNK
        for key in reversed(found):  # the end of a prompt is dropped before its beginning
            self._chunks.move_to_end(key)
        before: int | None = self._chunks[found[-1]][0] if found else 0
        self.tokens_taken += room.length
        self.tokens_read += length - room.length
        hidden = tokens.new_empty(0)
        for begin in range(room.length, length, CHUNK):
            part = tokens[:, begin : begin + CHUNK]
            hidden = model.hidden(part, room)
            if part.shape[1] == CHUNK and before is not None and state is self._state:
                before = self._keep((group, (before, tuple(prompt[begin : begin + CHUNK]))), room, begin)
            if begin + CHUNK < length:
                yield
        for ours, whole in ((cache.k, room.k), (cache.v, room.v)):
            ours[:, :, :, :length].copy_(whole[:, :, :, :length])
        cache.length = length
        return hidden[:, -1:]

    def _found(self, group: object, prompt: Sequence[int]) -> list[tuple[object, Chunk]]:
        """The kept chunks that the prompt begins with; its last token is read in any case."""
        found: list[tuple[object, Chunk]] = []
        before = 0
        for begin in range(0, len(prompt) - CHUNK, CHUNK):
            key = (group, (before, tuple(prompt[begin : begin + CHUNK])))
            if key not in self._chunks:
                break
            found.append(key)
            before = self._chunks[key][0]
        return found

    def _keep(self, key: tuple[object, Chunk], room: KVCache, begin: int) -> int | None:
        """Keeps a chunk that was read; returns its number, None if it is larger than all that may be kept."""
        if key in self._chunks:
            return self._chunks[key][0]
        now = slice(begin, begin + CHUNK)
        k, v = room.k[:, :, :, now].clone(), room.v[:, :, :, now].clone()
        size = 2 * k.numel() * k.element_size()
        if size > self.limit_bytes:
            return None
        while self.bytes + size > self.limit_bytes:
            _, (_, old, _) = self._chunks.popitem(last=False)
            self.bytes -= 2 * old.numel() * old.element_size()
        self._count += 1
        self._chunks[key] = self._count, k, v
        self.bytes += size
        return self._count


class _State:
    """Every tensor of a model as it was, the mode of its modules, and the threads that share its products."""

    def __init__(self, model: Llama) -> None:
        self._model = ref(model)
        self._tensors = [(ref(tensor), *_marks(tensor)) for tensor in _tensors(model)]
        self._settings = _settings(model)

    def is_unchanged(self, model: Llama) -> bool:
        """True if it is the same model, and nothing in it has changed."""
        now = _tensors(model)
        return (
            self._model() is model
            and self._settings == _settings(model)
            and len(now) == len(self._tensors)
            and all(
                kept() is tensor and marks == list(_marks(tensor))
                for (kept, *marks), tensor in zip(self._tensors, now, strict=True)
            )
        )


def _tensors(model: Llama) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]


def _marks(tensor: Tensor) -> tuple[int, int]:
    return tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version


def _settings(model: Llama) -> tuple[Any, ...]:
    return model.training, model.config, model.fused_blocks is None, torch.get_num_threads()


def _active_adapters(model: Llama) -> tuple[object, ...] | None:
    """The adapters of each layer in this context; None where a hook is to see every token, or rows have their own."""
    if torch.is_grad_enabled() or _has_any_global_hook():
        return None
    active: list[object] = []
    for module in model.modules():
        if is_hooked(module):
            return None
        if isinstance(module, SelectingModule):
            selection = selection_of(module)
            if isinstance(selection, PerRow):
                return None
            configs = getattr(module, "configs", {})
            active.append(tuple((name, weight, configs.get(name)) for name, weight in selection))
    return tuple(active)
