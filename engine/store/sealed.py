"""Parquet files that know their own checksums: nothing of a damaged one is ever decoded.

A sealed file is a Parquet file as any reader reads it. Its footer has two entries more:

    bitheads.part  JSON: what its writer says of it, and `checksums`, the CRC-32 of each 256 KiB of
                   all that stands before the footer
    bitheads.seal  the SHA-256 of the footer and what follows it, computed with 64 zeros in its
                   own place

Every byte is under one or the other, and is compared before Parquet's decoder sees it. Checksums
by block, not by column or row group, because any read can then be checked, and by itself.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from bitheads.engine.errors import StoreError
from bitheads.engine.files import strict_json

BLOCK_BYTES = 1 << 18
"""Bytes that one checksum is of. Columns begin anywhere, so the blocks at their ends are checked
twice: with 1 MiB a scan took a quarter more."""

MAX_BLOCK_BYTES = 1 << 30

SEAL = b"bitheads-seal-"
BLANK = b"0" * 64
MAGIC = b"PAR1"
TAIL_BYTES = 8
"""Bytes of the footer's length and the magic number."""

PART_KEY, SEAL_KEY = "bitheads.part", "bitheads.seal"


class SealedWriter:
    """Writes a sealed file, one row group per call."""

    def __init__(self, file: BinaryIO, schema: pa.Schema, **options: Any) -> None:
        """
        Args:
            file: where it goes; it is not closed. Its errors pass through every method.
            options: of pyarrow.parquet.ParquetWriter.
        """
        self._sink = _Sink(file)
        self._writer = pq.ParquetWriter(
            pa.PythonFile(self._sink, mode="w"), schema, write_page_checksum=True, **options
        )

    def write(self, table: pa.Table) -> None:
        """All its rows, as one row group."""
        self._writer.write_table(table, row_group_size=max(1, len(table)))

    def close(self, part: Mapping[str, Any]) -> str:
        """Writes the footer, with `part` (JSON) in it; returns the seal."""
        checksums = self._sink.end_body()
        content = {**part, "block_bytes": BLOCK_BYTES, "checksums": checksums}
        blank = (SEAL + BLANK).decode()
        self._writer.add_key_value_metadata({PART_KEY: json.dumps(content), SEAL_KEY: blank})
        self._writer.close()
        footer = bytes(self._sink.footer)
        if len(footer) != _footer_bytes(footer[-TAIL_BYTES:]) + TAIL_BYTES:
            raise RuntimeError("pyarrow wrote more than a footer when it closed the file")
        seal = hashlib.sha256(footer).hexdigest()
        # The last one: a name or an id before it, of which the footer has some, may read the same.
        before, _, after = footer.rpartition(SEAL + BLANK)
        self._sink.file.write(before + SEAL + seal.encode() + after)
        return seal


class _Sink:
    """Takes the checksum of each block on its way, and keeps the footer back."""

    closed = False

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.footer = bytearray()
        self._in_footer = False
        self._checksums: list[int] = []
        self._current, self._filled = 0, 0

    def write(self, data: bytes) -> int:
        if self.file.closed:  # it was given up; pyarrow still ends what it has begun
            return len(data)
        if self._in_footer:
            self.footer += data
            return len(data)
        view = memoryview(data)
        while view:
            piece = view[: BLOCK_BYTES - self._filled]
            self._current = zlib.crc32(piece, self._current)
            self._filled += len(piece)
            if self._filled == BLOCK_BYTES:
                self._end_block()
            view = view[len(piece) :]
        self.file.write(data)
        return len(data)

    def _end_block(self) -> None:
        self._checksums.append(self._current)
        self._current, self._filled = 0, 0

    def end_body(self) -> list[int]:
        """What is written from now on is the footer."""
        if self._filled:
            self._end_block()
        self._in_footer = True
        return self._checksums

    def flush(self) -> None:
        """pyarrow asks for it; publishing does it."""

    def close(self) -> None:
        """pyarrow asks for it; the file is its owner's."""


@dataclass(frozen=True, eq=False)
class Footer:
    """A footer whose seal holds.

    Attributes:
        metadata: Parquet's own.
        part: what the writer said.
        seal: 64 hexadecimal digits; of two files with one seal, each byte is the same.
        body_bytes: of all before the footer.
        file_bytes: of all.
    """

    metadata: pq.FileMetaData
    part: Mapping[str, Any]
    seal: str
    body_bytes: int
    file_bytes: int


def read_footer(file: pa.NativeFile, shown: str) -> Footer:
    """Reads and checks a file's footer. Raises StoreError if it is not as it was written.

    Args:
        shown: the file's name in errors.
    """
    try:
        size = file.size()
        tail = file.read_at(TAIL_BYTES, max(0, size - TAIL_BYTES))
        footer_bytes = _footer_bytes(tail)
        body_bytes = size - TAIL_BYTES - footer_bytes
        if tail[-4:] != MAGIC or body_bytes < len(MAGIC):
            raise _damaged(shown, "it does not end as a Parquet file")
        footer = file.read_at(footer_bytes + TAIL_BYTES, body_bytes)
    except OSError as error:
        raise StoreError(f"{shown}: cannot be read ({error}).") from error
    before, mark, after = footer.rpartition(SEAL)
    if not mark:
        raise StoreError(
            f"{shown}: has no seal, so its bytes cannot be checked. Expected a file written by "
            "bitheads.engine.store: move it away, and append what it holds with StoreWriter."
        )
    seal = after[: len(BLANK)]
    if hashlib.sha256(before + SEAL + BLANK + after[len(BLANK) :]).hexdigest().encode() != seal:
        raise _damaged(shown, "its footer is not what its seal says")
    # Somebody sealed it, but that need not have been `SealedWriter`.
    try:
        metadata = pq.read_metadata(pa.BufferReader(MAGIC + footer))
        part = strict_json.loads(metadata.metadata[PART_KEY.encode()])
        _check_blocks(part, body_bytes)
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{shown}: its footer is none that bitheads writes ({error}). Remove it, and "
            "make its rows again."
        ) from error
    return Footer(metadata, part, seal.decode(), body_bytes, size)


def _check_blocks(part: Any, body_bytes: int) -> None:
    """Raises ValueError, KeyError or TypeError unless there is a checksum for each block."""
    size, checksums = part["block_bytes"], part["checksums"]
    if type(size) is not int or not 1 <= size <= MAX_BLOCK_BYTES:
        raise ValueError(f"block_bytes is {size!r:.60}, expected 1 to {MAX_BLOCK_BYTES}")
    blocks = -(-body_bytes // size)
    if not isinstance(checksums, list) or len(checksums) != blocks:
        raise ValueError(f"expected a list of {blocks} checksums, one for each block")
    if any(type(checksum) is not int for checksum in checksums):
        raise ValueError("expected whole numbers as checksums")


def open_parquet(file: pa.NativeFile, footer: Footer, shown: str) -> pq.ParquetFile:
    """A reader of the file whose every read is checked first, raising StoreError."""
    checked = CheckedFile(file, footer, shown)
    return pq.ParquetFile(
        pa.PythonFile(checked, mode="r"), metadata=footer.metadata, pre_buffer=False
    )


class CheckedFile:
    """The body of a sealed file. A read compares the blocks it touches with their checksums."""

    closed = False

    def __init__(self, file: pa.NativeFile, footer: Footer, shown: str) -> None:
        self._file, self._shown = file, shown
        self._size, self._body_bytes = footer.file_bytes, footer.body_bytes
        self._block_bytes: int = footer.part["block_bytes"]
        self._checksums: list[int] = footer.part["checksums"]
        self._position = 0

    def seek(self, offset: int, whence: int = 0) -> int:
        self._position = offset + (0, self._position, self._size)[whence]
        return self._position

    def tell(self) -> int:
        return self._position

    def size(self) -> int:
        return self._size

    def read(self, count: int = -1) -> memoryview:
        """Bytes of the body; all that is left of it for -1."""
        left = max(0, self._body_bytes - self._position)
        count = left if count < 0 else min(count, left)
        if count == 0:
            return memoryview(b"")
        first, last = (
            self._position // self._block_bytes,
            -(-(self._position + count) // self._block_bytes),
        )
        start = first * self._block_bytes
        stop = min(last * self._block_bytes, self._body_bytes)
        try:
            self._file.seek(start)
            found = memoryview(self._file.read_buffer(stop - start))
        except OSError as error:
            raise StoreError(f"{self._shown}: cannot be read ({error}).") from error
        for block in range(first, last):
            begin = (block - first) * self._block_bytes
            piece = found[begin : begin + self._block_bytes]
            if zlib.crc32(piece) != self._checksums[block]:
                raise _damaged(self._shown, f"block {block} is not what its checksum says")
        position = self._position
        self._position += count
        return found[position - start : position - start + count]

    def check(self) -> None:
        """Reads all of it. Raises StoreError for the first block that differs."""
        self._position = 0
        while self._position < self._body_bytes:
            self.read(64 * self._block_bytes)

    def close(self) -> None:
        """pyarrow asks for it; the file is its owner's."""


def _footer_bytes(tail: bytes) -> int:
    return int.from_bytes(tail[:4], "little")


def _damaged(shown: str, why: str) -> StoreError:
    return StoreError(
        f"{shown}: was changed after it was written: {why}. Restore it from a copy, or remove it "
        "and make its rows again."
    )
