"""The column of embeddings, with a note of what they are, so that no others get into it.

To the store's format it is one of the user's columns, so every version reads it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bitheads.engine.errors import InputError
from bitheads.engine.features.embedding import Embedder
from bitheads.engine.files import strict_json

EMBEDDING = "embedding"

NOTE = b"bitheads.embedding"
"""Key of the field's metadata: JSON of what the vectors are."""

_INT8, _UINT8 = pa.int8(), pa.uint8()
ITEMS = {
    "float32": pa.float32(),
    "int8": _INT8,
    "uint8": _UINT8,
    "binary": _INT8,
    "ubinary": _UINT8,
}
"""By precision: the type of a vector's items."""


@dataclass(frozen=True, eq=False)
class EmbeddingColumn:
    """What a store keeps of its texts' embeddings; see `Embedder.finish`."""

    embedder: Embedder
    precision: str = "float32"
    dim: int | None = None
    normalize: bool = False

    def __post_init__(self) -> None:
        """Raises InputError for what the embedder cannot give."""
        self.embedder.check_asked(self.dim, self.normalize, self.precision)

    @cached_property
    def field(self) -> pa.Field:
        """Lists of a fixed size, of numbers, or of eight signs each."""
        dim = self.dim or self.embedder.spec.dim
        is_signs = self.precision in ("binary", "ubinary")
        item = pa.field("item", ITEMS[self.precision], nullable=False)
        kind = pa.list_(item, -(-dim // 8) if is_signs else dim)
        note = {
            "precision": self.precision,
            "dim": dim,
            "normalize": self.normalize,
            "made_by": self.embedder.fingerprint(self.precision),
        }
        return pa.field(EMBEDDING, kind, nullable=False, metadata={NOTE: json.dumps(note)})

    def of(self, vectors: NDArray[np.float32] | None) -> pa.Array:
        """The column of the texts' embeddings, float32 [texts, dim] as the checkpoint makes them.

        Raises InputError if there are none.
        """
        if vectors is None:
            raise InputError(
                "features: got them without embeddings, which are to be stored. Encode with "
                "embeddings=True."
            )
        made = self.embedder.finish(vectors, self.dim, self.normalize, self.precision)
        kind = self.field.type
        items = pa.array(np.ascontiguousarray(made).reshape(-1), kind.value_type)
        return pa.FixedSizeListArray.from_arrays(items, type=kind)


def note_of(schema: pa.Schema) -> dict[str, Any] | None:
    """What the embeddings are in parts of this schema; None where they keep none.

    Raises ValueError for a note that no writer writes.
    """
    at = schema.get_field_index(EMBEDDING)
    if at < 0:
        return None
    note = (schema.field(at).metadata or {}).get(NOTE)
    if note is None:  # a column of the user's own of that name
        return None
    found = strict_json.loads(note)
    if not isinstance(found, dict):
        raise ValueError("it is no object")
    return found


def shown(note: dict[str, Any] | None) -> str:
    """In words."""
    if note is None:
        return "no embeddings"
    normalized = " of length 1" if note.get("normalize") else ""
    made_by = str(note.get("made_by"))[:8]
    numbers = f"{note.get('dim')} numbers{normalized}"
    return f"embeddings in {note.get('precision')}, {numbers} ({made_by})"


def check(column: EmbeddingColumn | None, schema: pa.Schema, where: str) -> None:
    """Raises InputError unless what is to be stored is what the rows of this schema have."""
    wanted = None if column is None else note_of(pa.schema([column.field]))
    if wanted != (found := note_of(schema)):
        raise InputError(
            f"embeddings: got {shown(wanted)}, expected {shown(found)}, as all rows of {where} "
            "have. Encode as they were (`bitheads encode` has --embeddings), or into another store."
        )
