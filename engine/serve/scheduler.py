"""Who runs when: requests' texts become batches within a token budget, as the encoder is free."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from bitheads.engine.batching import pad_batch
from bitheads.engine.engine import Engine
from bitheads.engine.errors import BitheadsError
from bitheads.engine.features.packed import PackedFeatures
from bitheads.engine.features.ragged import offsets_of
from bitheads.engine.process.forked import check_process
from bitheads.engine.serve.batch_answers import Outputs, answer_rows, hand_out
from bitheads.engine.serve.codes_cache import CodesCache, Key, Keys
from bitheads.engine.serve.equal_rows import EqualRows
from bitheads.engine.serve.fair_queue import FairQueue, Row
from bitheads.engine.serve.fair_threads import FairThreads
from bitheads.engine.serve.kept_texts import Kept, embedding_dim, keep, restore
from bitheads.engine.serve.request import Answer, Request, make_answer
from bitheads.engine.serve.room import Room
from bitheads.engine.types import BatchRunner, PlacedBatch, Stats

INLINE_TOKENS = 4096
"""Tokens of codes, times heads, that are answered at once by whoever asks."""

logger = logging.getLogger("bitheads.serve")


class Closed(Exception):
    """The server is shutting down, or has to, see Scheduler.failure."""


@dataclass(frozen=True)
class BatchReport:
    """What is told of each batch, and of texts that need none.

    Attributes:
        rows: texts that were encoded.
        stats: the cost.
        joined: texts that were answered with them, being equal to one of them.
        cached: texts that were answered from the cache; such are told of by themselves.
    """

    rows: int
    stats: Stats
    joined: int = 0
    cached: int = 0


class Scheduler:
    """Runs an engine's encoder on what many callers ask for, at most one batch per lane at a time.

    While one batch would hold all that waits, it gets all cores; when there is more, the encoder's
    lanes take a batch each. Nothing waits for a batch to fill up, except, for `max_wait_s`, for
    requests that are being read already (`announce`).

    Of equal texts that wait at the same time one is encoded, and none whose codes are in the cache.

    Whatever goes wrong with a batch ends that batch's requests, and the lane takes the next one. A
    lane that cannot go on ends them all: nothing is to wait for what will never come.
    """

    def __init__(
        self,
        engine: Engine,
        max_queue_tokens: int,
        max_batch_tokens: int | None = None,
        max_wait_s: float = 0.0,
        max_queue_s: float = float("inf"),
        report: Callable[[BatchReport], None] = lambda _: None,
        cache_bytes: int = 0,
    ) -> None:
        """
        Args:
            max_queue_tokens, max_queue_s: bounds on what a request waits for, in tokens and in
                time, see engine.serve.room; twice the time for one that is alone.
            max_batch_tokens: None for the encoder's choice.
            report: called after each batch, from the scheduler's threads, and of texts in the cache
                from those that submit.
            cache_bytes: of codes that are kept; 0 for none.
        """
        self._process = os.getpid()
        self._engine = engine
        self._encoder = engine.encoder
        self._embedding_dim = embedding_dim(engine)
        self._room = Room(max_queue_tokens, max_queue_s, 2 * max_queue_s)
        self._max_batch_tokens = max_batch_tokens or self._encoder.max_batch_tokens
        self._max_wait_s = max_wait_s
        self._report = report
        self._run_on_all, self._lanes = self._encoder.open_runners()
        self._queue: FairQueue[Request] = FairQueue()
        self._keys, self._cache = Keys(), CodesCache(cache_bytes)
        self._equal: EqualRows[Request] = EqualRows(_key)
        self._changed = threading.Condition()
        self._open: set[Request] = set()
        self._queued_tokens = 0
        self._lanes_busy = 0
        self._all_busy = False
        self._announced = 0
        self._closing = False
        self._failure: BaseException | None = None
        self._warm_up()
        self._aside = FairThreads(2, "bitheads-cached")
        self._threads = [
            threading.Thread(target=self._work, args=(lane,), name=f"bitheads-lane-{i}")
            for i, lane in enumerate(self._lanes or [self._run_on_all])
        ]
        for thread in self._threads:
            thread.start()

    @property
    def num_lanes(self) -> int:
        return len(self._threads)

    @property
    def failure(self) -> BaseException | None:
        """What ended a lane, and with it all work; None if all is well."""
        return self._failure

    @property
    def queued_tokens(self) -> int:
        """Tokens that wait or are being encoded."""
        return self._room.tokens

    @property
    def cache(self) -> CodesCache:
        """To be looked at: how much there is in it."""
        return self._cache

    @property
    def max_queue_tokens(self) -> int:
        return self._room.max_tokens

    def retry_after_s(self) -> float:
        """When what is there now should be done."""
        return self._room.seconds(self._room.tokens)

    def check_room(self, client: Hashable, tokens: int = 1) -> None:
        """Raises QueueFull if so many of this client would not be taken now, or TooLong."""
        self._room.check(client, tokens)

    def announce(self) -> None:
        """A request is being read: a batch may wait for it. Followed by `submit` or `retract`."""
        with self._changed:
            self._announced += 1

    def retract(self) -> None:
        """Ends an `announce`, after `submit` or without."""
        with self._changed:
            self._announced -= 1
            # Lanes wait for that only while there is something to run.
            if self._announced == 0 and self._max_wait_s > 0 and len(self._queue):
                self._changed.notify_all()

    def submit(self, request: Request) -> Future[Answer]:
        """Queues a request's texts; its future gets the answer, or BackendError.

        Raises QueueFull, TooLong or Closed, and ForkedError in a process without the scheduler's
        threads.
        """
        check_process(self._process, "this scheduler")
        spec = self._engine.spec
        if request.wants_features:
            request.codes = np.empty((request.tokens, spec.code_bytes), np.uint8)
        if request.wants_embeddings:
            assert self._embedding_dim is not None, "who asks has looked whether there are any"
            request.embeddings = np.empty((request.num_joint, self._embedding_dim), np.float32)
        if not request.texts:
            request.future.set_result(make_answer(request, self._engine))
            return request.future
        lengths = np.diff(request.offsets)
        padded = self._encoder.pad_lengths(lengths)
        request.keys = [self._keys(text) for text in request.texts]
        with self._changed:
            if self._closing:
                raise Closed
            cached = self._queue_up(request, lengths, padded)
        request.future.add_done_callback(lambda future: self._forget(request))
        if cached:
            self._answer_cached(request, cached)
        return request.future

    def _queue_up(
        self, request: Request, lengths: NDArray[np.int64], padded: NDArray[np.int64]
    ) -> dict[int, Kept]:
        """Has what is to be encoded of a request wait for it; with the lock.

        Returns what the cache has of its texts. Raises QueueFull or TooLong.
        """
        found = [self._cache.get(key) for key in request.keys]
        running = [self._equal.is_running(key) for key in request.keys]
        new = [
            i
            for i, (codes, runs) in enumerate(zip(found, running, strict=True))
            if codes is None and not runs
        ]
        tokens = int(lengths[new].sum())
        if new:
            self._room.check(request.client, tokens)
        request.submitted_s = time.perf_counter()
        if None not in found:
            request.queue_s = 0.0
        if new:
            waits = lengths[new].tolist(), padded[new].tolist()
            for row in self._queue.put(request, *waits, request.client, new):
                self._equal.wait(row)
            if not self._all_busy:  # else nobody can begin, and who ends wakes all
                self._changed.notify_all()
        for i, codes in enumerate(found):
            if codes is None and running[i]:
                self._equal.ride(Row(request, i, int(lengths[i]), int(padded[i])))
        self._room.add(request.client, tokens)
        self._queued_tokens += tokens
        self._open.add(request)
        return {i: codes for i, codes in enumerate(found) if codes is not None}

    def _answer_cached(self, request: Request, cached: dict[int, Kept]) -> None:
        """Answers some texts of a request by what is kept of them, aside if that takes long."""
        sizes = [request.texts[i].ids.size for i in cached]
        rows = [Row(request, i, size, size) for i, size in zip(cached, sizes, strict=True)]
        features = restore([*cached.values()], sizes, self._engine)
        answer = partial(self._answer, rows, features, BatchReport(0, Stats(), cached=len(rows)))
        if sum(sizes) * max(1, len(request.heads)) <= INLINE_TOKENS:
            answer()
            return
        try:
            self._aside.submit(str(request.client), answer)
        except RuntimeError:  # closed since it was taken
            answer()

    def close(self) -> None:
        """Takes nothing any more, answers all that waits, and ends the threads.

        In a process that was forked since, there is nothing to end.
        """
        if os.getpid() != self._process:
            return
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        self._aside.close()
        del self._run_on_all, self._lanes  # they hold the sessions' memory

    def _warm_up(self) -> None:
        """A short text everywhere: what backends put off until their first call takes long."""
        rows = [Row(Request(self._engine.tokenizer(["warm up"]), (), False), 0, 0, 0)]
        for run in (self._run_on_all, *self._lanes):
            self._encode(run, rows)

    def _forget(self, request: Request) -> None:
        with self._changed:
            self._open.discard(request)
            self._room.end(request.client)
            if request.future.cancelled():
                self._drop(request)

    def _drop(self, request: Request) -> None:
        """Takes its texts out of the queue; with the lock."""
        rows = self._queue.drop(request)
        for row in rows:
            self._equal.forget(row)
        tokens = sum(row.length for row in rows)
        self._queued_tokens -= tokens
        self._room.encoded(request.client, tokens)

    def _work(self, lane: BatchRunner) -> None:
        """A thread's life."""
        try:
            self._take_turns(lane)
        except BaseException as error:
            logger.critical("a lane of the encoder ended: nothing is answered", exc_info=True)
            with self._changed:
                self._failure = error
                self._closing = True
                self._queue, self._equal = FairQueue(), EqualRows(_key)
                self._room.forget()
                self._queued_tokens = 0
                self._changed.notify_all()
            self._fail(list(self._open), error)

    def _take_turns(self, lane: BatchRunner) -> None:
        while True:
            with self._changed:
                if not self._wait_for_turn():
                    return
                takes_all = self._takes_all()
                taken = self._queue.take(self._max_batch_tokens, self._encoder.call_tokens)
                rows, early = self._equal.start(taken)
                for row in early:
                    self._queue.remove(row, row.owner.client)
                taken += early
                self._queued_tokens -= sum(row.length for row in taken)
                self._all_busy = takes_all
                self._lanes_busy += not takes_all
            started_s = time.perf_counter()
            try:
                self._run(self._run_on_all if takes_all else lane, rows, started_s)
            finally:
                took_s = time.perf_counter() - started_s
                with self._changed:
                    share = 1 if takes_all else self.num_lanes
                    tokens = sum(row.length for row in rows) + self._encoder.call_tokens
                    self._room.measured(tokens, took_s / share)
                    for row in taken:
                        self._room.encoded(row.owner.client, row.length)
                    self._all_busy = False if takes_all else self._all_busy
                    self._lanes_busy -= not takes_all
                    self._changed.notify_all()

    def _wait_for_turn(self) -> bool:
        """Returns when there is something to run and a place to run it; False to end."""
        waited_until_s: float | None = None
        while True:
            if not len(self._queue):
                if self._closing:
                    return False
                waited_until_s = None
                self._changed.wait()
                continue
            is_free = not self._all_busy and (not self._takes_all() or self._lanes_busy == 0)
            if not is_free:
                self._changed.wait()
                continue
            if not self._announced or self._queued_tokens >= self._max_batch_tokens:
                return True
            now_s = time.perf_counter()
            waited_until_s = waited_until_s or now_s + self._max_wait_s
            if now_s >= waited_until_s:
                return True
            self._changed.wait(waited_until_s - now_s)

    def _takes_all(self) -> bool:
        """Whether the next batch is to have all cores: nothing else runs, and it holds all."""
        if not self._lanes:
            return True
        return self._lanes_busy == 0 and self._queued_tokens <= self._max_batch_tokens

    def _run(self, run: BatchRunner, rows: Sequence[Row[Request]], started_s: float) -> None:
        """Encodes rows, and answers them and all that are equal to one of them."""
        try:
            codes = self._encode(run, rows)
            kept = keep(codes) if self._cache.max_bytes else []
        except Exception as error:  # of one batch; the thread goes on with the next
            with self._changed:
                joined = self._equal.end(rows)
            self._fail_batch([*rows, *(row for each in joined for row in each)], error)
            return
        with self._changed:
            joined = self._equal.end(rows)
            for row, own in zip(rows, kept, strict=False):
                self._cache.put(_key(row), own)
        all_rows = [*rows, *(row for each in joined for row in each)]
        for request in dict.fromkeys(row.owner for row in all_rows):
            if request.queue_s is None:
                request.queue_s = max(0.0, started_s - request.submitted_s)
        places = np.repeat(np.arange(len(rows)), [len(each) for each in joined])
        report = BatchReport(len(rows), codes.stats, len(places))
        self._answer(all_rows, codes, report, np.r_[: len(rows), places])

    def _answer(
        self,
        rows: Sequence[Row[Request]],
        codes: PackedFeatures,
        report: BatchReport,
        places: NDArray[np.int64] | None = None,
    ) -> None:
        """Answers rows by codes; what goes wrong ends their requests.

        Args:
            places: int64 [rows], which of the codes' texts each is; None: one after the other.
        """
        try:
            if places is not None and len(places) > len(codes):
                codes = replace(codes[places], stats=codes.stats)
            features, answers = answer_rows(self._engine, rows, codes)
            self._hand_out(rows, features, answers)
        except Exception as error:
            self._fail_batch(rows, error)
            return
        try:
            self._report(replace(report, stats=features.stats))
        except Exception:  # who counts the batches is no reason not to answer the next
            logger.exception("a batch could not be reported")

    def _encode(self, run: BatchRunner, rows: Sequence[Row[Request]]) -> PackedFeatures:
        """Codes of the rows, one after the other, and their embeddings if it makes such."""
        texts = [row.owner.texts[row.index] for row in rows]
        offsets = offsets_of([text.ids.size for text in texts])
        codes = np.empty((int(offsets[-1]), self._engine.spec.code_bytes), np.uint8)
        seq = max(row.padded for row in rows)
        batch = pad_batch(texts, self._engine.manifest.encoder.pad_id, seq)
        dim = self._embedding_dim
        vectors = None if dim is None else np.empty((len(rows), dim), np.float32)
        stats = run(PlacedBatch(batch, np.arange(len(rows)), offsets[:-1], codes, vectors))
        spec, calibration = self._engine.spec, self._engine.calibration
        return PackedFeatures(codes, offsets, spec, calibration, stats, embeddings=vectors)

    def _hand_out(
        self, rows: Sequence[Row[Request]], features: PackedFeatures, answers: Outputs
    ) -> None:
        """Every row's results to its request; requests that are whole get their answer."""
        with self._changed:  # lanes may work on the same request
            whole = hand_out(rows, features, answers)
        for request in whole:
            answer = make_answer(request, self._engine)
            if request.future.set_running_or_notify_cancel():
                request.future.set_result(answer)

    def _fail_batch(self, rows: Sequence[Row[Request]], error: Exception) -> None:
        is_known = isinstance(error, BitheadsError)
        logger.error("a batch of %d texts failed: %s", len(rows), error, exc_info=not is_known)
        self._fail(list(dict.fromkeys(row.owner for row in rows)), error)

    def _fail(self, requests: Sequence[Request], error: BaseException) -> None:
        """Ends the requests that have not ended yet, and takes their texts out of the queue."""
        with self._changed:
            first_time = [request for request in requests if not request.failed]
            for request in first_time:
                request.failed = True  # another lane may be at other texts of it
                self._drop(request)
        for request in first_time:
            if not request.future.done() and request.future.set_running_or_notify_cancel():
                request.future.set_exception(error)


def _key(row: Row[Request]) -> Key:
    return row.owner.keys[row.index]
