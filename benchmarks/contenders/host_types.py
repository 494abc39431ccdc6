"""What goes to libbitheads and comes from it, as its C header declares it, and as Python has it."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import (
    POINTER,
    c_char_p,
    c_double,
    c_float,
    c_int32,
    c_int64,
    c_size_t,
    c_uint8,
    c_uint64,
)
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
    "queue_full",
    "cancelled",
    "closed",
    "device_memory",
)


class HostError(Exception):
    """A call that failed.

    Attributes:
        status: a word of STATUS.
    """

    def __init__(self, status: str, message: str) -> None:
        super().__init__(message)
        self.status = status


class Options(ctypes.Structure):
    _fields_ = (
        ("precision", c_char_p),
        ("threads", c_int32),
        ("skip_verify", c_int32),
        ("max_batch_tokens", c_int64),
        ("tokenizers_library", c_char_p),
        ("share_batches", c_int32),
        ("max_queue_tokens", c_int64),
        ("backend", c_char_p),
        ("device", c_int32),
        ("plugins", c_char_p),
        ("device_code", c_char_p),
        ("min_sign_agreement", c_double),
        ("cache_bytes", c_int64),
    )


class Statistics(ctypes.Structure):
    """Texts, and bytes of the cache."""

    _fields_ = (
        ("encoded_texts", c_uint64),
        ("joined_texts", c_uint64),
        ("cached_texts", c_uint64),
        ("cache_texts", c_uint64),
        ("cache_bytes", c_int64),
    )


class EmbedOptions(ctypes.Structure):
    _fields_ = (
        ("dim", c_int64),
        ("normalize", c_int32),
        ("prompt", c_char_p),
        ("prompt_name", c_char_p),
    )


class TextStructure(ctypes.Structure):
    _fields_ = (
        ("first", c_char_p),
        ("first_bytes", c_size_t),
        ("second", c_char_p),
        ("second_bytes", c_size_t),
    )


class SpanStructure(ctypes.Structure):
    _fields_ = (
        ("start", c_int64),
        ("end", c_int64),
        ("start_byte", c_int64),
        ("end_byte", c_int64),
        ("label", c_int64),
        ("probability", c_float),
    )


@dataclass(frozen=True)
class HostSpan:
    """start, end: in code points. start_byte, end_byte: in bytes of UTF-8."""

    start: int
    end: int
    start_byte: int
    end_byte: int
    label: str
    probability: float


@dataclass(frozen=True, eq=False)
class HostFeatures:
    """codes: uint8 [tokens, code_bytes]. offsets: int64 [texts + 1]."""

    codes: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    num_truncated: int


@dataclass(frozen=True)
class HostTask:
    """What is known of a loaded head; form is a word of bitheads.engine.heads.head_file.FORMS."""

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
        spans: of each text, or None for other kinds than `token_label`; its logits and
            probabilities are those of words, of which word_offsets, int64 [texts + 1], tells each
            text's.
        truncated_at, truncated_at_byte: int64 [texts], or None likewise.
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
    spans: tuple[tuple[HostSpan, ...], ...] | None
    truncated_at: NDArray[np.int64] | None
    truncated_at_byte: NDArray[np.int64] | None
    word_offsets: NDArray[np.int64] | None

    @property
    def top(self) -> tuple[str | None, ...]:
        return tuple(self.labels[i] if i >= 0 else None for i in self.best)


class HostLibrary:
    """The loaded library."""

    def __init__(self, path: Path) -> None:
        self.calls = ctypes.CDLL(str(path))
        for name, result in RESULTS.items():
            getattr(self.calls, f"bitheads_{name}").restype = result

    def check(self, status: int) -> None:
        if status:
            raise HostError(STATUS[status], self.calls.bitheads_last_error().decode())


RESULTS: dict[str, Any] = {
    "last_error": c_char_p,
    "version": c_char_p,
    "engine_free": None,
    "engine_spec_id": c_char_p,
    "engine_backend": c_char_p,
    "engine_why_not_gpu": c_char_p,
    "engine_code_bytes": c_int64,
    "engine_embedding_dim": c_int64,
    "tasks_free": None,
    "tasks_count": c_size_t,
    "tasks_name": c_char_p,
    "tasks_form": c_char_p,
    "tasks_kind": c_char_p,
    "pending_cancel": None,
    "pending_free": None,
    "features_free": None,
    "features_count": c_size_t,
    "features_codes": POINTER(c_uint8),
    "features_code_bytes": c_int64,
    "features_offsets": POINTER(c_int64),
    "features_num_truncated": c_int64,
    "features_embeddings": POINTER(c_float),
    "features_embedding_dim": c_int64,
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
    "predictions_spans": POINTER(SpanStructure),
    "predictions_span_offsets": POINTER(c_int64),
    "predictions_truncated_at": POINTER(c_int64),
    "predictions_truncated_at_byte": POINTER(c_int64),
    "predictions_word_offsets": POINTER(c_int64),
}
"""What a function returns; the others return a status, or an int32."""


def as_texts(texts: Sequence[Any]) -> Any:
    array = (TextStructure * max(1, len(texts)))()
    for place, text in zip(array, texts, strict=False):
        first, second = text if isinstance(text, tuple) else (text, None)
        place.first, place.first_bytes = _bytes(first)
        if second is not None:
            place.second, place.second_bytes = _bytes(second)
    return array


def _bytes(text: str | bytes) -> tuple[bytes, int]:
    data = text.encode() if isinstance(text, str) else text
    return data, len(data)


def as_names(tasks: Sequence[str]) -> Any:
    return (c_char_p * max(1, len(tasks)))(*(task.encode() for task in tasks))


def copied(pointer: Any, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """A copy: the memory is the object's own."""
    if 0 in shape:
        return np.empty(shape, dtype)
    return np.ctypeslib.as_array(pointer, shape).astype(dtype, copy=True)


def as_tokens(ids: Sequence[Sequence[int]], num_first: Sequence[int] | None) -> tuple[Any, ...]:
    """ids, offsets, num_first and num_texts of a call of token ids."""
    offsets = np.cumsum([0, *map(len, ids)], dtype=np.int64)
    flat = np.array([i for text in ids for i in text], np.int32)
    firsts = None if num_first is None else np.array(num_first, np.int64)
    arrays = (
        None if array is None else np.ctypeslib.as_ctypes(array)
        for array in (flat if flat.size else np.zeros(1, np.int32), offsets, firsts)
    )
    return (*arrays, c_size_t(len(ids)))
