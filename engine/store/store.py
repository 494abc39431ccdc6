"""FeatureStore: a folder of sealed Parquet files, each a part of the rows."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from bitheads.engine.errors import InputError, StoreError
from bitheads.engine.features.packed import PackedFeatures
from bitheads.engine.features.spec import Calibration, FeatureSpec, check_spec
from bitheads.engine.process.read_ahead import read_ahead
from bitheads.engine.store import embedding_column, schema, sealed
from bitheads.engine.store.embedding_column import EmbeddingColumn
from bitheads.engine.store.folder import Folder
from bitheads.engine.store.ids import IdIndex
from bitheads.engine.store.numbering import NUMBERING, Numbering, is_numbering

SUFFIX = ".parquet"
LISTINGS = 5
"""Times that a folder that changes is listed again, when a store is opened beside a writer."""

PART_NAME = re.compile(r"part-(\d{8})-[\w.-]+\.parquet")


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


class Part:
    """One sealed file. What it says was checked when it was opened; its rows are when read."""

    def __init__(self, folder: Folder, name: str) -> None:
        """Reads the footer. Raises StoreError if it is none of a store's, or damaged."""
        self.name = name
        self._folder = folder
        with folder.open(name) as file:
            self._footer = sealed.read_footer(file, self._shown)
        found = self._footer.metadata.schema.to_arrow_schema()
        # Without the footer's own entries, which some versions of pyarrow add.
        kept = {k: v for k, v in (found.metadata or {}).items() if k == schema.METADATA}
        self.schema: pa.Schema = found.with_metadata(kept)
        self._spec = schema.check_schema(self.schema, self._shown)
        self._check_facts()

    def _check_facts(self) -> None:
        """Raises StoreError for what no writer says of a part."""
        tokens, replaces = self.facts.get("tokens"), self.facts.get("replaces", [])
        if (
            type(tokens) is not int
            or tokens < 0
            or not isinstance(self.facts.get("store"), str | None)
            or not is_numbering(self.facts.get(NUMBERING))
            or not isinstance(replaces, list)
            or not all(isinstance(name, str) for name in replaces)
            or self.name in replaces
        ):
            raise StoreError(
                f"{self._shown}: what its footer says of it is nothing that bitheads writes. "
                "Remove it, and make its rows again."
            )

    @property
    def spec(self) -> FeatureSpec:
        """What its codes mean."""
        return self._spec

    @property
    def _shown(self) -> str:
        return f"{self._folder}/{self.name}"

    @property
    def number(self) -> int:
        """The number in its name: parts are read in that order."""
        match = PART_NAME.fullmatch(self.name)
        return int(match[1]) if match else 0

    @property
    def seal(self) -> str:
        """64 hexadecimal digits that stand for every byte of it."""
        return self._footer.seal

    @property
    def facts(self) -> Mapping[str, Any]:
        """What its writer said of it."""
        return self._footer.part

    @property
    def store_id(self) -> str | None:
        """The id of the store that it was written for; None in parts of older versions."""
        return self.facts.get("store")

    @property
    def numbering(self) -> Numbering | None:
        """What the ids count, where they are numbers of rows in several files."""
        found = self.facts.get(NUMBERING)
        return None if found is None else Numbering(**found)

    @property
    def replaces(self) -> tuple[str, ...]:
        """Names of parts whose rows are in this one: where they are still there, they are void."""
        return tuple(self.facts.get("replaces", ()))

    @property
    def rows(self) -> int:
        return int(self._footer.metadata.num_rows)

    @property
    def tokens(self) -> int:
        return int(self.facts["tokens"])

    @property
    def has_words(self) -> bool:
        """Whether it keeps the words of its texts."""
        return schema.has_words(self.schema)

    @property
    def forms(self) -> frozenset[str] | None:
        """Forms of its texts (engine.texts.forms); None where it does not say that of each."""
        if schema.IS_PAIR not in schema.columns_of(self.schema):
            return None
        at, found = self.schema.get_field_index(schema.IS_PAIR), set()
        for group in range(self.num_row_groups):
            stated = self._footer.metadata.row_group(group).column(at).statistics
            if stated is None or stated.null_count or not stated.has_min_max:
                return None
            found |= {stated.min, stated.max}
        return frozenset("pair" if is_pair else "single" for is_pair in found)

    @property
    def nbytes(self) -> int:
        return self._footer.file_bytes

    @property
    def num_row_groups(self) -> int:
        return int(self._footer.metadata.num_row_groups)

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """One table per row group, of these columns or all. Raises StoreError for damaged bytes."""
        wanted = None if columns is None else list(columns)
        with self._opened() as file:
            parquet = sealed.open_parquet(file, self._footer, self._shown)
            for group in range(self.num_row_groups):
                with self._changes_told():
                    table = parquet.read_row_group(group, wanted, use_threads=False)
                schema.check_rows(table, self._spec, self._shown)
                yield table
                del table  # or one more would be kept while the next is read

    def check(self) -> None:
        """Reads every byte. Raises StoreError for damaged ones."""
        with self._opened() as file, self._changes_told():
            sealed.CheckedFile(file, self._footer, self._shown).check()

    def _opened(self) -> pa.NativeFile:
        with self._changes_told():
            return self._folder.open(self.name)

    @contextmanager
    def _changes_told(self) -> Iterator[None]:
        """Goes around what reads: a part that a writer replaced or removed is not a damaged one.

        Raises StoreError.
        """
        try:
            yield
        except pa.ArrowException as error:
            raise StoreError(f"{self._shown}: cannot be decoded ({error}).") from error
        except StoreError as error:
            if self._is_as_it_was():
                raise
            raise StoreError(
                f"{self._shown}: was replaced, merged or removed since the store was opened. "
                "Open the store again, or run the same command again."
            ) from error

    def _is_as_it_was(self) -> bool:
        try:
            with self._folder.open(self.name) as file:
                return sealed.read_footer(file, self._shown).seal == self.seal
        except StoreError:  # damaged, unless it has gone
            return self.name in self._folder.names(SUFFIX)


def open_parts(folder: Folder) -> list[Part]:
    """A folder's parts without those that others replace, in the order of their names.

    Raises StoreError for damaged ones.
    """
    parts: list[Part] = []
    for _ in range(LISTINGS):
        names, failed = folder.names(SUFFIX), None
        try:
            parts = [Part(folder, name) for name in names]
        except StoreError as error:
            failed = error
        if names == folder.names(SUFFIX):  # else a writer has merged some, or added one meanwhile
            break
    if failed is not None:
        raise failed
    _check_replaced(parts, folder)
    void = {name for part in parts for name in part.replaces}
    return [part for part in parts if part.name not in void]


def check_alike(part: Part, first: Part, shown: str) -> None:
    """Raises StoreError if one of a store's parts keeps words or embeddings as another does not."""
    if part.has_words != first.has_words:
        got, expected = ("with" if one.has_words else "without" for one in (part, first))
        raise StoreError(
            f"{shown}: got a part {got} words, expected one {expected} them, as {first.name} is. "
            "They are of two stores: move one of them."
        )
    notes = [embedding_column.note_of(one.schema) for one in (part, first)]
    if notes[0] != notes[1]:
        got, expected = map(embedding_column.shown, notes)
        raise StoreError(
            f"{shown}: got a part with {got}, expected one with {expected}, as {first.name} has. "
            "They are of two stores: move one of them."
        )


def _check_replaced(parts: Sequence[Part], folder: Folder) -> None:
    """Raises StoreError for a part that would hide rows that it does not have.

    Of the parts that it replaces some may be gone, but no more rows may be there than in it.
    """
    by_name = {part.name: part for part in parts}
    for part in parts:
        there = [by_name[name] for name in part.replaces if name in by_name]
        rows = sum(other.rows for other in there)
        if rows > part.rows or (len(there) == len(part.replaces) > 0 and rows != part.rows):
            raise StoreError(
                f"{folder}/{part.name}: is to replace parts of {rows} rows, but has {part.rows}, "
                "expected as many. It was not made by merging them: remove it."
            )


@dataclass(frozen=True)
class StoreInfo:
    """What a store holds.

    Attributes:
        bytes: of its files.
        bytes_a_text: of its files; code_bytes_a_text: of its codes alone.
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
        return self.parts[0].schema if self.parts else None

    @property
    def id(self) -> str | None:
        """An id that the store got when it was made, and keeps; None before there is a part."""
        return next((part.store_id for part in self.parts if part.store_id), None)

    @property
    def has_words(self) -> bool | None:
        """Whether it keeps the words of its texts, which heads of the kind `token_label` read; None
        before the first part, which decides."""
        return self.parts[0].has_words if self.parts else None

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
        """All ids; reads nothing else. Raises StoreError for damaged bytes."""
        index = IdIndex()
        for part in self.parts:
            for table in part.tables([schema.ID]):
                index.add(table[schema.ID].to_pylist())
        return index

    def info(self) -> StoreInfo:
        """What the store holds, read from the footers alone."""
        rows, size = len(self), sum(part.nbytes for part in self.parts)
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
