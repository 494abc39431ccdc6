"""Encoding and backfilling on all machines of a Ray cluster: Ray Data, an engine an actor.

The driver cuts the work into blocks and names the file that each will write. An actor writes it
aside and renames it, so that a block that is done again, because its worker was lost, writes the
same rows under the same name: each row is there once, whatever dies.
"""

from __future__ import annotations

import hashlib
from argparse import Namespace
from collections.abc import Sequence
from typing import Any

import numpy as np

from engine import bundle
from engine.backfill import Backfill, read_heads
from engine.encode import refuse_twice
from engine.engine import Engine
from engine.errors import BackendError, InputError, StoreError
from engine.store import FeatureStore, Part, StoreWriter, schema
from engine.store.ids import IdIndex
from engine.store.part_writer import PartWriter, new_name
from engine.store.writer import clean_up
from engine.text_files import Range, TextFile


class EncodeWorker:
    """An engine that encodes blocks of the input into parts of the store."""

    def __init__(self, options: Namespace, texts: TextFile) -> None:
        self._options, self._texts = options, texts
        self._engine = Engine.load(
            options.bundle, options.backend, options.threads, options.precision
        )
        # Once a worker: opening reads the end of every part there is.
        self._store = FeatureStore(options.store, self._engine.spec)

    def __call__(self, blocks: dict[str, Any]) -> dict[str, Any]:
        names, counts = [], []
        for name, row, count, start, is_stored in zip(
            *(blocks[key] for key in ("name", "row", "count", "start", "is_stored")), strict=True
        ):
            within = Range(int(row), int(count), int(start))
            counts.append(self._encode(str(name), within, bytes(is_stored)))
            names.append(name)
        return {"name": np.array(names), "texts": np.array(counts)}

    def _encode(self, name: str, within: Range, is_stored: bytes) -> int:
        options, store = self._options, self._store
        rows = list(self._texts.rows(within))
        rows = [row for row, stored in zip(rows, is_stored, strict=True) if not stored]
        part_schema = store.schema or schema.make_schema(store.spec)
        writer = PartWriter(store.folder, name, part_schema)
        try:
            done = 0
            stream = self._engine.encode_stream(
                (text for _, text in rows),
                options.chunk_texts,
                options.max_batch_tokens,
                long_texts=options.long_texts,
            )
            for features in stream:
                ids = [row_id for row_id, _ in rows[done : done + len(features)]]
                done += len(features)
                array = schema.check_ids(ids, len(features))
                writer.append(schema.make_table(array, features, {}, part_schema))
            writer.publish()
        finally:
            writer.discard()
        return len(rows)


class BackfillWorker:
    """Heads that answer for parts of the store."""

    def __init__(self, options: Namespace) -> None:
        self._threads = options.threads
        heads = read_heads(options.bundle, options.tasks)
        store = FeatureStore(options.store)  # once: opening reads the end of every part
        self._job = Backfill(store, heads, options.output, options.probabilities)
        self._parts = {part.name: part for part in store.parts}

    def __call__(self, blocks: dict[str, Any]) -> dict[str, Any]:
        parts = [self._parts[str(name)] for name in blocks["name"]]
        for part in parts:  # run again, it may be there already
            self._job.run([part], self._threads)
        return {"name": blocks["name"], "texts": np.array([part.rows for part in parts])}


def encode_on_ray(options: Namespace, texts: TextFile, bar: Any) -> tuple[int, int, int]:
    """`python -m engine.encode --runner ray`; returns texts stored, skipped, and in the store.

    Every worker must reach the bundle, the input and the store under the same paths.

    Raises what loading a bundle and opening a store raise, InputError for ids that come twice, and
    BackendError without Ray.
    """
    if options.existing == "replace":
        raise InputError("--existing replace: only with --runner local. Leave --runner out.")
    spec = bundle.read_manifest(options.bundle).spec
    store = FeatureStore(options.store, spec)
    with StoreWriter(store, options.existing) as writer:
        blocks, skipped = plan_encoding(texts, writer, options.existing, options.block_texts)
        bar.update(skipped)
        stored = _run(EncodeWorker, (options, texts), blocks, options, bar)
        clean_up(store)
    return stored, skipped, len(store)


def plan_encoding(
    texts: TextFile, writer: StoreWriter, existing: str, block_texts: int
) -> tuple[list[dict[str, Any]], int]:
    """A block for each range of the input that is not stored yet, and how many texts are.

    Raises InputError for ids that come twice, or that are stored if they are refused.
    """
    seen = IdIndex()
    blocks: list[dict[str, Any]] = []
    skipped, first = 0, writer.next_number()
    for within in texts.ranges(block_texts):
        ids = [row_id for row_id, _ in texts.rows(within)]
        refuse_twice(ids, seen)
        is_stored = writer.stored.contains(ids)
        if existing == "refuse" and is_stored.any():
            raise InputError(
                f"id {ids[int(is_stored.argmax())]!r} is in the store already. Leave it out, or "
                "say --existing skip."
            )
        skipped += int(is_stored.sum())
        if is_stored.all():
            continue
        key = hashlib.sha256("\0".join(ids).encode() + is_stored.tobytes()).hexdigest()[:16]
        blocks.append(
            {
                "name": new_name(first + len(blocks), key),
                "row": within.row,
                "count": within.count,
                "start": within.start,
                "is_stored": is_stored.tobytes(),
            }
        )
    return blocks, skipped


def backfill_on_ray(options: Namespace, job: Backfill, parts: Sequence[Part], bar: Any) -> int:
    """`python -m engine.backfill --runner ray`; returns how many texts were answered.

    Every worker must reach the bundle, the store and the output under the same paths.

    Raises BackendError without Ray, StoreError if answers are missing in the end.
    """
    blocks = [{"name": part.name} for part in parts]
    texts = _run(BackfillWorker, (options,), blocks, options, bar)
    if missing := job.prepare():  # removes what lost workers left, too
        raise StoreError(
            f"{options.output}: answers of {len(missing)} parts are missing. Run it again."
        )
    return texts


def _run(
    worker: type,
    arguments: tuple[Any, ...],
    blocks: list[dict[str, Any]],
    options: Namespace,
    bar: Any,
) -> int:
    """Has every block done by one of the actors; returns the sum of their texts."""
    if options.workers < 1:
        raise InputError(f"--workers: got {options.workers}, expected at least 1.")
    if not blocks:
        return 0
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise BackendError(
            f"--runner ray needs Ray, which cannot be loaded ({error}). Type: "
            "pip install 'bitheads[ray]'"
        ) from error
    if not ray.is_initialized():
        ray.init(log_to_driver=False)  # RAY_ADDRESS says where, if anywhere
    ray.data.DataContext.get_current().enable_progress_bars = False
    data = ray.data.from_items(blocks, override_num_blocks=len(blocks)).map_batches(
        worker,
        fn_constructor_args=arguments,
        batch_size=1,
        concurrency=min(options.workers, len(blocks)),
        num_cpus=options.threads or 1,
    )
    texts = 0
    for row in data.iter_rows():
        texts += int(row["texts"])
        bar.update(int(row["texts"]))
    return texts
