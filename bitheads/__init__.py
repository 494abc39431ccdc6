"""One encoder pass over a text, any number of predictions from its bits.

from bitheads import Engine

engine = Engine.load("bundles/all-MiniLM-L6-v2")
predictions = engine.predict(["The plot is thin, but what a cast!"])
predictions["sentiment"].top

The public names are those of `bitheads.engine`, which is loaded with the first of them. Those that
train, `train_head` and `BitheadsClassifier`, load torch and scikit-learn, of the extra `training`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bitheads.engine import (
        BackendError,
        BitheadsError,
        BundleError,
        Calibration,
        ClosedError,
        Decision,
        DeviceMemoryError,
        Engine,
        FeatureSpec,
        FoldedHead,
        ForkedError,
        HeadError,
        InputError,
        KernelsInfo,
        LayerPooling,
        Order,
        PackedFeatures,
        PlanError,
        PositionPooling,
        Prediction,
        Predictions,
        Quantization,
        Span,
        SpecMismatchError,
        Stats,
        StoreError,
        TaskInfo,
        UnknownTaskError,
        Words,
        kernels_info,
    )
    from bitheads.engine.jobs.in_python import backfill
    from bitheads.training.heads.classifier import BitheadsClassifier
    from bitheads.training.heads.in_python import train_head

__version__ = "0.1.0"

__all__ = [
    "BackendError",
    "BitheadsClassifier",
    "BitheadsError",
    "BundleError",
    "Calibration",
    "ClosedError",
    "Decision",
    "DeviceMemoryError",
    "Engine",
    "FeatureSpec",
    "FoldedHead",
    "ForkedError",
    "HeadError",
    "InputError",
    "KernelsInfo",
    "LayerPooling",
    "Order",
    "PackedFeatures",
    "PlanError",
    "PositionPooling",
    "Prediction",
    "Predictions",
    "Quantization",
    "Span",
    "SpecMismatchError",
    "Stats",
    "StoreError",
    "TaskInfo",
    "UnknownTaskError",
    "Words",
    "backfill",
    "kernels_info",
    "train_head",
]

_TRAINING = {
    "BitheadsClassifier": "bitheads.training.heads.classifier",
    "train_head": "bitheads.training.heads.in_python",
}
"""Public name -> its module, of those that train."""


def __getattr__(name: str) -> Any:
    """Loads the engine when it is first asked for: `bitheads --help` needs none of it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from bitheads import engine

    if name == "backfill":  # it needs pyarrow, of the extra `store`
        from bitheads.engine.jobs.in_python import backfill

        return backfill
    if name not in _TRAINING:
        return getattr(engine, name)
    from importlib import import_module

    try:
        return getattr(import_module(_TRAINING[name]), name)
    except ModuleNotFoundError as error:
        from bitheads.engine.process.install import how_to_install

        raise engine.BitheadsError(
            f"{name} needs {error.name}. Type: {how_to_install('training')}"
        ) from error


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
