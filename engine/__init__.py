"""bitheads runtime: one encoder pass over a text, any number of predictions from its bits.

from bitheads import Engine

engine = Engine.load("bundles/all-MiniLM-L6-v2")
predictions = engine.predict(["The plot is thin, but what a cast!"])
predictions["sentiment"].top
"""

from bitheads.engine.engine import Engine, TaskInfo
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
from bitheads.engine.features.pack import KernelsInfo, kernels_info
from bitheads.engine.types import (
    Calibration,
    FeatureSpec,
    LayerPooling,
    Order,
    PackedFeatures,
    PositionPooling,
    Prediction,
    Predictions,
    Quantization,
    Stats,
)

__all__ = [
    "BackendError",
    "BitheadsError",
    "BundleError",
    "Calibration",
    "ClosedError",
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
