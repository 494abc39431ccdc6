"""Many small parts into few large ones: at no moment is a row there twice, or not at all."""

from __future__ import annotations

from collections.abc import Sequence

from bitheads.engine.store.numbering import longest
from bitheads.engine.store.part_writer import (
    PART_BYTES,
    ROW_GROUP_BYTES,
    PartWriter,
    new_name,
    new_store_id,
)
from bitheads.engine.store.store import FeatureStore, Part
from bitheads.engine.store.writer import clean_up


def compact(
    store: FeatureStore, part_bytes: int = PART_BYTES, row_group_bytes: int = ROW_GROUP_BYTES
) -> int:
    """Merges neighbouring parts as long as they fit into `part_bytes`; returns how many are gone.

    The merged part names those whose rows it has: from the moment it is there, readers of
    engine.store pass over them, and they are removed right after. Other programs may see both for
    that moment, or, if this process is killed in it, until something next writes to the store.

    Raises StoreError for damaged parts, of which nothing is merged, if another process writes, or
    nobody can.
    """
    with store.folder.lock():
        clean_up(store)
        gone, store_id = 0, store.id or new_store_id()
        for group in neighbours(store.parts, part_bytes):
            first = group[0]
            writer = PartWriter(
                store.folder,
                new_name(first.number),
                first.schema,
                store_id,
                row_group_bytes,
                longest(part.numbering for part in group),
            )
            try:
                for part in group:
                    for table in part.tables():
                        writer.append(table)
                writer.publish([part.name for part in group])
            finally:
                writer.discard()
            for part in group:
                store.folder.remove(part.name)
            gone += len(group) - 1
        store.refresh()
    return gone


def neighbours(parts: Sequence[Part], part_bytes: int) -> list[list[Part]]:
    """Runs of two parts and more that together have at most so many bytes."""
    groups: list[list[Part]] = []
    size = part_bytes + 1
    for part in parts:
        if size + part.nbytes > part_bytes:
            groups.append([])
            size = 0
        groups[-1].append(part)
        size += part.nbytes
    return [group for group in groups if len(group) > 1]
