"""Answers for pairs of a store's texts, by heads that read two texts; no encoder runs.

Which texts go together a file says, a pair of ids per row. It is answered block by block, into a
file per task and block. For as many blocks as the texts' vectors have room in memory the store is
scanned once: of each text that occurs in them, its vector is made once, for every head.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bitheads.engine.errors import InputError
from bitheads.engine.heads.cpu import CpuHead, HeadThreads
from bitheads.engine.heads.head import empty_outputs, predictions_of
from bitheads.engine.jobs.answers import TaskAnswers, TaskHead
from bitheads.engine.jobs.backfill import AnswerWriter, check_heads
from bitheads.engine.jobs.pairs_file import IdPair, PairsFile
from bitheads.engine.store import FeatureStore, Part, schema
from bitheads.engine.store.answer_folders import (
    block_name,
    check_layout,
    seal_of_block,
    seal_of_pairs,
)
from bitheads.engine.store.folder import Folder
from bitheads.engine.texts.forms import of_two_texts
from bitheads.engine.texts.text_files import Range

BLOCK_PAIRS = 1 << 16
"""Pairs of one file of answers, and of one group of rows in it."""

VECTOR_BYTES = 1 << 30
"""Bytes of texts' vectors in memory, of all heads, about; one block's are there in any case."""


@dataclass(frozen=True, eq=False)
class PairsBlock:
    """Some of a file's pairs; see engine.jobs.answers.Source."""

    name: str
    seal: str
    store_id: str | None
    rows: int
    within: Range


class PairsBackfill:
    """The same tasks for all pairs of a file, and what is left of that to do."""

    def __init__(
        self,
        store: FeatureStore,
        heads: Sequence[TaskHead],
        pairs: PairsFile,
        output: str | Path,
        probabilities: bool = False,
        filesystem: Any = None,
        other_heads: str = "refuse",
    ) -> None:
        """
        Args:
            pairs: ids of the store's texts.
            output: a folder or a URI, to which `filesystem` belongs.
            probabilities: write those of all labels, too.
            other_heads: see TaskAnswers.

        Raises SpecMismatchError for heads of another spec than the store's, InputError for none,
        for more than this process may have files open, for one of another form than `two_texts`,
        and for a file that cannot be read.
        """
        check_heads(heads, store)
        self._heads: list[CpuHead] = of_two_texts([head.head for head in heads], named=True)
        self._store, self._pairs = store, pairs
        sha256 = pairs.sha256()
        self._output = Folder(output, filesystem)
        self._answers = [
            TaskAnswers(self._output, head, probabilities, sha256, other_heads) for head in heads
        ]
        self._keeps_heads = other_heads == "keep"
        seal = seal_of_pairs(sha256, store.parts)
        self.blocks = [
            PairsBlock(
                block_name(number),
                seal_of_block(seal, number),
                store.id,
                within.count,
                within,
            )
            for number, within in enumerate(pairs.ranges(BLOCK_PAIRS))
        ]

    def prepare(self) -> list[PairsBlock]:
        """Removes what killed runs left; the blocks of which an answer is still missing.

        Hold `lock`. Raises StoreError for answers of other heads, stores or pairs, or in another
        layout.
        """
        check_layout(self._output, self._keeps_heads)
        for answers in self._answers:
            answers.remove_stale(self.blocks)
        missing = {
            block.name for answers in self._answers for block in answers.remaining(self.blocks)
        }
        return [block for block in self.blocks if block.name in missing]

    def lock(self) -> Any:
        """The output's lock, see Folder.lock."""
        return self._output.lock()

    def run(self, blocks: Sequence[PairsBlock], threads: int | None = None, bar: Any = None) -> int:
        """Writes the missing answers of these blocks; returns how many pairs it answered.

        Raises StoreError for damaged parts or answers that cannot be written, InputError for ids
        that the store does not have, and for texts that were encoded as pairs, or without tokens.
        """
        left = {
            answers.task: {block.name for block in answers.remaining(blocks)}
            for answers in self._answers
        }
        wanted = [
            (answers, head)
            for answers, head in zip(self._answers, self._heads, strict=True)
            if left[answers.task]
        ]
        heads = [head for _, head in wanted]
        todo = [block for block in blocks if any(block.name in names for names in left.values())]
        done = 0
        with HeadThreads(threads) as head_threads, AnswerWriter() as writer:
            for some, rows in self._rounds(todo, heads):
                vectors = self._vectors(rows, some, heads, head_threads)
                for block in some:
                    chosen = [i for i, (a, _) in enumerate(wanted) if block.name in left[a.task]]
                    pairs = [*self._pairs.rows(block.within)]
                    own_heads = [heads[i] for i in chosen]
                    outputs = head_threads.pair_outputs(
                        [vectors[i] for i in chosen], _rows_of(pairs, rows), own_heads
                    )
                    writer.begin([wanted[i][0] for i in chosen], block)
                    ids = [pa.array([pair.ids[i] for pair in pairs], pa.string()) for i in (0, 1)]
                    writer.append(ids, predictions_of(own_heads, outputs))
                    writer.publish()
                    done += len(pairs)
                    if bar is not None:
                        bar.update(len(pairs))
        return done

    def _rounds(
        self, blocks: Sequence[PairsBlock], heads: Sequence[CpuHead]
    ) -> Iterator[tuple[list[PairsBlock], dict[str, int]]]:
        """Blocks whose texts have room in memory together, and a row for each of those texts."""
        text_bytes = 4 * sum(head.num_text_outputs for head in heads)
        some: list[PairsBlock] = []
        rows: dict[str, int] = {}
        for block in blocks:
            for name in chain.from_iterable(pair.ids for pair in self._pairs.rows(block.within)):
                rows.setdefault(name, len(rows))
            some.append(block)
            if len(rows) * text_bytes >= VECTOR_BYTES:
                yield some, rows
                some, rows = [], {}
        if some:
            yield some, rows

    def _vectors(
        self,
        rows: dict[str, int],
        blocks: Sequence[PairsBlock],
        heads: Sequence[CpuHead],
        threads: HeadThreads,
    ) -> list[NDArray[np.float32]]:
        """Of each head those of the texts, float32 [texts, size].

        Args:
            rows: id -> row.
            blocks: those in which the texts occur.
        """
        parts = self._find(rows, blocks)
        vectors = empty_outputs(heads, len(rows))
        with closing(self._store.scan(parts=parts, words=False)) as scanned:
            for stored in scanned:
                names = stored.ids.to_pylist()
                chosen = [i for i, name in enumerate(names) if name in rows]
                if not chosen:
                    continue
                features = stored.features[chosen]
                if features.pairs is not None and features.pairs.any():
                    at = chosen[int(features.pairs.argmax())]
                    raise InputError(
                        f"id {names[at]!r}: its text was encoded as a pair in store "
                        f"{self._store.folder}, expected single texts. Encode the texts of pairs "
                        "one by one."
                    )
                places = [rows[names[i]] for i in chosen]
                found = threads.text_vectors(features, heads)
                for all_vectors, of_group in zip(vectors, found, strict=True):
                    all_vectors[places] = of_group
        return vectors

    def _find(self, rows: dict[str, int], blocks: Sequence[PairsBlock]) -> list[Part]:
        """The parts that have some of the texts. Raises InputError for an id that none has."""
        parts, there = [], np.zeros(len(rows), np.bool_)
        for part in self._store.parts:
            found = [
                rows[name]
                for table in part.tables([schema.ID])
                for name in table[schema.ID].to_pylist()
                if name in rows
            ]
            there[found] = True
            if found:
                parts.append(part)
        if there.all():
            return parts
        for pair in chain.from_iterable(self._pairs.rows(block.within) for block in blocks):
            for name in pair.ids:
                if not there[rows[name]]:
                    raise InputError(
                        f"--pairs {self._pairs.path}: {pair.place} has the id {name!r}, which "
                        f"store {self._store.folder} does not have. Encode its text into the "
                        "store, or leave the row out."
                    )
        return parts


def _rows_of(pairs: Sequence[IdPair], rows: dict[str, int]) -> NDArray[np.int64]:
    """int64 [pairs, 2]."""
    return np.array([[rows[name] for name in pair.ids] for pair in pairs], np.int64).reshape(-1, 2)
