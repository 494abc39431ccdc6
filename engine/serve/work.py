"""What every protocol's routes do: texts to an answer, codes to an answer, within the limits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from bitheads.engine.answer_parts import has_probabilities, parts_of
from bitheads.engine.engine import Engine
from bitheads.engine.errors import BitheadsError, InputError
from bitheads.engine.features.embedding import Embedder
from bitheads.engine.features.packed import PackedFeatures
from bitheads.engine.heads.head import Head, is_of_words, reads_words
from bitheads.engine.kinds.token_label import count_inside
from bitheads.engine.predictions import Prediction
from bitheads.engine.serve.errors import HttpError, of_engine, queue_full, shutting_down, too_large
from bitheads.engine.serve.fair_threads import FairThreads
from bitheads.engine.serve.json_size import count_values
from bitheads.engine.serve.messages import server_timing, stages_of, to_json
from bitheads.engine.serve.metrics import Metrics
from bitheads.engine.serve.request import Answer, Request
from bitheads.engine.serve.room import QueueFull, TooLong
from bitheads.engine.serve.scheduler import INLINE_TOKENS, Closed, Scheduler
from bitheads.engine.serve.settings import Settings
from bitheads.engine.serve.statistics import Statistics
from bitheads.engine.serve.visit import Visit
from bitheads.engine.texts.apart import take_apart
from bitheads.engine.texts.forms import are_pairs, fitting, of_codes, of_two_texts, reads_apart
from bitheads.engine.texts.prompts import put_before
from bitheads.engine.texts.tokenize import Tokens
from bitheads.engine.types import Stats, Text

INLINE_CHARS = 4096
"""Characters that are tokenized at once, in 0.1 ms or so; for more there is another thread."""

PIECE_CHARS = 1 << 17
"""Characters that one job of a thread tokenizes, or one text."""

THREADS = 3
"""Threads beside the encoder's; a client has two of them at most."""

PAIR_TOKENS = 8
"""Tokens whose time in a head a pair of texts takes, about."""

INLINE_BYTES = 1 << 16
"""Bytes of JSON that are read or written at once, in a millisecond or so."""

VALUES_PER_TEXT, OTHER_VALUES = 8, 16_384
"""Values in the JSON of a request, at most: codes of a text are four values; tasks are others."""

FIELD_BYTES, OTHER_BYTES = 28, 256
"""Bytes of a number or a bool in JSON with the name of its field, and of what is there beside
answers, both at most."""

SPAN_BYTES = 80
"""Bytes of a span without its label, in JSON in a string in JSON, at most."""

Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class Answered:
    """An answer, and what it cost.

    Attributes:
        usage: see engine.serve.messages.Usage.
        timing: a Server-Timing header.
    """

    answer: Answer
    usage: dict[str, int]
    timing: str


@dataclass(frozen=True, eq=False)
class Embedded:
    """Embeddings, [texts, numbers], and what they cost, see Answered."""

    vectors: NDArray[Any]
    usage: dict[str, int]
    timing: str


class Work:
    """An engine, its scheduler and the limits of requests."""

    def __init__(
        self, engine: Engine, scheduler: Scheduler, settings: Settings, metrics: Metrics
    ) -> None:
        self.engine = engine
        self._scheduler = scheduler
        self._settings = settings
        self._metrics = metrics
        self._threads = FairThreads(THREADS, "bitheads-serve")

    def close(self) -> None:
        """Waits for what runs."""
        self._threads.close()

    async def encode(
        self,
        texts: Sequence[Text],
        tasks: Sequence[str] | None,
        wants_features: bool,
        visit: Visit,
        wants_embeddings: bool = False,
    ) -> Answered:
        """Through the scheduler; see also `statistics`.

        Args:
            tasks: names of heads; None for all of each text's form; empty for none. See
                engine.texts.forms.
            wants_features: the texts' codes.
            wants_embeddings: their embeddings, without a prompt before them.

        Raises HttpError.
        """
        started_s = time.perf_counter()
        try:
            return await self._encode(texts, tasks, wants_features, visit, wants_embeddings)
        except BaseException:
            self.statistics.failed(time.perf_counter() - started_s)
            raise

    async def _encode(
        self,
        texts: Sequence[Text],
        tasks: Sequence[str] | None,
        wants_features: bool,
        visit: Visit,
        wants_embeddings: bool,
    ) -> Answered:
        self.check(texts)
        if wants_embeddings:
            self.embedder()
        heads = self._choose_heads(tasks, are_pairs(texts))
        apart, to_encode = None, texts
        if any(map(reads_apart, heads)):
            wants_all = wants_features or wants_embeddings
            try:
                apart, to_encode = take_apart(texts, heads, wants_all)
            except InputError as error:
                raise of_engine(error) from error
        started_s = time.perf_counter()
        tokens = await self._tokenize(to_encode, visit.client, reads_words(heads))
        tokenize_s = time.perf_counter() - started_s
        request = Request(
            tokens, heads, wants_features, visit.client, wants_embeddings, apart=apart
        )
        visit.texts, visit.tokens = len(texts), request.tokens
        answer = await self._submit(request, visit)
        is_cut = np.array([text.truncated for text in tokens], np.bool_)
        truncated = int(is_cut.sum()) if apart is None else apart.count(is_cut)
        self._metrics.queue_s.observe(answer.queue_s)
        self._metrics.truncated.inc(truncated)
        self._count(answer.predictions)
        self.statistics.succeeded(
            len(texts), time.perf_counter() - started_s, tokenize_s, answer.queue_s, answer.stats
        )
        visit.stages = stages_of(tokenize_s, answer.queue_s, answer.stats)
        return Answered(
            answer,
            {"texts": len(texts), "tokens": request.tokens, "truncated": truncated},
            server_timing(visit.stages),
        )

    async def embed(
        self,
        texts: Sequence[Text],
        visit: Visit,
        dim: int | None = None,
        normalize: bool = True,
        precision: str = "float32",
        prompt_name: str | None = None,
    ) -> Embedded:
        """Embeddings alone, see `Engine.embed`. Raises HttpError."""
        embedder = self.embedder()
        try:
            embedder.check_asked(dim, normalize, precision)
            prompt = embedder.spec.prompt(None, prompt_name)
            texts = put_before(prompt, texts) if prompt else texts
        except InputError as error:
            raise of_engine(error) from error
        done = await self.encode(texts, [], False, visit, wants_embeddings=True)
        assert done.answer.embeddings is not None
        vectors = embedder.finish(done.answer.embeddings, dim, normalize, precision)
        return Embedded(vectors, done.usage, done.timing)

    def embedder(self) -> Embedder:
        """The engine's. Raises HttpError for a bundle that gives no embeddings."""
        try:
            return self.engine.embedder
        except BitheadsError as error:
            raise HttpError(404, "no_embeddings", str(error)) from error

    async def predict_features(
        self, features: PackedFeatures, tasks: Sequence[str] | None, visit: Visit
    ) -> tuple[dict[str, Prediction], str]:
        """Heads alone; the answer by task and a Server-Timing header.

        Heads of words are left out: codes that clients send have none. Raises HttpError, for such
        a head that was named, too.
        """
        if len(features) > self._settings.max_texts:
            raise self.too_many(len(features))
        heads = self._choose_heads(tasks, features.pairs, of_codes)
        of_words = [head.task for head in heads if is_of_words(head)]
        if tasks is not None and of_words:
            raise of_engine(
                InputError(
                    f"task {of_words[0]!r}: its head reads the words of texts, but codes that are "
                    "sent have none. Send the texts to /v1/predict, or leave the task out."
                )
            )
        heads = [head for head in heads if head.task not in of_words]
        visit.texts, visit.tokens = len(features), int(features.offsets[-1])
        predict = self.engine.encoder.predict
        started_s = time.perf_counter()
        try:
            if visit.tokens * max(1, len(heads)) <= INLINE_TOKENS:
                found = predict(features, heads)
            else:
                found = await self._aside(visit.client, partial(predict, features, heads))
        except BitheadsError as error:
            raise of_engine(error) from error
        heads_s = time.perf_counter() - started_s
        self._count(found)
        visit.stages = stages_of(0.0, 0.0, Stats(heads_s=heads_s))
        return found, server_timing(visit.stages)

    async def predict_pairs(
        self,
        features: PackedFeatures,
        pairs: Sequence[Sequence[int]],
        tasks: Sequence[str] | None,
        visit: Visit,
    ) -> tuple[dict[str, Prediction], str]:
        """Heads of the form two_texts alone, of pairs of rows of the features; else the same.

        Raises HttpError, for another head that was named, too.
        """
        for count in (len(features), len(pairs)):
            if count > self._settings.max_texts:
                raise self.too_many(count)
        heads = self._choose_heads(tasks, None, of_two_texts)
        visit.texts, visit.tokens = len(pairs), int(features.offsets[-1])
        work = (visit.tokens + PAIR_TOKENS * len(pairs)) * max(1, len(heads))
        rows = np.array(pairs, np.int64).reshape(-1, 2)
        predict = partial(self.engine.predict_pairs, features, rows, tasks)
        try:
            if work <= INLINE_TOKENS:
                found = predict()
            else:
                found = await self._aside(visit.client, predict)
        except BitheadsError as error:
            raise of_engine(error) from error
        self._count(found)
        visit.stages = stages_of(0.0, 0.0, Stats(heads_s=found.stats.heads_s))
        return dict(found), server_timing(visit.stages)

    async def read(
        self, client: str, body: bytes, json_bytes: int, parse: Callable[[], Result]
    ) -> Result:
        """Reads a request, aside if that takes long.

        Args:
            client: whose it is.
            json_bytes: of JSON, at the beginning of the body.
            parse: raises BitheadsError for what is no request.

        Raises HttpError for that, and for more values than any request of as many texts has.
        """
        limit = VALUES_PER_TEXT * self._settings.max_texts + OTHER_VALUES
        count = partial(count_values, body[:json_bytes], limit)
        if json_bytes > limit and await self.run(client, json_bytes, count) > limit:
            raise too_large("body", f"more than {limit} values", str(limit), "--max-texts")
        try:
            return await self.run(client, len(body), parse)
        except BitheadsError as error:
            raise of_engine(error) from error

    async def run(self, client: str, num_bytes: int, work: Callable[[], Result]) -> Result:
        """Runs what reads or writes so many bytes of JSON, aside if that takes long."""
        self._threads.notice(client)
        return work() if num_bytes <= INLINE_BYTES else await self._aside(client, work)

    async def _aside(self, client: str, work: Callable[[], Result]) -> Result:
        return await asyncio.wrap_future(self._threads.submit(client, work))

    def _choose_heads(
        self,
        tasks: Sequence[str] | None,
        pairs: NDArray[np.bool_] | None,
        those: Callable[[list[Head], bool], list[Head]] = lambda heads, named: heads,
    ) -> list[Head]:
        """Those of the heads that fit these texts.

        Raises HttpError for a task that no head answers, or that is for none of these texts.
        """
        named = tasks is not None
        try:
            return fitting(those(self.engine.choose_heads(tasks), named), pairs, named)
        except BitheadsError as error:
            raise of_engine(error) from error

    def check(self, texts: Sequence[Text]) -> None:
        """Raises HttpError for more texts than a request may have, or longer ones."""
        settings = self._settings
        if len(texts) > settings.max_texts:
            raise self.too_many(len(texts))
        for i, text in enumerate(texts):
            for part in (text,) if isinstance(text, str) else text:
                if len(part) > settings.max_chars:
                    raise too_large(
                        f"text {i}",
                        f"{len(part)} characters",
                        str(settings.max_chars),
                        "--max-chars",
                    )

    @property
    def statistics(self) -> Statistics:
        """What `encode` took."""
        return self._metrics.statistics

    @property
    def max_texts(self) -> int:
        """Texts of a request, at most."""
        return self._settings.max_texts

    @property
    def max_told_tokens(self) -> int:
        """Tokens that are told of a request, at most: as many as may wait."""
        return self._settings.max_queue_tokens

    def too_many(self, count: int) -> HttpError:
        """413, for so many texts."""
        return too_large("inputs", f"{count} texts", str(self._settings.max_texts), "--max-texts")

    async def _tokenize(self, texts: Sequence[Text], client: str, words: bool) -> list[Tokens]:
        """Tokenizes in pieces where there is much, so that others have their turn in between.

        Args:
            words: find those of the texts.
        """
        tokenize = partial(self.engine.tokenizer, words=words)
        each = len(self.engine.spec.prefix)
        chars = [each + (len(t) if isinstance(t, str) else len(t[0]) + len(t[1])) for t in texts]
        try:
            if sum(chars) <= INLINE_CHARS:
                return tokenize(texts)
            tokens: list[Tokens] = []
            count = 0
            for start, stop in pieces(chars):
                piece = partial(tokenize, texts[start:stop], first_index=start)
                found = await self._aside(client, piece)
                tokens += found
                count += sum(text.ids.size for text in found)
                if stop < len(texts):  # what will be refused needs no more work
                    self._check_room(client, count)
            return tokens
        except InputError as error:
            raise of_engine(error) from error

    def _check_room(self, client: str, tokens: int) -> None:
        """Raises HttpError if so many tokens would not be taken now."""
        try:
            self._scheduler.check_room(client, tokens)
        except (QueueFull, TooLong) as error:
            raise self._no_room(error) from None

    def _no_room(self, error: QueueFull | TooLong) -> HttpError:
        if isinstance(error, QueueFull):
            return queue_full(error.retry_after_s)
        return too_large(
            "inputs",
            f"{error.tokens} tokens or more, which take about {error.needed_s:.0f} s",
            f"{self._settings.request_timeout_s:g} s",
            "--request-timeout-s",
        )

    async def _submit(self, request: Request, visit: Visit) -> Answer:
        try:
            future = self._scheduler.submit(request)
        except (QueueFull, TooLong) as error:
            raise self._no_room(error) from None
        except Closed:
            raise shutting_down() from None
        except BitheadsError as error:
            raise of_engine(error) from error
        finally:
            visit.retract()
        try:
            if future.done():  # by the cache: no need to go round the event loop
                return future.result()
            return await asyncio.wrap_future(future)
        except BitheadsError as error:
            raise of_engine(error) from error

    def forget_task(self, name: str) -> None:
        """There is no such head any more: nothing counts its answers."""
        with suppress(KeyError):  # nobody has asked it
            self._metrics.answers.remove(name)
        with suppress(KeyError):
            self._metrics.refusals.remove(name)

    def _count(self, predictions: Mapping[str, Prediction]) -> None:
        for task, prediction in predictions.items():
            answered = prediction.answered
            self._metrics.answers.labels(task).inc(int(answered.sum()))
            if prediction.decision.can_refuse:
                refused = answered & ~prediction.accepted
                self._metrics.refusals.labels(task).inc(int(refused.sum()))


def pieces(chars: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Texts that one job tokenizes together: the first of them, and the one behind the last.

    Args:
        chars: of each text.
    """
    start = 0
    while start < len(chars):
        stop, size = start, 0
        while stop < len(chars) and (size == 0 or size + chars[stop] <= PIECE_CHARS):
            size += chars[stop] + 1
            stop += 1
        yield start, stop
        start = stop


def answer_bytes(predictions: Mapping[str, Prediction], return_probabilities: bool) -> int:
    """Bytes of all the answers in JSON, at most, whatever their labels are."""
    size = OTHER_BYTES
    for task, prediction in predictions.items():
        parts = parts_of(prediction.kind, prediction.decision)
        longest, together = _label_bytes(prediction.labels)
        each = len(task) + FIELD_BYTES * (1 + len(parts))
        if "label" in parts:
            each += longest
        if "labels" in parts:
            each += together
        if has_probabilities(prediction, return_probabilities):
            each += FIELD_BYTES * (1 + len(prediction.labels)) + together
        size += prediction.num_texts * each
        if "spans" in parts:
            size += count_inside(prediction.logits) * (SPAN_BYTES + longest)
    return size


@lru_cache(maxsize=1 << 16)
def _label_bytes(labels: tuple[str, ...]) -> tuple[int, int]:
    """Bytes of the longest label and of all, in a list in JSON in a string in JSON, at most."""
    sizes = [len(to_json(to_json(label).decode())) + 1 for label in labels]
    return max(sizes, default=0), sum(sizes)
