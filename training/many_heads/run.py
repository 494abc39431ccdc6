"""Heads for all tasks of a folder: what is done stays done, the rest is worked off on all cores."""

from __future__ import annotations

import hashlib
import json
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

from bitheads.engine import Engine
from bitheads.engine.bundle import Manifest, read_calibration, read_manifest
from bitheads.engine.errors import BitheadsError, InputError
from bitheads.engine.features.spec import Quantization
from bitheads.engine.heads.cpu import CpuHead, HeadThreads, load_head
from bitheads.engine.heads.head import is_of_words
from bitheads.engine.heads.head_file import SUFFIX, FoldedHead, read_head, write_head
from bitheads.engine.kinds import KINDS
from bitheads.engine.process.cores import count_cores
from bitheads.engine.process.interrupts import interrupts_held_back
from bitheads.training.data.background import parts_of
from bitheads.training.data.labelled_texts import LabelledTexts
from bitheads.training.data.tasks import task_names
from bitheads.training.heads.decision_options import DecisionOptions
from bitheads.training.heads.features_of import features_of
from bitheads.training.heads.pair_features import Codes, PairFeatures
from bitheads.training.many_heads.cells import Cells, Result, write
from bitheads.training.many_heads.codes import CodesOnDisk
from bitheads.training.many_heads.config import ManyConfig
from bitheads.training.many_heads.report.page import make_page
from bitheads.training.many_heads.report.task_report import OTHERS, TaskReport
from bitheads.training.many_heads.scores import score
from bitheads.training.many_heads.tasks import choose
from bitheads.training.many_heads.work import (
    EncodedBundle,
    TaskWork,
    curve_job,
    curve_sizes,
    head_answers_job,
    judged_sets,
    linear_job,
    train_job,
)
from bitheads.training.many_heads.workers import Failure, Job, run_jobs
from bitheads.training.output_folder import locked
from bitheads.training.progress import duration

CELLS, SCRATCH = "cells", "scratch"
"""Folders in the output: of results, and of codes, which may be deleted at any time."""
REPORT, ROWS = "report.html", "report.json"

TIMED_TEXTS = 256
TIMED_S = 0.3
"""Texts, and seconds of calls at least, that a head's cost is measured on."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Places:
    """What depends on the machine.

    Attributes:
        data: a folder of tasks.
        bundle: whose codes the heads read.
        float_bundle: a bundle of float16 codes, for heads and linear models to compare with.
        output: gets the heads, the report, and what is kept to go on from.
        encoder: what the bundle was made of, to be fine-tuned; None for what the bundle says.
        backend: of encoding.
        device: of fine-tuning.
        processes: that train heads, and threads that fine-tune; None for one per core.
    """

    data: Path
    bundle: Path
    output: Path
    float_bundle: Path | None = None
    encoder: str | None = None
    backend: str = "auto"
    device: str = "auto"
    processes: int | None = None


@dataclass(frozen=True, eq=False)
class Outcome:
    """What came of it: the report, its rows, and what failed, by task."""

    report: Path
    rows: list[dict[str, Any]]
    failures: dict[str, dict[str, str]]


def train_many(
    config: ManyConfig,
    places: Places,
    force: bool = False,
    say: Say = lambda message: None,
    progress: bool = False,
) -> Outcome:
    """Trains what is not done yet, and writes the report.

    A task that fails leaves the others alone; what went wrong is in the outcome and in the report.

    Args:
        force: replace heads in the output that this did not write.
        say: called with one line at a time.
        progress: show how far the encoder is on standard error.

    Raises InputError for a folder without tasks and for settings of tasks that are not there,
    BundleError and such for bundles, TrainingError for an output that cannot be written.
    """
    names = choose(places.data, config.tasks, config.exclude_tasks)
    if unknown := sorted(set(config.settings) - (known := task_names(places.data))):
        raise InputError(
            f"settings: got some of {', '.join(map(repr, unknown))}, expected those of the tasks "
            f"{sorted(known)}. Correct the name, or remove its table."
        )
    with locked(places.output):
        return _Run(config, places, names, force, say, progress).run()


class _Bundle:
    """A bundle whose engine is loaded once something is to be encoded or trained."""

    def __init__(self, folder: Path, backend: str, scratch: Path, say: Say) -> None:
        self.folder, self._backend, self._say, self._scratch = folder, backend, say, scratch
        self.manifest: Manifest = read_manifest(folder)
        self._calibration = read_calibration(folder, self.manifest.spec)
        self.codes = CodesOnDisk(
            scratch, self.manifest.spec, self._calibration, self.manifest.encoder.max_length
        )

    @cached_property
    def engine(self) -> Engine:
        engine = Engine.load(self.folder, backend=self._backend)
        self._say(f"bundle {self.folder}: {engine.spec}, {engine.backend}")
        return engine

    def for_jobs(self) -> EncodedBundle:
        """What other processes get."""
        return EncodedBundle(
            self.manifest,
            self._calibration,
            self.engine.backend,
            self.engine.takes_pairs,
            self._scratch,
        )


@dataclass(frozen=True, eq=False)
class _Task:
    """A task whose data is sound.

    Attributes:
        identity: all that its head follows from.
        is_of_words: whether its head is.
        num_rows: of its training file.
        curve_sizes: of a learning curve, whether it is wanted or not.
    """

    work: TaskWork
    identity: dict[str, Any]
    is_of_words: bool
    num_rows: int
    curve_sizes: list[int]

    @property
    def name(self) -> str:
        return self.work.name

    @property
    def of_data(self) -> dict[str, Any]:
        """What other models than heads follow from."""
        decision = self.identity["settings"]
        names = [field.name for field in fields(DecisionOptions)]
        return {
            "data": self.identity["data"],
            "decision": {name: decision[name] for name in names},
        }


class _Run:
    def __init__(
        self,
        config: ManyConfig,
        places: Places,
        names: Sequence[str],
        force: bool,
        say: Say,
        progress: bool,
    ) -> None:
        self._config, self._places, self._names = config, places, names
        self._force, self._say, self._progress = force, say, progress
        scratch = places.output / SCRATCH
        self._cells = Cells(places.output / CELLS)
        self._bundle = _Bundle(places.bundle, places.backend, scratch, say)
        self._floats: _Bundle | None = None
        if places.float_bundle is not None:
            self._floats = _Bundle(places.float_bundle, places.backend, scratch, say)
            spec = self._floats.manifest.spec
            if spec.quantization is not Quantization.FLOAT16:
                raise InputError(
                    f"--float-bundle {places.float_bundle}: got {spec.quantization} codes, "
                    "expected float16. Make one: bitheads build --quantization float16."
                )
        self._tasks: dict[str, _Task] = {}
        self._failures: dict[str, dict[str, str]] = {}

    def run(self) -> Outcome:
        started_s = time.monotonic()
        jobs = self._jobs()
        if jobs:
            processes = self._places.processes or count_cores()
            self._say(f"{len(jobs)} jobs on {min(processes, len(jobs))} processes")
            self._total, self._done = len(jobs), 0
            run_jobs(jobs, processes, self._keep)
        if self._config.fine_tune:
            self._fine_tune()
        reports = [self._report_of(name) for name in self._names]
        self._say(f"done after {duration(time.monotonic() - started_s)}")
        return self._write(reports)

    def _jobs(self) -> list[Job]:
        """What is to be done, once its texts are encoded; the largest tasks first."""
        found: list[tuple[int, Job]] = []
        for name in self._names:
            work = TaskWork(
                name,
                self._places.data / name,
                self._config.of_task(name),
                self._config.background,
            )
            try:
                sets = work.read()
                work.check(sets)
                task = self._tasks[name] = _Task(
                    work,
                    work.identity(sets, self._bundle.manifest.spec),
                    KINDS[sets["train"].kind].is_of_words,
                    len(sets["train"]),
                    curve_sizes(judged_sets(sets)[0]["train"]),
                )
                wanted = self._wanted(task)
                self._encode(task, sets, [cell for cell, _ in wanted])
            except BitheadsError as error:
                self._fail(name, "reading" if name not in self._tasks else "encoding", str(error))
                continue
            found += [(task.num_rows, job) for _, job in wanted]
        return [job for _, job in sorted(found, key=lambda item: -item[0])]

    def _wanted(self, task: _Task) -> list[tuple[str, Job]]:
        """The cells that are not done: each one's name, and the job for it."""
        wanted: list[tuple[str, Job]] = []

        def want(cell: str, run: Callable[..., Any], bundle: _Bundle, *more: Any) -> None:
            arguments = (bundle.for_jobs(), task.work, *more)
            wanted.append((cell, Job(f"{task.name}/{cell}", run, arguments)))

        if self._read_head(task) is None:
            want("head", train_job, self._bundle)
        if self._read(task, "linear") is None:
            want("linear", linear_job, self._floats or self._bundle)
        if self._floats is not None and self._read(task, "float_head") is None:
            want("float_head", head_answers_job, self._floats)
        for size in task.curve_sizes if self._config.learning_curve else ():
            if self._read(task, f"curve-{size}") is None:
                linear = (self._floats or self._bundle).for_jobs()
                want(f"curve-{size}", curve_job, self._bundle, linear, size)
        return wanted

    def _encode(self, task: _Task, sets: Mapping[str, LabelledTexts], cells: Iterable[str]) -> None:
        """Encodes what of a task's texts is not there yet and one of the cells wants."""
        wanted = set(cells)
        bundles = []
        if wanted - ({"float_head", "linear"} if self._floats else set()):
            bundles.append(self._bundle)
        if wanted - {"head"} and self._floats is not None:
            bundles.append(self._floats)
        for bundle in bundles:
            codes = bundle.codes
            for texts, words in task.work.needed(sets, bundle.engine.takes_pairs):
                missing = codes.missing(texts, words)
                if not missing:
                    continue
                self._say(f"{task.name}: encoding {len(missing)} texts of {len(texts)}")
                codes.add(bundle.engine, missing, words, self._progress)

    def _keep(self, job: Job, result: Any) -> None:
        """Writes what a job gave."""
        name, _, cell = job.name.partition("/")
        self._done += 1
        shown = f"{self._done}/{self._total} {name}: {cell.replace('_', ' ')}"
        if isinstance(result, Failure):
            self._fail(name, cell, result.message, result.details)
            return
        task = self._tasks[name]
        try:
            with interrupts_held_back():
                if cell == "head":
                    head, found = result
                    result = self._write_head(task, head, found)
                self._cells.write(name, cell, self._identity(task, cell), result)
        except BitheadsError as error:
            self._fail(name, cell, str(error))
            return
        seconds = result.values.get("seconds")
        self._say(shown if seconds is None else f"{shown}, {duration(seconds)}")

    def _write_head(self, task: _Task, head: FoldedHead, found: Result) -> Result:
        """The head's result with the hash of its file, which is written."""
        path = self._head_path(task.name)
        is_ours = self._cells.path(task.name, "head").exists()
        write_head(head, path, task.work.config.dtype, self._force or is_ours)
        return Result({**found.values, "sha256": _sha256(path)}, found.arrays)

    def _head_path(self, name: str) -> Path:
        return self._places.output / f"{name}{SUFFIX}"

    def _identity(self, task: _Task, cell: str) -> dict[str, Any]:
        """All that a cell follows from."""
        floats = None if self._floats is None else self._floats.manifest.spec.id
        if cell == "linear":
            return {**task.of_data, "spec": floats or task.identity["spec"]}
        if cell == "float_head":
            return {**task.identity, "spec": floats}
        if cell.startswith("curve-"):
            return {**task.identity, "linear_spec": floats}
        if cell == "fine_tuned":
            weights = self._bundle.manifest.spec.weights_sha256
            epochs = self._config.fine_tune_epochs
            return {**task.of_data, "weights_sha256": weights, "epochs": epochs}
        if cell == "cost":
            return {"head": _sha256(self._head_path(task.name)), "machine": platform.node()}
        return task.identity

    def _read(self, task: _Task, cell: str) -> Result | None:
        return self._cells.read(task.name, cell, self._identity(task, cell))

    def _read_head(self, task: _Task) -> Result | None:
        """What is known of the head, None unless its file is there as it was written."""
        found = self._read(task, "head")
        path = self._head_path(task.name)
        if found is None or not path.is_file() or found.values["sha256"] != _sha256(path):
            return None
        return found

    def _fail(self, name: str, what: str, message: str, details: str = "") -> None:
        self._failures.setdefault(name, {})[what.replace("_", " ")] = message
        self._say(f"{name}: {what.replace('_', ' ')} failed: {message}")
        if details:
            self._say(details)

    def _fine_tune(self) -> None:
        from bitheads.training.many_heads.fine_tune import encoder_of, fine_tune_job

        manifest = self._bundle.manifest
        encoder = self._places.encoder or encoder_of(manifest)
        jobs = []
        for task in self._tasks.values():
            if task.is_of_words or self._read(task, "fine_tuned") is not None:
                continue
            of_encoder = (encoder, manifest.spec.weights_sha256)
            threads = self._places.processes or count_cores()
            of_run = (self._config.fine_tune_epochs, self._places.device, threads)
            arguments = (*of_encoder, task.work, *of_run)
            jobs.append(Job(f"{task.name}/fine_tuned", fine_tune_job, arguments))
        self._total, self._done = len(jobs), 0
        # One at a time, on all cores: an encoder's matrices are large enough to share.
        run_jobs(jobs, 1, self._keep)

    def _report_of(self, name: str) -> TaskReport:
        failures = self._failures.get(name, {})
        task = self._tasks.get(name)
        head = None if task is None else self._read_head(task)
        if task is None or head is None:
            return TaskReport(name, failures=failures)
        others = {
            other: result for other in OTHERS if (result := self._read(task, other)) is not None
        }
        if self._floats is None:
            others.pop("float_head", None)
        return TaskReport(
            name, head, others, self._curve(task, head, others), self._cost(task), failures
        )

    def _curve(self, task: _Task, head: Result, others: Mapping[str, Result]) -> tuple[Result, ...]:
        """Its points, those of all examples last, where both head and linear model are there."""
        found = [self._read(task, f"curve-{size}") for size in task.curve_sizes]
        if not self._config.learning_curve or "linear" not in others:
            return ()
        kind, truth = head.values["kind"], head.arrays["truth"]
        of_all = {
            name: score(kind, result.arrays["answers"], truth)
            for name, result in (("head", head), ("linear", others["linear"]))
        }
        points = [result for result in found if result is not None]
        return (*points, Result({"size": head.values["num_learned"], **of_all}))

    def _cost(self, task: _Task) -> float | None:
        """Microseconds that the head takes of one text, on one thread, as texts come in batches."""
        if (found := self._read(task, "cost")) is not None:
            return float(found.values["us"])
        sets = task.work.read()
        _, judged = judged_sets(sets)
        texts = judged.texts[:TIMED_TEXTS]
        head = read_head(self._head_path(task.name))
        codes = self._bundle.codes
        asked = texts
        if head.form == "two_texts":
            asked = [part for text in texts for part in parts_of(text)]
        if missing := codes.missing(asked, is_of_words(head)):
            codes.add(self._bundle.engine, missing, is_of_words(head), self._progress)
        features = features_of(head, texts, codes.encode)
        seconds: list[float] = []
        with HeadThreads(1) as threads:
            loaded = load_head(head)
            _answer(threads, loaded, features)  # its workspace is made
            while sum(seconds) < TIMED_S or len(seconds) < 3:
                started_s = time.perf_counter()
                _answer(threads, loaded, features)
                seconds.append(time.perf_counter() - started_s)
        cost_us = 1e6 * median(seconds) / len(texts)
        self._cells.write(task.name, "cost", self._identity(task, "cost"), Result({"us": cost_us}))
        return cost_us

    def _write(self, reports: Sequence[TaskReport]) -> Outcome:
        about = {
            "bundle": self._places.bundle.name,
            "codes": str(self._bundle.manifest.spec),
            "tasks": str(len(reports)),
        }
        if self._floats is not None:
            about["floats"] = str(self._floats.manifest.spec)
        page = make_page(f"Heads of {self._places.data.name}", about, self._notes(), reports)
        report = self._places.output / REPORT
        write(report, page.encode())
        rows = [task.to_json() for task in reports]
        text = json.dumps(rows, indent=1, ensure_ascii=False) + "\n"
        write(self._places.output / ROWS, text.encode())
        return Outcome(report, rows, self._failures)

    def _notes(self) -> list[str]:
        codes = (
            "the mean of a text's float features"
            if self._floats
            else ("the mean of a text's codes (no --float-bundle was named)")
        )
        notes = [
            "Scores are in points, with 95% intervals below them. Beside a score, ▾ says that the "
            "head is better and ▴ that it is worse, where zero is outside the 95% interval of the "
            "difference on the same texts.",
            f"The linear model is scikit-learn's on {codes} at length 1; of a pair, on those of "
            "both texts, each encoded by itself.",
            "Heads are judged on test; where there is none on dev, which also chose when to stop, "
            "so that they look a little better than they are; where there is neither on a fifth of "
            "the examples, by a head that did not learn from those.",
            "The time per text is what the head costs on one thread, beyond the encoder's pass "
            "that all heads share.",
        ]
        if self._config.fine_tune:
            notes.append(
                "The fine-tuned encoder is the bundle's own, trained end to end on the task alone: "
                "it answers one task per pass."
            )
        return notes


def _answer(threads: HeadThreads, head: CpuHead, features: Codes) -> None:
    """What is timed of a head: of pairs of texts that are encoded by themselves, both halves."""
    if isinstance(features, PairFeatures):
        vectors = threads.text_vectors(features.texts, [head])
        threads.pair_outputs(vectors, features.pairs, [head])
    else:
        threads.predict(features, [head])


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
