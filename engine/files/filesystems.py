"""Filesystems by URI: of pyarrow, or of fsspec, for what pyarrow has none for."""

from __future__ import annotations

import os

import pyarrow as pa
import pyarrow.fs as pafs


def find_filesystem(path: str) -> tuple[pafs.FileSystem, str]:
    """The filesystem of a path or a URI, and the path in it.

    Raises ValueError for a URI that nobody knows, with what was tried.
    """
    if "://" not in path:
        return pafs.LocalFileSystem(), os.path.abspath(path)  # noqa: PTH100 (follows no links)
    try:
        found, inside = pafs.FileSystem.from_uri(path)
        return found, inside.rstrip("/")
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        reason: Exception = error
    try:
        from fsspec.core import url_to_fs

        opened, inside = url_to_fs(path)
    except (ImportError, ValueError) as error:
        raise ValueError(f"by pyarrow ({reason}) or fsspec ({error})") from error
    return pafs.PyFileSystem(pafs.FSSpecHandler(opened)), inside.rstrip("/")
