"""Prompts that begin alike: the keys and values of what they share are computed once.

There are two ways to read a prompt. Which one is taken is the caller's choice and never follows from what was read:

    in chunks   [0, C), [C, 2 C), .., and a rest of 1 to C tokens, C = CHUNK: a chat, whose beginnings come again
    as a task   [0, s), known from its template and instruction to stand before every input, and the rest in one part

A prompt that begins with what is kept takes that over and reads the rest.

Why a hit gives the bits of a miss: whichever parts are kept, one that is computed is the same call in both, of the same
tokens, shapes and strides, on the same keys and values. Chunks are read in a cache of their own, whose capacity is the
next multiple of ROOM, and those of another capacity are other ones; the beginning of a task in one of its own length,
and what stands behind it in that of the text. Nothing is asked of products in other shapes, for which a vendor's
library promises nothing. A prompt that is read without a `PrefixCache` is read whole: its bits may differ.

Kept parts are of one state of the model: its active adapters, and every tensor, by its identity and the changes made
in place. Numbers that change behind torch's back (`.data`) are not seen.
"""

import hashlib
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from ..model.llama import KVCache, Llama, Prefixes
from .kept_parts import KeptParts, Part
from .model_state import ActiveAdapters, ModelState, active_adapters, sha256_of_state

if TYPE_CHECKING:
    from .prefix_folder import PrefixFolder

CHUNK = 64  # tokens
ROOM = 512  # positions
LIMIT_BYTES = 256 << 20
# Tokens of a task's beginning from which it is read by itself. The call takes 30 ms of SmolLM2, whatever their number;
# of 64 the second text saves 43, of 20 it saves 10 (115 tokens behind them, docs/generating.md).
LEAST_SHARED = 64


class PrefixCache:
    """Keys and values of the beginnings of prompts of one model, up to a limit in bytes, the least used dropped first.

    folder  keeps those of tasks for other processes, too
    It is used by one thread at a time.  Raises ValueError for a limit below zero.
    """

    def __init__(self, limit_bytes: int = LIMIT_BYTES, folder: "PrefixFolder | None" = None) -> None:
        if limit_bytes < 0:
            raise ValueError(f"a prefix cache must have a limit of 0 bytes or more, got {limit_bytes}")
        self.limit_bytes, self.folder = limit_bytes, folder
        self.tokens_read = self.tokens_taken = 0
        self._state: ModelState | None = None
        self._parts = KeptParts(limit_bytes)
        self._hashes: dict[ActiveAdapters, str] = {}

    @property
    def bytes(self) -> int:
        """The size of what is kept in memory."""
        return self._parts.bytes

    def read(self, model: Llama, tokens: Tensor, cache: KVCache) -> Generator[None, None, Tensor]:
        """`Llama.hidden` of the last token of a prompt, whose keys and values fill the cache;  [1, 1, D]

        In chunks. It stops after each that it reads but the last: what happens there, other prompts read among it,
        changes no byte of it. Once another state of the model is kept, nothing more is.
        tokens int64 [1, T]; the cache is empty.
        """
        active = self._ready_for(model, tokens, cache)
        if active is None:
            return model.hidden(tokens, cache)[:, -1:]
        parts, prompt = self._parts, tokens[0].tolist()
        length = len(prompt)
        room = KVCache(model.config, 1, -(-length // ROOM) * ROOM, cache.k.dtype, cache.k.device)
        group = active, room.capacity
        found = self._found(group, prompt)
        for part in found:
            part.fill(room)
        before: int | None = found[-1].number if found else 0
        self._count(taken=room.length, length=length)
        hidden = tokens.new_empty(0)
        for begin in range(room.length, length, CHUNK):
            now = tokens[:, begin : begin + CHUNK]
            hidden = model.hidden(now, room)
            if now.shape[1] == CHUNK and before is not None and parts is self._parts:
                before = parts.keep((group, before, tuple(prompt[begin : begin + CHUNK])), Part.of(room, begin))
            if begin + CHUNK < length:
                yield
        Part.of(room).fill(cache)
        return hidden[:, -1:]

    def of_task(self, shared: int, *, keeps_whole: bool = False) -> Prefixes:
        """Reads the prompt of a task, which begins with `shared` tokens as others do

        From LEAST_SHARED on these are read by themselves, whatever is kept, and however much may be: the bits of a
        prompt follow from it and from `shared`.
        keeps_whole  keeps all of the prompt, too: for one that will be asked for again
        """
        return _Task(self, shared, keeps_whole)

    def _ready_for(self, model: Llama, tokens: Tensor, cache: KVCache) -> ActiveAdapters | None:
        """The adapters that a prompt is read in, nothing of another state being kept; None if it must be read whole."""
        assert len(tokens) == 1 and cache.length == 0
        active = active_adapters(model) if type(cache) is KVCache else None
        if active is not None and (self._state is None or not self._state.is_unchanged(model)):
            self._state, self._parts, self._hashes = ModelState(model), KeptParts(self.limit_bytes), {}
        return active

    def _found(self, group: object, prompt: Sequence[int]) -> list[Part]:
        """The kept chunks that the prompt begins with; its last token is read in any case."""
        keys: list[tuple[object, int | None, tuple[int, ...]]] = []
        found: list[Part] = []
        for begin in range(0, len(prompt) - CHUNK, CHUNK):
            key = group, found[-1].number if found else 0, tuple(prompt[begin : begin + CHUNK])
            if (part := self._parts.find(key)) is None:
                break
            keys.append(key)
            found.append(part)
        for key in reversed(keys):  # the end of a prompt is dropped before its beginning
            self._parts.find(key)
        return found

    def _count(self, *, taken: int, length: int) -> None:
        self.tokens_taken += taken
        self.tokens_read += length - taken


class _Task:
    """Reads the prompts of tasks that begin with `shared` tokens as others do: see `PrefixCache.of_task`."""

    def __init__(self, prefixes: PrefixCache, shared: int, keeps_whole: bool) -> None:
        self._prefixes, self._shared, self._keeps_whole = prefixes, shared, keeps_whole

    def read(self, model: Llama, tokens: Tensor, cache: KVCache) -> Generator[None, None, Tensor]:
        """`Llama.hidden` of the last token of a prompt, whose keys and values fill the cache: see `PrefixCache.read`"""
        yield from ()  # it never stops: what is kept on a disk is of a model that nobody changes meanwhile
        active = self._prefixes._ready_for(model, tokens, cache)
        if active is None:
            return model.hidden(tokens, cache)[:, -1:]
        kept = _Kept(self._prefixes, model, active)
        prompt = tuple(tokens[0].tolist())
        shared = self._shared if LEAST_SHARED <= self._shared < len(prompt) else 0
        whole = shared, cache.capacity, prompt  # the strides of what is read behind the beginning are the text's
        if self._keeps_whole and (part := kept.find(whole)) is not None:
            assert part.hidden is not None
            part.fill(cache)
            self._prefixes._count(taken=len(prompt), length=len(prompt))
            return part.hidden.clone()
        taken = 0
        if shared:
            part = kept.find(prompt[:shared])
            taken = 0 if part is None else shared
            if part is None:
                own = KVCache(model.config, 1, shared, cache.k.dtype, cache.k.device)
                model.hidden(tokens[:, :shared], own)
                part = Part.of(own)
                kept.keep(prompt[:shared], part)
            part.fill(cache)
        self._prefixes._count(taken=taken, length=len(prompt))
        hidden = model.hidden(tokens[:, shared:], cache)[:, -1:].clone()
        if self._keeps_whole:
            kept.keep(whole, Part.of(cache, hidden=hidden))
        return hidden


class _Kept:
    """The kept parts of a model in some adapters, in memory and in the folder, if there is one."""

    def __init__(self, prefixes: PrefixCache, model: Llama, active: ActiveAdapters) -> None:
        self._parts, self._folder, self._hashes = prefixes._parts, prefixes.folder, prefixes._hashes
        self._model, self._active = model, active

    def find(self, key: tuple[object, ...]) -> Part | None:
        """A part, by what it is of: the tokens of a beginning, or a whole prompt and how it was read."""
        part = self._parts.find((self._active, key))
        if part is None and self._folder is not None:
            found = self._folder.find(self._hash(), _name(key))
            if found is not None:
                part = Part(found["k"], found["v"], found.get("hidden"))
                self._parts.keep((self._active, key), part)
        return part

    def keep(self, key: tuple[object, ...], part: Part) -> None:
        """Keeps a part that was read."""
        self._parts.keep((self._active, key), part)
        if self._folder is not None:
            self._folder.keep(self._hash(), _name(key), part.tensors)

    def _hash(self) -> str:
        if self._active not in self._hashes:
            self._hashes[self._active] = sha256_of_state(self._model, self._active)
        return self._hashes[self._active]


def _name(key: tuple[object, ...]) -> str:
    return hashlib.sha256(repr(key).encode()).hexdigest()
