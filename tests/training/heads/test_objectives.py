"""What each kind of head learns, and what is decided of it, where the truth is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import norm
from sklearn.metrics import f1_score

from bitheads.engine.errors import InputError
from bitheads.engine.kinds import KINDS
from bitheads.engine.kinds.kind import sigmoid
from bitheads.engine.predictions import Prediction
from bitheads.training.data.labelled_texts import LabelledTexts, labelled_from
from bitheads.training.errors import ConfigError
from bitheads.training.heads.decision_options import DecisionOptions
from bitheads.training.heads.objectives import OBJECTIVES, objective_of
from bitheads.training.heads.objectives.multi_label import MultiLabelObjective
from bitheads.training.heads.objectives.ordinal import OrdinalLoss, OrdinalObjective
from bitheads.training.heads.objectives.regression import RegressionObjective
from bitheads.training.heads.objectives.single_label import SingleLabelObjective

Float32 = NDArray[np.float32]


def rows_of(labels: list[object], kind: str | None = None) -> LabelledTexts:
    return labelled_from([(f"text {i}", label) for i, label in enumerate(labels)], kind)


def test_there_is_an_objective_for_every_kind() -> None:
    assert {*OBJECTIVES} == {*KINDS}


def test_temperature_makes_overconfident_logits_true() -> None:
    """Labels drawn from the softmax of logits, which are then made four times as sure."""
    rng = np.random.default_rng(0)
    true = rng.normal(0, 2, (20_000, 3)).astype(np.float32)
    odds = np.exp(true) / np.exp(true).sum(axis=1, keepdims=True)
    targets = (rng.random((len(true), 1)) > odds.cumsum(axis=1)).sum(axis=1)
    objective = SingleLabelObjective(("a", "b", "c"))
    decided = objective.decide(4 * true, targets, objective.new_loss(targets))
    assert decided.scale == pytest.approx(0.25, rel=0.05)

    def ece(logits: Float32) -> float:
        return objective.metrics(Prediction(objective.labels, logits), targets)["ece"]

    assert ece(4 * true) > 0.1
    assert ece(4 * true * np.float32(decided.scale)) < 0.02


def noisy_labels(seed: int, texts: int = 4000) -> tuple[Float32, NDArray[np.float32]]:
    """Logits of three labels that are more or less rare, and which labels the texts have."""
    rng = np.random.default_rng(seed)
    has = rng.random((texts, 3)) < [0.5, 0.1, 0.02]
    logits = np.where(has, 1.0, -1.0) + rng.normal(0, 1, has.shape) - [0, 2, 4]
    return logits.astype(np.float32), has.astype(np.float32)


def decided_labels(options: DecisionOptions) -> tuple[Float32, Float32, NDArray[np.bool_]]:
    objective = MultiLabelObjective(("a", "b", "c"), options)
    logits, targets = noisy_labels(1)
    decided = objective.decide(logits, targets, objective.new_loss(targets))
    scaled = logits * np.float32(decided.scale)
    found = Prediction(objective.labels, scaled, "multi_label", decided.decision).has_label
    return scaled, targets, found


def test_thresholds_are_those_of_the_best_f1() -> None:
    scaled, targets, found = decided_labels(DecisionOptions())
    for label in range(3):
        best = max(
            f1_score(targets[:, label], scaled[:, label] >= threshold)
            for threshold in np.unique(scaled[::7, label])
        )
        assert f1_score(targets[:, label], found[:, label]) >= best - 1e-9


@pytest.mark.parametrize("name", ["min_precision", "min_recall"])
def test_thresholds_keep_what_is_asked_for(name: str) -> None:
    _, targets, found = decided_labels(DecisionOptions(**{name: 0.9}))
    hits = (found & (targets > 0)).sum(axis=0)
    of = found.sum(axis=0) if name == "min_precision" else targets.sum(axis=0)
    assert (hits / of >= 0.9).all()
    assert (hits / of).min() < 0.97  # no more than that is given up


def test_a_precision_that_cannot_be_had_selects_nothing() -> None:
    objective = MultiLabelObjective(("a", "b"), DecisionOptions(min_precision=0.9))
    logits = np.random.default_rng(0).normal(size=(1000, 2)).astype(np.float32)
    targets = np.zeros_like(logits)
    targets[logits.argsort(axis=0)[:60, 0]] = 1  # the least likely ones have it
    decided = objective.decide(logits, targets, objective.new_loss(targets))
    scaled = logits * np.float32(decided.scale)
    found = Prediction(objective.labels, scaled, "multi_label", decided.decision).has_label
    assert found.sum() == 0


def test_rare_labels_share_a_threshold() -> None:
    objective = MultiLabelObjective(("a", "b", "c"))
    logits, targets = noisy_labels(2, texts=400)  # some 40 and 8 texts have the last two
    thresholds = objective.decide(logits, targets, objective.new_loss(targets)).decision.thresholds
    assert thresholds[0] != thresholds[1] == thresholds[2]
    flat = MultiLabelObjective(("all",))
    shared = flat.decide(logits.reshape(-1, 1), targets.reshape(-1, 1), flat.new_loss(targets))
    # Both are under their own temperature, so the logits that they cut are compared.
    own = objective.decide(logits, targets, objective.new_loss(targets))
    cut = thresholds[2] / own.scale
    assert cut == pytest.approx(shared.decision.thresholds[0] / shared.scale, rel=1e-3)


def test_ordinal_loss_is_that_of_proportional_odds() -> None:
    """Against probabilities of the kind's own, which is written without torch."""
    shares = torch.tensor([0.1, 0.2, 0.3, 0.4])
    loss = OrdinalLoss(shares)
    logits = np.random.default_rng(0).normal(0, 2, (50, 1)).astype(np.float32)
    targets = np.random.default_rng(1).integers(0, 4, 50)
    cuts = tuple(loss.cuts.detach().numpy().tolist())
    np.testing.assert_allclose(sigmoid(np.array(cuts)), [0.1, 0.3, 0.6], atol=1e-5)
    objective = OrdinalObjective(("1", "2", "3", "4"))
    decided = objective.decide(logits, targets, loss)
    plain = replace(decided.decision, cuts=cuts)
    probabilities = Prediction(objective.labels, logits, "ordinal", plain).probabilities
    expected = -np.log(probabilities[np.arange(50), targets]).mean()
    assert loss(torch.from_numpy(logits), torch.from_numpy(targets)).item() == pytest.approx(
        float(expected), rel=1e-4
    )
    assert (np.diff(decided.decision.cuts) > 0).all()


def test_regression_gives_scores_in_their_own_unit() -> None:
    rng = np.random.default_rng(0)
    targets = rng.uniform(100, 500, 300).astype(np.float32)
    objective = RegressionObjective.of(rows_of([float(t) for t in targets]), DecisionOptions())
    loss = objective.new_loss(targets)
    standard = ((targets - targets.mean()) / targets.std())[:, None]
    assert loss(torch.from_numpy(standard), torch.from_numpy(targets)).item() < 1e-9
    assert objective.score(standard, targets, loss) == pytest.approx(0, abs=1e-3)
    decided = objective.decide(standard, targets, loss)
    logits = standard * np.float32(decided.scale) + np.float32(decided.shift)
    prediction = Prediction((), logits, "regression", decided.decision)
    assert prediction.values is not None
    np.testing.assert_allclose(prediction.values, targets, rtol=1e-4)
    metrics = objective.metrics(prediction, targets)
    assert metrics["spearman"] == pytest.approx(1)
    far = Prediction((), logits * 100, "regression", decided.decision).values
    assert far is not None
    assert far.max() == targets.max()


def test_balanced_losses_weigh_labels_alike() -> None:
    """As many texts of a label that is rare as of the other would have made the same loss."""
    targets = np.array([0] * 90 + [1] * 10)
    logits = np.random.default_rng(0).normal(size=(100, 2)).astype(np.float32)
    balanced = SingleLabelObjective(("a", "b"), DecisionOptions(balanced=True))
    got = balanced.new_loss(targets)(torch.from_numpy(logits), torch.from_numpy(targets)).item()
    each = torch.nn.functional.cross_entropy(
        torch.from_numpy(logits), torch.from_numpy(targets), reduction="none"
    ).numpy()
    assert got == pytest.approx((each[:90].mean() + each[90:].mean()) / 2, rel=1e-5)


@pytest.mark.parametrize(
    ("labels", "kind", "expected"),
    [
        (["yes", "no"], None, "single_label"),
        ([("a",), ("a", "b"), ()], None, "multi_label"),
        (["1", "2", "10"], "ordinal", "ordinal"),
        ([0.5, 1.5], None, "regression"),
    ],
)
def test_rows_say_what_is_trained(labels: list[object], kind: str | None, expected: str) -> None:
    objective = objective_of(rows_of(labels, kind), DecisionOptions())
    assert objective.kind == expected
    if expected == "ordinal":
        assert objective.labels == ("1", "2", "10")


@pytest.mark.parametrize(
    "options",
    [
        {"min_precision": 1.0},
        {"min_recall": 0.0},
        {"min_precision": 0.5, "min_recall": 0.5},
        {"abstain_below": 1.5},
        {"keep": 0.2},
        {"value_range": (2.0, 1.0)},
    ],
)
def test_options_out_of_range(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="expected"):
        DecisionOptions(**options)  # type: ignore[arg-type]


def test_abstaining_goes_into_the_decision(tmp_path: Path) -> None:
    objective = SingleLabelObjective(("a", "b"), DecisionOptions(abstain_below=0.8))
    logits = norm.rvs(size=(50, 2), random_state=0).astype(np.float32)
    targets = np.arange(50) % 2
    decided = objective.decide(logits, targets, objective.new_loss(targets))
    assert decided.decision.abstain_below == 0.8


OPTIONS: dict[str, DecisionOptions] = {
    "balanced": DecisionOptions(balanced=True),
    "min_precision": DecisionOptions(min_precision=0.9),
    "min_recall": DecisionOptions(min_recall=0.9),
    "abstain_below": DecisionOptions(abstain_below=0.5),
    "order": DecisionOptions(order=("1", "2")),
    "value_range": DecisionOptions(value_range=(0.0, 1.0)),
}


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize(
    ("labels", "kind", "takes"),
    [
        (["1", "2"], None, {"balanced", "abstain_below"}),
        ([["1"], ["1", "2"]], None, {"balanced", "min_precision", "min_recall"}),
        (["1", "2"], "ordinal", {"order", "abstain_below"}),
        ([0.5, 1.5], None, {"value_range"}),
    ],
)
def test_options_of_other_kinds_are_refused(
    labels: list[object], kind: str | None, takes: set[str], option: str
) -> None:
    rows = rows_of(labels, kind)
    if option in takes:
        objective_of(rows, OPTIONS[option])
    else:
        with pytest.raises(InputError, match=f"got {option} .* for a {rows.kind} head, expected"):
            objective_of(rows, OPTIONS[option])
