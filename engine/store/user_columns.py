"""Columns of the user's own that an input brings, held against those of the store."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from bitheads.engine.errors import InputError
from bitheads.engine.store.embedding_column import EMBEDDING
from bitheads.engine.store.schema import CODES, ID, IS_PAIR, NUM_TOKENS, columns_of
from bitheads.engine.store.text_hash import TEXT_HASH
from bitheads.engine.store.words_column import TRUNCATED_AT, WORDS

RESERVED = (ID, NUM_TOKENS, IS_PAIR, WORDS, TRUNCATED_AT, CODES, TEXT_HASH, EMBEDDING)
"""Names of columns that a store has, or may have."""


def resolve(
    fields: Sequence[pa.Field], schema: pa.Schema | None, shown: str
) -> tuple[pa.Field, ...]:
    """The columns as they are to be stored.

    A column without a value, of Arrow's type null, is of the type that it has in the store, or of
    strings in a new one; whole numbers fit a column of double.

    Args:
        fields: those of the input.
        schema: of the store's parts; None of a store without rows.
        shown: the store's name in errors.

    Raises InputError for a name that is the store's own, for a type that Parquet does not have, and
    unless the store's rows have these columns, of these types.
    """
    for field in fields:
        if field.name.lower() in RESERVED:  # to DuckDB and Spark case makes no other name
            raise InputError(
                f"--columns: got {field.name!r}, which a store has of its own (as it has "
                f"{list(RESERVED)}). Give the column another name in the input."
            )
        try:
            pq.write_table(pa.schema([field]).empty_table(), pa.BufferOutputStream())
        except pa.ArrowException as error:
            raise InputError(
                f"--columns: {field.name!r} is {field.type}, which Parquet cannot store ({error}). "
                "Write it as another type, or leave it out."
            ) from error
    if schema is None:
        return tuple(_as_text_if_null(field) for field in fields)
    stored = {field.name: field for field in schema if not _is_stores(field, schema)}
    if sorted(stored) != sorted(field.name for field in fields):
        raise InputError(
            f"--columns: got {[field.name for field in fields]}, expected {list(stored)} as all "
            f"rows of {shown} have. Name those, or encode into another store."
        )
    return tuple(_fitting(field, stored[field.name], shown) for field in fields)


def _is_stores(field: pa.Field, schema: pa.Schema) -> bool:
    return field.name in columns_of(schema) or field.name in (TEXT_HASH, EMBEDDING)


def _as_text_if_null(field: pa.Field) -> pa.Field:
    return pa.field(field.name, pa.string()) if pa.types.is_null(field.type) else field


def _fitting(field: pa.Field, stored: pa.Field, shown: str) -> pa.Field:
    """The input's column with the type of the store's. Raises InputError if it does not fit."""
    widened = pa.types.is_int64(field.type) and pa.types.is_float64(stored.type)
    if not (field.type == stored.type or widened or pa.types.is_null(field.type)):
        raise InputError(
            f"--columns: {field.name!r} is {field.type}, and {stored.type} in {shown}, expected "
            "one type in all rows of a store. Write the input with that type, or encode it into "
            "another store."
        )
    return pa.field(field.name, stored.type)
