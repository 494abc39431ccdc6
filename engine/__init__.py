"""bitheads runtime: one encoder pass over a text, any number of predictions from its bits.

from bitheads import Engine

engine = Engine.load("bundles/all-MiniLM-L6-v2")
predictions = engine.predict(["The plot is thin, but what a cast!"])
predictions["sentiment"].top

What runs something is loaded when it is first asked for. What says what things are, such as errors,
the feature spec and the formats of bundles and heads, needs no compiled library and no backend.
"""

from typing import TYPE_CHECKING, Any

from bitheads.engine.errors import (
    BackendError,
    BitheadsError,
    BundleError,
    ClosedError,
    DeviceMemoryError,
    ForkedError,
    HeadError,
    InputError,
    PlanError,
    SpecMismatchError,
    StoreError,
    UnknownTaskError,
)
from bitheads.engine.features.packed import PackedFeatures
from bitheads.engine.features.spec import (
    Calibration,
    FeatureSpec,
    LayerPooling,
    Order,
    PositionPooling,
    Quantization,
)
from bitheads.engine.features.words import Words
from bitheads.engine.heads.head_file import FoldedHead
from bitheads.engine.heads.loaded_heads import TaskInfo
from bitheads.engine.kinds import Decision
from bitheads.engine.predictions import Prediction, Predictions, Span
from bitheads.engine.types import Stats

if TYPE_CHECKING:
    from bitheads.engine.engine import Engine
    from bitheads.engine.features.pack import KernelsInfo, kernels_info

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
    "kernels_info",
]

_LOADED_LATER = {
    "Engine": "engine",
    "KernelsInfo": "features.pack",
    "kernels_info": "features.pack",
}
"""Public name -> the module that has it, which needs the compiled library."""


def __getattr__(name: str) -> Any:
    """Loads the engine or the kernels when they are first asked for."""
    if name not in _LOADED_LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_LOADED_LATER[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
