"""Encodes the texts of a file into a feature store; a run that was killed can be gone on with."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bitheads.engine.engine import Engine
from bitheads.engine.errors import InputError
from bitheads.engine.process.interrupts import interrupts_held_back
from bitheads.engine.store import StoreWriter
from bitheads.engine.store.ids import IdIndex
from bitheads.engine.store.text_hash import hash_of, short
from bitheads.engine.texts.own_columns import make_columns
from bitheads.engine.texts.text_files import Row
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
        found: of the input's texts, how many there are of each kind.
        stats: what the encoder did.
    """

    stored: int
    found: Found
    stats: Stats


@dataclass
class Found:
    """What an input's texts are to a store.

    Attributes:
        new: their ids were not stored.
        changed: another text's hash was stored under the id.
        unchanged: the hash of the same text was.
        unknown: a row was stored under the id, but no hash of its text.
    """

    new: int = 0
    changed: int = 0
    unchanged: int = 0
    unknown: int = 0

    @property
    def known(self) -> int:
        """Texts whose ids were stored."""
        return self.changed + self.unchanged + self.unknown


def look_up(
    stored: IdIndex,
    names: Sequence[str],
    hashes: Sequence[bytes],
    existing: str,
    found: Found,
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which texts need not be encoded, bool [texts], and which are to replace others, bool [texts].

    Args:
        stored: ids of a store, with what is kept of their texts' hashes.
        hashes: of the texts.
        existing: as a writer's.
        found: is added to.
    """
    known, before = stored.look_up(names)
    is_said = known & (before != 0)
    changed = is_said & (before != short(hashes))
    found.new += int((~known).sum())
    found.changed += int(changed.sum())
    found.unchanged += int((is_said & ~changed).sum())
    found.unknown += int((known & ~is_said).sum())
    replacing = {"update": changed, "replace": known}.get(existing, np.zeros_like(known))
    return known & ~replacing, replacing


def encode_texts(
    engine: Engine,
    rows: Iterable[tuple[str, Text] | Row],
    writer: StoreWriter,
    existing: str = "skip",
    chunk_texts: int = CHUNK_TEXTS,
    long_texts: str = "cut",
    max_batch_tokens: int | None = None,
    bar: Any = None,
    words: bool = False,
    embeddings: bool = False,
    columns: Sequence[pa.Field] = (),
) -> Encoded:
    """Encodes texts chunk by chunk and appends them.

    Args:
        rows: (id, text), and behind them what `own_columns.make_columns` takes.
        writer: of a store of the engine's spec.
        existing: as the writer's; texts that it would skip are not encoded either.
        bar: its `update` is called with a number of texts.
        words: store them beside the codes, for heads of the kind `token_label`.
        embeddings: store those, too, as the writer's `embedding` says.
        columns: the user's own that the rows bring. Those of a text that is skipped stay as they
            are stored.

    Raises InputError for an id that comes twice, and for values that are not of the columns' types,
    and what `Engine.encode_stream` and
    `StoreWriter.append` raise.
    """
    ids: deque[tuple[str, bytes, list[Any]]] = deque()
    found = Found()

    def texts() -> Iterator[Text]:
        seen = IdIndex()
        for chunk in _look_ups(rows):
            names = [name for name, *_ in chunk]
            refuse_twice(names, seen)
            hashes = [hash_of(text) for _, text, *_ in chunk]
            skipped, _ = look_up(before, names, hashes, existing, found)
            if existing == "refuse":  # the writer says it
                skipped[:] = False
            for row, text_hash, is_skipped in zip(chunk, hashes, skipped, strict=True):
                if not is_skipped:
                    name, text, *own = row
                    ids.append((name, text_hash, own))
                    yield text
            if bar is not None:
                bar.update(int(skipped.sum()))

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
        rows_of_it = [ids.popleft() for _ in range(len(features))]
        names, hashes = [name for name, *_ in rows_of_it], [one for _, one, _ in rows_of_it]
        own_columns = make_columns([own for *_, (own,) in rows_of_it], columns) if columns else {}
        with interrupts_held_back():
            stored += writer.append(names, features, own_columns, hashes)
        stats += features.stats
        if bar is not None:
            bar.update(len(features))
    return Encoded(stored, found, stats)


def _look_ups(
    rows: Iterable[tuple[str, Text] | Row],
) -> Iterator[list[tuple[str, Text] | Row]]:
    """The rows in lists of so many texts at most, and, as they are in memory, characters."""
    chunk: list[tuple[str, Text] | Row] = []
    characters = 0
    for row in rows:
        chunk.append(row)
        text = row[1]
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
