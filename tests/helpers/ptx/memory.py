"""Global memory of tensors, and the shared memory of a block; each access is checked before it is made.

Both know bounds and alignment. Shared memory also knows which bytes were never written, which are on their way in an
asynchronous copy, and races: two threads at one byte, one of them writing, with no barrier between.
"""

from bisect import bisect_right
from collections import Counter
from typing import Any

import numpy as np

Bytes = np.ndarray[Any, np.dtype[np.uint8]]
Ints = np.ndarray[Any, np.dtype[np.int64]]

NOBODY, SEVERAL = -1, -2


SECTOR = 32  # bytes, the least that a GPU's memory moves


class GlobalMemory:
    """Regions by address. `counts`: bytes read and written, each access of each thread."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._regions: dict[int, tuple[Bytes, str]] = {}
        self._is_read: dict[int, np.ndarray[Any, np.dtype[np.bool_]]] = {}
        self._is_stored: dict[int, np.ndarray[Any, np.dtype[np.bool_]]] = {}
        self.counts: Counter[str] = Counter()

    def traffic(self) -> int:
        """Bytes between memory and a second-level cache that holds all that a launch touches.

        A sector is read once, unless the launch has stored to it before, and written once.
        """
        return SECTOR * sum(
            int(sectors.sum()) for kind in (self._is_read, self._is_stored) for sectors in kind.values()
        )

    def add(self, start: int, data: Bytes, name: str) -> None:
        """`data` lies at `start`. A region that is there already is the same tensor under another name."""
        if start not in self._regions and data.size:
            self._starts.insert(bisect_right(self._starts, start), start)
            self._regions[start] = (data, name)
            for kind in (self._is_read, self._is_stored):
                kind[start] = np.zeros(-(-data.size // SECTOR), np.bool_)

    def read(self, addresses: Ints, size: int) -> Bytes:
        """uint8 [addresses, size]"""
        found = np.empty((len(addresses), size), np.uint8)
        for start, chosen, data, offsets in self._parts(addresses, size):
            found[chosen] = data[offsets[:, None] + np.arange(size)]
            sectors = offsets // SECTOR
            self._is_read[start][sectors[~self._is_stored[start][sectors]]] = True
        self.counts["read"] += found.size
        return found

    def write(self, addresses: Ints, values: Bytes) -> None:
        """values  uint8 [addresses, size]"""
        size = values.shape[1]
        for start, chosen, data, offsets in self._parts(addresses, size):
            data[offsets[:, None] + np.arange(size)] = values[chosen]
            self._is_stored[start][offsets // SECTOR] = True
        self.counts["written"] += values.size

    def _parts(self, addresses: Ints, size: int) -> list[tuple[int, Any, Bytes, Ints]]:
        """(start of a region, which of the addresses, the region, the offsets in it), once a region."""
        index = np.searchsorted(np.array(self._starts, np.int64), addresses, side="right") - 1
        parts = []
        for region in np.unique(index):
            chosen = index == region
            if region < 0:
                raise MemoryError(f"{size} bytes at {addresses[chosen][0]:#x}, below every tensor")
            start = self._starts[region]
            data, name = self._regions[start]
            offsets = addresses[chosen] - start
            outside = offsets + size > data.size
            if outside.any():
                raise MemoryError(f"{size} bytes at byte {offsets[outside][0]} of {name}, which has {data.size}")
            if (crooked := addresses[chosen] % size != 0).any():
                raise MemoryError(f"{size} bytes at byte {offsets[crooked][0]} of {name} are not aligned")
            parts.append((start, chosen, data, offsets))
        return parts


class SharedMemory:
    """`size` bytes. An access is over at a barrier of the block, for threads of its warp also at one of warps."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._data = np.zeros(size, np.uint8)
        self._is_written, self._is_arriving, self._is_unfenced = (np.zeros(size, bool) for _ in range(3))
        self._products: list[list[Ints]] = [[]]  # the bytes that asynchronous products read, by group; the last is open
        self.products_committed = 0  # groups
        self._block_epoch = self._warp_epoch = 1
        self._writer = _Accesses(size)
        self._reader = _Accesses(size)

    def block_barrier(self) -> None:
        """bar.sync"""
        self._block_epoch += 1

    def warp_barrier(self) -> None:
        """bar.warp.sync, by every warp"""
        self._warp_epoch += 1

    def fence(self) -> None:
        """fence.proxy.async: asynchronous products see what was stored before."""
        self._is_unfenced[:] = False

    def read(self, addresses: Ints, size: int, threads: Ints) -> Bytes:
        """uint8 [addresses, size], a thread each."""
        at, who = self._places(addresses, size), np.repeat(threads, size).reshape(-1, size)
        self._check_readable(at)
        self._check_order("read", at, who, self._writer)
        self._reader.note(at, who, self._block_epoch, self._warp_epoch)
        return self._data[at]

    def write(self, addresses: Ints, values: Bytes, threads: Ints) -> None:
        """values  uint8 [addresses, size], a thread each. Several may write one byte at once, if all write the same."""
        at = self._check_writable("written", addresses, values.shape[1], threads)
        self._put(at, values, threads)
        self._is_unfenced[at] = True

    def begin_copy(self, addresses: Ints, size: int, threads: Ints) -> None:
        """An asynchronous copy by `threads` is under way: nobody reads or writes these bytes before it ends."""
        self._is_arriving[self._check_writable("copied to", addresses, size, threads)] = True

    def end_copy(self, addresses: Ints, values: Bytes, threads: Ints) -> None:
        """The threads have waited for their copy. Others see it behind the next barrier."""
        at = self._places(addresses, values.shape[1])
        self._is_arriving[at] = False
        self._put(at, values, threads)

    def read_for_product(self, places: Ints) -> Bytes:
        """The bytes at `places`, which an asynchronous product reads until its group is waited for."""
        self._check_readable(places)
        self._check_order("read by a product", places, np.full_like(places, NOBODY), self._writer)
        if (late := self._is_unfenced[places]).any():
            raise MemoryError(
                f"byte {places[late][0]} of shared memory is read by a product, with no fence behind its store"
            )
        self._products[-1].append(np.unique(places))
        return self._data[places]

    def commit_products(self) -> None:
        """Ends the open group."""
        self._products.append([])
        self.products_committed += 1

    def wait_for_products(self, unfinished: int) -> None:
        """All groups are over but the last `unfinished`."""
        done = len(self._products) - 1 - unfinished
        if done > 0:
            del self._products[:done]

    def _places(self, addresses: Ints, size: int) -> Ints:
        if len(addresses) and (addresses.min() < 0 or addresses.max() + size > self.size):
            wrong = addresses[(addresses < 0) | (addresses + size > self.size)][0]
            raise MemoryError(f"{size} bytes at byte {wrong} of shared memory, which has {self.size}")
        if (crooked := addresses % size != 0).any():
            raise MemoryError(f"{size} bytes at byte {addresses[crooked][0]} of shared memory are not aligned")
        places: Ints = addresses[:, None] + np.arange(size)
        return places

    def _check_readable(self, at: Ints) -> None:
        if (early := self._is_arriving[at]).any():
            raise MemoryError(f"byte {at[early][0]} of shared memory is read while a copy to it is under way")
        if not (known := self._is_written[at]).all():
            raise MemoryError(f"byte {at[~known][0]} of shared memory is read and was never written")

    def _check_writable(self, verb: str, addresses: Ints, size: int, threads: Ints) -> Ints:
        at, who = self._places(addresses, size), np.repeat(threads, size).reshape(-1, size)
        if (early := self._is_arriving[at]).any():
            raise MemoryError(f"byte {at[early][0]} of shared memory is {verb} while a copy to it is under way")
        for places in (places for group in self._products for places in group):
            if (busy := np.isin(at, places)).any():
                raise MemoryError(f"byte {at[busy][0]} of shared memory is {verb} while a product reads it")
        self._check_order(verb, at, who, self._writer)
        self._check_order(verb, at, who, self._reader)
        return at

    def _check_order(self, verb: str, at: Ints, who: Ints, before: "_Accesses") -> None:
        """Raises if an earlier access of another thread may still be going on."""
        race = before.is_open(at, who, self._block_epoch, self._warp_epoch)
        if race.any():
            place, thread, other = at[race][0], who[race][0], before.thread[at[race][0]]
            earlier = "read" if before is self._reader else "written"
            raise MemoryError(
                f"race: byte {place} of shared memory is {verb} by {_title(thread)} and was {earlier} by "
                f"{_title(other)}, with no barrier between"
            )

    def _put(self, at: Ints, values: Bytes, threads: Ints) -> None:
        self._data[at] = values
        if not np.array_equal(self._data[at], values):
            raise MemoryError("race: two threads write different bytes to one place of shared memory at once")
        self._is_written[at] = True
        self._writer.replace(at, np.repeat(threads, at.shape[1]).reshape(at.shape), self._block_epoch, self._warp_epoch)


class _Accesses:
    """The last access to each byte: its thread, or SEVERAL since the last barrier, its warp or SEVERAL, and when."""

    def __init__(self, size: int) -> None:
        self.thread, self._warp = (np.full(size, NOBODY, np.int64) for _ in range(2))
        self._block_epoch, self._warp_epoch = (np.zeros(size, np.int64) for _ in range(2))

    def is_open(self, at: Ints, who: Ints, block_epoch: int, warp_epoch: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Where another thread's access is not known to be over for thread `who`."""
        over = (self._block_epoch[at] < block_epoch) | (self.thread[at] == who)
        over |= (self._warp[at] == who >> 5) & (self._warp_epoch[at] < warp_epoch)
        open: np.ndarray[Any, np.dtype[np.bool_]] = ~over
        return open

    def replace(self, at: Ints, who: Ints, block_epoch: int, warp_epoch: int) -> None:
        self.thread[at], self._warp[at] = who, who >> 5
        self._block_epoch[at], self._warp_epoch[at] = block_epoch, warp_epoch

    def note(self, at: Ints, who: Ints, block_epoch: int, warp_epoch: int) -> None:
        """Adds to those that came since the last barrier."""
        at, who = at.ravel(), who.ravel()
        now = self._block_epoch[at] == block_epoch
        same_warp = self._warp[at] == who >> 5
        alone = ~now | (self.thread[at] == who) | (same_warp & (self._warp_epoch[at] < warp_epoch))
        thread, warp = np.where(alone, who, SEVERAL), np.where(~now | same_warp, who >> 5, SEVERAL)
        # Of threads that read one byte in this instruction, the one that is noted last must know of the others.
        order = np.lexsort((who, at))
        place, reader = at[order], who[order]
        again = np.flatnonzero((place[1:] == place[:-1]) & (reader[1:] != reader[:-1])) + 1
        self.thread[at], self._warp[at] = thread, warp
        self._block_epoch[at], self._warp_epoch[at] = block_epoch, warp_epoch
        shared = np.unique(place[again])
        self.thread[shared] = SEVERAL
        apart = again[reader[again] >> 5 != reader[again - 1] >> 5]
        self._warp[place[apart]] = SEVERAL


def _title(thread: int) -> str:
    return {NOBODY: "a product", SEVERAL: "several threads"}.get(int(thread), f"thread {thread}")
