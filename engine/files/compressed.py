"""Files in gzip and zstd, read as what is in them."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from typing import Any, BinaryIO

CODECS = {".gz": "gzip", ".zst": "zstd"}
"""By suffix; the names are Arrow's."""

BUFFER_BYTES = 1 << 20
"""Bytes of content that are taken at a time."""


def open_compressed(open_file: Callable[[], BinaryIO], codec: str) -> BinaryIO:
    """The content, to be read and sought as a file; where that is behind, it is read from its
    beginning again.

    Args:
        open_file: opens the compressed file.

    Raises OSError, when it is read, too, for what is damaged or ends too early.
    """
    return io.BufferedReader(_Content(open_file, codec), BUFFER_BYTES)


class _Content(io.RawIOBase):
    """Unbuffered, of as many parts as were put one behind the other."""

    def __init__(self, open_file: Callable[[], BinaryIO], codec: str) -> None:
        self._open_file, self._codec = open_file, codec
        self._begin()

    def _begin(self) -> None:
        import pyarrow as pa

        self._file = self._open_file()
        self._stream: Any = pa.CompressedInputStream(pa.PythonFile(self._file, "r"), self._codec)
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_CUR:
            offset += self._at
        elif whence != os.SEEK_SET:
            raise io.UnsupportedOperation("from the end of what is not read yet")
        if offset < self._at:
            self._file.close()
            self._begin()
        while self._at < offset and self._take(min(BUFFER_BYTES, offset - self._at)):
            pass
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        content = self._take(len(view))
        view[: len(content)] = content
        return len(content)

    def _take(self, size: int) -> bytes:
        content: bytes = self._stream.read(size)
        self._at += len(content)
        return content

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()
