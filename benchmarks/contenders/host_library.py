"""libbitheads through its C header, as other languages would call it: for tests and measurements.

Python itself has the engine; this is the C++ host beside it, on the same texts.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from ctypes import POINTER, byref, c_char_p, c_float, c_int32, c_int64, c_size_t, c_uint8, c_void_p
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

STATUS = (
    "ok",
    "invalid_input",
    "bundle",
    "head",
    "spec_mismatch",
    "unknown_task",
    "backend",
    "internal",
    "forked",
)


class HostError(Exception):
    """A call that failed.

    Attributes:
        status: a word of STATUS.
    """

    def __init__(self, status: str, message: str) -> None:
        super().__init__(message)
        self.status = status


class _Options(ctypes.Structure):
    _fields_ = (
        ("precision", c_char_p),
        ("threads", c_int32),
        ("skip_verify", c_int32),
        ("max_batch_tokens", c_int64),
        ("tokenizers_library", c_char_p),
    )


class _Text(ctypes.Structure):
    _fields_ = (
        ("first", c_char_p),
        ("first_bytes", c_size_t),
        ("second", c_char_p),
        ("second_bytes", c_size_t),
    )


@dataclass(frozen=True, eq=False)
class HostFeatures:
    """codes: uint8 [tokens, code_bytes]. offsets: int64 [texts + 1]."""

    codes: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    num_truncated: int


@dataclass(frozen=True)
class HostTask:
    """What is known of a loaded head."""

    form: str
    kind: str
    can_refuse: bool


@dataclass(frozen=True, eq=False)
class HostPrediction:
    """One task's answers, as bitheads_predictions_* give them.

    Attributes:
        logits: float32 [texts, num_logits]. probabilities: float32 [texts, labels].
        best: int64 [texts], -1 for a kind that does not give one label.
        has_label: bool [texts, labels]. accepted: bool [texts].
        values, reject_logits, out_of_domain: float32 [texts], or None for a head without them.
    """

    labels: tuple[str, ...]
    kind: str
    logits: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    best: NDArray[np.int64]
    has_label: NDArray[np.bool_]
    values: NDArray[np.float32] | None
    accepted: NDArray[np.bool_]
    reject_logits: NDArray[np.float32] | None
    out_of_domain: NDArray[np.float32] | None

    @property
    def top(self) -> tuple[str | None, ...]:
        return tuple(self.labels[i] if i >= 0 else None for i in self.best)


class HostLibrary:
    """The loaded library."""

    def __init__(self, path: Path) -> None:
        self.calls = ctypes.CDLL(str(path))
        for name, result in _RESULTS.items():
            getattr(self.calls, f"bitheads_{name}").restype = result

    def check(self, status: int) -> None:
        if status:
            raise HostError(STATUS[status], self.calls.bitheads_last_error().decode())


class HostEngine:
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
    ) -> None:
        self._library, self._calls = library, library.calls
        self._engine = c_void_p()
        options = _Options(
            precision.encode(),
            threads,
            not verify,
            max_batch_tokens,
            None if tokenizers_library is None else tokenizers_library.encode(),
        )
        library.check(
            self._calls.bitheads_engine_load(
                str(bundle).encode(), byref(options), byref(self._engine)
            )
        )

    def __enter__(self) -> HostEngine:
        return self

    def __exit__(self, *exception: object) -> None:
        self._calls.bitheads_engine_free(self._engine)

    @property
    def spec_id(self) -> str:
        return str(self._calls.bitheads_engine_spec_id(self._engine).decode())

    @property
    def backend(self) -> str:
        return str(self._calls.bitheads_engine_backend(self._engine).decode())

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
                    "pair" if calls.bitheads_tasks_is_pair(found, i) else "single",
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

    def encode(self, texts: Sequence[Any]) -> HostFeatures:
        """texts: strings, bytes, or pairs of them."""
        given = _texts(texts)
        with self._features(self._calls.bitheads_encode, given, c_size_t(len(texts))) as features:
            return self._read_features(features)

    def encode_tokens(
        self, ids: Sequence[Sequence[int]], num_first: Sequence[int] | None = None
    ) -> HostFeatures:
        offsets = np.cumsum([0, *map(len, ids)], dtype=np.int64)
        flat = np.array([i for text in ids for i in text], np.int32)
        firsts = None if num_first is None else np.array(num_first, np.int64)
        with self._features(
            self._calls.bitheads_encode_tokens,
            flat.ctypes.data_as(c_void_p),
            offsets.ctypes.data_as(c_void_p),
            None if firsts is None else firsts.ctypes.data_as(c_void_p),
            c_size_t(len(ids)),
        ) as features:
            return self._read_features(features)

    def predict(self, texts: Sequence[Any], tasks: Sequence[str] = ()) -> dict[str, HostPrediction]:
        found = c_void_p()
        call = self._calls.bitheads_predict
        names, count = _names(tasks), c_size_t(len(tasks))
        self._library.check(
            call(self._engine, _texts(texts), c_size_t(len(texts)), names, count, byref(found))
        )
        return self._read_predictions(found, len(texts))

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
            names, count = _names(tasks), c_size_t(len(tasks))
            self._library.check(call(self._engine, features, names, count, byref(found)))
            return self._read_predictions(found, len(offsets) - 1)

    def predict_encoded(
        self, texts: Sequence[Any], tasks: Sequence[str] = ()
    ) -> dict[str, HostPrediction]:
        """As `predict`, from features that are kept between the two."""
        given, found = _texts(texts), c_void_p()
        with self._features(self._calls.bitheads_encode, given, c_size_t(len(texts))) as features:
            call = self._calls.bitheads_predict_features
            names, count = _names(tasks), c_size_t(len(tasks))
            self._library.check(call(self._engine, features, names, count, byref(found)))
            return self._read_predictions(found, len(texts))

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
        offsets = _array(calls.bitheads_features_offsets(features), (texts + 1,), np.int64)
        shape = (int(offsets[-1]), calls.bitheads_features_code_bytes(features))
        codes = _array(calls.bitheads_features_codes(features), shape, np.uint8)
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
            return _array(pointer, shape, dtype) if pointer or 0 in shape else None

        classes = calls.bitheads_predictions_num_labels(found, task)
        return HostPrediction(
            labels=tuple(
                calls.bitheads_predictions_label(found, task, c_size_t(label)).decode()
                for label in range(classes)
            ),
            kind=calls.bitheads_predictions_kind(found, task).decode(),
            logits=get("logits", texts, calls.bitheads_predictions_num_logits(found, task)),
            probabilities=get("probabilities", texts, classes),
            best=get("best", texts, dtype=np.int64),
            has_label=get("selected", texts, classes, dtype=np.bool_),
            values=get("values", texts),
            accepted=get("accepted", texts, dtype=np.bool_),
            reject_logits=get("reject_logits", texts),
            out_of_domain=get("out_of_domain", texts),
        )


_RESULTS: dict[str, Any] = {
    "last_error": c_char_p,
    "version": c_char_p,
    "engine_free": None,
    "engine_spec_id": c_char_p,
    "engine_backend": c_char_p,
    "engine_code_bytes": c_int64,
    "tasks_free": None,
    "tasks_count": c_size_t,
    "tasks_name": c_char_p,
    "tasks_kind": c_char_p,
    "features_free": None,
    "features_count": c_size_t,
    "features_codes": POINTER(c_uint8),
    "features_code_bytes": c_int64,
    "features_offsets": POINTER(c_int64),
    "features_num_truncated": c_int64,
    "predictions_free": None,
    "predictions_count": c_size_t,
    "predictions_task": c_char_p,
    "predictions_num_labels": c_size_t,
    "predictions_label": c_char_p,
    "predictions_logits": POINTER(c_float),
    "predictions_probabilities": POINTER(c_float),
    "predictions_kind": c_char_p,
    "predictions_num_logits": c_size_t,
    "predictions_best": POINTER(c_int64),
    "predictions_selected": POINTER(c_uint8),
    "predictions_values": POINTER(c_float),
    "predictions_accepted": POINTER(c_uint8),
    "predictions_reject_logits": POINTER(c_float),
    "predictions_out_of_domain": POINTER(c_float),
}
"""What a function returns; the others return a status, or an int32."""


def _texts(texts: Sequence[Any]) -> Any:
    array = (_Text * max(1, len(texts)))()
    for place, text in zip(array, texts, strict=False):
        first, second = text if isinstance(text, tuple) else (text, None)
        place.first, place.first_bytes = _bytes(first)
        if second is not None:
            place.second, place.second_bytes = _bytes(second)
    return array


def _bytes(text: str | bytes) -> tuple[bytes, int]:
    data = text.encode() if isinstance(text, str) else text
    return data, len(data)


def _names(tasks: Sequence[str]) -> Any:
    return (c_char_p * max(1, len(tasks)))(*(task.encode() for task in tasks))


def _array(pointer: Any, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """A copy: the memory is the object's own."""
    if 0 in shape:
        return np.empty(shape, dtype)
    return np.ctypeslib.as_array(pointer, shape).astype(dtype, copy=True)
