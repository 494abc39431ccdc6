"""`bitheads.backfill`: what the command line does, as a function."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bitheads.engine.errors import InputError
from bitheads.engine.heads.head_file import SUFFIX, FoldedHead
from bitheads.engine.jobs.answers import TaskHead
from bitheads.engine.jobs.backfill import Backfill, fitting_heads, read_head_files, read_heads
from bitheads.engine.jobs.backfill_pairs import PairsBackfill
from bitheads.engine.jobs.pairs_file import PairsFile
from bitheads.engine.progress import progress_bar
from bitheads.engine.store import FeatureStore
from bitheads.engine.texts.forms import reads_apart

AnyHeads = str | Path | FoldedHead | Sequence[str | Path | FoldedHead]


def backfill(
    store: FeatureStore | str | Path,
    heads: AnyHeads,
    output: str | Path,
    *,
    tasks: Sequence[str] | None = None,
    pairs: str | Path | None = None,
    probabilities: bool = False,
    other_heads: str = "refuse",
    threads: int | None = None,
    progress: bool = False,
    filesystem: Any = None,
) -> int:
    """Answers tasks for every text of a store, or for pairs of them; no encoder runs.

    Called again it does what is left. `bitheads.engine.store.Answers` reads the answers.

    Args:
        store: a store, its folder or its URI.
        heads: a bundle's folder, of which those that fit the store's texts answer; or heads, one
            per task: files, and what `train_head` gave, which counts as the file that its `save`
            writes.
        output: a folder or a URI, to which `filesystem` belongs, for this store alone.
        tasks: of a bundle's heads, which to ask; None: all that fit.
        pairs: a table with two ids per row, `id_a` and `id_b`, to be answered by heads of the form
            `two_texts`.
        probabilities: write those of all labels, too.
        other_heads: a task's answers of another head are an error ("refuse"), become this head's
            ("replace"), or stay beside them, in a folder per head ("keep").
        threads: that run the heads; None: all cores.
        progress: show a bar on standard error.

    Returns the number of texts, or pairs, that were answered now.

    Raises BundleError, HeadError, SpecMismatchError or UnknownTaskError for heads that cannot be
    asked, InputError for those that fit no text of the store, and StoreError for a damaged store,
    answers of others, if another process writes there, or nobody can.
    """
    if not isinstance(store, FeatureStore):
        store = FeatureStore(store, filesystem=filesystem)
    found, are_named = _read(heads, tasks)
    job: Backfill | PairsBackfill
    if pairs is None:
        if not are_named:
            found = fitting_heads(found, store)
        job = Backfill(store, found, output, probabilities, filesystem, other_heads)
    else:
        if not are_named:
            found = [head for head in found if reads_apart(head.head)] or found
        file = PairsFile(Path(pairs), None)
        job = PairsBackfill(store, found, file, output, probabilities, filesystem, other_heads)
    with job.lock():
        left: Any = job.prepare()
        with progress_bar(sum(one.rows for one in left), progress, "backfill") as bar:
            return job.run(left, threads, bar)


def _read(heads: AnyHeads, tasks: Sequence[str] | None) -> tuple[list[TaskHead], bool]:
    """The heads, and whether they were named, so that each must fit.

    Raises as `backfill`.
    """
    if isinstance(heads, str | Path) and Path(heads).is_dir():
        return read_heads(Path(heads), tasks), tasks is not None
    if tasks is not None:
        raise InputError("tasks: got them with heads, which say their own. Leave them out.")
    some = [heads] if isinstance(heads, str | Path | FoldedHead) else heads
    if not isinstance(some, Sequence) or not all(
        isinstance(one, str | Path | FoldedHead) for one in some
    ):
        raise InputError(
            f"heads: got {type(heads).__name__}, expected a bundle's folder, files of heads, or "
            "FoldedHeads. Of an engine name the bundle."
        )
    with TemporaryDirectory(prefix="bitheads-heads-") as folder:
        paths = [
            one.save(Path(folder) / f"{number}{SUFFIX}")
            if isinstance(one, FoldedHead)
            else Path(one)
            for number, one in enumerate(some)
        ]
        return read_head_files(paths), True
