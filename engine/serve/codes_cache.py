"""What is kept of texts that were encoded before, within a bound of bytes."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from dataclasses import dataclass
from hashlib import blake2b

from bitheads.engine.texts.tokenize import Tokens

ENTRY_BYTES = 448
"""What Python and its allocator take for an entry beside its codes: measured, a million of them."""

NEW_SHARE = 10
"""One part in so many is for texts that came once."""

BYTES_PER_GONE = 256
"""Bytes of the cache for each key that is remembered without its codes, at least. Codes take more,
so that is several times as many texts, in a sixtieth of the memory."""

MOST_HITS = 3
"""Hits that are counted of an entry: as many rounds it outlasts."""

ROUNDS = 64
"""Texts that go another round before one goes for good: who waits for this waits no longer."""

Key = bytes
"""Of the token ids of a text and their types, on which its codes depend, and on nothing else."""


class Keys:
    """Makes keys that nobody outside can foresee: two texts with one key would have one answer."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(16)

    def __call__(self, text: Tokens) -> Key:
        what = text.num_first.to_bytes(4, "little") + text.ids.tobytes()
        return blake2b(what, digest_size=16, key=self._secret).digest()


@dataclass(eq=False, slots=True)
class _Entry:
    codes: bytes
    hits: int = 0

    @property
    def size(self) -> int:
        return len(self.codes) + ENTRY_BYTES


class _Lately:
    """Keys that were added lately: the last `count`, and up to twice as many; and one in twenty
    others, at most, by mistake. Two generations of Bloom filters.

    Attributes:
        nbytes: of its memory.
    """

    def __init__(self, count: int) -> None:
        size = 1 << max(0, (2 * count).bit_length() - 1) if count else 0  # a byte or two for each
        self._count = count
        self._mask = 8 * size - 1
        self._now, self._before = bytearray(size), bytearray(size)
        self._added = 0
        self.nbytes = 2 * size

    def add(self, key: Key) -> None:
        for byte, bit in self._bits(key):
            self._now[byte] |= bit
        self._added += 1
        if self._added >= self._count:
            self._before, self._now = self._now, bytearray(len(self._now))
            self._added = 0

    def __contains__(self, key: Key) -> bool:
        bits = self._bits(key)
        return any(
            all(some[byte] & bit for byte, bit in bits) for some in (self._now, self._before)
        )

    def _bits(self, key: Key) -> list[tuple[int, int]]:
        """Four of a filter, as (byte, bit in it): a key is random as it is."""
        places = [int.from_bytes(key[i : i + 4], "little") & self._mask for i in range(0, 16, 4)]
        return [(place >> 3, 1 << (place & 7)) for place in places]


class CodesCache:
    """What is kept, by key: S3-FIFO (Yang et al. 2023) with bytes for its sizes. Not thread-safe.

    Texts that come once pass through a tenth of it, so that a million of them do not push out those
    that come again and again. Which have passed through is remembered for longer than the paper
    does: keys take next to nothing beside codes.

    Attributes:
        max_bytes: of all that it holds, what Python takes for it included; 0 holds nothing.
        nbytes: of what it holds now.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._gone = _Lately(max_bytes // BYTES_PER_GONE)
        self.nbytes = self._gone.nbytes
        self._new_bytes = 0
        self._new: OrderedDict[Key, _Entry] = OrderedDict()
        self._kept: OrderedDict[Key, _Entry] = OrderedDict()

    def __len__(self) -> int:
        """Number of texts."""
        return len(self._new) + len(self._kept)

    def get(self, key: Key) -> bytes | None:
        """What is kept of a text, see engine.serve.kept_texts; None if there is nothing."""
        entry = self._kept.get(key) or self._new.get(key)
        if entry is None:
            return None
        entry.hits = min(entry.hits + 1, MOST_HITS)
        return entry.codes

    def put(self, key: Key, codes: bytes) -> None:
        """What is to be kept of a text; others may have to go for it."""
        entry = _Entry(codes)
        if entry.size > self.max_bytes // NEW_SHARE or key in self._new or key in self._kept:
            return
        self.nbytes += entry.size
        if key in self._gone:
            self._kept[key] = entry
        else:
            self._new_bytes += entry.size
            self._new[key] = entry
        while self.nbytes > self.max_bytes:
            if self._new_bytes * NEW_SHARE > self.max_bytes or not self._kept:
                self._push_out_new()
            else:
                self._push_out_kept()

    def _push_out_new(self) -> None:
        """The oldest of those that came once, unless it has come again since."""
        key, entry = self._new.popitem(last=False)
        self._new_bytes -= entry.size
        if entry.hits:
            entry.hits = 0
            self._kept[key] = entry
        else:
            self.nbytes -= entry.size
            self._gone.add(key)

    def _push_out_kept(self) -> None:
        """The oldest of which nobody has asked since its last round, if it is found soon."""
        for _ in range(ROUNDS):
            key, entry = self._kept.popitem(last=False)
            if not entry.hits:
                break
            entry.hits -= 1
            self._kept[key] = entry
        else:
            _, entry = self._kept.popitem(last=False)
        self.nbytes -= entry.size
