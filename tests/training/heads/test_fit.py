"""Training a head, whatever the number of its steps."""

from __future__ import annotations

import numpy as np
import pytest

from bitheads.engine.features.packed import PackedFeatures
from bitheads.engine.features.spec import FeatureSpec, LayerPooling, Order, Quantization
from bitheads.training.errors import ConfigError
from bitheads.training.heads.config import FitConfig
from bitheads.training.heads.fit import fit
from bitheads.training.heads.objectives.single_label import SingleLabelObjective

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
    assert len(seen) == epochs


@pytest.mark.parametrize(
    ("name", "value"),
    [("epochs", 0), ("batch_size", 0), ("dropout", 1.5), ("learning_rate", 0.0), ("patience", 0)],
)
def test_settings_that_are_refused(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{name}: got {value}, expected"):
        FitConfig(**{name: value})  # type: ignore[arg-type]
