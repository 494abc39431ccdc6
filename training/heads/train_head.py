"""A task head from labelled texts: encode, train, calibrate, fold, check the fold, write."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bitheads.engine import Engine
from bitheads.engine.bundle import Manifest
from bitheads.engine.errors import HeadError, InputError
from bitheads.engine.features.codes import code_affine
from bitheads.engine.features.spec import Calibration, FeatureSpec
from bitheads.engine.heads import float_heads
from bitheads.engine.heads.cpu import HeadThreads, predict_heads
from bitheads.engine.heads.head import outputs_of, predictions_of
from bitheads.engine.heads.head_file import (
    PAIR_PREFIX,
    PAIR_TENSORS,
    FoldedHead,
    PairHalf,
    check_head_output,
    check_task_name,
    write_head,
)
from bitheads.engine.kinds import KINDS
from bitheads.engine.predictions import Prediction
from bitheads.engine.types import Text
from bitheads.export.fold import fold
from bitheads.training.data.background import Background, read_background
from bitheads.training.data.held_out import with_dev
from bitheads.training.data.labelled_texts import LabelledTexts, read_labelled
from bitheads.training.heads.background import (
    BackgroundFeatures,
    background_texts,
    default_background,
)
from bitheads.training.heads.calibrate import calibrate, choose_rejection
from bitheads.training.heads.config import FitConfig, HeadConfig, HeadSettings
from bitheads.training.heads.fit import (
    Epoch,
    Fitted,
    Trainable,
    evaluate,
    fit,
    fit_linear,
    fit_without_dev,
)
from bitheads.training.heads.inputs import TWO_TEXTS, Encode, Inputs, Say, encode_inputs, forms_of
from bitheads.training.heads.objectives import Objective, objective_of
from bitheads.training.heads.objectives.objective import Targets
from bitheads.training.heads.pair_features import Codes, PairFeatures
from bitheads.training.heads.two_texts_head import TwoTextsHead
from bitheads.training.metrics import auroc

MAX_FOLD_ERROR = 1e-4
"""Largest difference that a logit of the folded head may have from that of the trained one, as a
part of the largest logit, which is what float32 rounds by; absolute where no logit is above 1."""

MAX_PAIR_ERROR = 0.05
"""The same of a head of two texts, of which the kernels round what lies between its halves;
absolute, times the scale of its calibration."""

NO_CHANGES: Mapping[str, Any] = MappingProxyType({})


class BundleFacts(Protocol):
    """What training asks of the bundle that a head is for, beside codes; an Engine has it all."""

    @property
    def manifest(self) -> Manifest: ...

    @property
    def spec(self) -> FeatureSpec: ...

    @property
    def calibration(self) -> Calibration | None: ...

    @property
    def backend(self) -> str: ...

    @property
    def takes_pairs(self) -> bool: ...


@dataclass(frozen=True, eq=False)
class TrainedTask:
    """A task's head as written, and the torch module it was folded from, calibrated as it is."""

    head: FoldedHead
    module: Trainable


def train_head(
    loaded: Engine,
    config: HeadConfig,
    fit_config: FitConfig | Mapping[str, Any] = NO_CHANGES,
    say: Say = lambda message: None,
    progress: bool = False,
) -> TrainedTask:
    """Trains a head on files and writes it.

    Args:
        loaded, fit_config, say: see `train_head_on`.

    Raises as `train_head_on`, InputError for unsound files, and HeadError for the output.
    """
    check_head_output(config.task, config.output, config.force)
    paths = {"train": config.train, "dev": config.dev, "test": config.test}
    sets = {
        name: read_labelled(path, config.quotes, kind=config.kind)
        for name, path in paths.items()
        if path
    }
    background = [read_background(path, config.quotes) for path in config.background]
    encode = partial(loaded.encode, progress=progress)
    trained = train_head_on(
        loaded, encode, sets, config.settings, fit_config, background, say, progress
    )
    write_head(trained.head, config.output, config.dtype, config.force)
    return trained


def train_head_on(
    loaded: BundleFacts,
    encode: Encode,
    sets: Mapping[str, LabelledTexts],
    settings: HeadSettings,
    fit_config: FitConfig | Mapping[str, Any] = NO_CHANGES,
    background: Sequence[Background] = (),
    say: Say = lambda message: None,
    progress: bool = False,
) -> TrainedTask:
    """Encodes, trains, calibrates, folds, and checks the folded head against the trained one.

    Args:
        loaded: the engine whose codes the head will read, or what is known of it.
        encode: its codes of texts: its own `encode`, or of texts that are encoded already.
        sets: "train", and what there is of "dev", which decides when to stop, and "test", which is
            measured once at the end. Without dev, parts of the training texts are held back in
            turn to decide that; of spans, one part alone.
        fit_config: how it is trained; of a mapping, those settings of a FitConfig that are to
            differ from what is best for the kind.
        background: texts that are none of its business; none for those that come with the project.
        say: called with one line at a time.

    Raises InputError for unsound data, TrainingError for a loss that is not finite.
    """
    check_task_name(settings.task)
    if KINDS[sets["train"].kind].is_of_words:
        sets = with_dev(sets)  # parts that are held back in turn would have words of one text
    train = sets["train"]
    for data in sets.values():
        check_alike(data, train)
    objective = objective_of(train, settings.decision)
    targets = {name: objective.targets(data) for name, data in sets.items()}
    if not isinstance(fit_config, FitConfig):
        fit_config = replace(objective.fit_config, **fit_config)
    reads_words = KINDS[objective.kind].is_of_words
    if reads_words and background:
        raise InputError(
            f"background {background[0].path}: got background texts for a {objective.kind} head, "
            "expected none: it has no reject output, and says of most words that they are of no "
            "span. Leave --background out."
        )
    others: list[Text] = []
    if settings.reject and not reads_words:
        background = background or [read_background(default_background())]
        others = background_texts(background, list(sets.values()), fit_config.seed)
    else:
        background = ()
    if fit_config.attention_heads is None:
        fit_config = replace(fit_config, attention_heads=loaded.manifest.encoder.attention_heads)
    _say_labels(objective, say)
    chosen: tuple[Inputs, Fitted, FitConfig] | None = None
    for form in forms_of(train.form, settings.form, loaded.takes_pairs):
        inputs = encode_inputs(encode, form, sets, targets, objective, others, say)
        fitted, how = _fit_best(
            inputs, objective, fit_config, settings.learning_rates, say, progress
        )
        # Of few texts that were held back, one more that is right says nothing of forms.
        if chosen is None or fitted.score > chosen[1].score + 0.5 / len(fitted.held_out) ** 0.5:
            chosen = inputs, fitted, how
    assert chosen is not None, "there is at least one form"
    inputs, best, fit_config = chosen
    if train.form == "pair":
        say(f"form: {inputs.form}")
    outside = inputs.background
    calibrated = calibrate(best, objective, None if outside is None else outside.held_out)
    calibrated.apply(best.head)
    head = _folded(
        best.head,
        loaded,
        task=settings.task,
        labels=objective.labels,
        form=inputs.form,
        spec=loaded.spec,
        metrics={},
        training=_provenance(settings, fit_config, best, sets, background, loaded),
        kind=objective.kind,
        decision=calibrated.decision,
    )
    if settings.dtype != "float32":
        head = rounded(head, settings.dtype)
    if outside is not None:
        scores = reject_scores(objective, calibrated(best.held_out))
        if "dev" in sets:
            served = predict(head, inputs.texts["dev"]).reject_scores
            assert served is not None, "it has a reject output"
            scores = served
        head = choose_rejection(head, scores, settings.decision.keep)
    metrics: dict[str, float] = {}
    for name in [name for name in sets if name != "train"]:
        rows = inputs.rows[name]
        trained = evaluate(best.head, rows)
        error = _fold_error(head, rows, trained)
        metrics[f"{name}_fold_max_abs_error"] = error
        if inputs.form == TWO_TEXTS:
            most = MAX_PAIR_ERROR * max(1.0, calibrated.scale.max())
        else:
            most = MAX_FOLD_ERROR * max(1.0, float(np.abs(trained).max()))
        if settings.dtype == "float32" and error > most:
            raise HeadError(
                f"head {settings.task!r}: folding moved a logit by {error:.2g}, expected at most "
                f"{most:.2g}. Nothing was written; please report this."
            )
        measured = measure(head, objective, inputs.texts[name], inputs.targets[name], outside)
        metrics.update({f"{name}_{key}": value for key, value in measured.items()})
    return TrainedTask(replace(head, metrics=metrics), best.head)


def _folded(trained: Trainable, loaded: BundleFacts, **about: Any) -> FoldedHead:
    """The head as it reads codes; `about` is all else of it."""
    scale, offset = code_affine(loaded.spec, loaded.calibration)
    if not isinstance(trained, TwoTextsHead):
        return fold(trained.trained(), scale, offset, **about)
    half = trained.text.trained()
    return fold(half, scale, offset, **about, with_pair=trained.pair_half())


def _fit_best(
    inputs: Inputs,
    objective: Objective,
    config: FitConfig,
    learning_rates: Sequence[float],
    say: Say,
    progress: bool,
) -> tuple[Fitted, FitConfig]:
    """A head of the best of some learning rates, and how it was trained."""

    def report(epoch: Epoch) -> None:
        number, loss = f"{epoch.number:5d}", f"{epoch.train_loss:10.4f}"
        if epoch.number == 0:
            number, loss = "linear", " " * 9
        say(
            f"{number}  {loss}  {epoch.dev_loss:8.4f}  {epoch.dev_score:9.4f}  "
            f"{epoch.seconds:7.1f}{'  *' if epoch.best else ''}"
        )

    outside = None if inputs.background is None else inputs.background.train
    rows, targets = inputs.rows, inputs.targets
    say(f"dev score: {objective.score_name}")
    say(" epoch  train loss  dev loss  dev score  seconds")
    linear = None
    if "dev" in rows:
        data = rows["train"], targets["train"], rows["dev"], targets["dev"], objective
        linear = fit_linear(*data, config, report, outside)
    best: tuple[Fitted, FitConfig] | None = None
    for rate in learning_rates or (config.learning_rate,):
        attempt = replace(config, learning_rate=rate)
        say(f"learning rate {rate:g}")
        if linear is not None:
            fitted = fit(*data, attempt, report, progress, background=outside, linear=linear)
        else:
            fitted = fit_without_dev(
                rows["train"],
                targets["train"],
                objective,
                attempt,
                report,
                progress,
                background=outside,
            )
        if best is None or fitted.score > best[0].score:
            best = fitted, attempt
    assert best is not None, "there is at least one learning rate"
    return best


def reject_scores(objective: Objective, outputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of a calibrated head's outputs, float32 [texts]."""
    return KINDS[objective.kind].reject_scores(outputs[:, -1], outputs[:, :-1])


def check_alike(data: LabelledTexts, train: LabelledTexts) -> None:
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


def _fold_error(head: FoldedHead, rows: Codes, expected: NDArray[np.float32]) -> float:
    if isinstance(rows, PairFeatures):
        exact = outputs_of(predict(head, rows))
    else:
        (exact,) = float_heads.predict_heads(rows, [head])
    return float(np.abs(exact - expected).max())


def predict(head: FoldedHead, features: Codes) -> Prediction:
    """What a head says of some texts, as it will be served."""
    if not isinstance(features, PairFeatures):
        return predict_heads(features, [head])[head.task]
    with HeadThreads(1) as threads:
        vectors = threads.text_vectors(features.texts, [head])
        outputs = threads.pair_outputs(vectors, features.pairs, [head])
    return predictions_of([head], outputs)[head.task]


def measure(
    head: FoldedHead,
    objective: Objective,
    features: Codes,
    targets: Targets,
    background: BackgroundFeatures | None = None,
) -> dict[str, float]:
    """What is said of a head, as it will be served."""
    prediction = predict(head, features)
    found = objective.metrics(prediction, targets)
    if head.decision.can_refuse:
        found["accepted"] = float(prediction.accepted.mean())
    if background is not None:
        outside = predict(head, background.held_out)
        found["background_accepted"] = float(outside.accepted.mean())
        inside_scores, outside_scores = prediction.reject_scores, outside.reject_scores
        assert inside_scores is not None, "it has a reject output"
        assert outside_scores is not None, "it has a reject output"
        found["reject_auroc"] = auroc(inside_scores, outside_scores)
    return found


def rounded(head: FoldedHead, dtype: str) -> FoldedHead:
    """The head as it will be read back once written as `dtype`, so that metrics are its own."""

    def narrowed(part: FoldedHead | PairHalf, names: Iterable[str]) -> dict[str, Any]:
        found = {name: getattr(part, name) for name in names}
        return {
            name: array.astype(dtype).astype(np.float32)
            for name, array in found.items()
            if array is not None
        }

    names = [name for name in head.tensors if not name.startswith(PAIR_PREFIX)]
    weights = narrowed(head, names)
    if head.pair is not None:
        weights["pair"] = replace(head.pair, **narrowed(head.pair, PAIR_TENSORS))
    return replace(head, **weights)


def _provenance(
    settings: HeadSettings,
    fit_config: FitConfig,
    fitted: Fitted,
    sets: Mapping[str, LabelledTexts],
    background: Sequence[Background],
    loaded: BundleFacts,
) -> dict[str, Any]:
    return {
        "settings": {
            key: str(value) if key == "position_pooling" else value
            for key, value in asdict(fit_config).items()
        },
        "epochs": fitted.epochs,
        "held_out_score": fitted.score,
        "linear_score": fitted.linear_score,
        "decision": {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(settings.decision).items()
            if value is not None
        },
        "dtype": settings.dtype,
        "data": {
            name: {"file": data.path.name, "sha256": data.sha256, "rows": len(data)}
            for name, data in sets.items()
        },
        "background": [{"file": found.path.name, "sha256": found.sha256} for found in background],
        "backend": loaded.backend,
        "versions": {"bitheads": version("bitheads"), "torch": version("torch")},
    }
