"""Who runs when: requests' texts become batches within a token budget, as the encoder is free."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bitheads.engine.batching import pad_batch, words_of_windows
from bitheads.engine.engine import Engine
from bitheads.engine.errors import BitheadsError
from bitheads.engine.features.packed import PackedFeatures
from bitheads.engine.features.ragged import offsets_of
from bitheads.engine.heads.head import Head, is_of_words, outputs_of, reads_words
from bitheads.engine.process.forked import check_process
from bitheads.engine.serve.fair_queue import FairQueue, Row
from bitheads.engine.serve.request import Answer, Request, make_answer
from bitheads.engine.serve.room import Room
from bitheads.engine.texts.forms import reads_apart
from bitheads.engine.types import BatchRunner, PlacedBatch, Stats

logger = logging.getLogger("bitheads.serve")


class Closed(Exception):
    """The server is shutting down, or has to, see Scheduler.failure."""


@dataclass(frozen=True)
class BatchReport:
    """What is told of each batch.

    Attributes:
        rows: its texts.
        stats: its cost.
    """

    rows: int
    stats: Stats


class Scheduler:
    """Runs an engine's encoder on what many callers ask for, at most one batch per lane at a time.

    While one batch would hold all that waits, it gets all cores; when there is more, the encoder's
    lanes take a batch each. Nothing waits for a batch to fill up, except, for `max_wait_s`, for
    requests that are being read already (`announce`).

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
    ) -> None:
        """
        Args:
            max_queue_tokens, max_queue_s: bounds on what a request waits for, in tokens and in
                time, see engine.serve.room; twice the time for one that is alone.
            max_batch_tokens: None for the encoder's choice.
            report: called after each batch, from the scheduler's threads.
        """
        self._process = os.getpid()
        self._engine = engine
        self._encoder = engine.encoder
        self._room = Room(max_queue_tokens, max_queue_s, 2 * max_queue_s)
        self._max_batch_tokens = max_batch_tokens or self._encoder.max_batch_tokens
        self._max_wait_s = max_wait_s
        self._report = report
        self._run_on_all, self._lanes = self._encoder.open_runners()
        self._queue: FairQueue[Request] = FairQueue()
        self._changed = threading.Condition()
        self._open: set[Request] = set()
        self._queued_tokens = 0
        self._lanes_busy = 0
        self._all_busy = False
        self._announced = 0
        self._closing = False
        self._failure: BaseException | None = None
        self._warm_up()
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
            if self._announced == 0 and self._max_wait_s > 0:
                self._changed.notify_all()

    def submit(self, request: Request) -> Future[Answer]:
        """Queues a request's texts; its future gets the answer, or BackendError.

        Raises QueueFull, TooLong or Closed, and ForkedError in a process without the scheduler's
        threads.
        """
        check_process(self._process, "this scheduler")
        if not request.texts:
            request.future.set_result(make_answer(request, self._engine))
            return request.future
        spec = self._engine.spec
        if request.wants_features:
            request.codes = np.empty((request.tokens, spec.code_bytes), np.uint8)
        lengths = np.diff(request.offsets)
        padded = self._encoder.pad_lengths(lengths)
        with self._changed:
            if self._closing:
                raise Closed
            self._room.check(request.client, request.tokens)
            request.submitted_s = time.perf_counter()
            self._queue.put(request, lengths.tolist(), padded.tolist(), request.client)
            self._room.add(request.client, request.tokens)
            self._queued_tokens += request.tokens
            self._open.add(request)
            self._changed.notify_all()
        request.future.add_done_callback(lambda future: self._forget(request))
        return request.future

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
        del self._run_on_all, self._lanes  # they hold the sessions' memory

    def _warm_up(self) -> None:
        """A short text everywhere: what backends put off until their first call takes long."""
        rows = [Row(Request(self._engine.tokenizer(["warm up"]), (), False), 0, 0, 0)]
        for run in (self._run_on_all, *self._lanes):
            self._compute(run, rows)

    def _forget(self, request: Request) -> None:
        with self._changed:
            self._open.discard(request)
            self._room.end(request.client)
            if request.future.cancelled():
                self._drop(request)

    def _drop(self, request: Request) -> None:
        """Takes its texts out of the queue; with the lock."""
        tokens = self._queue.drop(request)
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
                self._queue = FairQueue()
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
                rows = self._queue.take(self._max_batch_tokens, self._encoder.call_tokens)
                tokens = sum(row.length for row in rows)
                self._queued_tokens -= tokens
                self._all_busy = takes_all
                self._lanes_busy += not takes_all
            started_s = time.perf_counter()
            try:
                self._run(self._run_on_all if takes_all else lane, rows, started_s)
            finally:
                took_s = time.perf_counter() - started_s
                with self._changed:
                    share = 1 if takes_all else self.num_lanes
                    self._room.measured(tokens + self._encoder.call_tokens, took_s / share)
                    for row in rows:
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
        requests = list(dict.fromkeys(row.owner for row in rows))
        for request in requests:
            if request.queue_s is None:
                request.queue_s = started_s - request.submitted_s
        try:
            features, predictions = self._compute(run, rows)
            self._hand_out(rows, features, predictions)
        except Exception as error:  # of one batch; the thread goes on with the next
            is_known = isinstance(error, BitheadsError)
            logger.error("a batch of %d texts failed: %s", len(rows), error, exc_info=not is_known)
            self._fail(requests, error)
            return
        try:
            self._report(BatchReport(len(rows), features.stats))
        except Exception:  # who counts the batches is no reason not to answer the next
            logger.exception("a batch could not be reported")

    def _compute(
        self, run: BatchRunner, rows: Sequence[Row[Request]]
    ) -> tuple[PackedFeatures, dict[Head, NDArray[np.float32]]]:
        """Codes of the rows, one after the other, and the answers of every head that is asked.

        Of a row that did not ask a head there is no answer: what stands there is not initialized.
        """
        texts = [row.owner.texts[row.index] for row in rows]
        offsets = offsets_of([text.ids.size for text in texts])
        codes = np.empty((int(offsets[-1]), self._engine.spec.code_bytes), np.uint8)
        seq = max(row.padded for row in rows)
        batch = pad_batch(texts, self._engine.manifest.encoder.pad_id, seq)
        stats = run(PlacedBatch(batch, np.arange(len(rows)), offsets[:-1], codes))
        pairs = np.array([text.is_pair for text in texts], np.bool_)
        asked = _rows_by_head(rows)
        words = words_of_windows(texts) if reads_words([*asked]) else None
        features = PackedFeatures(
            codes, offsets, self._engine.spec, self._engine.calibration, stats, pairs, words
        )
        started_s = time.perf_counter()
        answers = self._predict(features, asked)
        heads_s = time.perf_counter() - started_s
        return replace(features, stats=stats + Stats(heads_s=heads_s)), answers

    def _predict(
        self, features: PackedFeatures, asked: dict[Head, list[int]]
    ) -> dict[Head, NDArray[np.float32]]:
        """Outputs by head, not by task: while one is replaced, requests may have either.

        Of heads of the form two_texts those are the texts' vectors.

        Args:
            asked: the rows whose requests ask the head.
        """
        groups: dict[tuple[int, ...], list[Head]] = {}
        for head, asked_of in asked.items():
            groups.setdefault(tuple(asked_of), []).append(head)
        answers: dict[Head, NDArray[np.float32]] = {}
        for rows, heads in groups.items():
            if len(rows) == len(features):
                answers |= self._outputs(features, heads)
                continue
            chosen = np.array(rows)
            for head, outputs in self._outputs(features[chosen], heads).items():
                count, places = len(features), chosen
                if is_of_words(head) and features.words is not None:
                    count = len(features.words.table)
                    places, _ = features.words.rows_of(chosen)
                answers[head] = np.empty((count, outputs.shape[1]), np.float32)
                answers[head][places] = outputs
        return answers

    def _outputs(
        self, features: PackedFeatures, heads: Sequence[Head]
    ) -> dict[Head, NDArray[np.float32]]:
        """Those of heads that are all asked of all of the features."""
        apart = [head for head in heads if reads_apart(head)]
        vectors = self._encoder.text_vectors(features, apart) if apart else []
        answers: dict[Head, NDArray[np.float32]] = dict(zip(apart, vectors, strict=True))
        left = [head for head in heads if head not in answers]
        while left:
            by_task = {head.task: head for head in left}
            found = self._encoder.predict(features, list(by_task.values()))
            for task, head in by_task.items():
                answers[head] = outputs_of(found[task])
            left = [head for head in left if head not in answers]
        return answers

    def _hand_out(
        self,
        rows: Sequence[Row[Request]],
        features: PackedFeatures,
        answers: dict[Head, NDArray[np.float32]],
    ) -> None:
        """Every row's results to its request; requests that are whole get their answer."""
        whole = []
        with self._changed:  # lanes may work on the same request
            for i, row in enumerate(rows):
                request = row.owner
                if request.codes is not None:
                    own = _rows(request.offsets, row.index)
                    request.codes[own] = features.codes[_rows(features.offsets, i)]
                own_words = found_words = slice(0)
                is_joint = row.index < request.num_joint
                if request.words is not None and features.words is not None and is_joint:
                    own_words = _rows(request.words.offsets, row.index)
                    found_words = _rows(features.words.offsets, i)
                place = row.index if is_joint else row.index - request.num_joint
                heads = zip(request.outputs, request.heads, request.are_of_words, strict=True)
                for outputs, head, is_of_words in heads:
                    if reads_apart(head) == is_joint:
                        continue
                    if is_of_words:
                        outputs[own_words] = answers[head][found_words]
                    else:
                        outputs[place] = answers[head][i]
                request.waiting -= 1
                if not request.waiting:
                    whole.append(request)
            for request in dict.fromkeys(row.owner for row in rows):
                request.stats += features.stats
        for request in whole:
            answer = make_answer(request, self._engine)
            if request.future.set_running_or_notify_cancel():
                request.future.set_result(answer)

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


def _rows_by_head(rows: Sequence[Row[Request]]) -> dict[Head, list[int]]:
    """Of each head that is asked the rows that it is asked of."""
    asked: dict[Head, list[int]] = {}
    for i, row in enumerate(rows):
        is_joint = row.index < row.owner.num_joint
        for head in row.owner.heads:
            if reads_apart(head) != is_joint:
                asked.setdefault(head, []).append(i)
    return asked


def _rows(offsets: NDArray[np.int64], index: int) -> slice:
    """Those that one of ragged items owns."""
    return slice(int(offsets[index]), int(offsets[index + 1]))
