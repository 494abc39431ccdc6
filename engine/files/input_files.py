"""Which files an input is: one file, a folder, a glob, or several of them, on a disk or by URI.

A folder is all files in it and in its folders, as Spark, Hive and pyarrow read one: names that
begin with a dot or an underscore (`_SUCCESS`, `_metadata`, `.part-0.parquet.crc`) are other
programs' notes, unless they are those of partitions (`_day=1`), and files without a byte are parts
without a row. What one name stands for comes in the order of the paths, the names in the order they
are given. A data set that Hugging Face's `datasets` has saved is the files that its `state.json`
names, in that order.
"""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import translate
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import pyarrow.fs as pafs

from bitheads.engine.errors import InputError
from bitheads.engine.files.filesystems import find_filesystem

WILDCARDS = re.compile(r"[*?[]")
REMOTE_WILDCARDS = re.compile(r"[*[]")
"""In a URI a question mark begins the options of its filesystem."""

ANY_DEPTH = "**"
OF_DELTA = "_delta_log"
OF_DATASET, OF_DATASET_DICT = "state.json", "dataset_dict.json"
"""What `save_to_disk` of Hugging Face's `datasets` writes beside the files, and beside the folders
of splits."""

BUFFER_BYTES = 1 << 20
"""Bytes that are asked of a remote filesystem at a time."""


@dataclass(frozen=True)
class RemoteFile:
    """What `Path` is for a file on a disk, as far as who reads texts asks.

    Attributes:
        shown: its URI, without the options of its filesystem.
        inside: its path in the filesystem.
    """

    shown: str
    inside: str
    filesystem: Any

    def __str__(self) -> str:
        return self.shown

    @property
    def name(self) -> str:
        return PurePosixPath(self.shown).name

    def absolute(self) -> RemoteFile:
        """Itself: a URI means the same anywhere."""
        return self

    def open(self, mode: str = "rb") -> BinaryIO:
        """To be read from its beginning to its end. Raises OSError."""
        return io.BufferedReader(self.open_native(), BUFFER_BYTES)

    def open_native(self) -> Any:
        """An Arrow file, for who reads here and there. Raises OSError."""
        return self.filesystem.open_input_file(self.inside)


@dataclass(frozen=True)
class InputFile:
    """A file of an input.

    Attributes:
        name: its path below the folder that was named, or below what a glob has before its first
            wildcard: the same wherever the input is mounted and the command is run.
        size: in bytes.
        is_named: whether it was named itself, and is not one of a folder or a glob.
    """

    path: Path | RemoteFile
    name: str
    size: int
    is_named: bool


@dataclass(frozen=True)
class _Place:
    """A file or a folder.

    Attributes:
        above: real paths of the local folders that led to it.
    """

    filesystem: pafs.FileSystem
    path: str
    shown: str
    name: str = ""
    above: frozenset[str] = frozenset()

    @property
    def is_local(self) -> bool:
        return isinstance(self.filesystem, pafs.LocalFileSystem)

    def info(self) -> pafs.FileInfo:
        """Raises InputError."""
        try:
            return self.filesystem.get_file_info(self.path)
        except OSError as error:
            raise _unreadable(self, error) from error

    def below(self, name: str, above: frozenset[str] = frozenset()) -> _Place:
        """What a folder has under a name."""
        return _Place(
            self.filesystem,
            f"{self.path.rstrip('/')}/{name}",
            f"{self.shown.rstrip('/')}/{name}",
            f"{self.name}/{name}" if self.name else name,
            above,
        )

    def children(self) -> dict[str, tuple[_Place, pafs.FileInfo]]:
        """What a folder has, by name. Raises InputError, for a link to a folder above, too."""
        above = self.above
        if self.is_local:
            real = os.path.realpath(self.path)
            if real in above:
                raise InputError(
                    f"--input {self.shown}: is a link to a folder that it is in, expected folders "
                    "that end. Remove the link, or name the files: a glob, or --input FILE FILE."
                )
            above = above | {real}
        try:
            if self.is_local:  # pyarrow's own listing leaves out links that lead nowhere
                paths = [entry.path for entry in os.scandir(self.path)]
                found = self.filesystem.get_file_info(paths)
            else:
                found = self.filesystem.get_file_info(pafs.FileSelector(self.path))
        except OSError as error:
            raise _unreadable(self, error) from error
        return {
            info.base_name: (
                self.below(info.base_name, above),
                info,
            )
            for info in found
        }

    def as_file(self, info: pafs.FileInfo) -> InputFile:
        """Raises InputError for what cannot be read again and again."""
        if info.type == pafs.FileType.NotFound:
            raise InputError(
                f"--input {self.shown}: cannot be read (no such file or folder). Expected a file, "
                "a folder of files, or a glob in quotes, on a disk or as a URI."
            )
        if info.type != pafs.FileType.File:
            raise InputError(
                f"--input {self.shown}: is not a regular file. Write the texts to a file first, "
                "and name that."
            )
        path = (
            Path(self.shown)
            if self.is_local
            else RemoteFile(self.shown, self.path, self.filesystem)
        )
        name = self.name or PurePosixPath(self.path).name
        return InputFile(path, name, info.size or 0, is_named=not self.name)


def find_files(named: Sequence[str]) -> list[InputFile]:
    """All files of an input, each once; nothing of them is read.

    Raises InputError for names without a file, for a file that is there twice, and for what is no
    plain file or folder.
    """
    files = [file for one in named for file in _files_of(one)]
    seen: dict[str, InputFile] = {}
    for file in files:
        path = file.path
        key = os.path.realpath(path) if isinstance(path, Path) else str(path)
        if key in seen:
            raise InputError(
                f"--input {path}: is the file {seen[key].path}, which the input has already, "
                "expected each once. Name it once, and see that no link leads to it."
            )
        seen[key] = file
    return files


def _files_of(name: str) -> list[InputFile]:
    place, pattern = _split(name)
    if not pattern:
        info = place.info()
        if info.type != pafs.FileType.Directory:
            return [place.as_file(info)]
        found = [*_below(place)]
    else:
        found = [
            file
            for matched, info in _matching(place, pattern)
            for file in (
                _below(matched)
                if info.type == pafs.FileType.Directory
                else [(matched.name, matched.as_file(info))]
            )
        ]
    kept = [file for _, file in sorted(found, key=lambda one: one[0]) if file.size]
    if not kept:
        what = "a glob that matches no file" if pattern else "a folder without a file"
        raise InputError(
            f"--input {name}: is {what}, expected texts. Files of no bytes, and names that begin "
            "with a dot or an underscore, do not count: name others."
        )
    return kept


def _split(name: str) -> tuple[_Place, list[str]]:
    """Where to begin, and what is to match below that, folder by folder; [] if nothing is."""
    is_remote = "://" in name
    before, mark, options = name.partition("?") if is_remote else (name, "", "")
    wildcards = REMOTE_WILDCARDS if is_remote else WILDCARDS
    parts = before.split("/")
    first = next((i for i, part in enumerate(parts) if wildcards.search(part)), None)
    # A name that is there is a name, whatever characters it has.
    if first is None or (not is_remote and os.path.lexists(name)):
        base, pattern = before, []
    else:
        base = "/".join(parts[:first]) or ("/" if first else ".")
        pattern = [part for part in parts[first:] if part]
    try:
        filesystem, path = find_filesystem(base + mark + options)
    except ValueError as error:
        raise InputError(
            f"--input {name}: cannot be reached, {error}. Expected a file, a folder, a glob, or "
            "a URI such as s3://bucket/folder."
        ) from error
    if isinstance(filesystem, pafs.LocalFileSystem):
        shown = path if is_remote else str(Path(base))  # what file:// names is a path, too
    else:
        shown = base
    return _Place(filesystem, path, shown), pattern


def _is_passed_over(name: str) -> bool:
    return name.startswith(".") or (name.startswith("_") and "=" not in name)


def _below(folder: _Place) -> Iterator[tuple[str, InputFile]]:
    """The files of a folder and those in it, with what they are sorted by."""
    children = folder.children()
    if OF_DELTA in children:
        raise InputError(
            f"--input {folder.shown}: is a table of Delta Lake, whose folder has rows that were "
            "deleted, too, expected plain files. Write the table's rows to a folder of Parquet, "
            "and name that."
        )
    if OF_DATASET_DICT in children:
        splits = sorted(n for n, (_, info) in children.items() if info.type == info.type.Directory)
        raise InputError(
            f"--input {folder.shown}: is a data set of the splits {splits}, expected one of them. "
            f"Name it: --input {folder.shown.rstrip('/')}/{(splits or ['train'])[-1]}."
        )
    if OF_DATASET in children and "dataset_info.json" in children:
        for number, name in enumerate(_data_files(children[OF_DATASET][0])):
            place = folder.below(name)
            key = f"{number:08}"
            yield (f"{folder.name}/{key}" if folder.name else key), place.as_file(place.info())
        return
    for name, (place, info) in children.items():
        if _is_passed_over(name):
            continue
        if info.type == pafs.FileType.Directory:
            yield from _below(place)
        else:
            yield place.name, place.as_file(info)


def _data_files(state: _Place) -> list[str]:
    """Names of the files of a data set, as its state says. Raises InputError."""
    try:
        with state.filesystem.open_input_file(state.path) as file:
            names = [one["filename"] for one in json.loads(file.read())["_data_files"]]
        if not all(isinstance(name, str) and name and "/" not in name for name in names):
            raise ValueError("one is not the name of a file in it")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"--input {state.shown}: says no files of a data set ({error!r}), expected it as "
            "`save_to_disk` of Hugging Face's datasets writes it. Save the data set again, or name "
            "its files: a glob, 'folder/*.arrow'."
        ) from error
    return names


def _matching(place: _Place, pattern: Sequence[str]) -> Iterator[tuple[_Place, pafs.FileInfo]]:
    """What matches below a folder; names that would be passed over only where the pattern has them
    in so many words."""
    head, rest = pattern[0], pattern[1:]
    if head == ANY_DEPTH and not rest:
        yield place, place.info()
        return
    if head == ANY_DEPTH:
        yield from _matching(place, rest)
    if place.info().type != pafs.FileType.Directory:
        return
    matches = re.compile(translate(head))
    for name, (child, info) in place.children().items():
        is_folder = info.type == pafs.FileType.Directory
        if _is_passed_over(name) and name != head:
            continue
        if head == ANY_DEPTH:
            if is_folder:
                yield from _matching(child, pattern)
        elif matches.match(name):
            if not rest:
                yield child, info
            elif is_folder:
                yield from _matching(child, rest)


def _unreadable(place: _Place, error: OSError) -> InputError:
    return InputError(
        f"--input {place.shown}: cannot be read ({error}). Expected a file, a folder of files, or "
        "a glob in quotes, on a disk or as a URI, which may be read."
    )
