"""Batches as one writes them without an engine: sorted by length, 32 texts each, padded."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from bitheads.engine import bundle

ROWS = 32


@dataclass(frozen=True, eq=False)
class Batch:
    """Some texts.

    Attributes:
        texts: their indices.
        ids, mask: int64 [texts, longest], padded on the right.
    """

    texts: list[int]
    ids: NDArray[np.int64]
    mask: NDArray[np.int64]

    @property
    def inputs(self) -> dict[str, NDArray[np.int64]]:
        """By the names that graphs and models give them."""
        return {
            "input_ids": self.ids,
            "attention_mask": self.mask,
            "token_type_ids": np.zeros_like(self.ids),
        }

    def padding(self) -> int:
        return int(self.mask.size - self.mask.sum())


class Batches:
    """Tokenizes with the bundle's tokenizer and prefix, cut to the engine's length."""

    def __init__(self, request: dict[str, Any]) -> None:
        manifest = bundle.read_manifest(Path(request["bundle"]))
        self._tokenizer = Tokenizer.from_file(str(Path(request["bundle"]) / bundle.TOKENIZER))
        self._tokenizer.enable_truncation(manifest.encoder.max_length)
        self._pad_id, self._prefix = manifest.encoder.pad_id, manifest.spec.prefix

    def tokenize(self, texts: list[str]) -> list[list[int]]:
        prefixed = [self._prefix + text for text in texts]
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(prefixed)]

    def __call__(self, texts: list[str]) -> Iterator[Batch]:
        tokens = self.tokenize(texts)
        order = sorted(range(len(texts)), key=lambda i: -len(tokens[i]))
        for start in range(0, len(order), ROWS):
            rows = order[start : start + ROWS]
            size = (len(rows), len(tokens[rows[0]]))
            ids, mask = np.full(size, self._pad_id, np.int64), np.zeros(size, np.int64)
            for row, text in enumerate(rows):
                ids[row, : len(tokens[text])] = tokens[text]
                mask[row, : len(tokens[text])] = 1
            yield Batch(rows, ids, mask)


def in_order(found: dict[int, NDArray[Any]]) -> NDArray[np.uint8]:
    """Packed signs of all texts' features, [tokens, dim] each, in the order of the texts."""
    return np.concatenate([np.packbits(found[text] > 0, axis=1) for text in sorted(found)])


def of_texts(batch: Batch, features: NDArray[Any]) -> dict[int, NDArray[Any]]:
    """Text -> the features of its real tokens, [tokens, dim]."""
    lengths = batch.mask.sum(axis=1)
    return {text: features[row, : lengths[row]] for row, text in enumerate(batch.texts)}


class OverBatches(ABC):
    """A contender that computes the hidden states of such batches."""

    gives = "pooled"

    def __init__(self, request: dict[str, Any]) -> None:
        self._texts = json.loads(Path(request["texts"]).read_text(encoding="utf-8"))
        self._batches = Batches(request)
        self._padding = self._computed = 0

    @abstractmethod
    def compute(self, batch: Batch) -> Any:
        """The hidden states, as the library gives them."""

    @abstractmethod
    def layers(self, states: Any, what: str) -> Sequence[NDArray[np.float32]]:
        """Of what `compute` gave, the layers whose mean's signs are asked for."""

    def encode(self) -> None:
        self._padding = self._computed = 0
        for batch in self._batches(self._texts):
            self.compute(batch)
            self._padding += batch.padding()
            self._computed += batch.ids.size

    def padding_share(self) -> float | None:
        return self._padding / self._computed if self._computed else None

    def signs(self, what: str) -> NDArray[np.uint8]:
        found: dict[int, NDArray[Any]] = {}
        for batch in self._batches(self._texts):
            found |= of_texts(batch, np.mean(self.layers(self.compute(batch), what), axis=0))
        return in_order(found)
