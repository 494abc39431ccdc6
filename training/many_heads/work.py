"""What is done for one task, each a job of its own: train a head, a linear model, part of a curve.

Jobs read the task's files again, and codes from disk, so that little travels between processes.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitheads.engine.bundle import Manifest
from bitheads.engine.features.packed import PackedFeatures
from bitheads.engine.features.spec import Calibration, FeatureSpec
from bitheads.engine.heads.head_file import FoldedHead, check_task_name
from bitheads.engine.kinds import KINDS
from bitheads.engine.predictions import Prediction
from bitheads.engine.types import Text
from bitheads.training.data.background import Background, parts_of, read_background
from bitheads.training.data.held_out import covering_order, labels_of_row, rows_of, with_dev
from bitheads.training.data.labelled_texts import LabelledTexts
from bitheads.training.heads.background import background_texts, default_background
from bitheads.training.heads.config import FitConfig, HeadSettings
from bitheads.training.heads.features_of import features_of
from bitheads.training.heads.inputs import TWO_TEXTS, forms_of
from bitheads.training.heads.objectives import Objective, objective_of
from bitheads.training.heads.train_head import check_alike, predict, train_head_on
from bitheads.training.many_heads.cells import Result
from bitheads.training.many_heads.codes import CodesOnDisk
from bitheads.training.many_heads.config import TaskConfig
from bitheads.training.many_heads.linear import Part, linear_answers, means, vectors
from bitheads.training.many_heads.mistakes import mistakes
from bitheads.training.many_heads.scores import Answers, answers_of, score, truth_of
from bitheads.training.many_heads.tasks import identity_of, read_sets

Sets = Mapping[str, LabelledTexts]


@dataclass(frozen=True)
class EncodedBundle:
    """What training asks of an engine, for texts that are encoded already.

    Attributes:
        scratch: the folder of codes of all specs.
        backend: that encoded them.
        takes_pairs: whether the encoder reads two texts together.
    """

    manifest: Manifest
    calibration: Calibration | None
    backend: str
    takes_pairs: bool
    scratch: Path

    @property
    def spec(self) -> FeatureSpec:
        """What the codes mean."""
        return self.manifest.spec

    @cached_property
    def codes(self) -> CodesOnDisk:
        """As they are now on disk."""
        max_length = self.manifest.encoder.max_length
        return CodesOnDisk(self.scratch, self.spec, self.calibration, max_length)

    def __getstate__(self) -> dict[str, Any]:
        """Without the codes, which each process opens by itself."""
        return {name: value for name, value in vars(self).items() if name != "codes"}


@dataclass(frozen=True)
class TaskWork:
    """One task: where its data is, and how its head is trained."""

    name: str
    folder: Path
    config: TaskConfig
    background: tuple[Path, ...] = ()

    def read(self) -> dict[str, LabelledTexts]:
        """Its labelled texts. Raises InputError, with file and line, for anything malformed."""
        return read_sets(self.folder, self.config.kind, self.config.quotes)

    def check(self, sets: Sets) -> None:
        """Raises InputError, with file and line, for what no head can be trained or judged on."""
        check_task_name(self.name)
        objective = objective_of(sets["train"], self.config.decision)
        forms_of(sets["train"].form, self.config.form, takes_pairs=True)
        for data in sets.values():
            check_alike(data, sets["train"])
            objective.targets(data)

    def identity(self, sets: Sets, spec: FeatureSpec) -> dict[str, Any]:
        """All that its head follows from."""
        files = [path.read_bytes() for path in self._background_files(sets)]
        settings = asdict(self.config)
        pooling = self.config.position_pooling
        return {
            "data": identity_of(sets),
            "settings": {**settings, "position_pooling": pooling and pooling.value},
            "background": [hashlib.sha256(data).hexdigest() for data in files],
            "spec": spec.id,
        }

    def background_of(self, sets: Sets) -> list[Background]:
        """Texts that are none of its business, ready to be trained on; none if it rejects nothing.

        Raises InputError for files that are not right.
        """
        files = [read_background(path, self.config.quotes) for path in self._background_files(sets)]
        if not files:
            return []
        texts = background_texts(files, list(sets.values()), self._fit(sets).seed)
        sha256 = files[0].sha256
        if len(files) > 1:
            sha256 = hashlib.sha256("".join(file.sha256 for file in files).encode()).hexdigest()
        return [Background(files[0].path, texts, sets["train"].form, sha256)]

    def needed(self, sets: Sets, takes_pairs: bool) -> list[tuple[list[Text], bool]]:
        """The texts that its jobs read, and whether their words are wanted.

        Args:
            takes_pairs: whether the encoder reads two texts together.
        """
        train = sets["train"]
        texts = [text for data in sets.values() for text in data.texts]
        texts += [text for found in self.background_of(sets) for text in found.texts]
        found = []
        if set(forms_of(train.form, self.config.form, takes_pairs)) != {TWO_TEXTS}:
            found.append((texts, KINDS[train.kind].is_of_words))
        if train.form == "pair":
            found.append(([part for text in texts for part in parts_of(text)], False))
        return found

    def settings(self) -> HeadSettings:
        """How its head is trained, but for what fits it."""
        config = self.config
        return HeadSettings(
            self.name,
            config.learning_rates,
            config.dtype,
            config.decision,
            config.reject,
            config.form,
        )

    def _background_files(self, sets: Sets) -> tuple[Path, ...]:
        if not self.config.reject or KINDS[sets["train"].kind].is_of_words:
            return ()
        return self.background or (default_background(),)

    def _fit(self, sets: Sets) -> FitConfig:
        objective = objective_of(sets["train"], self.config.decision)
        return replace(objective.fit_config, **self.config.fit_changes)


def judged_part(sets: Sets) -> str:
    """What heads are judged on: "test", else "dev", else "held out", a part of the training set."""
    return next((part for part in ("test", "dev") if part in sets), "held out")


def judged_sets(sets: Sets) -> tuple[dict[str, LabelledTexts], LabelledTexts]:
    """What is learned from to be judged, "train" and maybe "dev", and what is judged on."""
    part = judged_part(sets)
    if part != "held out":
        learned = {name: data for name, data in sets.items() if name != "test"}
        return learned, sets[part]
    parts = with_dev(sets)
    return {"train": parts["train"], "test": parts["dev"]}, parts["dev"]


def train_job(bundle: EncodedBundle, work: TaskWork) -> tuple[FoldedHead, Result]:
    """The task's head, and what it answers to the texts that it is judged on."""
    started_s = time.perf_counter()
    sets = work.read()
    head = _train(bundle, work, sets, sets)
    judging, (learned, judged) = head, judged_sets(sets)
    if judged_part(sets) == "held out":
        judging = _train(bundle, work, learned, sets)
    prediction = _predict(bundle, judging, judged)
    truth = truth_of(judged, head.labels)
    arrays = {"answers": answers_of(prediction), "truth": truth, **_sureness(prediction)}
    values = {
        "kind": head.kind,
        "form": head.form,
        "labels": list(head.labels),
        "metrics": dict(judging.metrics),
        "judged": judged_part(sets),
        "num_judged": len(judged),
        "num_learned": len(learned["train"]),
        "rows": {part: len(data) for part, data in sets.items()},
        "mistakes": mistakes(prediction, judged.texts, truth),
        "nbytes": head.nbytes,
        "position_pooling": str(head.position_pooling),
        "seconds": time.perf_counter() - started_s,
    }
    return head, Result(values, arrays)


def linear_job(bundle: EncodedBundle, work: TaskWork) -> Result:
    """What a linear model on the bundle's features answers to those texts."""
    started_s = time.perf_counter()
    sets = work.read()
    learned, judged = judged_sets(sets)
    answers, chosen = _linear(bundle, work, learned, judged)
    return Result(
        {"chosen": chosen, "seconds": time.perf_counter() - started_s}, {"answers": answers}
    )


def head_answers_job(bundle: EncodedBundle, work: TaskWork) -> Result:
    """What a head on another bundle's features answers to those texts; it is not kept."""
    started_s = time.perf_counter()
    sets = work.read()
    learned, judged = judged_sets(sets)
    answers = answers_of(_predict(bundle, _train(bundle, work, learned, sets), judged))
    return Result({"seconds": time.perf_counter() - started_s}, {"answers": answers})


def curve_job(
    bundle: EncodedBundle, work: TaskWork, linear_bundle: EncodedBundle, size: int
) -> Result:
    """How good a head and a linear model are that learned from the first `size` examples."""
    sets = work.read()
    learned, judged = judged_sets(sets)
    order = covering_order(learned["train"])[:size]
    learned["train"] = rows_of(learned["train"], np.sort(order))
    head = _train(bundle, work, learned, sets)
    truth = truth_of(judged, head.labels)
    of_head = answers_of(_predict(bundle, head, judged))
    of_linear, _ = _linear(linear_bundle, work, learned, judged)
    return Result(
        {
            "size": size,
            "head": score(head.kind, of_head, truth),
            "linear": score(head.kind, of_linear, truth),
        }
    )


def curve_sizes(learned: LabelledTexts) -> list[int]:
    """Numbers of examples, four times as many each, without all of them."""
    labels = {label for row in range(len(learned)) for label in labels_of_row(learned, row)}
    size, sizes = max(16, 2 * len(labels)), []
    while size < len(learned):
        sizes.append(size)
        size *= 4
    return sizes


def _train(bundle: EncodedBundle, work: TaskWork, learned: Sets, sets: Sets) -> FoldedHead:
    """A head of the task that learned from some of its rows.

    Args:
        sets: all of them, of which the background is none.
    """
    return train_head_on(
        bundle,
        bundle.codes.encode,
        learned,
        work.settings(),
        work.config.fit_changes,
        work.background_of(sets),
    ).head


def _predict(bundle: EncodedBundle, head: FoldedHead, data: LabelledTexts) -> Prediction:
    return predict(head, features_of(head, data.texts, bundle.codes.encode))


def _linear(
    bundle: EncodedBundle, work: TaskWork, learned: Sets, judged: LabelledTexts
) -> tuple[Answers, dict[str, Any]]:
    objective = objective_of(learned["train"], work.config.decision)
    parts = {name: _part(bundle, objective, data) for name, data in learned.items()}
    features = None
    if KINDS[objective.kind].is_of_words:
        features = bundle.codes.get(judged.texts, words=True)
        rows = means(features.of_words())
    else:
        rows = vectors(judged.texts, bundle.codes.get)
    words = None if features is None else features.words
    dev = parts.get("dev")
    return linear_answers(objective.kind, objective.labels, parts["train"], dev, rows, words)


def _part(bundle: EncodedBundle, objective: Objective, data: LabelledTexts) -> Part:
    if not KINDS[objective.kind].is_of_words:
        rows = vectors(data.texts, bundle.codes.get)
        return Part(rows, truth_of(data, objective.labels))
    features: PackedFeatures = bundle.codes.get(data.texts, words=True)
    targets, of_words = objective.encoded(objective.targets(data), features)
    return Part(means(of_words), objective.of_rows(targets))


def _sureness(prediction: Prediction) -> dict[str, NDArray[Any]]:
    """How sure the answers are, for the plots: of each label, float32 [texts, labels], or of each
    span, float32 [spans]."""
    kind = KINDS[prediction.kind]
    if kind.is_of_words:
        found, _ = prediction.found_spans
        return {"probabilities": found.probability}
    if prediction.kind == "regression":
        return {}
    best = {"best": prediction.best} if kind.is_one_label else {}
    return {"probabilities": prediction.probabilities, **best}
