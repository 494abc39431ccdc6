"""Training a head, whatever the number of its steps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from bitheads.engine.features.packed import PackedFeatures
from bitheads.engine.features.spec import (
    FeatureSpec,
    LayerPooling,
    Order,
    PositionPooling,
    Quantization,
)
from bitheads.training.errors import ConfigError
from bitheads.training.heads import fit as fit_module
from bitheads.training.heads.config import FitConfig
from bitheads.training.heads.fit import MANY, evaluate, fit, fit_without_dev, held_back
from bitheads.training.heads.folded_task_head import FoldedTaskHead
from bitheads.training.heads.linear_model import linear_models, pool
from bitheads.training.heads.objectives.single_label import SingleLabelObjective
from bitheads.training.heads.task_head import TaskHead

SPEC = FeatureSpec(
    encoder="none",
    weights_sha256="",
    layers=(1,),
    layer_pooling=LayerPooling.LAST,
    quantization=Quantization.SIGN,
    order=Order.POOL_THEN_SIGN,
    dim=16,
    calibration_sha256=None,
)


def features(texts: int) -> PackedFeatures:
    codes = np.random.default_rng(texts).integers(0, 256, (2 * texts, 2), np.uint8)
    return PackedFeatures(codes, np.arange(0, 2 * texts + 1, 2), SPEC, None)


@pytest.mark.parametrize("epochs", [1, 19, 20, 21, 40])
def test_few_steps(epochs: int) -> None:
    """One batch per epoch. With 20 steps the schedule's rise, a twentieth, would have no length."""
    data, labels = features(6), np.array([0, 1] * 3)
    config = FitConfig(attention_heads=2, epochs=epochs, patience=100, batch_size=6)
    seen = []
    objective = SingleLabelObjective(("no", "yes"))
    fit(data, labels, data, labels, objective, config, seen.append)
    assert [epoch.number for epoch in seen] == list(range(epochs + 1))


@pytest.mark.parametrize(
    ("name", "value"),
    [("epochs", 0), ("batch_size", 0), ("dropout", 1.5), ("learning_rate", 0.0), ("patience", 0)],
)
def test_settings_that_are_refused(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{name}: got {value}, expected"):
        FitConfig(**{name: value})  # type: ignore[arg-type]


def text_features(texts: int, tokens: int = 5) -> PackedFeatures:
    codes = np.random.default_rng(texts).integers(0, 256, (tokens * texts, 2), np.uint8)
    return PackedFeatures(codes, np.arange(0, tokens * texts + 1, tokens), SPEC, None)


def means(data: PackedFeatures) -> np.ndarray:
    return data.unpack().reshape(len(data), -1, SPEC.dim).mean(axis=1)


@pytest.mark.parametrize("classes", [2, 3])
def test_linear_models_are_those_of_scikit_learn(classes: int) -> None:
    """With the penalty p on squared weights and a mean over n texts, C is 1 / (2 p n); of two
    classes scikit-learn has one row, the difference of ours, whose squares are twice ours."""
    data, labels = text_features(90), np.arange(90) % classes
    objective = SingleLabelObjective(tuple(map(str, range(classes))))
    x = means(data)
    for model in linear_models(pool(data, PositionPooling.MEAN), labels, objective):
        strength = (2 if classes == 2 else 1) / (2 * model.penalty * len(x))
        expected = LogisticRegression(C=strength, max_iter=10_000, tol=1e-8).fit(x, labels)
        got = np.exp(model(x)) / np.exp(model(x)).sum(axis=1, keepdims=True)
        np.testing.assert_allclose(got, expected.predict_proba(x), atol=5e-3)


@pytest.mark.parametrize("pooling", list(PositionPooling))
def test_a_linear_model_as_a_head(pooling: PositionPooling) -> None:
    """It begins as one, and folds to one, whatever is done to its outputs."""
    data = text_features(7)
    weight, bias = np.random.default_rng(1).normal(size=(3, 16)), np.array([0.5, 0.0, -0.5])
    head = FoldedTaskHead(16, 3, 4, pooling)
    assert not evaluate(head, data).any()
    expected = pool(data, pooling) @ weight.T * 8 + bias
    largest = float(np.abs(expected - bias).max())
    assert largest > 20  # far more than tanh has room for
    head.set_linear(torch.from_numpy(weight * 8).float(), torch.from_numpy(bias).float(), largest)
    np.testing.assert_allclose(evaluate(head, data), expected, rtol=0.015, atol=1e-4)
    head.mlp.scale_outputs(torch.tensor([2.0, 1.0, 3.0]), torch.tensor([0.0, 1.0, 0.0]))
    np.testing.assert_allclose(
        evaluate(head, data), expected * [2, 1, 3] + [0, 1, 0], rtol=0.03, atol=0.03
    )
    folded = TaskHead.of(head.trained())
    np.testing.assert_allclose(evaluate(folded, data), evaluate(head, data), rtol=1e-4, atol=1e-3)


def test_never_worse_than_the_linear_model() -> None:
    """Where there is nothing else to be learnt, that is what comes out."""
    data = text_features(60)
    labels = (means(data)[:, 3] > 0).astype(np.int64)
    config = FitConfig(attention_heads=2, learning_rate=1e-7, epochs=2)
    objective = SingleLabelObjective(("no", "yes"))
    fitted = fit(data, labels, data, labels, objective, config)
    assert (fitted.epochs, fitted.score) == (0, fitted.linear_score)
    assert fitted.score > 0.9
    crossed = fit_without_dev(data, labels, objective, config)
    assert (crossed.epochs, crossed.score) == (0, crossed.linear_score)


@pytest.mark.parametrize("texts", [2, 7, 60, MANY])
def test_texts_that_are_held_back(texts: int) -> None:
    """Each once, or of many a fifth; of each label as many, up to one."""
    labels = np.random.default_rng(0).integers(0, 2, texts)
    objective = SingleLabelObjective(("no", "yes"))
    folds = held_back(objective, labels, 0)
    rows = np.concatenate(folds)
    assert len(set(rows)) == len(rows) == (texts if texts < MANY else texts / 5)
    assert len(folds) == (min(texts, 5) if texts < MANY else 1)
    for fold in folds:
        assert abs(labels[fold].sum() - labels.mean() * len(fold)) <= 1


def test_without_dev_every_text_is_judged_by_a_head_that_has_not_seen_it() -> None:
    """Labels at random are not known of texts that were not learnt, however well of those."""
    data, labels = text_features(300), np.random.default_rng(5).integers(0, 2, 300)
    config = FitConfig(attention_heads=2, epochs=3)
    fitted = fit_without_dev(data, labels, SingleLabelObjective(("no", "yes")), config)
    assert len(fitted.held_out) == len(fitted.targets) == 300
    assert np.mean(fitted.held_out.argmax(axis=1) == fitted.targets) == fitted.score < 0.62


@pytest.mark.parametrize("goes_wrong", [False, True])
def test_a_head_that_went_wrong_on_all_texts_is_not_kept(
    goes_wrong: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of many texts a part is held back, and what is then trained on all of them is not judged."""
    data = text_features(MANY + 200)
    x = means(data)
    labels = (np.maximum(x[:, 3], x[:, 5]) > 0.3).astype(np.int64)  # no sum of the two says that

    class Run(fit_module._Run):
        def epoch(self, number: int) -> float:
            loss = super().epoch(number)
            if goes_wrong and len(self._train) == len(data):
                with torch.no_grad():
                    self.head.mlp.output.weight.neg_()
            return loss

    monkeypatch.setattr(fit_module, "_Run", Run)
    config = FitConfig(attention_heads=2, epochs=3, learning_rate=1e-2)
    fitted = fit_without_dev(data, labels, SingleLabelObjective(("no", "yes")), config)
    assert (fitted.epochs == 0) == goes_wrong
    assert fitted.linear_score is not None
    assert (fitted.score == fitted.linear_score) == goes_wrong
    right = float(np.mean(evaluate(fitted.head, data).argmax(axis=1) == labels))
    assert right > fitted.linear_score - 0.02
