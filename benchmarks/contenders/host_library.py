"""libbitheads through its C header, as other languages would call it: for tests and measurements.

Python itself has the engine; this is the C++ host beside it, on the same texts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from ctypes import byref, c_int64, c_size_t, c_void_p
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.contenders.host_pending import HostPending, PendingCalls
from benchmarks.contenders.host_types import (
    EmbedOptions,
    HostError,
    HostFeatures,
    HostLibrary,
    HostPrediction,
    HostSpan,
    HostTask,
    Options,
    Statistics,
    as_names,
    as_texts,
    as_tokens,
    copied,
)

__all__ = [
    "HostEngine",
    "HostError",
    "HostFeatures",
    "HostLibrary",
    "HostPending",
    "HostPrediction",
    "HostTask",
]


class HostEngine(PendingCalls):
    """A loaded bundle. May be used from several threads: ctypes lets go of Python's lock."""

    def __init__(
        self,
        library: HostLibrary,
        bundle: Path,
        precision: str = "auto",
        threads: int = 0,
        verify: bool = True,
        max_batch_tokens: int = 0,
        tokenizers_library: str | None = None,
        share_batches: bool = False,
        max_queue_tokens: int = 0,
        backend: str | None = None,
        device: int = 0,
        plugins: Path | None = None,
        device_code: Path | None = None,
        min_sign_agreement: float = 0.0,
        cache_bytes: int = 0,
    ) -> None:
        super().__init__(library)
        self._calls = library.calls
        options = Options(
            precision.encode(),
            threads,
            not verify,
            max_batch_tokens,
            None if tokenizers_library is None else tokenizers_library.encode(),
            share_batches,
            max_queue_tokens,
            None if backend is None else backend.encode(),
            device,
            None if plugins is None else str(plugins).encode(),
            None if device_code is None else str(device_code).encode(),
            min_sign_agreement,
            cache_bytes,
        )
        library.check(
            self._calls.bitheads_engine_load(
                str(bundle).encode(), byref(options), byref(self._engine)
            )
        )

    def __enter__(self) -> HostEngine:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._calls.bitheads_engine_free(self._engine)
        self._engine = c_void_p()

    @property
    def spec_id(self) -> str:
        return str(self._calls.bitheads_engine_spec_id(self._engine).decode())

    @property
    def backend(self) -> str:
        return str(self._calls.bitheads_engine_backend(self._engine).decode())

    @property
    def why_not_gpu(self) -> str:
        """Of the backend "auto"."""
        return str(self._calls.bitheads_engine_why_not_gpu(self._engine).decode())

    @property
    def statistics(self) -> Statistics:
        found = Statistics()
        self._library.check(self._calls.bitheads_engine_statistics(self._engine, byref(found)))
        return found

    @property
    def tasks(self) -> dict[str, str]:
        """Task -> its form."""
        return {task: info.form for task, info in self.task_infos.items()}

    @property
    def task_infos(self) -> dict[str, HostTask]:
        """By task."""
        found, calls = c_void_p(), self._calls
        self._library.check(calls.bitheads_engine_tasks(self._engine, byref(found)))
        try:
            return {
                calls.bitheads_tasks_name(found, i).decode(): HostTask(
                    calls.bitheads_tasks_form(found, i).decode(),
                    calls.bitheads_tasks_kind(found, i).decode(),
                    bool(calls.bitheads_tasks_can_refuse(found, i)),
                )
                for i in map(c_size_t, range(calls.bitheads_tasks_count(found)))
            }
        finally:
            calls.bitheads_tasks_free(found)

    def add_head(self, path: Path, replace: bool = False) -> None:
        call = self._calls.bitheads_engine_add_head
        self._library.check(call(self._engine, str(path).encode(), int(replace)))

    def remove_head(self, task: str) -> None:
        self._library.check(self._calls.bitheads_engine_remove_head(self._engine, task.encode()))

    def encode(self, texts: Sequence[Any], words: bool = False) -> HostFeatures:
        """texts: strings, bytes, or pairs of them."""
        with self._encoded(texts, words) as features:
            return self._read_features(features)

    @property
    def embedding_dim(self) -> int:
        """Of the bundle's embeddings, 0 if it gives none."""
        return int(self._calls.bitheads_engine_embedding_dim(self._engine))

    def encode_with_embeddings(
        self, texts: Sequence[Any], words: bool = False
    ) -> tuple[HostFeatures, NDArray[np.float32]]:
        """Codes, and embeddings float32 [texts, dim]."""
        calls, given = self._calls, (as_texts(texts), c_size_t(len(texts)), int(words))
        with self._features(calls.bitheads_encode_with_embeddings, *given) as features:
            shape = len(texts), calls.bitheads_features_embedding_dim(features)
            pointer = calls.bitheads_features_embeddings(features)
            return self._read_features(features), copied(pointer, shape, np.float32)

    def embed(
        self,
        texts: Sequence[Any],
        dim: int = 0,
        normalize: bool = False,
        prompt: str | None = None,
        prompt_name: str | None = None,
    ) -> NDArray[np.float32]:
        """float32 [texts, dim]."""
        names = [None if name is None else name.encode() for name in (prompt, prompt_name)]
        options = EmbedOptions(dim, normalize, *names)
        found = np.empty((len(texts), max(dim, 0) or self.embedding_dim), np.float32)
        pointer, count = found.ctypes.data_as(c_void_p), c_size_t(len(texts))
        call = self._calls.bitheads_embed
        self._library.check(call(self._engine, as_texts(texts), count, byref(options), pointer))
        return found

    def encode_tokens(
        self, ids: Sequence[Sequence[int]], num_first: Sequence[int] | None = None
    ) -> HostFeatures:
        with self._features(
            self._calls.bitheads_encode_tokens, *as_tokens(ids, num_first)
        ) as features:
            return self._read_features(features)

    def predict(self, texts: Sequence[Any], tasks: Sequence[str] = ()) -> dict[str, HostPrediction]:
        found = c_void_p()
        call = self._calls.bitheads_predict
        names, count = as_names(tasks), c_size_t(len(tasks))
        self._library.check(
            call(self._engine, as_texts(texts), c_size_t(len(texts)), names, count, byref(found))
        )
        return self._read_predictions(found, len(texts))

    def answer(self, texts: Sequence[Any], tasks: Sequence[str]) -> None:
        """As `predict`, but the answers are not read: that takes Python's time, not the host's."""
        found = c_void_p()
        call = self._calls.bitheads_predict
        names, count = as_names(tasks), c_size_t(len(tasks))
        self._library.check(
            call(self._engine, as_texts(texts), c_size_t(len(texts)), names, count, byref(found))
        )
        self._calls.bitheads_predictions_free(found)

    def predict_features(
        self,
        codes: NDArray[np.uint8],
        offsets: NDArray[np.int64],
        tasks: Sequence[str] = (),
        spec_id: str | None = None,
    ) -> dict[str, HostPrediction]:
        with self._made_features(codes, offsets, spec_id or self.spec_id) as features:
            found = c_void_p()
            call = self._calls.bitheads_predict_features
            names, count = as_names(tasks), c_size_t(len(tasks))
            self._library.check(call(self._engine, features, names, count, byref(found)))
            return self._read_predictions(found, len(offsets) - 1)

    def predict_pairs(
        self,
        texts: Sequence[Any],
        pairs: Sequence[tuple[int, int]] | NDArray[np.int64],
        tasks: Sequence[str] = (),
    ) -> dict[str, HostPrediction]:
        """Of pairs of rows of texts, encoded first, each by itself."""
        found = c_void_p()
        rows = np.ascontiguousarray(pairs, np.int64).reshape(-1, 2)
        with self._encoded(texts, words=False) as features:
            call = self._calls.bitheads_predict_pairs
            names, count = as_names(tasks), c_size_t(len(tasks))
            pointer, size = rows.ctypes.data_as(c_void_p), c_size_t(len(rows))
            self._library.check(
                call(self._engine, features, pointer, size, names, count, byref(found))
            )
            return self._read_predictions(found, len(rows))

    def predict_encoded(
        self, texts: Sequence[Any], tasks: Sequence[str] = (), words: bool = True
    ) -> dict[str, HostPrediction]:
        """As `predict`, from features that are kept between the two."""
        found = c_void_p()
        with self._encoded(texts, words) as features:
            call = self._calls.bitheads_predict_features
            names, count = as_names(tasks), c_size_t(len(tasks))
            self._library.check(call(self._engine, features, names, count, byref(found)))
            return self._read_predictions(found, len(texts))

    def _encoded(self, texts: Sequence[Any], words: bool) -> AbstractContextManager[c_void_p]:
        calls = self._calls
        call = calls.bitheads_encode_words if words else calls.bitheads_encode
        return self._features(call, as_texts(texts), c_size_t(len(texts)))

    @contextmanager
    def _features(self, call: Any, *arguments: Any) -> Iterator[c_void_p]:
        features = c_void_p()
        self._library.check(call(self._engine, *arguments, byref(features)))
        try:
            yield features
        finally:
            self._calls.bitheads_features_free(features)

    @contextmanager
    def _made_features(
        self, codes: NDArray[np.uint8], offsets: NDArray[np.int64], spec_id: str
    ) -> Iterator[c_void_p]:
        features = c_void_p()
        codes = np.ascontiguousarray(codes)
        self._library.check(
            self._calls.bitheads_features_make(
                spec_id.encode(),
                codes.ctypes.data_as(c_void_p),
                c_int64(codes.shape[1]),
                np.ascontiguousarray(offsets).ctypes.data_as(c_void_p),
                c_size_t(len(offsets) - 1),
                byref(features),
            )
        )
        try:
            yield features
        finally:
            self._calls.bitheads_features_free(features)

    def _read_features(self, features: c_void_p) -> HostFeatures:
        calls = self._calls
        texts = calls.bitheads_features_count(features)
        offsets = copied(calls.bitheads_features_offsets(features), (texts + 1,), np.int64)
        shape = (int(offsets[-1]), calls.bitheads_features_code_bytes(features))
        codes = copied(calls.bitheads_features_codes(features), shape, np.uint8)
        return HostFeatures(codes, offsets, calls.bitheads_features_num_truncated(features))

    def _read_predictions(self, found: c_void_p, texts: int) -> dict[str, HostPrediction]:
        calls = self._calls
        answers = {}
        try:
            for i in map(c_size_t, range(calls.bitheads_predictions_count(found))):
                answers[calls.bitheads_predictions_task(found, i).decode()] = self._read_prediction(
                    found, i, texts
                )
        finally:
            calls.bitheads_predictions_free(found)
        return answers

    def _read_prediction(self, found: c_void_p, task: c_size_t, texts: int) -> HostPrediction:
        calls = self._calls

        def get(name: str, *shape: int, dtype: Any = np.float32) -> Any:
            pointer = getattr(calls, f"bitheads_predictions_{name}")(found, task)
            return copied(pointer, shape, dtype) if pointer or 0 in shape else None

        classes = calls.bitheads_predictions_num_labels(found, task)
        labels = tuple(
            calls.bitheads_predictions_label(found, task, c_size_t(label)).decode()
            for label in range(classes)
        )
        word_offsets = get("word_offsets", texts + 1, dtype=np.int64)
        rows = texts if word_offsets is None else int(word_offsets[-1])
        return HostPrediction(
            labels=labels,
            kind=calls.bitheads_predictions_kind(found, task).decode(),
            logits=get("logits", rows, calls.bitheads_predictions_num_logits(found, task)),
            probabilities=get("probabilities", rows, classes),
            best=get("best", texts, dtype=np.int64),
            has_label=get("selected", texts, classes, dtype=np.bool_),
            values=get("values", texts),
            accepted=get("accepted", texts, dtype=np.bool_),
            reject_logits=get("reject_logits", texts),
            out_of_domain=get("out_of_domain", texts),
            spans=self._read_spans(
                found, task, labels, get("span_offsets", texts + 1, dtype=np.int64)
            ),
            truncated_at=None
            if word_offsets is None
            else get("truncated_at", texts, dtype=np.int64),
            truncated_at_byte=None
            if word_offsets is None
            else get("truncated_at_byte", texts, dtype=np.int64),
            word_offsets=word_offsets,
        )

    def _read_spans(
        self,
        found: c_void_p,
        task: c_size_t,
        labels: tuple[str, ...],
        offsets: NDArray[np.int64] | None,
    ) -> tuple[tuple[HostSpan, ...], ...] | None:
        if offsets is None:
            return None
        spans = self._calls.bitheads_predictions_spans(found, task)
        read = [
            HostSpan(
                span.start,
                span.end,
                span.start_byte,
                span.end_byte,
                labels[span.label],
                span.probability,
            )
            for span in (spans[i] for i in range(offsets[-1]))
        ]
        return tuple(tuple(read[i:j]) for i, j in pairwise(offsets.tolist()))
