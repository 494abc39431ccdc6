"""Answers of new tasks for every text of a store; no encoder runs."""

from __future__ import annotations

import os
import resource
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pyarrow as pa

from bitheads.engine import bundle
from bitheads.engine.errors import HeadError, InputError, UnknownTaskError
from bitheads.engine.features.spec import FeatureSpec, check_spec
from bitheads.engine.heads.cpu import HeadThreads, load_head
from bitheads.engine.heads.head import is_of_words, reads_words
from bitheads.engine.heads.head_file import SUFFIX, read_head
from bitheads.engine.jobs.answers import AnswerFile, Source, TaskAnswers, TaskHead
from bitheads.engine.predictions import Prediction
from bitheads.engine.process.forked import check_process
from bitheads.engine.store import FeatureStore, Part
from bitheads.engine.store.answer_folders import check_layout
from bitheads.engine.store.folder import Folder
from bitheads.engine.texts.forms import reads_apart

OTHER_FILES = 64
"""Files that a process may have open beside its answers."""


def read_heads(
    folder: Path | None, tasks: Sequence[str] | None, files: Sequence[Path] = ()
) -> list[TaskHead]:
    """Heads of a bundle, without its encoder, or those of files that are in none.

    Args:
        folder: None for those of the files.
        tasks: of the bundle's heads; None for all.
        files: of heads, where there is no bundle.

    Raises BundleError, HeadError, SpecMismatchError, or UnknownTaskError for a task without a head.
    """
    if folder is None:
        return read_head_files(files)
    spec = bundle.read_manifest(folder).spec
    there = sorted(path.stem for path in (folder / bundle.HEADS).glob(f"*{SUFFIX}"))
    unknown = [task for task in tasks or () if task not in there]
    if unknown or not there:
        raise UnknownTaskError(
            f"task {(unknown or ['(any)'])[0]!r}: bundle {folder} has no such head, expected one "
            f"of {there}. Copy it into the bundle's folder heads."
        )
    names = dict.fromkeys(tasks or there)
    own = [folder / bundle.HEADS / f"{name}{SUFFIX}" for name in names]
    return read_head_files(own, spec)


def read_head_files(paths: Sequence[Path], spec: FeatureSpec | None = None) -> list[TaskHead]:
    """Heads of these files, at most one per task.

    Args:
        spec: which they must have; None: Backfill compares with the store's.

    Raises HeadError or SpecMismatchError.
    """
    heads: dict[str, TaskHead] = {}
    for path in paths:
        folded = read_head(path)
        if spec is not None:
            check_spec(f"head {path}", folded.spec, spec)
        if folded.task in heads:
            raise HeadError(
                f"{path}: is a head for task {folded.task!r}, as another of the heads is, expected "
                "one per task and run. Leave one of them out, or name others: --tasks, --head."
            )
        heads[folded.task] = TaskHead(load_head(folded), bundle.Artifact.of(path).sha256)
    return list(heads.values())


def fitting_heads(heads: list[TaskHead], store: FeatureStore) -> list[TaskHead]:
    """Those of the heads that fit a text of the store, if it says its texts' forms, and find in it
    what they read.

    Where none does, that is for Backfill to say.
    """
    forms = store.forms
    readable = [
        one
        for one in heads
        if not reads_apart(one.head) and (store.has_words or not is_of_words(one.head))
    ]
    return [one for one in readable if forms is None or one.head.form in forms] or heads


def check_heads(heads: Sequence[TaskHead], store: FeatureStore) -> None:
    """Raises InputError for none, and for more than this process may have files open,
    SpecMismatchError for heads of another spec than the store's."""
    if not heads:
        raise InputError("tasks: got none, expected at least one.")
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit != resource.RLIM_INFINITY and len(heads) + OTHER_FILES > limit:
        raise InputError(
            f"tasks: got {len(heads)}, each of which writes a file at the same time, expected "
            f"at most {limit - OTHER_FILES} where a process may have {limit} files open. Raise "
            "that (ulimit -n), or do some at a time: --tasks."
        )
    for head in heads:
        check_spec(f"head {head.head.task!r}", head.head.spec, store.spec)


class Backfill:
    """The same tasks for all parts of a store, and what is left of that to do."""

    def __init__(
        self,
        store: FeatureStore,
        heads: Sequence[TaskHead],
        output: str | Path,
        probabilities: bool = False,
        filesystem: Any = None,
        other_heads: str = "refuse",
    ) -> None:
        """
        Args:
            output: a folder or a URI, to which `filesystem` belongs.
            probabilities: write those of all labels, too.
            other_heads: see TaskAnswers.

        Raises SpecMismatchError for heads of another spec than the store's, InputError for none,
        for more than this process may have files open, for one that fits no text of the store, or
        that reads words where the store has none.
        """
        check_heads(heads, store)
        forms = store.forms  # once: it looks at every row group's statistics
        for head in heads:
            if reads_apart(head.head):
                raise InputError(
                    f"task {head.head.task!r}: its head reads two texts that were encoded by "
                    "themselves, and a store does not say which go together. Say it in a file of "
                    "ids, --pairs, or leave the task out."
                )
            if forms is not None and head.head.form not in forms:
                raise InputError(
                    f"task {head.head.task!r}: its head is for texts of the form "
                    f"{head.head.form!r}, but all of store {store.folder} are of the form "
                    f"{', '.join(forms)!r}. Leave it out, or name other tasks."
                )
            if is_of_words(head.head) and not store.has_words:
                raise InputError(
                    f"task {head.head.task!r}: its head finds spans, for which it reads words, but "
                    f"store {store.folder} keeps none. Encode the texts with `bitheads encode "
                    "--spans` into another store, or name other tasks."
                )
        self._store = store
        self._heads = {head.head.task: head.head for head in heads}
        self._words = reads_words([*self._heads.values()])
        self.output = Folder(output, filesystem)
        self._answers = [
            TaskAnswers(self.output, head, probabilities, other_heads=other_heads) for head in heads
        ]
        self._keeps_heads = other_heads == "keep"

    def prepare(self) -> list[Part]:
        """Removes what killed runs left; the parts of which an answer is still missing.

        Hold `lock`. Raises StoreError for answers of other heads, of another store, or in another
        layout.
        """
        check_layout(self.output, self._keeps_heads)
        for answers in self._answers:
            answers.remove_stale(self._store.parts)
        missing = {
            part.name for answers in self._answers for part in answers.remaining(self._store.parts)
        }
        return [part for part in self._store.parts if part.name in missing]

    def lock(self) -> Any:
        """The output's lock, see Folder.lock."""
        return self.output.lock()

    def run(self, parts: Sequence[Part], threads: int | None = None, bar: Any = None) -> int:
        """Writes the missing answers of these parts, in one scan; returns how many texts it read.

        One thread reads and checks, `threads` run the heads, one writes, all at the same time. In
        memory are at most four row groups, whatever the store holds.

        Raises StoreError for damaged parts or answers that cannot be written, and InputError for
        texts without tokens.
        """
        left = {
            answers.task: {part.name for part in answers.remaining(parts)}
            for answers in self._answers
        }
        todo = [part for part in parts if any(part.name in names for names in left.values())]
        texts = answered = 0
        with (
            HeadThreads(threads) as head_threads,
            AnswerWriter() as writer,
            closing(self._store.scan(parts=todo, words=self._words)) as scanned,
        ):
            for rows in scanned:
                part = rows.part
                if answered == 0:
                    wanted = [one for one in self._answers if part.name in left[one.task]]
                    heads = [self._heads[one.task] for one in wanted]
                    writer.begin(wanted, part)
                writer.append([rows.ids], head_threads.predict(rows.features, heads))
                texts, answered = texts + len(rows), answered + len(rows)
                if bar is not None:
                    bar.update(len(rows))
                if answered == part.rows:
                    writer.publish()
                    answered = 0
                del rows  # or its codes would be kept while the next are waited for
        return texts


class AnswerWriter:
    """Writes the answers of one part after another on a thread of its own, one step behind."""

    def __init__(self) -> None:
        self._process = os.getpid()
        self._pool = ThreadPoolExecutor(1, "bitheads-write-answers")
        self._last: Future[None] | None = None
        self._files: dict[str, AnswerFile] = {}

    def __enter__(self) -> AnswerWriter:
        return self

    def __exit__(self, kind: Any, *exception: object) -> None:
        if os.getpid() != self._process:
            return  # the thread and the files are those of the process that began them
        try:
            if kind is None:
                self._wait()
        finally:
            self._pool.shutdown()  # waits: what was answered is kept, whatever came after it
            for file in self._files.values():
                file.discard()

    def begin(self, answers: Sequence[TaskAnswers], part: Source) -> None:
        self._wait()
        with ExitStack() as undo:
            for one in answers:
                self._files[one.task] = one.open_file(part)
                undo.callback(self._files[one.task].discard)
            undo.pop_all()

    def append(self, ids: Sequence[pa.Array], predictions: Mapping[str, Prediction]) -> None:
        files = self._files

        def write() -> None:
            for task, prediction in predictions.items():
                files[task].append(ids, prediction)

        self._wait()
        self._last = self._pool.submit(write)

    def publish(self) -> None:
        self._wait()  # first: what it raises finds all files here, to be discarded
        files = self._files

        def write() -> None:
            try:
                for file in files.values():
                    file.publish()
            finally:
                for file in files.values():
                    file.discard()

        self._last = self._pool.submit(write)
        self._files = {}

    def _wait(self) -> None:
        check_process(self._process, "the writer of answers")
        last, self._last = self._last, None
        if last is not None:
            last.result()
