"""Encodes the texts of a file into a feature store; a run that was killed can be gone on with."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from bitheads.engine.engine import Engine
from bitheads.engine.errors import InputError
from bitheads.engine.process.interrupts import interrupts_held_back
from bitheads.engine.store import StoreWriter
from bitheads.engine.store.ids import IdIndex
from bitheads.engine.types import Stats, Text

CHUNK_TEXTS = 1024
"""Texts that are encoded together."""

LOOK_UP_TEXTS, LOOK_UP_CHARACTERS = 4096, 8 << 20
"""Texts, and characters of them, whose ids are looked up in the store together."""


@dataclass(frozen=True)
class Encoded:
    """What an encoding did.

    Attributes:
        stored: rows that were added or replaced.
        skipped: texts whose ids were stored before.
        stats: what the encoder did.
    """

    stored: int
    skipped: int
    stats: Stats


def encode_texts(
    engine: Engine,
    rows: Iterable[tuple[str, Text]],
    writer: StoreWriter,
    existing: str = "skip",
    chunk_texts: int = CHUNK_TEXTS,
    long_texts: str = "cut",
    max_batch_tokens: int | None = None,
    bar: Any = None,
    words: bool = False,
    embeddings: bool = False,
) -> Encoded:
    """Encodes texts chunk by chunk and appends them.

    Args:
        rows: (id, text).
        writer: of a store of the engine's spec.
        existing: as the writer's; with "skip" such texts are not encoded either.
        bar: its `update` is called with a number of texts.
        words: store them beside the codes, for heads of the kind `token_label`.
        embeddings: store those, too, as the writer's `embedding` says.

    Raises InputError for an id that comes twice, and what `Engine.encode_stream` and
    `StoreWriter.append` raise.
    """
    ids: deque[str] = deque()
    skipped = 0

    def texts() -> Iterator[Text]:
        nonlocal skipped
        seen = IdIndex()
        for chunk in _look_ups(rows):
            names = [name for name, _ in chunk]
            refuse_twice(names, seen)
            stored = before.contains(names) if existing == "skip" else [False] * len(chunk)
            for (name, text), is_stored in zip(chunk, stored, strict=True):
                if not is_stored:
                    ids.append(name)
                    yield text
            skipped += (count := sum(stored))
            if bar is not None:
                bar.update(count)

    before = writer.stored
    stored, stats = 0, Stats()
    for features in engine.encode_stream(
        texts(),
        chunk_texts,
        max_batch_tokens,
        long_texts=long_texts,
        words=words,
        embeddings=embeddings,
    ):
        names = [ids.popleft() for _ in range(len(features))]
        with interrupts_held_back():
            stored += writer.append(names, features)
        stats += features.stats
        if bar is not None:
            bar.update(len(features))
    return Encoded(stored, skipped, stats)


def _look_ups(rows: Iterable[tuple[str, Text]]) -> Iterator[list[tuple[str, Text]]]:
    """The rows in lists of so many texts at most, and, as they are in memory, characters."""
    chunk: list[tuple[str, Text]] = []
    characters = 0
    for name, text in rows:
        chunk.append((name, text))
        characters += len(text) if isinstance(text, str) else sum(map(len, text))
        if len(chunk) >= LOOK_UP_TEXTS or characters >= LOOK_UP_CHARACTERS:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


def refuse_twice(names: list[str], seen: IdIndex) -> None:
    """Adds the names to those seen. Raises InputError for one that was seen or comes twice."""
    again = seen.contains(names)
    first: set[str] = set()
    for name, is_seen in zip(names, again, strict=True):
        if is_seen or name in first:
            raise InputError(
                f"id {name!r} comes twice in the input, expected each once. Mend the input and run "
                "the same command again: it goes on."
            )
        first.add(name)
    seen.add(names)
