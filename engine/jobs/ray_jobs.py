"""Encoding and backfilling on all machines of a Ray cluster: Ray Data, one engine per actor.

The driver cuts the work into blocks and names the file that each will write. An actor writes it
aside and renames it, so that a block that is done again, because its worker or its driver was lost,
writes the same rows under the same name: each row is there once, whatever dies.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bitheads.engine import bundle
from bitheads.engine.engine import Engine
from bitheads.engine.errors import BitheadsError, InputError, StoreError
from bitheads.engine.features.embedding import Embedder
from bitheads.engine.jobs.backfill import Backfill, fitting_heads, read_heads
from bitheads.engine.jobs.encode import Found
from bitheads.engine.jobs.ray_blocks import plan_encoding
from bitheads.engine.jobs.ray_cluster import connect
from bitheads.engine.store import FeatureStore, Part, StoreWriter, schema, text_hash
from bitheads.engine.store.embedding_column import EMBEDDING, EmbeddingColumn
from bitheads.engine.store.numbering import Numbering
from bitheads.engine.store.outdated import of_fact
from bitheads.engine.store.part_writer import PartWriter
from bitheads.engine.store.user_columns import resolve
from bitheads.engine.store.writer import clean_up
from bitheads.engine.texts.own_columns import make_columns
from bitheads.engine.texts.text_files import OnBad, Range, TextFile
from bitheads.engine.texts.text_inputs import TextInput


@dataclass(frozen=True)
class Workers:
    """Processes of the cluster that work at the same time.

    Attributes:
        count: number of them, at most.
        threads: processor threads of each, which it reserves.
    """

    count: int = 1
    threads: int = 1


@dataclass(frozen=True)
class EncodeJob:
    """What every worker encodes with and where to; see `Engine.load` and `encode_texts`.

    Attributes:
        store: a folder or a URI.
        existing: "skip", "update" or "refuse", for texts whose ids are stored.
        block_texts: texts per part, which another worker encodes again if one is lost.
        words: whether they are stored beside the codes.
        embeddings: precision of the embeddings that are stored, None for none; embedding_dim and
            normalize: see EmbeddingColumn.
        min_sign_agreement: what the precision "auto" keeps to.
    """

    bundle: Path
    store: str
    backend: str
    precision: str
    existing: str
    block_texts: int
    chunk_texts: int
    max_batch_tokens: int | None
    long_texts: str
    words: bool = False
    embeddings: str | None = None
    embedding_dim: int | None = None
    normalize: bool = False
    min_sign_agreement: float | None = None

    def anywhere(self) -> EncodeJob:
        """The same job for processes that run in folders of their own."""
        return replace(self, bundle=self.bundle.absolute(), store=_absolute(self.store))

    def column(self, embedder: Callable[[], Embedder]) -> EmbeddingColumn | None:
        """Of the embeddings. Raises InputError for what there is not."""
        if self.embeddings is None:
            return None
        return EmbeddingColumn(embedder(), self.embeddings, self.embedding_dim, self.normalize)


@dataclass(frozen=True)
class BackfillJob:
    """What every worker answers, and where to; see `Backfill`.

    Attributes:
        store, output: a folder or a URI.
        bundle: None for heads of files.
        tasks: None for all of the bundle's heads.
        heads: files of heads, where there is no bundle.
        other_heads: see TaskAnswers.
    """

    bundle: Path | None
    store: str
    output: str
    tasks: tuple[str, ...] | None
    probabilities: bool
    heads: tuple[Path, ...] = ()
    other_heads: str = "refuse"

    def anywhere(self) -> BackfillJob:
        """The same job for processes that run in folders of their own."""
        return replace(
            self,
            bundle=None if self.bundle is None else self.bundle.absolute(),
            store=_absolute(self.store),
            output=_absolute(self.output),
            heads=tuple(path.absolute() for path in self.heads),
        )


class EncodeWorker:
    """An engine that encodes blocks of the input into parts of the store."""

    def __init__(
        self,
        job: EncodeJob,
        threads: int,
        texts: TextFile | TextInput,
        store_id: str,
        numbering: Numbering | None = None,
        holder: str | None = None,
    ) -> None:
        """
        Args:
            holder: of the store's lock, as long as which this stores anything (Folder.holder).
        """
        self._job, self._texts, self._store_id = job, texts, store_id
        self._numbering = numbering
        self._engine = Engine.load(
            job.bundle,
            job.backend,
            threads,
            job.precision,
            min_sign_agreement=job.min_sign_agreement,
        )
        # Once per worker: opening reads the end of every part there is.
        self._store = FeatureStore(job.store, self._engine.spec)
        self._store.folder.publish_for(holder)
        self._column = job.column(lambda: self._engine.embedder)

    def do(self, block: dict[str, Any]) -> int:
        """Encodes a block of `plan_encoding`; returns how many texts."""
        job, store = self._job, self._store
        places = (block[name] for name in ("row", "count", "start", "file", "before"))
        rows = list(self._texts.full_rows(Range(*places)))
        rows = [row for row, skipped in zip(rows, block["is_skipped"], strict=True) if not skipped]
        column = self._column
        columns = self._texts.fields
        fields = [*columns, *([] if column is None else [column.field])]
        part_schema = store.schema or schema.make_schema(
            store.spec, [*fields, text_hash.FIELD], words=job.words
        )
        writer = PartWriter(
            store.folder,
            block["name"],
            part_schema,
            self._store_id,
            numbering=self._numbering,
            outdates=of_fact(json.loads(block["outdates"])),
        )
        try:
            done = 0
            stream = self._engine.encode_stream(
                (text for _, text, _ in rows),
                job.chunk_texts,
                job.max_batch_tokens,
                long_texts=job.long_texts,
                words=job.words,
                embeddings=column is not None,
            )
            for features in stream:
                chunk = rows[done : done + len(features)]
                done += len(features)
                array = schema.check_ids([row_id for row_id, *_ in chunk], len(features))
                own = make_columns([row for *_, row in chunk], columns)
                if column is not None:
                    own[EMBEDDING] = column.of(features.embeddings)
                if text_hash.has_hashes(part_schema):
                    hashes = [text_hash.hash_of(text) for _, text, _ in chunk]
                    own[text_hash.TEXT_HASH] = text_hash.column(hashes, len(chunk))
                writer.append(schema.make_table(array, features, own, part_schema))
            writer.publish()
        finally:
            writer.discard()
        return len(rows)


class BackfillWorker:
    """Heads that answer for parts of the store."""

    def __init__(self, job: BackfillJob, threads: int, holder: str | None = None) -> None:
        """
        Args:
            holder: of the output's lock, as long as which this writes anything.
        """
        self._threads = threads
        heads = read_heads(job.bundle, job.tasks, job.heads)
        # Once: opening reads the end of every part.
        self._store = FeatureStore(job.store)
        if job.bundle is not None and job.tasks is None:
            heads = fitting_heads(heads, self._store)
        self._job = Backfill(
            self._store, heads, job.output, job.probabilities, other_heads=job.other_heads
        )
        self._job.output.publish_for(holder)
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


def encode_on_ray(
    job: EncodeJob,
    texts: TextFile | TextInput,
    workers: Workers,
    bar: Any,
    on_bad: OnBad = lambda path, row: None,
) -> tuple[int, Found, int]:
    """Encodes an input into a store; returns texts stored, what was found, and texts in the store.

    Every worker must reach the bundle, the input and the store under the same paths.

    Args:
        on_bad: called with each bad row of an input that passes over them.

    Raises what loading a bundle and opening a store raise, InputError for ids that come twice,
    that are stored otherwise than with the job's words or the input's columns, BackendError without
    Ray, BitheadsError for what a worker raised, and StoreError if texts are missing in the end.
    """
    if job.existing == "replace":
        raise InputError("--existing replace: only with --runner local. Leave --runner out.")
    job, texts = job.anywhere(), texts.absolute()
    manifest = bundle.read_manifest(job.bundle)
    store = FeatureStore(job.store, manifest.spec)
    store.check_words(job.words)
    if isinstance(texts, TextInput):
        texts = replace(texts, fields=resolve(texts.fields, store.schema, str(store.folder)))
    column = job.column(lambda: bundle.require_embedder(bundle.read_embedder(job.bundle, manifest)))
    numbered = texts.numbered_files
    with StoreWriter(store, job.existing, embedding=column, numbered_files=numbered) as writer:
        before = len(store)
        blocks, found = plan_encoding(texts, writer, job.existing, job.block_texts, on_bad)
        replaced = found.changed if job.existing == "update" else 0
        bar.update(found.known - replaced)
        # A worker may outlive this process, and the next one have other blocks.
        holder = store.folder.holder
        arguments = (job, workers.threads, texts, writer.store_id, writer.numbering, holder)
        stored = _run(EncodeWorker, arguments, blocks, workers, bar)
        clean_up(store)
    if len(store) != before + stored - replaced:
        raise StoreError(
            f"{store.folder}: has {len(store) - before:,} texts more than before, expected the "
            f"{stored - replaced:,} that the workers stored. See that they reach the folder under "
            "the same path, and run it again."
        )
    return stored, found, len(store)


def _absolute(folder: str) -> str:
    """A folder's path so that it means the same in any process, as a URI does."""
    return folder if "://" in folder else str(Path(folder).absolute())


def backfill_on_ray(
    job: BackfillJob, answers: Backfill, parts: Sequence[Part], workers: Workers, bar: Any
) -> int:
    """Answers for parts of a store; returns how many texts were answered.

    Every worker must reach the bundle, the store and the output under the same paths.

    Args:
        answers: the same job here, whose lock the caller has; asked what is missing in the end.

    Raises BackendError without Ray, BitheadsError for what a worker raised, and StoreError if
    answers are missing in the end.
    """
    blocks = [{"name": part.name} for part in parts]
    arguments = (job.anywhere(), workers.threads, answers.output.holder)
    texts = _run(BackfillWorker, arguments, blocks, workers, bar)
    if missing := answers.prepare():  # removes what lost workers left, too
        raise StoreError(
            f"{job.output}: answers of {len(missing)} parts are missing. Run it again."
        )
    return texts


def _run(
    kind: type[EncodeWorker | BackfillWorker],
    arguments: tuple[Any, ...],
    blocks: list[dict[str, Any]],
    workers: Workers,
    bar: Any,
) -> int:
    """Has every block done by one of the actors; returns the sum of their texts.

    Raises BitheadsError for what one of them raised.
    """
    if not blocks:
        return 0
    ray = connect()
    ray.data.DataContext.get_current().enable_progress_bars = False
    data = ray.data.from_items(blocks, override_num_blocks=len(blocks)).map_batches(
        Worker,
        fn_constructor_args=(kind, arguments),
        batch_size=1,
        concurrency=min(workers.count, len(blocks)),
        num_cpus=workers.threads,
    )
    texts = 0
    for row in data.iter_rows():
        if row["error"]:
            raise BitheadsError(row["error"])
        texts += int(row["texts"])
        bar.update(int(row["texts"]))
    return texts
