"""FeatureStore: codes of texts by id, in the parts of a folder."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from bitheads.engine.errors import InputError, StoreError
from bitheads.engine.features.packed import PackedFeatures
from bitheads.engine.features.spec import Calibration, FeatureSpec, check_spec
from bitheads.engine.process.read_ahead import read_ahead
from bitheads.engine.store import embedding_column, schema, text_hash
from bitheads.engine.store.embedding_column import EmbeddingColumn
from bitheads.engine.store.folder import Folder
from bitheads.engine.store.ids import IdIndex
from bitheads.engine.store.part import Part, check_alike, open_parts


@dataclass(frozen=True, eq=False)
class Rows:
    """A row group of a store.

    Attributes:
        part: the part it is of.
        ids: string [rows].
        features: of the texts; the codes are the memory that was read.
        columns: the user's columns that were asked for.
    """

    part: Part
    ids: pa.Array
    features: PackedFeatures
    columns: pa.Table

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class StoreInfo:
    """What a store holds.

    Attributes:
        bytes: of its files.
        bytes_a_text: of its files; code_bytes_a_text: of its codes alone.
        outdated_rows: in its files beside those: other parts have them anew, until it is compacted.
        words: whether it keeps the words of its texts.
        columns: the user's, by name, and their types.
    """

    path: str
    rows: int
    tokens: int
    bytes: int
    bytes_a_text: float
    code_bytes_a_text: float
    parts: int
    row_groups: int
    outdated_rows: int
    words: bool
    spec_id: str
    spec: dict[str, Any]
    columns: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class FeatureStore:
    """Codes of texts by id, under one feature spec.

    What it holds is what it held when it was opened: later writing is seen by opening it again.
    Any number of programs may read while one writes: to the end, or until a part that they have not
    begun has been replaced or merged, which is a StoreError.

    Attributes:
        spec: what the codes mean.
        parts: its files.
    """

    def __init__(
        self, path: str | Path, spec: FeatureSpec | None = None, filesystem: Any = None
    ) -> None:
        """Opens a store.

        Args:
            path: its folder, or a URI such as s3://bucket/folder.
            spec: of a store that may not be there yet; one that is must have the same.
            filesystem: of pyarrow or fsspec, to which `path` belongs. None: `path` says it.

        Raises StoreError if there is no store and no `spec`, or a part is damaged;
        SpecMismatchError if there is one of another spec.
        """
        self.folder = Folder(path, filesystem)
        self._read_parts(spec)

    def _read_parts(self, spec: FeatureSpec | None) -> None:
        self.parts: Sequence[Part] = open_parts(self.folder)
        if not self.parts and spec is None:
            raise StoreError(
                f"{self.folder}: no parts of a feature store there. Make one with "
                f"`bitheads encode --store {self.folder}`, or name the right folder."
            )
        first = self.parts[0].spec if self.parts else spec
        assert first is not None
        for index, part in enumerate(self.parts):
            check_spec(self._named(index), part.spec, first)
            check_alike(part, self.parts[0], self._named(index))
        if spec is not None:
            check_spec(f"store {self.folder}", first, spec)
        self.spec = first

    def _named(self, index: int) -> str:
        return f"{self.folder}/{self.parts[index].name}"

    def refresh(self) -> None:
        """Sees what was written since it was opened. Raises as opening it."""
        self._read_parts(self.spec)

    @property
    def schema(self) -> pa.Schema | None:
        """The parts' schema; None before the first one, which decides on the user's columns."""
        return schema.of_version(self.parts[0].schema, False) if self.parts else None

    @property
    def id(self) -> str | None:
        """An id that the store got when it was made, and keeps; None before there is a part."""
        return next((part.store_id for part in self.parts if part.store_id), None)

    @property
    def has_words(self) -> bool | None:
        """Whether it keeps the words of its texts, which heads of the kind `token_label` read; None
        before the first part, which decides."""
        return self.parts[0].has_words if self.parts else None

    @property
    def has_text_hashes(self) -> bool | None:
        """Whether it keeps hashes of its texts, by which `bitheads encode` finds changed ones; None
        before the first part, which decides."""
        return text_hash.has_hashes(self.parts[0].schema) if self.parts else None

    def check_words(self, words: bool) -> None:
        """Raises InputError if it keeps words and rows are to be added without, or vice versa."""
        if self.schema is not None:
            schema.check_words(words, self.schema, f"store {self.folder}")

    def check_embedding(self, column: EmbeddingColumn | None) -> None:
        """Raises InputError if rows are to be added with other embeddings than it keeps."""
        if self.schema is not None:
            embedding_column.check(column, self.schema, f"store {self.folder}")

    @property
    def forms(self) -> frozenset[str] | None:
        """Forms of its texts (engine.texts.forms); None where a part does not say it of each."""
        stated = [part.forms for part in self.parts if part.rows]
        known = [forms for forms in stated if forms is not None]
        return frozenset[str]().union(*known) if stated and len(known) == len(stated) else None

    def __len__(self) -> int:
        """Number of texts."""
        return sum(part.rows for part in self.parts)

    def scan(
        self,
        columns: Sequence[str] = (),
        calibration: Calibration | None = None,
        parts: Sequence[Part] | None = None,
        ahead: int = 1,
        words: bool = True,
    ) -> Generator[Rows, None, None]:
        """All rows, a row group at a time, in the order of the parts.

        The next row groups are read by another thread meanwhile; no more than `ahead` + 2 are in
        memory, as long as the caller keeps none.

        Args:
            columns: of the user's, which to read.
            calibration: handed to the features, see PackedFeatures.
            parts: None for all.
            words: read those that the store keeps.

        Raises StoreError for damaged bytes, of which no row is handed out, and for parts that were
        replaced since the store was opened; InputError for columns that are not there.
        """
        own = [field.name for field in self._own_columns()]
        if self.parts and (unknown := [name for name in columns if name not in own]):
            raise InputError(
                f"columns: store {self.folder} has no column {unknown[0]!r}, expected some of "
                f"{own}, its own columns."
            )
        chosen = self.parts if parts is None else parts

        def stores(part: Part) -> list[str]:
            names = schema.columns_of(part.schema)
            return [name for name in names if words or name not in schema.OF_WORDS]

        def tables() -> Iterator[Rows]:
            for part in chosen:
                for table in part.tables([*stores(part), *columns]):
                    yield Rows(
                        part,
                        table[schema.ID].combine_chunks(),
                        schema.read_features(table, self.spec, calibration),
                        table.select(list(columns)),
                    )

        with closing(read_ahead(tables(), ahead)) as rows:
            yield from rows

    def read_ids(self) -> IdIndex:
        """All ids, and what there is of their texts' hashes; reads nothing else.

        Raises StoreError for damaged bytes.
        """
        index = IdIndex()
        hashes = [text_hash.TEXT_HASH] if self.has_text_hashes else []
        for part in self.parts:
            for table in part.tables([schema.ID, *hashes]):
                values = [text_hash.short_of(table[name]) for name in hashes]
                index.add(table[schema.ID].to_pylist(), *values)
        return index

    def info(self) -> StoreInfo:
        """What the store holds, read from the footers alone."""
        rows, size = len(self), sum(part.nbytes for part in self.parts)
        outdated = sum(part.outdated_rows for part in self.parts)
        tokens = sum(part.tokens for part in self.parts)
        return StoreInfo(
            path=str(self.folder),
            rows=rows,
            tokens=tokens,
            bytes=size,
            bytes_a_text=size / max(1, rows),
            code_bytes_a_text=tokens * self.spec.code_bytes / max(1, rows),
            parts=len(self.parts),
            row_groups=sum(part.num_row_groups for part in self.parts),
            outdated_rows=outdated,
            words=bool(self.has_words),
            spec_id=self.spec.id,
            spec=self.spec.to_json(),
            columns={field.name: str(field.type) for field in self._own_columns()},
        )

    def _own_columns(self) -> list[pa.Field]:
        """The user's columns."""
        if self.schema is None:
            return []
        stores = schema.columns_of(self.schema)
        return [field for field in self.schema if field.name not in stores]
