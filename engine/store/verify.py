"""Whether a store is sound, to the last byte."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from bitheads.engine.errors import BitheadsError, StoreError
from bitheads.engine.features.spec import FeatureSpec
from bitheads.engine.store import schema
from bitheads.engine.store.folder import Folder
from bitheads.engine.store.ids import IdIndex
from bitheads.engine.store.part import (
    SUFFIX,
    Part,
    check_alike,
    leave_out_outdated,
    live_parts,
)


def verify(
    path: str | Path, filesystem: Any = None, is_checked: Callable[[str], None] = lambda name: None
) -> list[str]:
    """Reads every byte of every part; returns what is wrong, one sentence per fault, or nothing.

    Beside the checksums it compares rows and codes with what the footers say, the specs of all
    parts, and looks for ids that are there twice.

    Args:
        is_checked: called after each part.

    Raises StoreError if the folder cannot be read or holds no parts.
    """
    folder = Folder(path, filesystem)
    names = folder.names(SUFFIX)
    if not names:
        raise StoreError(f"{folder}: no parts of a feature store there. Name the right folder.")
    wrong, parts = [], []
    for name in names:
        try:
            parts.append(Part(folder, name))
        except BitheadsError as error:
            wrong.append(str(error))
    live = live_parts(parts)
    try:
        leave_out_outdated(live)
    except StoreError as error:
        wrong.append(str(error))
    ids, spec = IdIndex(), None
    for part in parts:
        if part in live:
            try:
                check_alike(part, parts[0], f"{folder}/{part.name}")
                spec = _check_part(part, f"{folder}/{part.name}", spec, ids)
            except (BitheadsError, pa.ArrowException) as error:
                wrong.append(str(error))
        is_checked(part.name)
    return wrong


def _check_part(part: Part, shown: str, expected: FeatureSpec | None, ids: IdIndex) -> FeatureSpec:
    part.check()
    spec = part.spec
    if expected is not None and spec.id != expected.id:
        raise StoreError(f"{shown}: got feature spec {spec}, expected {expected} as in the others.")
    rows = tokens = 0
    for table in part.tables():
        features = schema.read_features(table, spec)
        rows, tokens = rows + len(features), tokens + int(features.offsets[-1])
        names = table[schema.ID].to_pylist()
        twice = ids.contains(names)
        if twice.any():
            raise StoreError(
                f"{shown}: id {names[int(twice.argmax())]!r} is there twice. Remove one of them."
            )
        ids.add(names)
    if (rows, tokens) != (part.rows, part.tokens):
        raise StoreError(
            f"{shown}: got {rows} rows, {tokens} tokens, expected {part.rows}, {part.tokens}."
        )
    return spec if expected is None else expected
