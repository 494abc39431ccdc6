"""Calls of libbitheads that go on by themselves."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from ctypes import byref, c_int64, c_size_t, c_void_p
from typing import Any

from benchmarks.contenders.host_types import (
    HostFeatures,
    HostLibrary,
    HostPrediction,
    as_names,
    as_texts,
    as_tokens,
)

Done = Callable[[], None]
"""Called when a call has ended, from another thread."""

_Told = ctypes.CFUNCTYPE(None, c_void_p)


class PendingCalls:
    """What a HostEngine has of calls that go on by themselves. done: called when one has ended,
    from another thread."""

    def __init__(self, library: HostLibrary) -> None:
        self._library, self._engine = library, c_void_p()
        self._told: list[Any] = []

    def _read_features(self, features: c_void_p) -> HostFeatures:
        raise NotImplementedError

    def _read_predictions(self, found: c_void_p, texts: int) -> dict[str, HostPrediction]:
        raise NotImplementedError

    def encode_later(
        self, texts: Sequence[Any], words: bool = False, done: Done | None = None
    ) -> HostPending:
        call = self._library.calls.bitheads_encode_later
        return self._begin(
            call, len(texts), done, as_texts(texts), c_size_t(len(texts)), int(words)
        )

    def encode_tokens_later(
        self,
        ids: Sequence[Sequence[int]],
        num_first: Sequence[int] | None = None,
        done: Done | None = None,
    ) -> HostPending:
        call = self._library.calls.bitheads_encode_tokens_later
        return self._begin(call, len(ids), done, *as_tokens(ids, num_first))

    def predict_later(
        self, texts: Sequence[Any], tasks: Sequence[str] = (), done: Done | None = None
    ) -> HostPending:
        call, counts = self._library.calls.bitheads_predict_later, (len(texts), len(tasks))
        names, sizes = as_names(tasks), [*map(c_size_t, counts)]
        return self._begin(call, len(texts), done, as_texts(texts), sizes[0], names, sizes[1])

    def _begin(self, call: Any, texts: int, done: Done | None, *arguments: Any) -> HostPending:
        told = _Told()
        if done is not None:
            told = _Told(lambda _: done())
            self._told.append(told)  # as long as the engine: it may be called after the answer came
        pending = c_void_p()
        self._library.check(call(self._engine, *arguments, told, None, byref(pending)))
        return HostPending(self, pending, texts)


class HostPending:
    """A call that goes on by itself. May be used from several threads."""

    def __init__(self, engine: PendingCalls, pending: c_void_p, texts: int) -> None:
        self._engine, self._library = engine, engine._library
        self._pending, self._texts = pending, texts

    def wait(self, timeout_s: float) -> bool:
        """Whether it has ended, within this time."""
        timeout_ms = c_int64(int(1000 * timeout_s))
        return bool(self._library.calls.bitheads_pending_wait(self._pending, timeout_ms))

    def features(self) -> HostFeatures:
        found, calls = c_void_p(), self._library.calls
        self._library.check(calls.bitheads_pending_features(self._pending, byref(found)))
        try:
            return self._engine._read_features(found)
        finally:
            calls.bitheads_features_free(found)

    def predictions(self) -> dict[str, HostPrediction]:
        found, calls = c_void_p(), self._library.calls
        self._library.check(calls.bitheads_pending_predictions(self._pending, byref(found)))
        return self._engine._read_predictions(found, self._texts)

    def cancel(self) -> None:
        self._library.calls.bitheads_pending_cancel(self._pending)

    def __del__(self) -> None:
        self._library.calls.bitheads_pending_free(self._pending)
