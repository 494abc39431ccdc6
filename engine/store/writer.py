"""Appending to a store: whole parts or nothing, and no id twice."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bitheads.engine.errors import InputError, StoreError
from bitheads.engine.features.packed import PackedFeatures
from bitheads.engine.features.spec import check_spec
from bitheads.engine.process.interrupts import interrupts_held_back
from bitheads.engine.store import schema, text_hash
from bitheads.engine.store.embedding_column import EMBEDDING, EmbeddingColumn
from bitheads.engine.store.ids import IdIndex
from bitheads.engine.store.numbering import Numbering, check_numbering, longest, of_digests
from bitheads.engine.store.outdated import OutdatedRows, Outdates, of_rows
from bitheads.engine.store.part import SUFFIX, FoundRows, Part, still_outdated
from bitheads.engine.store.part_writer import (
    PART_BYTES,
    ROW_GROUP_BYTES,
    PartWriter,
    new_name,
    new_store_id,
)
from bitheads.engine.store.store import FeatureStore

EXISTING = ("refuse", "skip", "update", "replace")
"""What can become of texts whose id is stored already."""

REWRITE_ROWS = 32
"""A part is written again for new rows if they are one in so many of its own, or more: for each new
row at most so many others are written. Fewer become a part that outdates them."""

PART_SECONDS = 60.0


class StoreWriter:
    """Appends to a store. One process at a time may; it holds the folder's lock until it closes.

    Rows are on disk for good once their part is published: when it is full, some time after its
    first row, and when the writer is closed, by an error or Ctrl-C, too. Of a writer that was
    killed only whole parts are left. A writer that could not write takes no more: which of its rows
    are stored is for a new one to find out.
    """

    def __init__(
        self,
        store: FeatureStore,
        existing: str = "refuse",
        part_bytes: int = PART_BYTES,
        part_seconds: float = PART_SECONDS,
        row_group_bytes: int = ROW_GROUP_BYTES,
        embedding: EmbeddingColumn | None = None,
        numbered_files: Sequence[str] | None = None,
    ) -> None:
        """
        Args:
            existing: for ids that are stored already: "refuse" them with an InputError, "skip"
                their rows, "replace" what is stored, or "update": replace it where another text's
                hash is stored, and skip it otherwise.
            part_bytes: of codes, of a part at most, but for its last rows.
            part_seconds: after a part's first row it is published.
            row_group_bytes: of codes, about.
            embedding: what to keep of the texts' embeddings, in a column of their own; None: none.
            numbered_files: of an input of several files without ids, whose rows' numbers are to be
                the ids: a digest for each file, of it and all before it. None: ids are the texts'
                own.

        Raises InputError for other options, if the store keeps other embeddings, and if it has
        rows by their numbers in other files; StoreError if another process writes, or nobody can.
        """
        if existing not in EXISTING:
            raise InputError(f"existing: got {existing!r}, expected one of {list(EXISTING)}.")
        if part_bytes < 1 or not part_seconds >= 0 or row_group_bytes < 1:
            raise InputError(
                f"part_bytes {part_bytes}, part_seconds {part_seconds}, row_group_bytes "
                f"{row_group_bytes}: expected more than 0."
            )
        self._store, self._existing = store, existing
        self._part_bytes, self._part_seconds = part_bytes, part_seconds
        self._row_group_bytes = row_group_bytes
        self._embedding = embedding
        self.numbering = None if numbered_files is None else of_digests(numbered_files)
        self._kinds: pa.Schema | None = None
        self._part: PartWriter | None = None
        self._waiting_since_s: float | None = None
        self._has_failed = False
        self._replacing: list[pa.Table] = []
        self._unpublished = IdIndex()
        self._undo = ExitStack()
        with ExitStack() as undo:
            undo.enter_context(store.folder.lock())
            clean_up(store)
            store.check_embedding(embedding)
            if numbered_files is not None and existing != "replace":
                stored = [part.numbering for part in store.parts]
                check_numbering(stored, tuple(numbered_files), str(store.folder))
            self.stored: IdIndex = store.read_ids()  # with what is kept of texts' hashes
            self.store_id = store.id or new_store_id()
            self._undo = undo.pop_all()

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def append(
        self,
        ids: Any,
        features: PackedFeatures,
        columns: Mapping[str, Any] | None = None,
        text_hashes: Sequence[bytes] | None = None,
    ) -> int:
        """Adds texts; returns how many rows that added or replaced.

        Args:
            ids: one string per text, as a sequence or an Arrow array.
            features: of the store's spec. They are copied: the caller may use their memory again.
                A store's first rows decide whether it keeps words.
            columns: the user's own, by name: sequences or Arrow arrays. A store's first rows decide
                which there are, and of which types.
            text_hashes: `hash_of` each text. A store's first rows decide whether it keeps them; one
                that does keeps null where there are none, one that does not leaves them out.

        Raises SpecMismatchError, InputError for ids, words, columns or hashes that do not fit, and
        StoreError if they cannot be written, or something before them could not.
        """
        self._refuse_if_failed()
        check_spec("features", features.spec, self._store.spec)
        array = schema.check_ids(ids, len(features))
        columns = {**(columns or {})}
        if self._embedding is not None:
            columns[EMBEDDING] = self._embedding.of(features.embeddings)
        if self._existing == "update" and text_hashes is None:
            raise InputError(
                "text_hashes: got none, expected one per text, by which existing='update' finds "
                "those that changed. Give them, or say existing='replace' or 'skip'."
            )
        self._add_hashes(columns, text_hashes, len(array))
        kinds = self._schema_for(columns, features, text_hashes is not None)
        names = array.to_pylist()
        known, before = self.stored.look_up(names)
        values = None if text_hashes is None else text_hash.short(text_hashes)
        replaced = known if self._existing == "replace" else np.zeros(len(names), np.bool_)
        if self._existing == "update" and values is not None:
            replaced = known & (before != 0) & (before != values)
        table = schema.make_table(array, features, columns, kinds)
        if known.any():
            if self._existing == "refuse":
                raise InputError(
                    f"id {names[int(known.argmax())]!r} is in store {self._store.folder} already "
                    f"({int(known.sum())} of {len(names)} are). Leave them out, or say what to do: "
                    "existing='skip' or 'replace'."
                )
            if replaced.any():
                if self._unpublished.contains(names).any():
                    self.flush()
                self._replacing.append(_rows_of_its_own(table, replaced))
                self._begin_waiting()
            names = [name for name, is_known in zip(names, known, strict=True) if not is_known]
        if names:
            self._add(_rows_of_its_own(table, ~known), kinds)
            self.stored.add(names, None if values is None else values[~known])
            self._unpublished.add(names)
        if self._is_due():
            self.flush()
        return len(names) + int(replaced.sum())

    def _add_hashes(
        self, columns: dict[str, Any], hashes: Sequence[bytes] | None, rows: int
    ) -> None:
        """As a column, if the store keeps them. Raises InputError unless there is one per text."""
        column = text_hash.column(hashes, rows)
        kinds = self._store.schema or self._kinds
        if hashes is not None if kinds is None else text_hash.has_hashes(kinds):
            if text_hash.TEXT_HASH in columns:
                raise InputError(
                    f"columns: got {text_hash.TEXT_HASH!r}, which is the store's own. Give it "
                    "another name."
                )
            columns[text_hash.TEXT_HASH] = column

    def _add(self, table: pa.Table, kinds: pa.Schema) -> None:
        with self._failing():
            if self._part is None:
                self._part = self._open_part(new_name(self.next_number()), kinds, self.numbering)
            self._part.append(table)
        self._begin_waiting()

    def next_number(self) -> int:
        """The number in a new part's name, after all others."""
        return max((part.number for part in self._store.parts), default=-1) + 1

    def _begin_waiting(self) -> None:
        if self._waiting_since_s is None:
            self._waiting_since_s = time.monotonic()

    def _is_due(self) -> bool:
        if self._waiting_since_s is None:
            return False
        replacing = sum(table.nbytes for table in self._replacing)
        appended = 0 if self._part is None else self._part.nbytes
        age_s = time.monotonic() - self._waiting_since_s
        return max(replacing, appended) >= self._part_bytes or age_s >= self._part_seconds

    def _schema_for(
        self, columns: Mapping[str, Any], features: PackedFeatures, hashes: bool
    ) -> pa.Schema:
        kinds = self._store.schema or self._kinds
        if kinds is not None:
            return kinds
        fields = []
        for name, values in columns.items():
            if self._embedding is not None and name == EMBEDDING:
                fields.append(self._embedding.field)
                continue
            if name == text_hash.TEXT_HASH and hashes:
                fields.append(text_hash.FIELD)
                continue
            try:
                kind = values.type if isinstance(values, pa.Array) else pa.array(values).type
            except (pa.ArrowException, TypeError, ValueError) as error:
                raise InputError(f"column {name!r}: cannot be stored ({error}).") from error
            fields.append(pa.field(name, kind))
        kinds = schema.make_schema(self._store.spec, fields, words=features.words is not None)
        if len(features):  # none decide nothing
            self._kinds = kinds
        return kinds

    def flush(self) -> None:
        """Publishes what was appended; Ctrl-C waits for it.

        Raises StoreError if it cannot be written, or something before it could not.
        """
        self._refuse_if_failed()
        with interrupts_held_back(), self._failing():
            if self._part is not None:
                self._part.publish()
                self._part = None
            if self._replacing:
                tables, self._replacing = self._replacing, []
                self._store.refresh()
                self._replace_rows(pa.concat_tables(tables))
            self._unpublished = IdIndex()
            self._waiting_since_s = None
            self._store.refresh()

    def _replace_rows(self, new: pa.Table) -> None:
        """Writes the parts that hold many of the ids again, each under its name, in one step per
        part, and of the other ids a part that outdates their rows.

        Each id is there once at any time, with its old codes or its new ones.
        """
        # Of an id that came twice, the last.
        last = {name: row for row, name in enumerate(new[schema.ID].to_pylist())}
        new = new.take(list(last.values())).combine_chunks()
        new_ids = new[schema.ID].combine_chunks()
        scattered: list[tuple[Part, FoundRows]] = []
        for part in self._store.parts:
            found = part.find(new_ids)
            if not found.ids:
                continue
            if len(found.ids) * REWRITE_ROWS < part.file_rows and schema.can_outdate(part.schema):
                scattered.append((part, found))
            else:
                self._write_again(part, new, new_ids)
        if scattered:
            self._write_anew(scattered, new, new_ids)

    def _write_again(self, part: Part, new: pa.Table, new_ids: pa.Array) -> None:
        writer = self._open_part(
            part.name,
            part.schema,
            self.numbering or part.numbering,
            still_outdated([part], self._store.parts),
        )
        try:
            for table in _with_new_rows(part.tables(), new, new_ids):
                writer.append(table)
            writer.publish(part.replaces, part.dropped + part.outdated_rows)
        finally:
            writer.discard()

    def _write_anew(
        self, scattered: Sequence[tuple[Part, FoundRows]], new: pa.Table, new_ids: pa.Array
    ) -> None:
        parts = [part for part, _ in scattered]
        outdates = {
            part.file_seal: of_rows(found.rows.tolist(), int(found.tokens.sum()))
            for part, found in scattered
        }
        names = pa.array([name for _, found in scattered for name in found.ids], pa.string())
        writer = self._open_part(
            new_name(self.next_number()),
            parts[0].schema,
            self.numbering or longest(part.numbering for part in parts),
            outdates,
        )
        try:
            writer.append(new.take(pc.index_in(names, new_ids)))
            writer.publish()
        finally:
            writer.discard()

    def outdated_by(self, replacing: Sequence[Sequence[str]]) -> list[Outdates]:
        """Of several parts to be, that each have some ids anew, the stored rows of these.

        Raises StoreError for damaged bytes, InputError for stores of version 1.
        """
        owner = {name: at for at, names in enumerate(replacing) for name in names}
        found: list[dict[str, OutdatedRows]] = [{} for _ in replacing]
        names = pa.array(list(owner), pa.string())
        for part in self._store.parts if owner else ():
            if not schema.can_outdate(part.schema):
                raise InputError(
                    f"{self._store.folder}: is of version 1, in which no part has rows of others "
                    "anew. Say --existing replace and --runner local."
                )
            rows = part.find(names)
            for at in {owner[name] for name in rows.ids}:
                chosen = [i for i, name in enumerate(rows.ids) if owner[name] == at]
                tokens = int(rows.tokens[chosen].sum())
                found[at][part.file_seal] = of_rows(rows.rows[chosen].tolist(), tokens)
        return [*found]

    def _open_part(
        self,
        name: str,
        part_schema: pa.Schema,
        numbering: Numbering | None,
        outdates: Outdates | None = None,
    ) -> PartWriter:
        return PartWriter(
            self._store.folder,
            name,
            part_schema,
            self.store_id,
            self._row_group_bytes,
            numbering,
            outdates,
        )

    def close(self) -> None:
        """Publishes what was appended and lets go of the store. Raises StoreError."""
        try:
            if not self._has_failed:  # that was said
                self.flush()
        finally:
            self._undo.close()

    @contextmanager
    def _failing(self) -> Iterator[None]:
        """Goes around what writes: `stored` has ids of rows that are lost if it ends too early."""
        try:
            yield
        except BaseException:
            self._has_failed = True
            if self._part is not None:
                self._part.discard()
            raise

    def _refuse_if_failed(self) -> None:
        if self._has_failed:
            raise StoreError(
                f"{self._store.folder}: this writer could not write something before, and what it "
                "had not published by then is lost. Close it, open a new StoreWriter, and append "
                "what that one does not have."
            )


def clean_up(store: FeatureStore) -> None:
    """Removes what killed writers left, and parts that others replace. Hold the lock."""
    store.folder.remove_leftovers()
    store.refresh()
    live = {part.name for part in store.parts}
    for name in store.folder.names(SUFFIX):
        if name not in live:
            store.folder.remove(name)
    store.folder.sync()  # or what was replaced may come back when nothing says so any more


def _with_new_rows(tables: Iterator[pa.Table], new: pa.Table, new_ids: pa.Array) -> Iterator[Any]:
    for table in tables:
        at = pc.index_in(table[schema.ID], new_ids).combine_chunks()
        if at.null_count == len(at):
            yield table
            continue
        # Only the rows that are needed: `take` copies both tables.
        both = pa.concat_tables([table, new.take(at.drop_null())])
        chosen = np.arange(len(table))
        is_new = at.is_valid().to_numpy(zero_copy_only=False)
        chosen[is_new] = np.arange(len(table), len(both))
        yield both.take(chosen)


def _rows_of_its_own(table: pa.Table, mask: NDArray[np.bool_]) -> pa.Table:
    """The rows that the mask has, copied: they wait for their part, and callers reuse arrays."""
    if not mask.all():
        return table.filter(pa.array(mask))
    columns = [pa.concat_arrays(column.chunks) for column in table.columns]
    return pa.table(columns, schema=table.schema)
