"""Many small parts into few large ones: at no moment is a row there twice, or not at all."""

from __future__ import annotations

from collections.abc import Sequence

from bitheads.engine.store.numbering import longest
from bitheads.engine.store.part import Part, still_outdated
from bitheads.engine.store.part_writer import (
    PART_BYTES,
    ROW_GROUP_BYTES,
    PartWriter,
    new_name,
    new_store_id,
)
from bitheads.engine.store.store import FeatureStore
from bitheads.engine.store.writer import clean_up


def compact(
    store: FeatureStore, part_bytes: int = PART_BYTES, row_group_bytes: int = ROW_GROUP_BYTES
) -> int:
    """Merges neighbouring parts as long as they fit into `part_bytes`, and writes those again that
    have outdated rows, without them; returns how many fewer parts there are.

    The merged part names those whose rows it has: from the moment it is there, readers of
    engine.store pass over them, and they are removed right after. Other programs may see both for
    that moment, or, if this process is killed in it, until something next writes to the store.

    Raises StoreError for damaged parts, of which nothing is merged, if another process writes, or
    nobody can.
    """
    with store.folder.lock():
        clean_up(store)
        before, store_id = len(store.parts), store.id or new_store_id()
        groups = neighbours(store.parts, part_bytes)
        # Those with outdated rows first: what outdates them then need no longer say so.
        groups.sort(key=lambda group: not any(part.outdated_rows for part in group))
        for names in [{part.name for part in group} for group in groups]:
            group = [part for part in store.parts if part.name in names]
            if _merge(store, group, store_id, row_group_bytes):
                store.refresh()
    return before - len(store.parts)


def _merge(store: FeatureStore, group: Sequence[Part], store_id: str, row_group_bytes: int) -> bool:
    """Writes parts as one, unless it is one that is as it should be; returns whether it did."""
    outdates = still_outdated(group, store.parts)
    if (
        len(group) == 1
        and not group[0].outdated_rows
        and group[0].outdates.keys() == outdates.keys()
    ):
        return False
    first = group[0]
    writer = PartWriter(
        store.folder,
        new_name(first.number),
        first.schema,
        store_id,
        row_group_bytes,
        longest(part.numbering for part in group),
        outdates,
    )
    try:
        for part in group:
            for table in part.tables():
                writer.append(table)
        writer.publish([part.name for part in group], sum(part.outdated_rows for part in group))
    finally:
        writer.discard()
    for part in group:
        store.folder.remove(part.name)
    return True


def neighbours(parts: Sequence[Part], part_bytes: int) -> list[list[Part]]:
    """Runs of parts that together have at most so many bytes; a larger part is one of its own."""
    groups: list[list[Part]] = []
    size = part_bytes + 1
    for part in parts:
        if size + part.nbytes > part_bytes:
            groups.append([])
            size = 0
        groups[-1].append(part)
        size += part.nbytes
    return groups
