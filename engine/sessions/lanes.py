"""Encoder sessions that run at the same time, one thread per session."""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

from bitheads.engine.sessions import EncoderSession
from bitheads.engine.types import PlacedBatch, Stats


class Lanes:
    """Batches go to whichever session is free. Calls from several threads share the sessions."""

    def __init__(self, sessions: Sequence[EncoderSession]) -> None:
        self._count = len(sessions)
        self._free: queue.SimpleQueue[EncoderSession] = queue.SimpleQueue()
        for session in sessions:
            self._free.put(session)
        # Starts no threads yet.
        self._pool = ThreadPoolExecutor(max(1, self._count), "bitheads-encoder")

    def __len__(self) -> int:
        return self._count

    def close(self) -> None:
        """Waits for running batches and ends the threads. Nothing may be called afterwards."""
        self._pool.shutdown()

    def run(
        self, encode: Callable[[EncoderSession, PlacedBatch], Stats], batches: Iterable[PlacedBatch]
    ) -> Iterator[Stats]:
        """Encodes all batches; yields the stats of each, in order, as wall time of all lanes.

        At most one batch per lane waits for its turn, so `batches` is read as it is needed. An
        error ends the rest: nothing runs any more when it is raised, or when the iterator is
        closed.
        """
        running: deque[Future[Stats]] = deque()
        try:
            for batch in batches:
                running.append(self._pool.submit(self._run_one, encode, batch))
                if len(running) > 2 * self._count - 1:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:
            for future in running:
                future.cancel()
            for future in running:
                if not future.cancelled():
                    future.exception()  # waits: it writes into the caller's codes

    def _run_one(
        self, encode: Callable[[EncoderSession, PlacedBatch], Stats], batch: PlacedBatch
    ) -> Stats:
        session = self._free.get()
        try:
            stats = encode(session, batch)
        finally:
            self._free.put(session)
        # Of the time that it took, this batch had one lane of several.
        return replace(
            stats, encode_s=stats.encode_s / self._count, pack_s=stats.pack_s / self._count
        )
