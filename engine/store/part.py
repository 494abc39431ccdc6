"""Part: a sealed file of a store, a part of its rows; and all parts of a folder."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bitheads.engine.errors import StoreError
from bitheads.engine.features.spec import FeatureSpec
from bitheads.engine.store import embedding_column, schema, sealed
from bitheads.engine.store.folder import Folder
from bitheads.engine.store.numbering import NUMBERING, Numbering, is_numbering
from bitheads.engine.store.outdated import (
    DROPPED,
    NONE,
    OUTDATES,
    Outdates,
    joined,
    left_of,
    of_fact,
)

SUFFIX = ".parquet"
LISTINGS = 5
"""Times that a folder that changes is listed again, when a store is opened beside a writer."""

PART_NAME = re.compile(r"part-(\d{8})-[\w.-]+\.parquet")


class FoundRows(NamedTuple):
    """Rows of a part that have one of the ids that were asked for.

    Attributes:
        rows: int64 [found], their numbers in the part, ascending.
        ids: of each.
        tokens: int64 [found], of each.
    """

    rows: NDArray[np.int64]
    ids: list[str]
    tokens: NDArray[np.int64]


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
        self._outdated = np.empty(0, np.int64)
        self._outdated_tokens = 0
        self._check_facts()

    def _check_facts(self) -> None:
        """Raises StoreError for what no writer says of a part."""
        tokens, replaces = self.facts.get("tokens"), self.facts.get("replaces", [])
        dropped = self.facts.get(DROPPED, 0)
        try:
            self.outdates: Outdates = of_fact(self.facts.get(OUTDATES))
        except ValueError:
            dropped = None
        if (
            type(tokens) is not int
            or type(dropped) is not int
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
    def file_seal(self) -> str:
        """64 hexadecimal digits that stand for every byte of the file."""
        return self._footer.seal

    @cached_property
    def seal(self) -> str:
        """64 hexadecimal digits that stand for every byte of its rows, outdated ones left out."""
        if not self._outdated.size:
            return self.file_seal
        left_out = self._outdated.astype("<i8").tobytes()
        return hashlib.sha256(self.file_seal.encode() + left_out).hexdigest()

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
        """How many it has, outdated ones left out."""
        return self.file_rows - self.outdated_rows

    @property
    def file_rows(self) -> int:
        """How many are in the file."""
        return int(self._footer.metadata.num_rows)

    @property
    def tokens(self) -> int:
        """Of its rows, outdated ones left out."""
        return self.file_tokens - self._outdated_tokens

    @property
    def file_tokens(self) -> int:
        """Of all in the file."""
        return int(self.facts["tokens"])

    @property
    def outdated_rows(self) -> int:
        """How many of the file's rows another part has anew."""
        return int(self._outdated.size)

    @property
    def dropped(self) -> int:
        """Outdated rows of the parts that it replaces, which are not in it."""
        return int(self.facts.get(DROPPED, 0))

    def leave_out(self, all_parts: Outdates) -> None:
        """Its rows are from now on those that none of all parts of its store outdates.

        Raises StoreError for rows that it does not have.
        """
        said = all_parts.get(self.file_seal, NONE)
        if said.rows and said.rows[-1] >= self.file_rows:
            raise StoreError(
                f"{self._shown}: another part says of its row {said.rows[-1]} that it is outdated, "
                f"expected one below {self.file_rows}. Encode the texts into another store."
            )
        self._outdated = np.array(said.rows, np.int64)
        self._outdated_tokens = said.tokens

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

    def tables(
        self, columns: Sequence[str] | None = None, outdated: bool = False
    ) -> Iterator[pa.Table]:
        """One table per row group, of these columns or all. Raises StoreError for damaged bytes.

        Args:
            outdated: with all rows of the file. Else a row group of none but outdated rows has no
                table.
        """
        wanted = None if columns is None else list(columns)
        start = 0
        with self._opened() as file:
            parquet = sealed.open_parquet(file, self._footer, self._shown)
            for group in range(self.num_row_groups):
                with self._changes_told():
                    table = parquet.read_row_group(group, wanted, use_threads=False)
                schema.check_rows(table, self._spec, self._shown)
                left = None if outdated else left_of(self._outdated, start, len(table))
                start += len(table)
                if left is not None:
                    if not left.any():
                        continue
                    table = table.filter(pa.array(left))
                yield table
                del table  # or one more would be kept while the next is read

    def find(self, ids: pa.Array, outdated: bool = False) -> FoundRows:
        """Where these ids are. Raises StoreError for damaged bytes.

        Args:
            outdated: in outdated rows, too.
        """
        none = np.empty(0, np.int64)
        rows, found, tokens, start = [none], list[str](), [none], 0
        for table in self.tables([schema.ID, schema.NUM_TOKENS], outdated=True):
            has_one = pc.is_in(table[schema.ID], ids).to_numpy(zero_copy_only=False)
            if not outdated and (left := left_of(self._outdated, start, len(table))) is not None:
                has_one = has_one & left
            if has_one.any():
                chosen = table.filter(pa.array(has_one))
                found += chosen[schema.ID].to_pylist()
                tokens.append(chosen[schema.NUM_TOKENS].to_numpy().astype(np.int64))
                rows.append(start + np.flatnonzero(has_one))
            start += len(table)
        return FoundRows(np.concatenate(rows), found, np.concatenate(tokens))

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
                return sealed.read_footer(file, self._shown).seal == self.file_seal
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
    live = live_parts(parts)
    leave_out_outdated(live)
    return live


def live_parts(parts: Sequence[Part]) -> list[Part]:
    """Those that none of the others replaces."""
    void = {name for part in parts for name in part.replaces}
    return [part for part in parts if part.name not in void]


def leave_out_outdated(live: Sequence[Part]) -> None:
    """Of each part the rows that another has anew. Raises StoreError for rows that it has not."""
    outdates = joined((part.outdates for part in live), (part.file_seal for part in live))
    for part in live:
        part.leave_out(outdates)


def still_outdated(group: Sequence[Part], live: Sequence[Part]) -> Outdates:
    """What parts that are written again must go on to say of the rows of others."""
    seals = [part.file_seal for part in live if part not in group]
    return joined((part.outdates for part in group), seals)


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
        rows, has = sum(other.file_rows for other in there), part.file_rows + part.dropped
        if rows > has or (len(there) == len(part.replaces) > 0 and rows != has):
            raise StoreError(
                f"{folder}/{part.name}: is to replace parts of {rows} rows, but has {has}, "
                "expected as many. It was not made by merging them: remove it."
            )
