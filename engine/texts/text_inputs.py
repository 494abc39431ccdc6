"""Texts of an input of many files: one file's rows after the other's, as if they were one file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import pyarrow as pa

from bitheads.engine.errors import InputError
from bitheads.engine.files.input_files import InputFile, find_files
from bitheads.engine.texts.own_columns import fields_of
from bitheads.engine.texts.text_files import BadRow, Columns, OnBad, Range, Row, TextFile
from bitheads.engine.types import Text

CHECKERS = 16
"""Threads that look at files before the first text is read: on an object store each look takes the
time of several answers."""


@dataclass(frozen=True)
class TextInput:
    """Files of one format, with the same columns.

    Attributes:
        files: in the order in which their rows are counted; at least one.
        fields: the user's own columns that are read beside the texts: Arrow fields.
        digests: of each file's name and size and those of all before it, in hexadecimal. Rows
            without ids have numbers, which mean the same again only if these begin as they did.
            None: one file was named, whose rows can be counted in but one way.
    """

    files: tuple[TextFile, ...]
    digests: tuple[str, ...] | None = None
    fields: tuple[pa.Field, ...] = ()

    @property
    def numbered_files(self) -> tuple[str, ...] | None:
        """The digests, if ids are the rows' numbers and need them."""
        return self.digests if self.columns[2] is None else None

    @property
    def columns(self) -> Columns:
        """See `TextFile.columns`; they are those of every file."""
        return self.files[0].columns

    def absolute(self) -> TextInput:
        """The same input for processes that run in folders of their own."""
        return replace(self, files=tuple(file.absolute() for file in self.files))

    def count(self) -> int:
        """Its rows, or for lines about as many. Raises InputError if it cannot be read."""
        return sum(file.count() for file in self.files)

    def ranges(self, rows: int) -> Iterator[Range]:
        """Cuts the files into ranges of so many rows, each of one file. Raises InputError."""
        before = 0
        for number, file in enumerate(self.files):
            own = 0
            for within in file.ranges(rows):
                yield replace(within, file=number, before=before)
                own += within.count
            before += own

    def rows(
        self, within: Range | None = None, on_bad: OnBad = lambda path, row: None
    ) -> Iterator[tuple[str, Text]]:
        """(id, text) in the order of the files and their rows; see `TextFile.rows`.

        Without a column of ids an id is the number of the row, all rows before it counted.
        """
        for own_id, text, _ in self.full_rows(within, on_bad):
            yield own_id, text

    def full_rows(
        self, within: Range | None = None, on_bad: OnBad = lambda path, row: None
    ) -> Iterator[Row]:
        """As `rows`, with the user's own columns, as `own_columns.make_columns` takes them."""
        before = 0 if within is None else within.before
        for file in self.files if within is None else (self.files[within.file],):
            number = -1
            for number, row in file.numbered_rows(within):
                if isinstance(row, BadRow):
                    on_bad(file.path, row)
                elif row is not None:
                    own_id, *rest = row
                    yield own_id if self.columns[2] is not None else str(before + number), *rest
            before += number + 1


def open_input(
    named: Sequence[str],
    format: str | None = None,
    text_column: str | None = None,
    pair_column: str | None = None,
    id_column: str | None = None,
    quotes: str | None = None,
    skips_bad_rows: bool = False,
    own_columns: Sequence[str] = (),
) -> TextInput:
    """The texts of files, folders, globs and URIs; see `TextFile` for the rest.

    Looks at each file's header, schema or first row, so that what does not fit the others is told
    before anything is encoded. Files without a row are left out, unless there is but one.

    Raises InputError, which names the file.
    """
    found = find_files(named)
    files = [
        TextFile(
            one.path,
            format,
            text_column,
            pair_column,
            id_column,
            quotes,
            skips_bad_rows,
            tuple(own_columns),
        )
        for one in found
    ]
    for file in files:
        if file.kind != files[0].kind:
            raise InputError(
                f"--input {file.path}: is {file.kind}, and {files[0].path} is {files[0].kind}, "
                "expected files of one format. Name those of one: a glob in quotes, such as "
                "'folder/*.parquet'."
            )
    if len(files) == 1:
        digests = None if found[0].is_named else _digests(found)
        return TextInput(tuple(files), digests, _fields(own_columns, files))
    kept: list[tuple[InputFile, TextFile]] = []
    with ThreadPoolExecutor(CHECKERS) as pool:
        for one, file, is_empty in zip(found, files, pool.map(_look_at, files), strict=True):
            if not is_empty:
                _check_alike(file, kept[0][1] if kept else file)
                kept.append((one, file))
    if not kept:
        raise InputError(
            f"--input {named[0]}: all of its {len(files)} files are empty, expected texts. Name "
            "files that have some."
        )
    texts = tuple(file for _, file in kept)
    return TextInput(texts, _digests([one for one, _ in kept]), _fields(own_columns, texts))


def _fields(names: Sequence[str], files: Sequence[TextFile]) -> tuple[pa.Field, ...]:
    return fields_of(names, ((str(one.path), one.kind, one.own_kinds) for one in files))


def _look_at(file: TextFile) -> bool:
    """Whether it is empty; of others, reads what decides on the columns. Raises InputError."""
    if file.is_empty:
        return True
    _ = file.columns, file.column_kinds, file.own_kinds
    return False


def _check_alike(file: TextFile, first: TextFile) -> None:
    """Raises InputError for a file of other columns than the first."""
    if file.columns != first.columns:
        raise InputError(
            f"--input {file.path}: texts and ids are in {_shown(file.columns)}, and in "
            f"{first.path} in {_shown(first.columns)}, expected the same columns in all files. Say "
            "which: --text-column, --pair-column, --id-column, or name files that have them."
        )
    for name, got, expected in zip(
        file.columns, file.column_kinds, first.column_kinds, strict=True
    ):
        if got is not None and expected is not None and got != expected:
            raise InputError(
                f"--input {file.path}: column {name!r} is of {got}, expected {expected} as in "
                f"{first.path}. Write the files with one schema, or encode them one by one."
            )


def _shown(columns: Columns) -> str:
    *texts, own_id = columns
    named = " and ".join(repr(name) for name in texts if name is not None)
    return f"{named} and the rows' numbers" if own_id is None else f"{named} and {own_id!r}"


def _digests(files: Sequence[InputFile]) -> tuple[str, ...]:
    digest = hashlib.sha256()
    digests = []
    for file in files:
        digest.update(f"{len(file.name.encode())} {file.size} ".encode() + file.name.encode())
        digests.append(digest.hexdigest())
    return tuple(digests)
