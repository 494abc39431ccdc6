"""Cells of frozen features: a head per recipe, task and seed on one encoder's stored layers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bitheads.engine.features.spec import PositionPooling
from bitheads.engine.types import Text
from bitheads.export.source.encoder import Encoder, load_encoder
from bitheads.export.texts import read_texts
from bitheads.training.errors import TrainingError
from bitheads.training.heads.batch_inputs import Features
from bitheads.training.heads.fit import Epoch, Trainable, evaluate, fit
from bitheads.training.heads.objectives.single_label import SingleLabelObjective
from bitheads.training.table3.cells.cell_metrics import cell_metrics
from bitheads.training.table3.config import as_json
from bitheads.training.table3.encoders import EncoderPlan, encoder_identity
from bitheads.training.table3.features.feature_cache import FeatureCache, LayerEncoder
from bitheads.training.table3.features.make_features import StoredLayers, make_features
from bitheads.training.table3.features.recipe import Recipe
from bitheads.training.table3.results import Json
from bitheads.training.table3.work import GridTask, Work

CALIBRATION_TEXTS = 500
"""Shipped sentences that constants of codes are made of, as `bitheads build` makes them."""

Parts = Mapping[str, Features]


def head_identity(
    work: Work, plan: EncoderPlan | None, task: GridTask, recipe: Recipe, seed: int
) -> dict[str, Any]:
    """All that such a cell's result follows from."""
    head = as_json(work.config.head)
    for decided in ("position_pooling", "seed", "learning_rate"):
        del head[decided]
    return {
        "encoder": encoder_identity(work, plan),
        "max_length": work.config.max_length,
        "precision": work.config.precision.value,
        "data": task.to_json(),
        "recipe": str(recipe),
        "head": {**head, "learning_rates": list(work.config.learning_rates)},
        "seed": seed,
    }


class EncoderFeatures:
    """One encoder's features, computed when they are first asked for.

    Args:
        plan: the encoder; None for the one that all start from.
        prepare: gives its folder, training it first if need be; called once, if at all.
        layers: hidden-state indices that recipes need.
    """

    def __init__(
        self,
        work: Work,
        cache: FeatureCache,
        plan: EncoderPlan | None,
        prepare: Callable[[], Path | None],
        layers: tuple[int, ...],
    ) -> None:
        self._work, self._cache, self._plan = work, cache, plan
        self._prepare, self._layers = prepare, layers
        self._layer_encoder: LayerEncoder | None = None
        self._made: dict[tuple[Any, ...], Parts] = {}

    def parts(self, task: GridTask, recipe: Recipe) -> Parts:
        """train, dev and test of one task as a recipe has them."""
        key = (task.name, recipe.layers(self._work.loaded.num_layers), recipe.codes)
        if key not in self._made:
            self._made.clear()  # recipes that differ in position pooling alone follow each other
            stored = self._stored(
                {"data": task.to_json()},
                {part: examples.texts for part, examples in task.parts().items()},
            )
            calibration = self._calibration()
            self._made[key] = {
                part: make_features(layers, recipe, calibration) for part, layers in stored.items()
            }
        return self._made[key]

    def _calibration(self) -> StoredLayers:
        texts = read_texts(None)[:CALIBRATION_TEXTS]
        sha256 = hashlib.sha256("\n".join(texts).encode()).hexdigest()
        return self._stored({"calibration": sha256}, {"texts": texts})["texts"]

    def _stored(self, what: Json, texts: Mapping[str, Sequence[Text]]) -> dict[str, StoredLayers]:
        identity = {
            **what,
            "encoder": encoder_identity(self._work, self._plan),
            "layers": list(self._layers),
            "max_length": self._work.config.max_length,
            "precision": self._work.config.precision.value,
        }
        return self._cache.get(identity, texts, self._encode)

    def _encode(
        self, texts: Sequence[Text], path: Path, make_room: Callable[[int], None]
    ) -> StoredLayers:
        if self._layer_encoder is None:
            self._layer_encoder = LayerEncoder(
                self._load(),
                self._layers,
                self._work.config.max_length,
                self._work.config.precision,
                self._work.device,
            )
        return self._layer_encoder(texts, path, make_room)

    def _load(self) -> Encoder:
        folder = self._prepare()
        return self._work.loaded if folder is None else load_encoder(str(folder))


def needed_layers(recipes: Iterable[Recipe], encoder_layers: int) -> tuple[int, ...]:
    """All hidden states that some recipe reads, ascending."""
    return tuple(sorted({i for recipe in recipes for i in recipe.layers(encoder_layers)}))


@dataclass(frozen=True, eq=False)
class BestHead:
    """A cell's head, of the learning rate that is best on dev."""

    head: Trainable
    learning_rate: float
    epochs: int


def train_cell(
    work: Work, features: Parts, task: GridTask, recipe: Recipe, seed: int
) -> dict[str, Any]:
    """A cell's result. Raises TrainingError, naming the cell, for a loss that is not finite."""
    best = best_head(work, features, task, recipe, seed)
    metrics = {
        part: cell_metrics(
            task.parts()[part].label_ids, evaluate(best.head, features[part]), task.task.classes
        )
        for part in ("dev", "test")
    }
    return {**metrics, "learning_rate": best.learning_rate, "epochs": best.epochs}


def best_head(work: Work, features: Parts, task: GridTask, recipe: Recipe, seed: int) -> BestHead:
    """Trains a head at each learning rate; see `train_cell`."""
    labels = {part: examples.label_ids for part, examples in task.parts().items()}
    best, best_score = None, -1.0
    for rate in work.config.learning_rates:
        config = replace(
            work.config.head,
            position_pooling=recipe.position_pooling,
            attention_heads=work.config.head.attention_heads or work.loaded.attention_heads,
            learning_rate=rate,
            seed=seed,
        )
        epochs: list[Epoch] = []
        try:
            fitted = fit(
                features["train"],
                labels["train"],
                features["dev"],
                labels["dev"],
                SingleLabelObjective(task.task.classes),
                config,
                epochs.append,
                device=work.device,
            )
        except TrainingError as error:
            raise TrainingError(f"task {task.name}, {recipe}, seed {seed}: {error}") from error
        if fitted.score > best_score:
            best, best_score = BestHead(fitted.head, rate, epochs[-1].number), fitted.score
    assert best is not None, "there is at least one learning rate"
    return best


def tuned_recipe(num_layers: int) -> Recipe:
    """The recipe that the number of layers is tuned with: float features under attention."""
    return Recipe.parse(f"mean-{num_layers}/{PositionPooling.ATTENTION}/float")
