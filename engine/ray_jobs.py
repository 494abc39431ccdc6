"""Encoding and backfilling on all machines of a Ray cluster: Ray Data, an engine an actor.

The driver cuts the work into blocks and names the file that each will write. An actor writes it
aside and renames it, so that a block that is done again, because its worker or its driver was lost,
writes the same rows under the same name: each row is there once, whatever dies.
"""

from __future__ import annotations

import hashlib
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from engine import bundle
from engine.backfill import Backfill, fitting_heads, read_heads
from engine.encode import refuse_twice
from engine.engine import Engine
from engine.errors import BitheadsError, InputError, StoreError
from engine.job_options import check_above_zero
from engine.ray_cluster import connect
from engine.store import FeatureStore, Part, StoreWriter, schema
from engine.store.ids import IdIndex
from engine.store.part_writer import PartWriter, new_name
from engine.store.writer import clean_up
from engine.text_files import Range, TextFile


class EncodeWorker:
    """An engine that encodes blocks of the input into parts of the store."""

    def __init__(self, options: Namespace, texts: TextFile, store_id: str) -> None:
        self._options, self._texts, self._store_id = options, texts, store_id
        self._engine = Engine.load(
            options.bundle, options.backend, options.threads, options.precision
        )
        # Once a worker: opening reads the end of every part there is.
        self._store = FeatureStore(options.store, self._engine.spec)

    def do(self, block: dict[str, Any]) -> int:
        """Encodes a block of `plan_encoding`; returns how many texts."""
        options, store = self._options, self._store
        rows = list(self._texts.rows(Range(block["row"], block["count"], block["start"])))
        rows = [row for row, stored in zip(rows, block["is_stored"], strict=True) if not stored]
        part_schema = store.schema or schema.make_schema(store.spec)
        writer = PartWriter(store.folder, block["name"], part_schema, self._store_id)
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
        # Once: opening reads the end of every part.
        self._store = FeatureStore(options.store)
        if options.tasks is None:
            heads = fitting_heads(heads, self._store)
        self._job = Backfill(self._store, heads, options.output, options.probabilities)
        self._parts = {part.name: part for part in self._store.parts}

    def do(self, block: dict[str, Any]) -> int:
        """Answers for a part, unless that is done already; returns how many texts it has."""
        part = self._parts.get(block["name"])
        if part is None:
            raise StoreError(
                f"{self._store.folder}: {block['name']} was merged or removed since the job began. "
                "Run it again."
            )
        self._job.run([part], self._threads)
        return part.rows


class Worker:
    """What runs in an actor: does one block after the other by a worker that it makes.

    An error of ours comes back as a row: Ray would make a traceback of it.
    """

    def __init__(self, kind: type[EncodeWorker | BackfillWorker], arguments: tuple[Any, ...]):
        self._kind, self._arguments = kind, arguments
        self._worker: EncodeWorker | BackfillWorker | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """A batch of one block: its fields, arrays of one value each."""
        texts, error = 0, ""
        try:
            if self._worker is None:
                self._worker = self._kind(*self._arguments)
            texts = self._worker.do({key: values.tolist()[0] for key, values in batch.items()})
        except BitheadsError as problem:
            error = str(problem)
        return {"texts": np.array([texts]), "error": np.array([error])}


def encode_on_ray(options: Namespace, texts: TextFile, bar: Any) -> tuple[int, int, int]:
    """`python -m engine.encode --runner ray`; returns texts stored, skipped, and in the store.

    Every worker must reach the bundle, the input and the store under the same paths.

    Raises what loading a bundle and opening a store raise, InputError for ids that come twice,
    BackendError without Ray, BitheadsError for what a worker raised, and StoreError if texts are
    missing in the end.
    """
    if options.existing == "replace":
        raise InputError("--existing replace: only with --runner local. Leave --runner out.")
    options, texts = for_workers(options), replace(texts, path=texts.path.absolute())
    spec = bundle.read_manifest(options.bundle).spec
    store = FeatureStore(options.store, spec)
    with StoreWriter(store, options.existing) as writer:
        before = len(store)
        blocks, skipped = plan_encoding(texts, writer, options.existing, options.block_texts)
        bar.update(skipped)
        stored = _run(EncodeWorker, (options, texts, writer.store_id), blocks, options, bar)
        clean_up(store)
    if len(store) != before + stored:
        raise StoreError(
            f"{store.folder}: has {len(store) - before:,} texts more than before, expected the "
            f"{stored:,} that the workers stored. See that they reach the folder under the same "
            "path, and run it again."
        )
    return stored, skipped, len(store)


def for_workers(options: Namespace) -> Namespace:
    """The options as they mean the same in any process.

    Paths are absolute, for workers run in folders of their own; threads are those that a worker
    reserves, for they share machines.
    """
    changed = {
        name: path if "://" in str(path) else type(path)(Path(path).absolute())
        for name, path in vars(options).items()
        if name in ("bundle", "input", "store", "output")
    }
    return Namespace(**{**vars(options), **changed, "threads": options.threads or 1})


def plan_encoding(
    texts: TextFile, writer: StoreWriter, existing: str, block_texts: int
) -> tuple[list[dict[str, Any]], int]:
    """A block for each range of the input that is not stored yet, and how many texts are.

    Raises InputError for ids that come twice, or that are stored if they are refused.
    """
    seen = IdIndex()
    blocks: list[dict[str, Any]] = []
    skipped = 0
    for number, within in enumerate(texts.ranges(block_texts)):
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
        # A name is that of the block, whatever else is stored by now: a worker that outlived its
        # driver writes the file that the next driver asks for. What a merged part has replaced
        # cannot come again: its ids are stored.
        key = hashlib.sha256("\0".join(ids).encode() + is_stored.tobytes()).hexdigest()[:16]
        blocks.append(
            {
                "name": new_name(number, key),
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

    Raises BackendError without Ray, BitheadsError for what a worker raised, and StoreError if
    answers are missing in the end.
    """
    options = for_workers(options)
    blocks = [{"name": part.name} for part in parts]
    texts = _run(BackfillWorker, (options,), blocks, options, bar)
    if missing := job.prepare():  # removes what lost workers left, too
        raise StoreError(
            f"{options.output}: answers of {len(missing)} parts are missing. Run it again."
        )
    return texts


def _run(
    kind: type[EncodeWorker | BackfillWorker],
    arguments: tuple[Any, ...],
    blocks: list[dict[str, Any]],
    options: Namespace,
    bar: Any,
) -> int:
    """Has every block done by one of the actors; returns the sum of their texts.

    Raises BitheadsError for what one of them raised.
    """
    check_above_zero("--workers", options.workers)
    if not blocks:
        return 0
    ray = connect()
    ray.data.DataContext.get_current().enable_progress_bars = False
    data = ray.data.from_items(blocks, override_num_blocks=len(blocks)).map_batches(
        Worker,
        fn_constructor_args=(kind, arguments),
        batch_size=1,
        concurrency=min(options.workers, len(blocks)),
        num_cpus=options.threads,
    )
    texts = 0
    for row in data.iter_rows():
        if row["error"]:
            raise BitheadsError(row["error"])
        texts += int(row["texts"])
        bar.update(int(row["texts"]))
    return texts
