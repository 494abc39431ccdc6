"""Compiled graphs in the cache: each is what its first block says, or is made again.

A file begins with a block of JSON: what was compiled, by what, for which processor and how, and the
size and SHA-256 of what follows, the backend's own bytes. All of it is compared before any of those
bytes reaches the backend. Its name is a hash of the same, and says nothing by itself.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
from collections.abc import Callable, Mapping
from mmap import ACCESS_COPY, mmap
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from bitheads.engine.files.cache import FILE_MODE, open_own
from bitheads.engine.files.whole_file import open_whole

FORMAT_VERSION = 1
SUFFIX = ".compiled"

BLOCK_BYTES = 4096
"""Bytes of the first block: what follows begins a page, as the backend's own alignment wants it."""

logger = logging.getLogger("bitheads")


class CompiledGraphs:
    """What was compiled of one graph, by different backends, versions and options."""

    def __init__(self, folder: Path, graph_sha256: str, is_unchanged: Callable[[], bool]) -> None:
        """
        Args:
            folder: from engine.files.cache, for all graphs.
            graph_sha256: of the graph and its weights, see engine.bundle.graph_sha256.
            is_unchanged: whether the files have that hash, which nobody may have looked at yet;
                asked before something is kept under it.
        """
        self._folder = folder
        self._graph_sha256 = graph_sha256
        self._is_unchanged = is_unchanged

    def read(self, made: Mapping[str, object]) -> NDArray[np.uint8] | None:
        """What `write` was given, uint8 [bytes], mapped from the file; None if it is not there.

        Nothing that differs from what was written is returned.

        Args:
            made: by what, for what and how it was compiled, as JSON.
        """
        path = self._path(made)
        try:
            with open_own(path) as file:
                return self._check(file, made)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            logger.info("%s is made again: %s", path, error)
            return None

    def write(self, made: Mapping[str, object], export: Callable[[io.BytesIO], object]) -> None:
        """Keeps what `export` writes to its argument, piece by piece. A full disk is no error.

        Args:
            made: see `read`.
        """
        path = self._path(made)
        if not self._is_unchanged():
            logger.info("%s is not kept: the graph is not the one that its bundle lists", path)
            return
        try:
            with open_whole(path, FILE_MODE) as file:
                file.write(bytes(BLOCK_BYTES))
                after_block = _AfterBlock(file)
                export(after_block)
                if after_block.failure is not None:
                    raise after_block.failure
                size = file.seek(0, io.SEEK_END) - BLOCK_BYTES
                file.seek(BLOCK_BYTES)
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                block = json.dumps({**self._content(made), "bytes": size, "sha256": digest})
                if len(block) > BLOCK_BYTES:
                    raise OSError(f"it is described by more than {BLOCK_BYTES} characters")
                file.seek(0)
                file.write(block.ljust(BLOCK_BYTES).encode())
        except OSError as error:
            logger.info("what was compiled is not kept: %s", error)

    def _check(self, file: BinaryIO, made: Mapping[str, object]) -> NDArray[np.uint8]:
        """Raises ValueError for what is not as it was written."""
        # Private: the backend wants memory that may be written to; nothing reaches the file.
        content = np.frombuffer(mmap(file.fileno(), 0, access=ACCESS_COPY), np.uint8)
        block, data = json.loads(content[:BLOCK_BYTES].tobytes()), content[BLOCK_BYTES:]
        size, digest = data.size, hashlib.sha256(data.data).hexdigest()
        if block != {**self._content(made), "bytes": size, "sha256": digest}:
            raise ValueError(
                f"got {size} bytes with sha256 {digest[:12]}..., which is not what was kept of "
                "this graph"
            )
        return data

    def _content(self, made: Mapping[str, object]) -> dict[str, Any]:
        graph = {"format_version": FORMAT_VERSION, "graph_sha256": self._graph_sha256}
        return {**graph, "made": dict(made)}

    def _path(self, made: Mapping[str, object]) -> Path:
        text = json.dumps(self._content(made), sort_keys=True)
        return self._folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}{SUFFIX}"


class _AfterBlock(io.BytesIO):
    """A file's bytes after the first block: OpenVINO writes to an io.BytesIO alone.

    It writes piece by piece, and goes back once: the whole is never in memory.
    """

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self.failure: OSError | None = None
        self._file = file

    def write(self, data: Any) -> int:
        """An error is kept for later: it must not go through OpenVINO."""
        try:
            if self.failure is None:
                self._file.write(data)
        except OSError as error:
            self.failure = error
        return memoryview(data).nbytes

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        offset += BLOCK_BYTES if whence == io.SEEK_SET else 0
        try:
            return self._file.seek(offset, whence) - BLOCK_BYTES
        except OSError as error:  # it may write first
            self.failure = self.failure or error
            return 0
