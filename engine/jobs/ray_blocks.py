"""What the driver of a Ray job has its workers encode: blocks of the input, a part of each."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from bitheads.engine.errors import InputError
from bitheads.engine.jobs.encode import Found, look_up, refuse_twice
from bitheads.engine.store import StoreWriter, text_hash
from bitheads.engine.store.ids import IdIndex
from bitheads.engine.store.outdated import to_fact
from bitheads.engine.store.part_writer import new_name
from bitheads.engine.texts.text_files import OnBad, TextFile
from bitheads.engine.texts.text_inputs import TextInput


def plan_encoding(
    texts: TextFile | TextInput,
    writer: StoreWriter,
    existing: str,
    block_texts: int,
    on_bad: OnBad = lambda path, row: None,
) -> tuple[list[dict[str, Any]], Found]:
    """A block for each range of the input that is not stored yet, and what its texts are.

    Raises InputError for ids that come twice, or that are stored if they are refused.
    """
    seen = IdIndex()
    blocks: list[dict[str, Any]] = []
    found = Found()
    replacing: list[list[str]] = []
    digests = []
    for number, within in enumerate(texts.ranges(block_texts)):
        rows = [*texts.rows(within, on_bad)]
        ids, hashes = [row_id for row_id, _ in rows], [text_hash.hash_of(text) for _, text in rows]
        refuse_twice(ids, seen)
        is_skipped, replaces = look_up(writer.stored, ids, hashes, existing, found)
        if existing == "refuse" and found.known:
            raise InputError(
                f"id {ids[int(is_skipped.argmax())]!r} is in the store already. Leave it out, or "
                "say --existing skip."
            )
        if is_skipped.all():
            continue
        # A name is that of the block, whatever else is stored by now: a worker that outlived its
        # driver writes the file that the next driver asks for. What a merged part has replaced
        # cannot come again: its ids are stored.
        digest = hashlib.sha256("\0".join(ids).encode() + is_skipped.tobytes())
        digest.update(b"".join(hashes[i] for i in replaces.nonzero()[0]))
        digests.append(digest)
        blocks.append(
            {
                "number": number,
                "row": within.row,
                "count": within.count,
                "start": within.start,
                "file": within.file,
                "before": within.before,
                "is_skipped": is_skipped.tobytes(),
            }
        )
        replacing.append([ids[i] for i in replaces.nonzero()[0]])
    outdated = writer.outdated_by(replacing)
    for block, digest, outdates in zip(blocks, digests, outdated, strict=True):
        block["outdates"] = json.dumps(to_fact(outdates))
        if outdates:  # what is stored again after another text was is another part
            digest.update(block["outdates"].encode())
        block["name"] = new_name(block.pop("number"), digest.hexdigest()[:16])
    return blocks, found
