"""A task head from labelled texts: encode, train, fold, check the fold, write."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from typing import Any

import numpy as np

from bitheads import __version__
from bitheads.engine import Engine
from bitheads.engine.errors import HeadError, InputError
from bitheads.engine.features.codes import code_affine
from bitheads.engine.features.packed import PackedFeatures
from bitheads.engine.heads import float_heads
from bitheads.engine.heads.cpu import predict_heads
from bitheads.engine.heads.head_file import FoldedHead, check_head_output, write_head
from bitheads.export.fold import fold
from bitheads.training.data.labelled_texts import LabelledTexts, classes_of, read_labelled
from bitheads.training.heads.config import FitConfig, HeadConfig
from bitheads.training.heads.fit import Epoch, evaluate, fit
from bitheads.training.heads.task_head import TaskHead
from bitheads.training.metrics import summarize

MAX_FOLD_ERROR = 1e-4
"""Largest difference that a logit of the folded head may have from that of the trained one."""

Say = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class TrainedTask:
    """A task's head as written, and the torch module it was folded from."""

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
    sets = {name: read_labelled(path, config.quotes) for name, path in paths.items() if path}
    classes = classes_of(sets["train"])
    label_ids = {name: data.label_ids(classes) for name, data in sets.items()}
    for data in sets.values():
        if data.form != sets["train"].form:
            raise InputError(
                f"{data.path}: got {data.form} texts, expected {sets['train'].form} texts as in "
                f"{config.train}. Use one form for all files."
            )
    features = {name: _encode(loaded, name, data, say, progress) for name, data in sets.items()}
    if fit_config.attention_heads is None:
        fit_config = replace(fit_config, attention_heads=loaded.manifest.encoder.attention_heads)

    say(f"{len(classes)} classes: {', '.join(classes[:8])}{', ...' if len(classes) > 8 else ''}")

    def report(epoch: Epoch) -> None:
        say(
            f"{epoch.number:5d}  {epoch.train_loss:10.4f}  {epoch.dev_loss:8.4f}  "
            f"{epoch.dev_accuracy:12.4f}  {epoch.seconds:7.1f}{'  *' if epoch.best else ''}"
        )

    trained, best_accuracy = None, -1.0
    for rate in config.learning_rates:
        attempt = replace(fit_config, learning_rate=rate)
        say(f"learning rate {rate:g}")
        say("epoch  train loss  dev loss  dev accuracy  seconds")
        module, accuracy = fit(
            features["train"],
            label_ids["train"],
            features["dev"],
            label_ids["dev"],
            len(classes),
            attempt,
            report,
            progress,
        )
        if accuracy > best_accuracy:
            trained, best_accuracy, fit_config = module, accuracy, attempt
    assert trained is not None, "there is at least one learning rate"
    scale, offset = code_affine(loaded.spec, loaded.calibration)
    head = fold(
        trained.trained(),
        scale,
        offset,
        task=config.task,
        labels=classes,
        form=sets["train"].form,
        spec=loaded.spec,
        metrics={},
        training=_provenance(config, fit_config, sets, loaded),
    )
    if config.dtype != "float32":
        head = rounded(head, config.dtype)
    metrics: dict[str, float] = {}
    for name in [name for name in sets if name != "train"]:
        (exact,) = float_heads.predict_heads(features[name], [head])
        error = float(np.abs(exact - evaluate(trained, features[name])).max())
        metrics[f"{name}_fold_max_abs_error"] = error
        if config.dtype == "float32" and error > MAX_FOLD_ERROR:
            raise HeadError(
                f"head {config.task!r}: folding moved a logit by {error:.2g}, expected at most "
                f"{MAX_FOLD_ERROR}. Nothing was written; please report this."
            )
        logits = predict_heads(features[name], [head])[head.task].logits  # as it will be served
        summary = summarize(label_ids[name], logits.argmax(axis=1), len(classes))
        metrics.update({f"{name}_{key}": value for key, value in summary.items()})
        metrics[f"{name}_majority"] = float(np.bincount(label_ids[name]).max() / len(logits))
    head = replace(head, metrics=metrics)
    write_head(head, config.output, config.dtype, config.force)
    return TrainedTask(head, trained)


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
    config: HeadConfig, fit_config: FitConfig, sets: dict[str, LabelledTexts], loaded: Engine
) -> dict[str, Any]:
    return {
        "settings": {
            key: str(value) if key == "position_pooling" else value
            for key, value in asdict(fit_config).items()
        },
        "dtype": config.dtype,
        "data": {
            name: {"file": data.path.name, "sha256": data.sha256, "rows": len(data)}
            for name, data in sets.items()
        },
        "backend": loaded.backend,
        "versions": {"bitheads": __version__, "torch": version("torch")},
    }
