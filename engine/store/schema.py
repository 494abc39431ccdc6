"""The store's columns: what a row is, and how it becomes PackedFeatures without a copy."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bitheads.engine.errors import BundleError, InputError, StoreError
from bitheads.engine.features.packed import PackedFeatures
from bitheads.engine.features.spec import Calibration, FeatureSpec
from bitheads.engine.files import strict_json

FORMAT_VERSION = 2
OLDER_VERSIONS = (1,)
"""Versions that can be read and added to: stores without IS_PAIR, of which nobody knows what was a
pair."""

METADATA = b"bitheads"
"""Key of the schema's metadata: JSON with the format's version and the feature spec."""

ID, NUM_TOKENS, IS_PAIR, CODES = "id", "num_tokens", "is_pair", "codes"
COLUMNS = (ID, NUM_TOKENS, IS_PAIR, CODES)


def make_schema(spec: FeatureSpec, columns: Sequence[pa.Field] = ()) -> pa.Schema:
    """The schema of a store's parts.

    Args:
        columns: the user's own.

    Raises InputError if one has the name of the store's.
    """
    for column in columns:
        if column.name in COLUMNS:
            raise InputError(
                f"columns: got {column.name!r}, which is the store's own. Give it another name."
            )
    content = {"format_version": FORMAT_VERSION, "spec_id": spec.id, "spec": spec.to_json()}
    return pa.schema(
        [
            pa.field(ID, pa.string(), nullable=False),
            pa.field(NUM_TOKENS, pa.int32(), nullable=False),
            pa.field(IS_PAIR, pa.bool_()),  # null: whoever made the features did not say it
            pa.field(CODES, pa.large_binary(), nullable=False),
            *columns,
        ],
        metadata={METADATA: json.dumps(content)},
    )


def read_spec(schema: pa.Schema, shown: str) -> FeatureSpec:
    """The feature spec in a schema's metadata.

    Raises StoreError if there is none, or of another format version.
    """
    try:
        content = strict_json.loads((schema.metadata or {})[METADATA])
        version = content["format_version"]
        stated = content["spec"]
    except (KeyError, ValueError, TypeError) as error:
        raise StoreError(
            f"{shown}: no feature spec in its schema, expected a part of a feature store."
        ) from error
    if type(version) is not int or version not in (*OLDER_VERSIONS, FORMAT_VERSION):
        raise StoreError(
            f"{shown}: got format version {version}, expected {FORMAT_VERSION}. Read it with the "
            "version of bitheads that wrote it."
        )
    try:
        return FeatureSpec.from_json(stated)
    except BundleError as error:
        raise StoreError(f"{shown}: {error}") from error


def check_schema(schema: pa.Schema, shown: str) -> FeatureSpec:
    """The feature spec of a part. Raises StoreError for columns that are not a store's."""
    spec = read_spec(schema, shown)
    wanted = [field for field in make_schema(spec) if field.name in columns_of(schema)]
    for field in wanted:
        found = [schema.field(i) for i in schema.get_all_field_indices(field.name)]
        if len(found) != 1 or found[0].type != field.type:
            got = ", ".join(str(one.type) for one in found) or "none"
            raise StoreError(
                f"{shown}: got {got} as its column {field.name!r}, expected one of {field.type}. "
                "It is no part of a feature store: remove it."
            )
    return spec


def check_rows(table: pa.Table, spec: FeatureSpec, shown: str) -> None:
    """Raises StoreError for rows that no writer makes, as far as their columns were read."""
    for name in {ID, NUM_TOKENS, CODES}.intersection(table.column_names):
        if table[name].null_count:
            raise StoreError(f"{shown}: got a null in column {name!r}, expected none.")
    if CODES not in table.column_names:
        return
    lengths = pc.binary_length(table[CODES]).to_numpy()
    tokens = lengths // spec.code_bytes
    if (lengths % spec.code_bytes).any() or (
        NUM_TOKENS in table.column_names
        and not np.array_equal(tokens, table[NUM_TOKENS].to_numpy())
    ):
        raise StoreError(
            f"{shown}: got codes that are not of num_tokens tokens, expected {spec.code_bytes} "
            "bytes for each."
        )


def columns_of(schema: pa.Schema) -> tuple[str, ...]:
    """The store's own columns in a part of this schema; all others are the user's."""
    return _columns_under(schema.metadata[METADATA])


@lru_cache(maxsize=16)  # asked for at every row group
def _columns_under(metadata: bytes) -> tuple[str, ...]:
    version = strict_json.loads(metadata)["format_version"]
    return tuple(name for name in COLUMNS if name != IS_PAIR or version not in OLDER_VERSIONS)


def make_table(
    ids: pa.Array, features: PackedFeatures, columns: Mapping[str, Any], schema: pa.Schema
) -> pa.Table:
    """Rows of a store; the codes are not copied.

    Raises InputError for columns that the schema does not have, or cannot hold.
    """
    rows = len(features)
    code_offsets = features.offsets * features.spec.code_bytes
    codes = pa.Array.from_buffers(
        pa.large_binary(),
        rows,
        [None, pa.py_buffer(code_offsets), pa.py_buffer(np.ascontiguousarray(features.codes))],
    )
    stores = columns_of(schema)
    own = [field.name for field in schema if field.name not in stores]
    if sorted(columns) != sorted(own):
        raise InputError(
            f"columns: got {sorted(columns)}, expected {sorted(own)} as in the store's other rows."
        )
    arrays = [ids, pa.array(features.num_tokens.astype(np.int32)), codes]
    if IS_PAIR in stores:
        pairs = features.pairs
        arrays.insert(2, pa.nulls(rows, pa.bool_()) if pairs is None else pa.array(pairs))
    for name in own:
        kind = schema.field(name).type
        try:
            values = columns[name]
            column = values.cast(kind) if isinstance(values, pa.Array | pa.ChunkedArray) else None
            column = pa.array(values, kind) if column is None else column
        except (pa.ArrowException, TypeError, ValueError) as error:
            raise InputError(
                f"column {name!r}: cannot be stored as {kind} ({error}), which it is in the store."
            ) from error
        if len(column) != rows:
            raise InputError(f"column {name!r}: got {len(column)} values, expected {rows}.")
        arrays.append(column)
    return pa.table(arrays, schema=schema)


def read_features(
    table: pa.Table, spec: FeatureSpec, calibration: Calibration | None = None
) -> PackedFeatures:
    """The codes of a store's rows: the column's buffer itself, if it is in one piece."""
    pairs = None
    if IS_PAIR in columns_of(table.schema) and not table[IS_PAIR].null_count:
        pairs = table[IS_PAIR].to_numpy().astype(np.bool_, copy=False)
    column = table[CODES]
    codes = column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)
    if not len(codes):
        empty = np.empty((0, spec.code_bytes), np.uint8)
        return PackedFeatures(empty, np.zeros(1, np.int64), spec, calibration, pairs=pairs)
    _, offsets_buffer, data = codes.buffers()
    code_offsets = np.frombuffer(offsets_buffer, np.int64)
    code_offsets = code_offsets[codes.offset : codes.offset + len(codes) + 1]
    first, last = code_offsets[0], code_offsets[-1]
    found = np.frombuffer(data, np.uint8)[first:last].reshape(-1, spec.code_bytes)
    offsets = (code_offsets - first) // spec.code_bytes
    return PackedFeatures(found, offsets, spec, calibration, pairs=pairs)


def check_ids(ids: Any, rows: int) -> pa.Array:
    """The ids as a string array. Raises InputError for other things, too few, or one twice."""
    try:
        array = ids if isinstance(ids, pa.Array) else pa.array(ids)
        if isinstance(array, pa.ChunkedArray):
            array = array.combine_chunks()
        if len(array) and not (
            pa.types.is_string(array.type) or pa.types.is_large_string(array.type)
        ):
            raise TypeError(f"got {array.type}")
        array = array.cast(pa.string())
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise InputError(f"ids: {error}, expected one string per text.") from error
    if len(array) != rows or array.null_count:
        raise InputError(
            f"ids: got {len(array)} of which {array.null_count} are null, expected one for each of "
            f"{rows} texts."
        )
    if len(pc.unique(array)) != len(array):
        counts = pc.value_counts(array)
        twice = counts.filter(pc.greater(counts.field("counts"), 1))[0]["values"].as_py()
        raise InputError(f"ids: got {twice!r} twice in one call, expected each id once.")
    return array
