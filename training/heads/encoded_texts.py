"""Codes of texts that an engine has encoded, kept in memory: each different text is encoded once.

Searches over settings and cross-validation read the same texts again and again, and all heads the
same background.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from weakref import WeakKeyDictionary, ref

import numpy as np
from numpy.typing import NDArray

from bitheads.engine import Engine
from bitheads.engine.features.packed import PackedFeatures
from bitheads.engine.features.ragged import offsets_of
from bitheads.engine.types import Stats, Text

MAX_BYTES = 256 << 20
"""Of codes that are kept for an engine: those that were encoded first make room."""


class EncodedTexts:
    """What an engine has encoded, for as long as the engine is there. Thread-safe."""

    def __init__(self, engine: Engine, max_bytes: int = MAX_BYTES) -> None:
        # Not the engine itself: it is the key that this is the value of.
        self._engine = ref(engine)
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._codes: dict[Text, NDArray[np.uint8]] = {}
        self._num_bytes = 0

    def encode(
        self,
        texts: Sequence[Text],
        *,
        long_texts: str = "cut",
        words: bool = False,
        progress: bool = False,
    ) -> PackedFeatures:
        """See `Engine.encode`. Texts whose words are wanted are not kept."""
        engine = self._engine()
        assert engine is not None, "whoever asks has it"
        if words or long_texts != "cut":
            return engine.encode(texts, long_texts=long_texts, words=words, progress=progress)
        with self._lock:
            found = {
                text: codes for text in set(texts) if (codes := self._codes.get(text)) is not None
            }
        missing = [text for text in dict.fromkeys(texts) if text not in found]
        stats = Stats()
        if missing:
            features = engine.encode(missing, progress=progress)
            stats = features.stats
            bounds = features.offsets
            new = {
                text: features.codes[bounds[i] : bounds[i + 1]].copy()
                for i, text in enumerate(missing)
            }
            found |= new
            self._keep(new)
        parts = [found[text] for text in texts]
        codes = np.concatenate(parts) if parts else np.empty((0, engine.spec.code_bytes), np.uint8)
        offsets = offsets_of([len(part) for part in parts])
        stats = replace(stats, num_texts=len(texts), num_tokens=int(offsets[-1]))
        pairs = np.array([not isinstance(text, str) for text in texts], np.bool_)
        return PackedFeatures(codes, offsets, engine.spec, engine.calibration, stats, pairs)

    def _keep(self, new: dict[Text, NDArray[np.uint8]]) -> None:
        with self._lock:
            for text, codes in new.items():
                if text not in self._codes:
                    self._codes[text] = codes
                    self._num_bytes += codes.nbytes
            while self._num_bytes > self._max_bytes:
                self._num_bytes -= self._codes.pop(next(iter(self._codes))).nbytes


_of_engine: WeakKeyDictionary[Engine, EncodedTexts] = WeakKeyDictionary()
_lock = threading.Lock()


def encoded_texts(engine: Engine) -> EncodedTexts:
    """Those of an engine, the same for all who ask."""
    with _lock:
        if engine not in _of_engine:
            _of_engine[engine] = EncodedTexts(engine)
        return _of_engine[engine]
