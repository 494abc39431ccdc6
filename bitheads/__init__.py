"""One encoder pass over a text, any number of predictions from its bits.

from bitheads import Engine

engine = Engine.load("bundles/all-MiniLM-L6-v2")
predictions = engine.predict(["The plot is thin, but what a cast!"])
predictions["sentiment"].top

The public names are those of `bitheads.engine`, which is loaded with the first of them.
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
        SpecMismatchError,
        Stats,
        StoreError,
        TaskInfo,
        UnknownTaskError,
        kernels_info,
    )

__version__ = "0.1.0"

__all__ = [
    "BackendError",
    "BitheadsError",
    "BundleError",
    "Calibration",
    "ClosedError",
    "Decision",
    "DeviceMemoryError",
    "Engine",
    "FeatureSpec",
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
    "SpecMismatchError",
    "Stats",
    "StoreError",
    "TaskInfo",
    "UnknownTaskError",
    "kernels_info",
]


def __getattr__(name: str) -> Any:
    """Loads the engine when it is first asked for: `bitheads --help` needs none of it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from bitheads import engine

    return getattr(engine, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
