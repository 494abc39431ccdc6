"""Codes of texts on disk: each distinct text is encoded once, whatever the number of tasks.

    <spec id>/0000.codes.npy           uint8 [tokens, code_bytes]
    <spec id>/0000.index.safetensors   which texts those are, their offsets, maybe their words

A part is there once its index is, which is written last. Processes read the codes by mapping them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from bitheads.engine import Engine
from bitheads.engine.features.packed import PackedFeatures
from bitheads.engine.features.ragged import offsets_of, ranges
from bitheads.engine.features.spec import Calibration, FeatureSpec
from bitheads.engine.features.words import Words
from bitheads.engine.files.whole_file import make_folder, open_whole, write_whole
from bitheads.engine.progress import progress_bar
from bitheads.engine.types import Text
from bitheads.training.errors import TrainingError

PART_TEXTS = 4096
"""Texts that are encoded together and written as one part."""

CODES, INDEX = ".codes.npy", ".index.safetensors"
DAMAGED = (OSError, ValueError, KeyError, EOFError, SafetensorError)
"""What reading a file that is not whole may raise."""

Key = bytes
"""Of a text, or pair of texts."""


class CodesOnDisk:
    """The codes of one engine's feature spec in a folder.

    A text of which the words were asked for is encoded whole, in windows, all others are cut; of
    one that fits the encoder both are the same, so such texts serve both.

    Args:
        folder: that of all specs; this one's is in it.
        max_length: tokens that the encoder reads at once.
    """

    def __init__(
        self,
        folder: Path,
        spec: FeatureSpec,
        calibration: Calibration | None,
        max_length: int,
    ) -> None:
        self.folder = folder / spec.id
        self._spec, self._calibration, self._max_length = spec, calibration, max_length
        self._cut: dict[Key, tuple[int, int]] = {}  # part and row
        self._whole: dict[Key, tuple[int, int]] = {}
        self._parts: list[_Part] = []
        self._next = 0
        for path in sorted(self.folder.glob(f"*{INDEX}")):
            self._next = int(path.name.split(".")[0]) + 1
            with suppress(*DAMAGED):  # what it had is encoded again
                self._add_part(path)

    def missing(self, texts: Iterable[Text], words: bool) -> list[Text]:
        """Those of which there is nothing yet, each once."""
        found: dict[Key, Text] = {}
        for text in texts:
            key = key_of(text)
            if key not in found and self._find(key, words) is None:
                found[key] = text
        return list(found.values())

    def add(self, engine: Engine, texts: Sequence[Text], words: bool, progress: bool) -> None:
        """Encodes texts, part by part; what is done stays done if this is stopped.

        Raises what encoding raises, and TrainingError if the codes cannot be written.
        """
        long_texts = "split" if words else "cut"
        with progress_bar(len(texts), progress) as bar:
            for start in range(0, len(texts), PART_TEXTS):
                part = texts[start : start + PART_TEXTS]
                features = engine.encode(part, long_texts=long_texts, words=words)
                try:
                    self._write([key_of(text) for text in part], features)
                except OSError as error:
                    raise TrainingError(
                        f"{self.folder}: codes cannot be written ({error.strerror}). Make room "
                        "there, and run it again: what is done stays done."
                    ) from error
                bar.update(len(part))

    def get(self, texts: Sequence[Text], words: bool = False) -> PackedFeatures:
        """The codes of texts, as `Engine.encode` gives them; none may be missing."""
        places = []
        for text in texts:
            place = self._find(key_of(text), words)
            assert place is not None, f"{text!r:.60} was not encoded"
            places.append(place)
        of_part = np.array([part for part, _ in places], np.int64)
        of_row = np.array([row for _, row in places], np.int64)
        counts = np.empty(len(texts), np.int64)
        for part in np.unique(of_part):
            chosen = of_part == part
            counts[chosen] = np.diff(self._parts[part].offsets)[of_row[chosen]]
        offsets = offsets_of(counts)
        codes = np.empty((int(offsets[-1]), self._spec.code_bytes), np.uint8)
        for part in np.unique(of_part):
            chosen = np.flatnonzero(of_part == part)
            source = self._parts[part]
            rows, _ = ranges(source.offsets[of_row[chosen]], counts[chosen])
            to, _ = ranges(offsets[chosen], counts[chosen])
            codes[to] = source.codes[rows]
        pairs = np.array([not isinstance(text, str) for text in texts], np.bool_)
        found = None
        if words:
            found = _joined([self._parts[part].words for part, _ in places], of_row)
        return PackedFeatures(
            codes, offsets, self._spec, self._calibration, pairs=pairs, words=found
        )

    def encode(
        self, texts: Sequence[Text], *, long_texts: str = "cut", words: bool = False, **_: Any
    ) -> PackedFeatures:
        """As `Engine.encode`, of texts that are here."""
        return self.get(texts, words or long_texts == "split")

    def _find(self, key: Key, words: bool) -> tuple[int, int] | None:
        place = self._whole.get(key)
        if words or place is None:
            return place if words else self._cut.get(key)
        part, row = place
        offsets = self._parts[part].offsets
        fits = offsets[row + 1] - offsets[row] <= self._max_length
        return place if fits else self._cut.get(key)

    def _write(self, keys: Sequence[Key], features: PackedFeatures) -> None:
        make_folder(self.folder)
        stem = f"{self._next:04d}"
        with open_whole(self.folder / f"{stem}{CODES}") as file:
            np.lib.format.write_array(file, features.codes, allow_pickle=False)
        arrays: dict[str, NDArray[Any]] = {
            "keys": np.frombuffer(b"".join(keys), np.uint8).reshape(len(keys), -1),
            "offsets": features.offsets,
        }
        if (words := features.words) is not None:
            arrays |= {f"words_{name}": array for name, array in vars(words).items()}
        path = self.folder / f"{stem}{INDEX}"
        write_whole(path, save({key: np.ascontiguousarray(a) for key, a in arrays.items()}))
        self._next += 1
        self._add_part(path)

    def _add_part(self, path: Path) -> None:
        arrays = load_file(path)
        words = None
        if "words_table" in arrays:
            names = ("table", "offsets", "truncated_at", "is_single")
            words = Words(**{name: arrays[f"words_{name}"] for name in names})
        keys, offsets = arrays["keys"], arrays["offsets"]
        codes_file = path.with_name(path.name.replace(INDEX, CODES))
        codes = np.load(codes_file, mmap_mode="r", allow_pickle=False)
        number = len(self._parts)
        self._parts.append(_Part(codes, offsets, words))
        places = self._cut if words is None else self._whole
        for row, key in enumerate(keys):
            places[key.tobytes()] = number, row


class _Part:
    def __init__(
        self, codes: NDArray[np.uint8], offsets: NDArray[np.int64], words: Words | None
    ) -> None:
        self.codes, self.offsets, self.words = codes, offsets, words


def _joined(parts: Sequence[Words | None], rows: NDArray[np.int64]) -> Words:
    """The words of one text of each."""
    found = []
    for words, row in zip(parts, rows, strict=True):
        assert words is not None, "it was encoded with its words"
        found.append(words[np.array([row])])
    return Words.concat(found)


def key_of(text: Text) -> Key:
    """16 bytes; different for a text and for a pair."""
    return hashlib.blake2b(json.dumps(text).encode(), digest_size=16).digest()
