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
from bitheads.engine.store import embedding_column, words_column
from bitheads.engine.store.words_column import TRUNCATED_AT, WORDS

FORMAT_VERSION = 2
WITH_WORDS = 3
"""The version of stores that keep words; older programs read all others."""

OUTDATING = {FORMAT_VERSION: 4, WITH_WORDS: 5}
"""Versions of parts that have rows of others anew (engine.store.outdated), by those of the same
columns: programs that know nothing of it would read both, so they are to refuse."""

METADATA = b"bitheads"
"""Key of the schema's metadata: JSON with the format's version and the feature spec."""

ID, NUM_TOKENS, IS_PAIR, CODES = "id", "num_tokens", "is_pair", "codes"
COLUMNS = {
    1: (ID, NUM_TOKENS, CODES),  # nobody knows what was a pair
    FORMAT_VERSION: (ID, NUM_TOKENS, IS_PAIR, CODES),
    WITH_WORDS: (ID, NUM_TOKENS, IS_PAIR, WORDS, TRUNCATED_AT, CODES),
}
COLUMNS |= {outdating: COLUMNS[version] for version, outdating in OUTDATING.items()}
"""The store's own columns, by format version. All of these versions are read and added to."""

OF_WORDS = (WORDS, TRUNCATED_AT)
"""Those that nobody reads who does not ask for words."""


def make_schema(
    spec: FeatureSpec, columns: Sequence[pa.Field] = (), words: bool = False
) -> pa.Schema:
    """The schema of a store's parts.

    Args:
        columns: the user's own.
        words: whether the store keeps the words of its texts.

    Raises InputError if one has the name of the store's.
    """
    version = WITH_WORDS if words else FORMAT_VERSION
    for column in columns:
        if column.name in COLUMNS[version]:
            raise InputError(
                f"columns: got {column.name!r}, which is the store's own. Give it another name."
            )
    content = {"format_version": version, "spec_id": spec.id, "spec": spec.to_json()}
    return pa.schema(
        [
            pa.field(ID, pa.string(), nullable=False),
            pa.field(NUM_TOKENS, pa.int32(), nullable=False),
            pa.field(IS_PAIR, pa.bool_()),  # null: whoever made the features did not say it
            *(words_column.FIELDS if words else ()),
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
    if type(version) is not int or version not in COLUMNS:
        raise StoreError(
            f"{shown}: got format version {version}, expected one of {[*COLUMNS]}. Read it with "
            "the version of bitheads that wrote it."
        )
    try:
        return FeatureSpec.from_json(stated)
    except BundleError as error:
        raise StoreError(f"{shown}: {error}") from error


def check_schema(schema: pa.Schema, shown: str) -> FeatureSpec:
    """The feature spec of a part. Raises StoreError for columns that are not a store's."""
    spec = read_spec(schema, shown)
    stores = make_schema(spec, words=has_words(schema))
    wanted = [field for field in stores if field.name in columns_of(schema)]
    for field in wanted:
        found = [schema.field(i) for i in schema.get_all_field_indices(field.name)]
        if len(found) != 1 or found[0].type != field.type:
            got = ", ".join(str(one.type) for one in found) or "none"
            raise StoreError(
                f"{shown}: got {got} as its column {field.name!r}, expected one of {field.type}. "
                "It is no part of a feature store: remove it."
            )
    try:
        embedding_column.note_of(schema)
    except ValueError as error:
        raise StoreError(
            f"{shown}: what is noted of its embeddings is nothing that bitheads writes ({error}). "
            "Remove the part, and make its rows again."
        ) from error
    return spec


def check_rows(table: pa.Table, spec: FeatureSpec, shown: str) -> None:
    """Raises StoreError for rows that no writer makes, as far as their columns were read."""
    never_null = {ID, NUM_TOKENS, CODES}
    if has_words(table.schema):
        never_null |= {IS_PAIR, WORDS}
    for name in never_null.intersection(table.column_names):
        if table[name].null_count:
            raise StoreError(f"{shown}: got a null in column {name!r}, expected none.")
    if has_words(table.schema) and {WORDS, NUM_TOKENS}.issubset(table.column_names):
        try:
            words_column.check(table, table[NUM_TOKENS].to_numpy(), table[IS_PAIR].to_numpy())
        except ValueError as error:
            raise StoreError(
                f"{shown}: got words of which one {error}, expected none. Remove the part, and "
                "make its rows again."
            ) from error
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


def can_outdate(schema: pa.Schema) -> bool:
    """Whether parts of this schema, but for the version, may have rows of others anew."""
    version = strict_json.loads(schema.metadata[METADATA])["format_version"]
    return version in OUTDATING or version in OUTDATING.values()


def of_version(schema: pa.Schema, outdates: bool) -> pa.Schema:
    """The schema of parts that have rows of others anew, or of those that have none."""
    if not can_outdate(schema):
        return schema
    content = strict_json.loads(schema.metadata[METADATA])
    versions = OUTDATING if outdates else {new: old for old, new in OUTDATING.items()}
    content["format_version"] = versions.get(content["format_version"], content["format_version"])
    return schema.with_metadata({METADATA: json.dumps(content)})


def has_words(schema: pa.Schema) -> bool:
    """Whether parts of this schema keep the words of their texts."""
    return WORDS in columns_of(schema)


def check_words(words: bool, schema: pa.Schema, shown: str) -> None:
    """Raises InputError unless both what is to be stored and the store have words, or neither."""
    if words != (expected := has_words(schema)):
        got, wanted = ("with" if one else "without" for one in (words, expected))
        raise InputError(
            f"features: got them {got} words, expected them {wanted} words, as all rows of {shown} "
            f"are. Encode {wanted} words (`bitheads encode` has --spans), or into another store."
        )


def columns_of(schema: pa.Schema) -> tuple[str, ...]:
    """The store's own columns in a part of this schema; all others are the user's."""
    return _columns_under(schema.metadata[METADATA])


@lru_cache(maxsize=16)  # asked for at every row group
def _columns_under(metadata: bytes) -> tuple[str, ...]:
    return COLUMNS[strict_json.loads(metadata)["format_version"]]


def make_table(
    ids: pa.Array, features: PackedFeatures, columns: Mapping[str, Any], schema: pa.Schema
) -> pa.Table:
    """Rows of a store; the codes are not copied.

    Raises InputError for columns that the schema does not have, or cannot hold, and for features of
    words where it has none, or the other way round.
    """
    rows, words = len(features), features.words
    if rows:
        check_words(words is not None, schema, "the store")
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
    pairs = features.pairs if words is None else ~words.is_single
    own_columns = {
        ID: ids,
        NUM_TOKENS: pa.array(features.num_tokens.astype(np.int32)),
        IS_PAIR: pa.nulls(rows, pa.bool_()) if pairs is None else pa.array(pairs),
        CODES: codes,
    }
    if has_words(schema):
        own_columns |= words_column.make_columns(words)
    arrays = [own_columns[name] for name in stores]
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
    pairs = words = None
    if IS_PAIR in columns_of(table.schema) and not table[IS_PAIR].null_count:
        pairs = table[IS_PAIR].to_numpy().astype(np.bool_, copy=False)
    if has_words(table.schema) and WORDS in table.column_names and pairs is not None:
        words = words_column.words_of_columns(table, ~pairs)
    column = table[CODES]
    codes = column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)
    if not len(codes):
        empty = np.empty((0, spec.code_bytes), np.uint8)
        return PackedFeatures(
            empty, np.zeros(1, np.int64), spec, calibration, pairs=pairs, words=words
        )
    _, offsets_buffer, data = codes.buffers()
    code_offsets = np.frombuffer(offsets_buffer, np.int64)
    code_offsets = code_offsets[codes.offset : codes.offset + len(codes) + 1]
    first, last = code_offsets[0], code_offsets[-1]
    found = np.frombuffer(data, np.uint8)[first:last].reshape(-1, spec.code_bytes)
    offsets = (code_offsets - first) // spec.code_bytes
    return PackedFeatures(found, offsets, spec, calibration, pairs=pairs, words=words)


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
