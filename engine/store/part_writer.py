"""Writing parts: rows in, row groups of a good size out, a whole file at the end."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bitheads.engine.store import schema
from bitheads.engine.store.embedding_column import EMBEDDING, note_of
from bitheads.engine.store.folder import Folder
from bitheads.engine.store.numbering import NUMBERING, Numbering
from bitheads.engine.store.outdated import DROPPED, OUTDATES, Outdates, to_fact
from bitheads.engine.store.sealed import SealedWriter

ROW_GROUP_BYTES = 16 << 20
"""Bytes of codes per row group: 2,600 texts of 50 tokens at dim 1024. It costs about a millisecond
beside its bytes, which at 8 MiB is 5% of a backfill of one task at dim 384; 32 MiB save another 2%,
and take twice the memory. It is also what is asked of an object store at a time."""

PART_BYTES = 256 << 20


def new_name(number: int, key: str | None = None) -> str:
    """A part's name; no name is ever given twice.

    Args:
        number: its place among the others.
        key: what makes the name, for who must find the same name again.
    """
    return f"part-{number:08d}-{key or secrets.token_hex(4)}.parquet"


def new_store_id() -> str:
    """An id for the parts of a new store, by which answers name the store that they are of."""
    return secrets.token_hex(8)


class PartWriter:
    """One part of a store in the making; see `publish`."""

    def __init__(
        self,
        folder: Folder,
        name: str,
        part_schema: pa.Schema,
        store_id: str,
        row_group_bytes: int = ROW_GROUP_BYTES,
        numbering: Numbering | None = None,
        outdates: Outdates | None = None,
    ) -> None:
        """
        Args:
            store_id: of the store, see `new_store_id`.
            numbering: what the ids of its rows count, if they are rows' numbers.
            outdates: rows of other parts that are void once it is there.

        Raises StoreError if nothing can be written there.
        """
        self._store_id, self._numbering = store_id, numbering
        self._outdates = outdates or {}
        part_schema = schema.of_version(part_schema, bool(self._outdates))
        self.rows, self.tokens, self.nbytes = 0, 0, 0
        self._row_group_bytes = row_group_bytes
        self._pending: list[pa.Table] = []
        self._pending_bytes = 0
        self._aside = folder.write_aside(name)
        stores = schema.columns_of(part_schema)
        vectors = () if note_of(part_schema) is None else (EMBEDDING,)
        paths = _paths(part_schema)
        plain = [path for path in paths if path.partition(".")[0] in (schema.CODES, *vectors)]
        with self._aside.writing():
            self._sealed = SealedWriter(
                self._aside.file,
                part_schema,
                # Bits of signs do not compress, and their least and greatest say nothing.
                compression={path: "none" if path in plain else "zstd" for path in paths},
                use_dictionary=[path for path in paths if path not in (*stores, *plain)],
                write_statistics=[path for path in paths if path not in plain],
            )

    def append(self, table: pa.Table) -> None:
        """Rows of the schema. They are in memory until there are enough for a row group.

        Raises StoreError if they cannot be written; the part is then gone.
        """
        self.rows += len(table)
        self.tokens += pc.sum(table[schema.NUM_TOKENS], min_count=0).as_py()
        size = codes_bytes(table)
        self.nbytes += size
        self._pending.append(table)
        self._pending_bytes += size
        if self._pending_bytes >= self._row_group_bytes:
            self._write()

    def _write(self) -> None:
        pending, self._pending, self._pending_bytes = self._pending, [], 0
        with self._aside.writing():
            whole = pa.concat_tables(pending).combine_chunks()
            for group in cut_by_bytes(whole, self._row_group_bytes):
                self._sealed.write(group)

    def publish(self, replaces: Sequence[str] = (), dropped: int = 0) -> str:
        """The part is there, whole and on disk, from now on; returns its seal.

        Args:
            replaces: names of parts that are void once it is there.
            dropped: outdated rows of those parts, which are not in it.

        Raises StoreError if it cannot be written; there is then nothing of it.
        """
        if self._pending:
            self._write()
        with self._aside.writing():
            facts: dict[str, Any] = {
                "tokens": self.tokens,
                "replaces": list(replaces),
                "store": self._store_id,
            }
            if dropped:
                facts[DROPPED] = dropped
            if self._outdates:
                facts[OUTDATES] = to_fact(self._outdates)
            if self._numbering is not None:
                facts[NUMBERING] = self._numbering._asdict()
            seal = self._sealed.close(facts)
        self._aside.publish()
        return seal

    def discard(self) -> None:
        """Leaves nothing of it, unless it was published."""
        self._aside.discard()


def _paths(part_schema: pa.Schema) -> list[str]:
    """Parquet's names for a part's columns: of lists and structs, those of what they are made of,
    without which nothing that is said of columns holds for them."""
    empty = pa.BufferOutputStream()
    pq.write_table(part_schema.empty_table(), empty)
    written = pq.ParquetFile(pa.BufferReader(empty.getvalue())).schema
    return [written.column(i).path for i in range(len(written))]


def codes_bytes(table: pa.Table) -> int:
    """Bytes of the codes in a table."""
    return int(pc.sum(pc.binary_length(table[schema.CODES]), min_count=0).as_py())


def cut_by_bytes(table: pa.Table, row_group_bytes: int) -> Iterable[pa.Table]:
    """Slices of about as many bytes of codes, at least one row each."""
    if not len(table):
        return
    ends = np.cumsum(pc.binary_length(table[schema.CODES]).to_numpy())
    count = max(1, int(ends[-1] // row_group_bytes))
    bounds = np.searchsorted(ends, ends[-1] * np.arange(1, count) / count)
    bounds = np.unique([0, *bounds, len(table)])
    for start, stop in pairwise(bounds):
        yield table.slice(start, stop - start)
