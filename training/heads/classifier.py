"""`bitheads.BitheadsClassifier`: task heads as scikit-learn knows classifiers."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_consistent_length, check_random_state, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted

from bitheads.engine import Engine
from bitheads.engine.errors import InputError
from bitheads.engine.features.spec import PositionPooling
from bitheads.engine.heads.head_file import FoldedHead
from bitheads.engine.predictions import Prediction
from bitheads.training.heads.decision_options import DecisionOptions
from bitheads.training.heads.encoded_texts import encoded_texts
from bitheads.training.heads.features_of import features_of
from bitheads.training.heads.in_python import as_list, train_head
from bitheads.training.heads.train_head import predict

MAX_SEED = 2**31 - 1
_SETTINGS = (
    "attention_heads",
    "learning_rate",
    "weight_decay",
    "dropout",
    "batch_size",
    "epochs",
    "patience",
)
"""Parameters that are fields of FitConfig as they are."""


class BitheadsClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A head for one label on an engine's packed features, as a scikit-learn classifier.

    X is texts, or pairs of texts: a list, an array, a column, or a table of one or two columns. It
    works in pipelines, `cross_val_score`, `GridSearchCV` and whatever else clones estimators: a
    clone shares the engine, which encodes each different text once.

    An Engine belongs to its process. To be pickled, or to run in several processes (`n_jobs`), the
    classifier is made with the bundle's folder, and each process loads the engine from there.

    Args:
        engine: an Engine, or the folder of a bundle.
        position_pooling to patience: see FitConfig; None for what is best.
        balanced: labels weigh as much as each other, however rare.
        form: of pairs, "pair" or "two_texts", see `train_head`.
        reject: whether the head has a reject output; `predict` answers every text all the same.
        random_state: a seed, None for another one each time, or a RandomState.

    Attributes:
        classes_: the labels, sorted, [classes].
        head_: the FoldedHead; `head_.save(path)` writes it, `engine.add_head(head_)` serves it.
    """

    def __init__(
        self,
        engine: Engine | str | Path,
        *,
        position_pooling: PositionPooling | str | None = None,
        attention_heads: int | None = None,
        learning_rate: float | None = None,
        weight_decay: float | None = None,
        dropout: float | None = None,
        batch_size: int | None = None,
        epochs: int | None = None,
        patience: int | None = None,
        balanced: bool = False,
        form: str | None = None,
        reject: bool = False,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.engine = engine
        self.position_pooling = position_pooling
        self.attention_heads = attention_heads
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.dropout = dropout
        self.batch_size = batch_size
        self.epochs = epochs
        self.patience = patience
        self.balanced = balanced
        self.form = form
        self.reject = reject
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> BitheadsClassifier:
        """Trains the head.

        Args:
            y: a label per text: texts, numbers or truth values.

        Raises InputError for what are no texts, ValueError for what are no classes.
        """
        texts = texts_of(X)
        if y is None:
            raise ValueError("requires y to be passed, but the target y is None")
        y = column_or_1d(y, warn=True)
        check_consistent_length(texts, y)
        check_classification_targets(y)
        self.classes_, indices = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"y: got 1 class, {self.classes_[0]!r}, expected at least two. Add examples of "
                "another."
            )
        names = _names(self.classes_)
        self.head_: FoldedHead = train_head(
            self._loaded(),
            texts,
            [names[i] for i in indices],
            kind="single_label",
            fit=self._settings(),
            decision=DecisionOptions(balanced=self.balanced),
            reject=self.reject,
            form=self.form,
        )
        return self

    def predict(self, X: Any) -> NDArray[Any]:
        """The label of each text, [texts]. Raises as `fit`, NotFittedError before it."""
        check_is_fitted(self)
        labels: NDArray[Any] = self.classes_[self._order()[self._predict(X).best]]
        return labels

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """The probability of each label, float64 [texts, classes], in the order of `classes_`.

        Raises as `predict`.
        """
        check_is_fitted(self)
        probabilities = self._predict(X).probabilities.astype(np.float64)
        found = np.empty_like(probabilities)
        found[:, self._order()] = probabilities / probabilities.sum(axis=1, keepdims=True)
        return found

    def _order(self) -> NDArray[np.int64]:
        """The place in `classes_` of each of the head's labels."""
        places = {name: place for place, name in enumerate(_names(self.classes_))}
        return np.array([places[label] for label in self.head_.labels], np.int64)

    def _predict(self, X: Any) -> Prediction:
        encode = encoded_texts(self._loaded()).encode
        return predict(self.head_, features_of(self.head_, texts_of(X), encode))

    def _loaded(self) -> Engine:
        if isinstance(self.engine, Engine):
            return self.engine
        if not isinstance(self.engine, str | Path):
            raise InputError(
                f"engine: got {self.engine!r:.60}, expected an Engine, or the folder of a bundle."
            )
        return _load(Path(self.engine).resolve())

    def _settings(self) -> dict[str, Any]:
        said = {name: value for name in _SETTINGS if (value := getattr(self, name)) is not None}
        if self.position_pooling is not None:
            said["position_pooling"] = PositionPooling(self.position_pooling)
        seed = self.random_state
        if not isinstance(seed, int | np.integer):
            seed = check_random_state(seed).randint(MAX_SEED)
        return {**said, "seed": int(seed)}

    def __sklearn_clone__(self) -> BitheadsClassifier:
        """With the same engine, of which there is one."""
        return type(self)(**self.get_params(deep=False))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        tags.input_tags.one_d_array = True
        return tags

    def __getstate__(self) -> Any:
        """Raises InputError for one that was made with an Engine."""
        if isinstance(self.engine, Engine):
            raise InputError(
                "BitheadsClassifier: got an Engine, which belongs to its process and cannot be "
                "pickled, expected the folder of a bundle. Make the classifier with that: each "
                "process then loads the engine from there. Or keep head_ alone: head_.save(path)."
            )
        return super().__getstate__()


def texts_of(X: Any) -> list[Any]:
    """Texts, or pairs of texts, of a list, an array, a column, or a table of one or two columns.

    Raises InputError for what has none.
    """
    if hasattr(X, "columns"):  # a frame
        columns = [as_list(X[name], "X") for name in X.columns]
    else:
        rows = as_list(X, "X")
        if not isinstance(X, np.ndarray) or X.ndim < 2:
            return [tuple(row) if isinstance(row, list) else row for row in rows]
        columns = [list(column) for column in zip(*rows, strict=True)] if X.ndim == 2 else []
    if len(columns) not in (1, 2):
        raise InputError(
            f"X: got a table of {len(columns)} columns, expected one of texts, or two of pairs. "
            "Choose them."
        )
    return columns[0] if len(columns) == 1 else list(zip(*columns, strict=True))


def _names(classes: NDArray[Any]) -> list[str]:
    """What a head calls them: as they are written, if that tells them apart, else their places."""
    names = [str(label) for label in classes.tolist()]
    if len(set(names)) == len(names) and all(names):
        return names
    return [str(place) for place in range(len(names))]


@cache
def _load(folder: Path) -> Engine:
    """Once per process."""
    return Engine.load(folder)
