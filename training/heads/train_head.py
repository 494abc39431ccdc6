"""A task head from labelled texts: encode, train, calibrate, fold, check the fold, write."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitheads import __version__
from bitheads.engine import Engine
from bitheads.engine.errors import HeadError, InputError
from bitheads.engine.features.codes import code_affine
from bitheads.engine.features.packed import PackedFeatures
from bitheads.engine.heads import float_heads
from bitheads.engine.heads.cpu import predict_heads
from bitheads.engine.heads.head_file import FoldedHead, check_head_output, write_head
from bitheads.export.fold import fold
from bitheads.training.data.background import Background, read_background
from bitheads.training.data.labelled_texts import LabelledTexts, read_labelled
from bitheads.training.heads.background import (
    BackgroundFeatures,
    background_texts,
    default_background,
    split_background,
)
from bitheads.training.heads.calibrate import calibrate, choose_rejection
from bitheads.training.heads.config import FitConfig, HeadConfig
from bitheads.training.heads.fit import Epoch, Fitted, evaluate, fit
from bitheads.training.heads.objectives import Objective, objective_of
from bitheads.training.heads.objectives.objective import Targets
from bitheads.training.heads.task_head import TaskHead
from bitheads.training.metrics import auroc

MAX_FOLD_ERROR = 1e-4
"""Largest difference that a logit of the folded head may have from that of the trained one."""

Say = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class TrainedTask:
    """A task's head as written, and the torch module it was folded from, calibrated as it is."""

    head: FoldedHead
    module: TaskHead


def train_head(
    loaded: Engine,
    config: HeadConfig,
    fit_config: FitConfig,
    say: Say = lambda message: None,
    progress: bool = False,
) -> TrainedTask:
    """Encodes, trains, folds, checks the folded head against the trained one, and writes it.

    Args:
        loaded: the engine whose codes the head will read.
        say: called with one line at a time.

    Raises InputError for unsound data, HeadError for the output, TrainingError for a loss that
    is not finite.
    """
    check_head_output(config.task, config.output, config.force)
    paths = {"train": config.train, "dev": config.dev, "test": config.test}
    sets = {
        name: read_labelled(path, config.quotes, kind=config.kind)
        for name, path in paths.items()
        if path
    }
    for data in sets.values():
        _check_alike(data, sets["train"])
    objective = objective_of(sets["train"], config.decision)
    targets = {name: objective.targets(data) for name, data in sets.items()}
    paths_of_others = () if not config.reject else config.background or (default_background(),)
    files = [read_background(path) for path in paths_of_others]
    others = background_texts(files, list(sets.values()), fit_config.seed) if files else []
    features = {name: _encode(loaded, name, data, say, progress) for name, data in sets.items()}
    background = None
    if others:
        background = split_background(loaded.encode(others, progress=progress), features["train"])
        say(f"background: {len(others)} texts, {len(background.held_out)} of them held out")
    if fit_config.attention_heads is None:
        fit_config = replace(fit_config, attention_heads=loaded.manifest.encoder.attention_heads)
    _say_labels(objective, say)

    def report(epoch: Epoch) -> None:
        say(
            f"{epoch.number:5d}  {epoch.train_loss:10.4f}  {epoch.dev_loss:8.4f}  "
            f"{epoch.dev_score:9.4f}  {epoch.seconds:7.1f}{'  *' if epoch.best else ''}"
        )

    best: Fitted | None = None
    for rate in config.learning_rates:
        attempt = replace(fit_config, learning_rate=rate)
        say(f"learning rate {rate:g}; dev score: {objective.score_name}")
        say("epoch  train loss  dev loss  dev score  seconds")
        fitted = fit(
            features["train"],
            targets["train"],
            features["dev"],
            targets["dev"],
            objective,
            attempt,
            report,
            progress,
            background=None if background is None else background.train,
        )
        if best is None or fitted.score > best.score:
            best, fit_config = fitted, attempt
    assert best is not None, "there is at least one learning rate"
    calibrated = calibrate(
        best,
        objective,
        features["dev"],
        targets["dev"],
        None if background is None else background.held_out,
    )
    calibrated.apply(best.head)
    scale, offset = code_affine(loaded.spec, loaded.calibration)
    head = fold(
        best.head.trained(),
        scale,
        offset,
        task=config.task,
        labels=objective.labels,
        form=sets["train"].form,
        spec=loaded.spec,
        metrics={},
        training=_provenance(config, fit_config, sets, files, loaded),
        kind=objective.kind,
        decision=calibrated.decision,
    )
    if config.dtype != "float32":
        head = rounded(head, config.dtype)
    if background is not None:
        head = choose_rejection(head, features["dev"], config.decision.keep)
    metrics: dict[str, float] = {}
    for name in [name for name in sets if name != "train"]:
        error = _fold_error(head, features[name], evaluate(best.head, features[name]))
        metrics[f"{name}_fold_max_abs_error"] = error
        most = MAX_FOLD_ERROR * max(1.0, calibrated.scale.max())
        if config.dtype == "float32" and error > most:
            raise HeadError(
                f"head {config.task!r}: folding moved a logit by {error:.2g}, expected at most "
                f"{most:.2g}. Nothing was written; please report this."
            )
        measured = measure(head, objective, features[name], targets[name], background)
        metrics.update({f"{name}_{key}": value for key, value in measured.items()})
    head = replace(head, metrics=metrics)
    write_head(head, config.output, config.dtype, config.force)
    return TrainedTask(head, best.head)


def _check_alike(data: LabelledTexts, train: LabelledTexts) -> None:
    """Raises InputError for texts or labels of another kind than those that are trained on."""
    if data.form != train.form:
        raise InputError(
            f"{data.path}: got {data.form} texts, expected {train.form} texts as in {train.path}. "
            "Use one form for all files."
        )
    if data.kind != train.kind:
        raise InputError(
            f"{data.path}: got {data.kind} labels, expected {train.kind} labels as in "
            f"{train.path}. Use one kind for all files."
        )


def _say_labels(objective: Objective, say: Say) -> None:
    labels = objective.labels
    shown = ", ".join(labels[:8]) + (", ..." if len(labels) > 8 else "")
    say(f"{objective.kind}{f', {len(labels)} labels: {shown}' if labels else ''}")


def _fold_error(head: FoldedHead, features: PackedFeatures, expected: NDArray[np.float32]) -> float:
    (exact,) = float_heads.predict_heads(features, [head])
    return float(np.abs(exact - expected).max())


def measure(
    head: FoldedHead,
    objective: Objective,
    features: PackedFeatures,
    targets: Targets,
    background: BackgroundFeatures | None = None,
) -> dict[str, float]:
    """What is said of a head, as it will be served."""
    prediction = predict_heads(features, [head])[head.task]
    found = objective.metrics(prediction, targets)
    if head.decision.can_refuse:
        found["accepted"] = float(prediction.accepted.mean())
    if background is not None:
        outside = predict_heads(background.held_out, [head])[head.task]
        found["background_accepted"] = float(outside.accepted.mean())
        inside_scores, outside_scores = prediction.reject_scores, outside.reject_scores
        assert inside_scores is not None, "it has a reject output"
        assert outside_scores is not None, "it has a reject output"
        found["reject_auroc"] = auroc(inside_scores, outside_scores)
    return found


def rounded(head: FoldedHead, dtype: str) -> FoldedHead:
    """The head as it will be read back once written as `dtype`, so that metrics are its own."""
    weights: dict[str, Any] = {
        name: array.astype(dtype).astype(np.float32) for name, array in head.tensors.items()
    }
    return replace(head, **weights)


def _encode(
    loaded: Engine, name: str, data: LabelledTexts, say: Say, progress: bool
) -> PackedFeatures:
    features = loaded.encode(data.texts, progress=progress)
    stats = features.stats
    say(
        f"{name}: {stats.num_texts} {data.form} texts, {stats.num_tokens} tokens, "
        f"{stats.num_truncated} cut, {features.nbytes / 1e6:.1f} MB of codes, encoded in "
        f"{stats.encode_s:.1f} s"
    )
    return features


def _provenance(
    config: HeadConfig,
    fit_config: FitConfig,
    sets: dict[str, LabelledTexts],
    background: Sequence[Background],
    loaded: Engine,
) -> dict[str, Any]:
    return {
        "settings": {
            key: str(value) if key == "position_pooling" else value
            for key, value in asdict(fit_config).items()
        },
        "decision": {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(config.decision).items()
            if value is not None
        },
        "dtype": config.dtype,
        "data": {
            name: {"file": data.path.name, "sha256": data.sha256, "rows": len(data)}
            for name, data in sets.items()
        },
        "background": [{"file": found.path.name, "sha256": found.sha256} for found in background],
        "backend": loaded.backend,
        "versions": {"bitheads": __version__, "torch": version("torch")},
    }
