"""A hash of each text beside its codes, so that texts that changed are found without the texts.

    single text   BLAKE2b, 16 bytes, of  1, the text in UTF-8
    pair          the same of            2, bytes of the first (8, little-endian), first, second

The text is what was given to the encoder: as the input has it, whole, before a prompt of the
bundle's is put before it (that is part of the feature spec, of which a store has one), before
anything is normalized, tokenized or cut.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bitheads.engine.errors import InputError
from bitheads.engine.types import Text

TEXT_HASH = "text_hash"
HASH_BYTES = 16
NOTE = b"bitheads.text_hash"
"""Key of the field's metadata, by which the column is known from one of the user's own."""

KIND = b"blake2b-16, version 1"
FIELD = pa.field(TEXT_HASH, pa.binary(HASH_BYTES), metadata={NOTE: KIND})
"""Null of a row whose text nobody said."""


def hash_of(text: Text) -> bytes:
    """16 bytes."""
    if isinstance(text, str):
        data = b"\x01" + text.encode("utf-8", "surrogatepass")
    else:
        first, second = (one.encode("utf-8", "surrogatepass") for one in text)
        data = b"\x02" + len(first).to_bytes(8, "little") + first + second
    return hashlib.blake2b(data, digest_size=HASH_BYTES).digest()


def has_hashes(schema: pa.Schema) -> bool:
    """Whether parts of this schema keep hashes of their texts, of the kind that is made here."""
    at = schema.get_field_index(TEXT_HASH)
    if at < 0:
        return False
    field = schema.field(at)
    return (field.metadata or {}).get(NOTE) == KIND and field.type == FIELD.type


def column(hashes: Sequence[bytes] | None, rows: int) -> pa.Array:
    """The column; null where there are none. Raises InputError for others than one per text."""
    if hashes is None:
        return pa.nulls(rows, FIELD.type)
    if len(hashes) != rows or any(
        not isinstance(one, bytes) or len(one) != HASH_BYTES for one in hashes
    ):
        raise InputError(
            f"text_hashes: got {len(hashes)}, expected {HASH_BYTES} bytes for each of {rows} "
            "texts: bitheads.engine.store.hash_of(text)."
        )
    return pa.array(hashes, FIELD.type)


def short(hashes: Sequence[bytes]) -> NDArray[np.uint64]:
    """What of each is kept in memory, to be compared, uint64 [texts]; never 0.

    A changed text that keeps its 64 bits is one in 10^19.
    """
    return np.maximum(_first_halves(b"".join(hashes)), np.uint64(1))


def short_of(column: pa.ChunkedArray) -> NDArray[np.uint64]:
    """The same of a store's column; 0 where it is null."""
    found = [np.empty(0, np.uint64)]
    for chunk in column.chunks:
        if len(chunk):
            data = memoryview(chunk.buffers()[1])[chunk.offset * HASH_BYTES :]
            halves = _first_halves(data[: len(chunk) * HASH_BYTES])
            is_said = chunk.is_valid().to_numpy(zero_copy_only=False)
            found.append(np.where(is_said, np.maximum(halves, np.uint64(1)), np.uint64(0)))
    return np.concatenate(found)


def _first_halves(data: bytes | memoryview) -> NDArray[np.uint64]:
    return np.frombuffer(data, "<u8").reshape(-1, 2)[:, 0].astype(np.uint64)
