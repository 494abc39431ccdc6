"""BitheadsClassifier in scikit-learn's own hands."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import estimator_checks_generator
from sklearn.utils.validation import validate_data

from bitheads import BitheadsClassifier, Engine
from bitheads.engine.errors import InputError
from bitheads.training.data.labelled_texts import read_labelled
from bitheads.training.heads import fit

pytestmark = pytest.mark.usefixtures("few_penalties")

TOPICS = read_labelled(Path(__file__).parents[2] / "data" / "topics.tsv")
TEXTS, LABELS = np.array(TOPICS.texts, object), np.array(TOPICS.labels)


@pytest.fixture(scope="module")
def engine(tiny_bundle: Path) -> Engine:
    return Engine.load(tiny_bundle, backend="onnxruntime")


@pytest.fixture
def classifier(engine: Engine) -> BitheadsClassifier:
    return BitheadsClassifier(engine, epochs=2)


@pytest.fixture
def hardly_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of what is around heads, which fit some hundreds."""
    monkeypatch.setattr(fit, "LEAST_STEPS", 1)


def test_fit_and_predict(classifier: BitheadsClassifier) -> None:
    with pytest.raises(NotFittedError):
        classifier.predict(TEXTS)
    assert classifier.fit(TEXTS, LABELS) is classifier
    assert classifier.classes_.tolist() == sorted({*LABELS})
    predicted = classifier.predict(list(TEXTS))
    probabilities = classifier.predict_proba(TEXTS)
    assert np.array_equal(predicted, classifier.classes_[probabilities.argmax(axis=1)])
    assert np.allclose(probabilities.sum(axis=1), 1)
    assert classifier.score(TEXTS, LABELS) == (predicted == LABELS).mean()
    assert classifier.head_.labels == tuple(classifier.classes_)


def test_labels_of_any_type_and_order(classifier: BitheadsClassifier) -> None:
    """12 comes before 2 as a text, and behind it as a number."""
    topics = sorted({*LABELS})
    truth = np.array([topics.index(label) for label in LABELS])
    expected = classifier.fit(TEXTS, LABELS).predict(TEXTS)
    for values in ([2, 12, 100, 110], [-1.0, 0.0, 7.0, 1e9], ["", "a", "b", "c"]):
        y = np.array(values)[truth]
        found = clone(classifier).fit(TEXTS, y)
        assert found.classes_.tolist() == values
        assert found.predict(TEXTS).dtype == y.dtype
        as_topics = np.array(topics)[np.searchsorted(found.classes_, found.predict(TEXTS))]
        assert (as_topics == expected).mean() > 0.8  # heads of other orders of labels
        found = found.predict_proba(TEXTS).argmax(axis=1)
        assert np.array_equal(np.array(topics)[found], as_topics)
    is_sport = clone(classifier).fit(TEXTS, LABELS == "sport")
    assert is_sport.predict(TEXTS).dtype == np.bool_


@pytest.mark.usefixtures("hardly_trained")
def test_pairs_and_tables(classifier: BitheadsClassifier) -> None:
    import pandas as pd
    import polars as pl

    pairs = [(text, text.upper()) for text in TEXTS]
    expected = classifier.fit(pairs, LABELS).predict(pairs)
    frame = pd.DataFrame(pairs, columns=["a", "b"])
    for table in (frame, pl.from_pandas(frame), frame.to_numpy(), [[*pair] for pair in pairs]):
        assert np.array_equal(clone(classifier).fit(table, LABELS).predict(table), expected)
    single = classifier.fit(TEXTS, LABELS).predict(TEXTS)
    for column in (pd.Series(TEXTS), TEXTS[:, None], pd.DataFrame({"text": TEXTS})):
        assert np.array_equal(classifier.predict(column), single)
    with pytest.raises(InputError, match="got a table of 3 columns"):
        classifier.predict(frame.assign(c="c"))


def test_clones_share_the_engine(classifier: BitheadsClassifier, engine: Engine) -> None:
    copy = clone(classifier.fit(TEXTS, LABELS).set_params(dropout=0.1))
    assert copy.engine is engine
    assert copy.get_params() == classifier.get_params()
    assert not hasattr(copy, "head_")


@pytest.mark.long
def test_searches_and_pipelines(minilm_bundle: Path) -> None:
    classifier = BitheadsClassifier(Engine.load(minilm_bundle), epochs=2)
    scores = cross_val_score(classifier, TEXTS, LABELS, cv=3, error_score="raise")
    assert scores.mean() > 0.8
    lower = FunctionTransformer(lambda texts: [text.lower() for text in texts])
    grid = {"bitheadsclassifier__position_pooling": ["mean", "attention"]}
    search = GridSearchCV(make_pipeline(lower, classifier), grid, cv=2, error_score="raise")
    search.fit(TEXTS, LABELS)
    assert search.best_params_.keys() == grid.keys()
    assert (search.predict(TEXTS) == LABELS).mean() > 0.9


@pytest.mark.usefixtures("hardly_trained")
def test_same_seed_same_head(classifier: BitheadsClassifier) -> None:
    first, second = (clone(classifier).fit(TEXTS, LABELS) for _ in range(2))
    assert np.array_equal(first.predict_proba(TEXTS), second.predict_proba(TEXTS))
    for state in (None, np.random.RandomState(3)):
        clone(classifier).set_params(random_state=state).fit(TEXTS, LABELS)


@pytest.mark.usefixtures("hardly_trained")
@pytest.mark.long
def test_pickled_with_the_folder_and_not_with_an_engine(
    classifier: BitheadsClassifier, tiny_bundle: Path
) -> None:
    with pytest.raises(InputError, match="expected the folder of a bundle"):
        pickle.dumps(classifier.fit(TEXTS, LABELS))
    from_folder = BitheadsClassifier(tiny_bundle, epochs=2).fit(TEXTS, LABELS)
    again = pickle.loads(pickle.dumps(from_folder))
    assert np.array_equal(again.predict_proba(TEXTS), from_folder.predict_proba(TEXTS))
    scores = cross_val_score(
        BitheadsClassifier(str(tiny_bundle), epochs=1), TEXTS, LABELS, cv=2, n_jobs=2
    )
    assert not np.isnan(scores).any()
    with pytest.raises(InputError, match="engine: got 3, expected an Engine, or the folder"):
        BitheadsClassifier(3).fit(TEXTS, LABELS)  # type: ignore[arg-type]


class OfNumbers(BitheadsClassifier):
    """What scikit-learn's checks can ask: rows of numbers, each written out as a text.

    What is asked of numbers, such as that there are no infinite ones, its own validation does.
    """

    def __init__(self, engine: Any = None, epochs: int = 2, random_state: Any = 0) -> None:
        super().__init__(engine, epochs=epochs, random_state=random_state)

    def fit(self, X: Any, y: Any) -> OfNumbers:
        X, y = validate_data(self, X, y, dtype=None if _is_text(X) else "numeric")
        super().fit(_written(X), y)
        return self

    def _predict(self, X: Any) -> Any:
        X = validate_data(self, X, reset=False)
        return super()._predict(_written(X))

    def _loaded(self) -> Engine:
        return _ENGINE[0]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = tags.input_tags.one_d_array = False
        tags.input_tags.two_d_array = True
        tags.classifier_tags.poor_score = True  # texts of numbers say little to an encoder
        return tags


_ENGINE: list[Engine] = []


def _is_text(X: Any) -> bool:
    return getattr(getattr(X, "dtype", None), "kind", "") in "US"


def _written(X: Any) -> list[str]:
    return [" ".join(f"{value:.1f}" for value in row) for row in X]


@pytest.fixture(autouse=True)
def _of_numbers(engine: Engine) -> None:
    _ENGINE[:] = [engine]


# But for one that wants an environment variable, and is of arrays that texts cannot be in.
# Those that train on many rows are the long ones.
TRAINS_LONG = {
    "check_classifier_data_not_an_array",
    "check_classifiers_classes",
    "check_classifiers_train",
    "check_estimators_dtypes",
    "check_supervised_y_2d",
}
CHECKS = [
    pytest.param(
        estimator,
        check,
        id=check.func.__name__,
        marks=pytest.mark.long if check.func.__name__ in TRAINS_LONG else (),
    )
    for estimator, check in estimator_checks_generator(OfNumbers())
    if check.func.__name__ != "check_array_api_input"
]


@pytest.mark.parametrize(("estimator", "check"), CHECKS)
@pytest.mark.usefixtures("hardly_trained")
def test_the_checks_of_scikit_learn(estimator: Any, check: Any) -> None:
    check(estimator)
